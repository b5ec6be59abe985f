"""Frames of a file: labels found under any usual name, units converted, frames split."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from train.data.dataset import Found, Frame, read
from train.data.keys import ENERGY_UNITS, LENGTH_UNITS, Keys
from train.data.labels import usual_names
from train.data.splits import split

HEADER = 'Properties=species:S:1:pos:R:3:{forces}:R:3 {energy}={value} pbc="F F F"'


def waters(n, energy="energy", forces="forces", tail=""):
    """extxyz text of n distorted water molecules with made-up labels, one entry per frame."""
    rng = np.random.default_rng(0)
    frames = []
    for k in range(n):
        atoms = molecule("H2O")
        x = atoms.positions + rng.normal(scale=0.05, size=(3, 3))
        f = rng.normal(size=(3, 3))
        rows = [
            f"{s} " + " ".join(f"{v:.8f}" for v in (*x[i], *f[i]))
            for i, s in enumerate(atoms.get_chemical_symbols())
        ]
        head = HEADER.format(energy=energy, forces=forces, value=-2080.0 - 0.01 * k) + tail
        frames.append("\n".join(["3", head, *rows]) + "\n")
    return frames


def save(path: Path, frames) -> Path:
    path.write_text("".join(frames))
    return path


def labelled(atoms: Atoms, **results) -> Atoms:
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def test_calculator_results_are_found_first(tmp_path):
    frames, found = read(save(tmp_path / "w.xyz", waters(4)))
    assert found == Found("calculator", "calculator", None)
    assert [f.index for f in frames] == [0, 1, 2, 3]
    assert frames[2].energy == pytest.approx(-2080.02)
    assert frames[0].forces.shape == (3, 3)
    assert frames[0].stress is None
    assert frames[0].atoms.calc is None
    assert frames[0].source == str(tmp_path / "w.xyz")


@pytest.mark.parametrize("name", [n for n in usual_names("energy") if n not in ("energy", "free_energy")])
def test_usual_energy_names(tmp_path, name):
    frames, found = read(save(tmp_path / "w.xyz", waters(2, energy=name)), Keys(forces="forces"))
    assert found.energy == name
    assert frames[1].energy == pytest.approx(-2080.01)


@pytest.mark.parametrize("name", [n for n in usual_names("forces") if n != "forces"])
def test_usual_forces_names(tmp_path, name):
    frames, found = read(save(tmp_path / "w.xyz", waters(2, forces=name)))
    assert found.forces == name
    assert all(f.forces is not None for f in frames)


def test_explicit_key_wins_and_is_checked(tmp_path):
    path = save(tmp_path / "w.xyz", waters(3, tail=" my_energy=-7.0"))
    frames, found = read(path, Keys(energy="my_energy"))
    assert (found.energy, frames[0].energy) == ("my_energy", -7.0)
    with pytest.raises(ValueError, match=r"no frame has the energy key 'my_enrgy'.*did you mean 'my_energy'"):
        read(path, Keys(energy="my_enrgy"))
    frames, found = read(path, Keys(forces="none"))
    assert frames[0].forces is None
    assert found.notes == ("forces: not read, as asked",)


def test_rival_values_are_reported(tmp_path):
    _, found = read(save(tmp_path / "w.xyz", waters(3, tail=" REF_energy=-7.0")))
    assert found.energy == "calculator"
    assert "'REF_energy' holds different values in 3 frames" in found.notes[0]


def test_energy_and_forces_of_two_methods(tmp_path):
    with pytest.raises(ValueError, match=r"also 'REF_energy'.*one method"):
        read(save(tmp_path / "w.xyz", waters(3, forces="REF_forces", tail=" REF_energy=-7.0")))


def test_mixed_keys_in_one_file(tmp_path):
    path = save(tmp_path / "w.xyz", waters(3) + waters(3, energy="REF_energy"))
    with pytest.raises(
        ValueError, match=r"w\.xyz, frame 3: energy is under 'REF_energy' in 3 .*--energy-key"
    ):
        read(path)


@pytest.mark.parametrize(("energy", "forces", "wrong"), [
    ("enregy", "forces", "enregy"), ("energy", "focres", "focres"), ("energy_x", "forces_x", "energy_x"),
])  # fmt: skip
def test_misspelt_key(tmp_path, energy, forces, wrong):
    path = save(tmp_path / "w.xyz", waters(3, energy=energy, forces=forces))
    with pytest.raises(ValueError, match=rf"w\.xyz, frame 0: .*did you mean '{wrong}'"):
        read(path)


def test_misspelt_key_in_some_frames(tmp_path):
    path = save(tmp_path / "w.xyz", waters(3) + waters(2, energy="enregy"))
    with pytest.raises(ValueError, match=r"w\.xyz, frame 3: .*did you mean 'enregy'"):
        read(path)


def test_no_labels_at_all(tmp_path):
    write(tmp_path / "bare.xyz", molecule("H2O"))
    with pytest.raises(ValueError, match=r"bare\.xyz: neither energy nor forces found.*--energy-key"):
        read(tmp_path / "bare.xyz")


def silicon(**info) -> Atoms:
    atoms = labelled(bulk("Si"), energy=-10.8)
    atoms.info |= info
    return atoms


STRESS = np.array([[1.0, 0.1, 0.2], [0.1, 2.0, 0.3], [0.2, 0.3, 3.0]])


@pytest.mark.parametrize("value", [STRESS, STRESS.ravel(), np.array([1.0, 2.0, 3.0, 0.3, 0.2, 0.1])])
def test_documented_forms_of_stress(tmp_path, value):
    write(tmp_path / "s.xyz", silicon(REF_stress=value))
    frames, found = read(tmp_path / "s.xyz")
    assert found.stress == "REF_stress"
    np.testing.assert_allclose(frames[0].stress, STRESS)


@pytest.mark.parametrize("value", [np.ones(3), np.ones((2, 3)), np.arange(9.0)])
def test_other_forms_of_stress_are_refused(tmp_path, value):
    write(tmp_path / "s.xyz", silicon(REF_stress=value))
    with pytest.raises(ValueError, match=r"s\.xyz, frame 0: .*(shape|symmetric)"):
        read(tmp_path / "s.xyz")


@pytest.mark.parametrize("name", ["virial", "virials", "REF_virial", "dft_virials"])
@pytest.mark.parametrize("hand", [1.0, -1.0])
def test_virial_is_minus_stress_times_volume(tmp_path, name, hand):
    atoms = silicon()
    atoms.set_cell(atoms.cell.array * [1.0, 1.0, hand])  # a left-handed cell has a volume too
    atoms.info[name] = -STRESS * atoms.get_volume()
    write(tmp_path / "s.xyz", atoms)
    frames, found = read(tmp_path / "s.xyz")
    np.testing.assert_allclose(frames[0].stress, STRESS, rtol=1e-6)
    assert found.stress == name
    assert found.notes == (f"stress = -{name} / volume",)


def test_no_stress_without_full_periodicity(tmp_path):
    slab = silicon(REF_stress=STRESS)
    slab.pbc = (True, True, False)
    write(tmp_path / "s.xyz", [silicon(REF_stress=STRESS), slab])
    frames, found = read(tmp_path / "s.xyz")
    assert frames[0].stress is not None
    assert frames[1].stress is None
    assert "ignored in 1 frames without full periodicity" in found.notes[0]


def test_virial_in_a_cell_without_volume(tmp_path):
    atoms = silicon(virial=STRESS)
    atoms.set_cell(np.diag([5.0, 5.0, 0.0]))
    write(tmp_path / "s.xyz", atoms)
    with pytest.raises(ValueError, match=r"s\.xyz, frame 0: the cell has zero volume"):
        read(tmp_path / "s.xyz")


@pytest.mark.parametrize("energy_unit", ENERGY_UNITS)
@pytest.mark.parametrize("length_unit", LENGTH_UNITS)
def test_unit_conversion_laws(tmp_path, energy_unit, length_unit):
    """Energies scale with e, lengths with d, forces with e/d, stress with e/d^3, and a virial with e."""
    stress = 0.01 * STRESS
    atoms = labelled(bulk("Si"), energy=-10.8, forces=np.array([[0.1, 0, 0], [-0.1, 0, 0]]), stress=stress)
    write(tmp_path / "s.xyz", atoms)
    one, _ = read(tmp_path / "s.xyz")
    two, _ = read(tmp_path / "s.xyz", Keys(energy_unit=energy_unit, length_unit=length_unit))
    e, d = ENERGY_UNITS[energy_unit], LENGTH_UNITS[length_unit]
    assert two[0].energy == pytest.approx(one[0].energy * e)
    np.testing.assert_allclose(two[0].atoms.positions, one[0].atoms.positions * d)
    np.testing.assert_allclose(two[0].atoms.cell.array, one[0].atoms.cell.array * d)
    np.testing.assert_allclose(two[0].forces, one[0].forces * e / d)
    np.testing.assert_allclose(two[0].stress, one[0].stress * e / d**3)
    atoms.info["REF_virial"] = -stress * atoms.get_volume()
    write(tmp_path / "v.xyz", atoms)
    three, _ = read(tmp_path / "v.xyz", Keys(None, None, "REF_virial", energy_unit, length_unit))
    np.testing.assert_allclose(three[0].stress, two[0].stress, rtol=1e-6)


def test_a_virial_has_no_unit_of_stress(tmp_path):
    write(tmp_path / "v.xyz", silicon(virial=STRESS, REF_stress=STRESS))
    for key in ("virial", None):
        with pytest.raises(ValueError, match=r"stress_unit is 'GPa', but 'virial' is a virial.*--stress-key"):
            read(tmp_path / "v.xyz", Keys(stress=key, stress_unit="GPa"))
    frames, _ = read(tmp_path / "v.xyz", Keys(stress="REF_stress", stress_unit="GPa"))
    np.testing.assert_allclose(frames[0].stress, STRESS * units.GPa)


def test_units_against_known_numbers(tmp_path):
    path = save(tmp_path / "w.xyz", waters(1, tail=" x=1"))
    plain = read(path)[0][0]
    assert ENERGY_UNITS["Ha"] == pytest.approx(27.211386, rel=1e-6)
    assert ENERGY_UNITS["Ry"] == pytest.approx(13.605693, rel=1e-6)
    assert 1 / ENERGY_UNITS["kcal/mol"] == pytest.approx(23.060548, rel=1e-6)
    assert 1 / ENERGY_UNITS["kJ/mol"] == pytest.approx(96.485332, rel=1e-6)
    mixed = read(path, Keys(energy_unit="Ha", forces_unit="Ha/Bohr"))[0][0]
    np.testing.assert_allclose(mixed.forces, plain.forces * 51.422067, rtol=1e-6)
    np.testing.assert_array_equal(mixed.atoms.positions, plain.atoms.positions)
    write(tmp_path / "s.xyz", silicon(REF_stress=STRESS))
    frame = read(tmp_path / "s.xyz", Keys(stress_unit="GPa"))[0][0]
    np.testing.assert_allclose(frame.stress, STRESS * units.GPa)
    with pytest.raises(ValueError, match=r"energy_unit is 'ev'; expected one of eV, "):
        Keys(energy_unit="ev")


finite = st.floats(-1e3, 1e3, allow_nan=False, width=32)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), n=st.integers(1, 5), periodic=st.booleans(), n_frames=st.integers(1, 3))
def test_labels_survive_a_round_trip(tmp_path, data, n, periodic, n_frames):
    written = []
    for _ in range(n_frames):
        numbers = data.draw(st.lists(st.sampled_from([1, 6, 8, 14, 79]), min_size=n, max_size=n))
        positions = data.draw(arrays(np.float64, (n, 3), elements=st.floats(-50, 50, width=32)))
        cell = np.diag(data.draw(arrays(np.float64, 3, elements=st.floats(1, 20, width=32))))
        atoms = Atoms(numbers, positions=positions, cell=cell, pbc=periodic, info={"config_type": "random"})
        results = {
            "energy": data.draw(finite),
            "forces": data.draw(arrays(np.float64, (n, 3), elements=finite)),
        }
        if periodic:
            results["stress"] = data.draw(arrays(np.float64, 6, elements=finite))
        written.append(labelled(atoms, **results))
    write(tmp_path / "r.extxyz", written)
    frames, _ = read(tmp_path / "r.extxyz")
    assert len(frames) == n_frames
    for atoms, frame in zip(written, frames, strict=True):
        assert frame.energy == pytest.approx(atoms.calc.results["energy"], abs=1e-9)
        np.testing.assert_allclose(frame.forces, atoms.calc.results["forces"], atol=1e-7)
        np.testing.assert_allclose(frame.atoms.positions, atoms.positions, atol=1e-7)
        np.testing.assert_array_equal(frame.atoms.numbers, atoms.numbers)
        assert frame.config_type == "random"
        assert (frame.stress is not None) == periodic
        if periodic:
            np.testing.assert_allclose(frame.stress, atoms.get_stress(voigt=False), atol=1e-7)


@pytest.mark.parametrize(("atoms", "isolated"), [
    (Atoms("H"), True),
    (Atoms("H", cell=[12, 12, 12], pbc=True), True),
    (bulk("Cu"), False),  # a crystal with one atom per cell
    (Atoms("Cu", cell=[[20, 0, 0], [20, 2.5, 0], [0, 0, 20]], pbc=True), False),  # skewed: images 2.5 Å apart
    (Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]]), False),
])  # fmt: skip
def test_isolated_atoms_are_known_by_having_one_atom(atoms, isolated):
    assert Frame(atoms, 0.0, None, None, "x", 0).is_isolated_atom is isolated


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 60), fraction=st.floats(0, 0.99), seed=st.integers(0, 2**31), data=st.data())
def test_split_laws(n, fraction, seed, data):
    always = data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=n))
    train, valid = split(n, fraction, seed, always)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, valid])), np.arange(n))
    assert len(train) > 0
    assert set(always) <= set(train.tolist())
    again = split(n, fraction, seed, always)
    np.testing.assert_array_equal(valid, again[1])
    if fraction == 0:
        assert len(valid) == 0


def test_split_known_answers():
    assert [len(part) for part in split(500, 0.1, 0)] == [450, 50]
    assert [len(part) for part in split(2, 0.01, 0)] == [1, 1]
    assert split(500, 0.1, 0)[1].tolist() != split(500, 0.1, 1)[1].tolist()
    with pytest.raises(ValueError, match=r"fraction is 1\.0"):
        split(10, 1.0, 0)
    with pytest.raises(ValueError, match="0 frames"):
        split(0, 0.1, 0)


def test_reading_does_not_load_torch():
    names = "train.data.dataset, train.doctor.inspection, train.statistics"
    code = f"import sys, {names}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
