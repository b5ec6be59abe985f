"""E0: known answers, rank-deficient compositions, isolated atoms, no energies."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data.dataset import Frame
from train.statistics import fit_e0

E0 = {"H": -13.6, "C": -1027.0, "O": -2038.0}
SYMBOLS = list(E0)


def frame(atoms: Atoms, energy: float | None, index: int = 0) -> Frame:
    return Frame(atoms, energy, None, None, "made.xyz", index)


def molecules(names, binding=0.0, e0=None):
    atoms = [molecule(name) for name in names]
    energies = [sum((e0 or E0)[s] for s in a.symbols) + binding * len(a) for a in atoms]
    return [frame(a, e, k) for k, (a, e) in enumerate(zip(atoms, energies, strict=True))]


ATOMS = [frame(Atoms(s), e, k) for k, (s, e) in enumerate(E0.items())]
VARIED = ["H2O", "CH4", "CO2", "CH3OH", "C2H6", "H2CO", "O2", "H2"]


def test_isolated_atoms_come_first():
    for fit in (
        fit_e0([*ATOMS, *molecules(VARIED, -5.0)], SYMBOLS),
        fit_e0(molecules(VARIED, -5.0), SYMBOLS, ATOMS),
    ):
        assert fit.e0 == E0
        assert fit.source == "isolated atoms"
        assert fit.rank == 3
        assert "E0 of H, C, O from isolated atoms." in fit.text
        assert "binding energy -5.000 eV/atom" in fit.text


def test_isolated_atoms_in_a_box_count_and_crystals_do_not():
    boxed = [frame(Atoms(s, cell=[15] * 3, pbc=True), e) for s, e in E0.items()]
    assert fit_e0(molecules(VARIED), SYMBOLS, boxed).source == "isolated atoms"
    copper = [frame(bulk("Cu"), -3.7), frame(bulk("Cu", cubic=True), -14.8)]
    fit = fit_e0(copper, ["Cu"])
    assert fit.source == "least squares"
    assert fit.e0["Cu"] == pytest.approx(-3.7)


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.floats(-3000, -1), min_size=3, max_size=3))
def test_least_squares_recovers_exact_energies(values):
    e0 = dict(zip(SYMBOLS, values, strict=True))
    fit = fit_e0(molecules(VARIED, e0=e0), SYMBOLS)
    assert fit.rank == 3
    assert fit.source == "least squares"
    assert np.isfinite(fit.condition)
    for s in SYMBOLS:
        assert fit.e0[s] == pytest.approx(e0[s], abs=0.02)


def test_one_composition_is_rank_one_and_keeps_the_total_energy():
    frames = molecules(["CH3CH2OH"] * 20, -4.0)
    fit = fit_e0(frames, SYMBOLS)
    assert (fit.rank, fit.condition) == (1, float("inf"))
    assert "Rank 1 of 3 elements: the compositions do not determine every E0" in fit.text
    mean = frames[0].energy / 9
    assert list(fit.e0.values()) == pytest.approx([mean] * 3)
    assert sum(fit.e0[s] for s in frames[0].atoms.symbols) == pytest.approx(frames[0].energy, abs=1e-6)


def test_nearly_one_composition_does_not_explode():
    rng = np.random.default_rng(0)
    frames = [
        frame(a := molecule("CH3CH2OH"), sum(E0[s] for s in a.symbols) + rng.normal(scale=0.3), k)
        for k in range(200)
    ]
    big = Atoms("C200H600O100", positions=rng.uniform(0, 99, (900, 3)))
    frames.append(frame(big, sum(E0[s] for s in big.symbols) + 3.0))
    e0 = fit_e0(frames, SYMBOLS).e0
    assert all(abs(v) < 1e4 for v in e0.values())
    assert all(np.isfinite(v) for v in e0.values())


def test_isolated_atoms_and_least_squares_together():
    fit = fit_e0(molecules(VARIED), SYMBOLS, ATOMS[:1])
    assert fit.source == "isolated atoms + least squares"
    assert fit.sources == {"H": "isolated atoms", "C": "least squares", "O": "least squares"}
    assert fit.e0 == pytest.approx(E0, abs=0.02)
    assert list(fit.e0) == SYMBOLS


def test_no_energies_is_said():
    fit = fit_e0([frame(molecule("H2O"), None)], ["H", "O"])
    assert fit.e0 == {"H": 0.0, "O": 0.0}
    assert fit.source == "no energies"
    assert "E0 of H, O set to 0 eV" in fit.text


def test_isolated_atoms_of_another_method_are_noticed():
    odd = [frame(Atoms(s), e / 27.2114) for s, e in E0.items()]
    assert "seem to come from another method" in fit_e0(molecules(VARIED), SYMBOLS, odd).text


def test_several_energies_of_one_isolated_atom():
    fit = fit_e0([*ATOMS, frame(Atoms("O"), -2036.0)], SYMBOLS)
    assert fit.e0["O"] == -2038.0
    assert "2 isolated O atoms differ by 2 eV; the lowest is taken." in fit.text


def test_errors():
    with pytest.raises(
        ValueError, match=r"made\.xyz, frame 0: contains O, which is not among the elements H, C"
    ):
        fit_e0(molecules(["H2O"]), ["H", "C"])
    with pytest.raises(ValueError, match="expected one isolated atom"):
        fit_e0(molecules(VARIED), SYMBOLS, molecules(["H2"]))
    with pytest.raises(ValueError, match="frame 0: energy is nan"):
        fit_e0([frame(molecule("H2O"), float("nan"))], ["H", "O"])


def test_priority_given_then_file_then_among_the_frames():
    among = [*ATOMS, *molecules(VARIED)]
    of_file = [frame(Atoms("H"), -13.0), frame(Atoms("C"), -1026.0)]
    fit = fit_e0(among, SYMBOLS, of_file, {"H": -12.0, "Au": -1.0})
    assert fit.e0 == {"H": -12.0, "C": -1026.0, "O": -2038.0}
    assert fit.sources == {"H": "given", "C": "isolated atoms", "O": "isolated atoms"}
    for sentence in (
        "E0 of H as given.",
        "E0 of C, O from isolated atoms.",
        "E0 of H is the given value; that of the file of isolated atoms lies -1 eV away.",
        "E0 of H is the given value; that of the isolated atoms among the frames lies -1.6 eV away.",
        "E0 of C is that of the file of isolated atoms; that of the isolated atoms among the frames lies -1 eV away.",
        "E0 given for Au is not needed",
    ):
        assert sentence in fit.text
    assert "away" not in fit_e0(among, SYMBOLS, ATOMS, E0).text


def test_given_and_least_squares_together():
    fit = fit_e0(molecules(VARIED), SYMBOLS, (), {"O": E0["O"]})
    assert fit.sources == {"H": "least squares", "C": "least squares", "O": "given"}
    assert fit.e0 == pytest.approx(E0, abs=0.02)
    assert "Rank 3 of 3 elements." in fit.text


def test_an_element_without_any_source_is_an_error():
    bare = frame(molecule("NH3"), None, 7)  # trained on by its forces
    with pytest.raises(ValueError, match=r"nothing to take E0 of N from: .*--set e0\.N=<eV>.*isolated_atoms"):
        fit_e0([*molecules(VARIED), bare], [*SYMBOLS, "N"])
    with pytest.raises(ValueError, match="nothing to take E0 of O from"):
        fit_e0([frame(molecule("H2O"), None)], ["H", "O"], ATOMS[:1])
    fit = fit_e0([*molecules(VARIED), bare], [*SYMBOLS, "N"], (), {"N": -1480.0})
    assert fit.e0["N"] == -1480.0
    assert fit.e0 == pytest.approx({**E0, "N": -1480.0}, abs=0.02)
    with pytest.raises(ValueError, match="E0 given for H is nan"):
        fit_e0(molecules(VARIED), SYMBOLS, (), {"H": float("nan")})
