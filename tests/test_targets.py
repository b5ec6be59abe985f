"""Dipoles, polarizabilities and other targets: read, measured, trained on, reported."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from scipy.spatial.transform import Rotation

from potential import EquivCalculator, collate, from_atoms, load, predict, targets
from potential.checkpoint import read as read_tensors
from potential.physics import Prediction
from train import target as setting
from train.batches import normalized, prepare
from train.cli import configuration, main, parser
from train.config import Config, Data, Fit, Weights, check
from train.data.dataset import Frame, read
from train.data.hdf5 import write_hdf5
from train.data.keys import Keys
from train.data.weights import weigh
from train.doctor.inspection import inspect
from train.evaluate import Predictions, errors, from_arrays, target_units
from train.loss import differences, penalties, spread, total, units
from train.plan import require_labels
from train.schedule import score
from train.sets import read_sets
from train.target import KNOWN, Target, dimension, order, resolved
from train.target_facts import target_facts

CHARGES = {"O": -0.8, "H": 0.4, "C": 0.0}  # e; of water and of carbon oxide, which is then no dipole
QUICK = [
    "--preset",
    "tiny",
    "--set",
    "model.channels=12",
    "--set",
    "fit.batch_size=8",
    "--set",
    "model.cutoff=4.0",
]


def waters(n: int, energies: bool = True, seed: int = 0) -> list[Atoms]:
    """Distorted molecules in all directions, with the dipole of fixed charges and a tensor made of their bonds."""
    rng, frames = np.random.default_rng(seed), []
    for _ in range(n):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(scale=0.08, size=(3, 3))
        atoms.positions = atoms.positions @ Rotation.random(random_state=rng).as_matrix().T
        charges = np.array([CHARGES[s] for s in atoms.symbols])
        bonds = atoms.positions[1:] - atoms.positions[0]
        results: dict[str, Any] = {"dipole": charges @ atoms.positions}
        if energies:
            atoms.calc = EMT()
            results |= {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        atoms.info["polarizability"] = (np.eye(3) + 0.5 * bonds.T @ bonds).reshape(-1)
        atoms.arrays["charges_ref"] = charges
        frames.append(atoms)
    return frames


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "water.xyz", waters(24))
    write(tmp_path / "dipoles.xyz", waters(60, energies=False, seed=1))
    return tmp_path


def keys(**given: Target) -> Keys:
    return Keys(targets=resolved(given))


def one(tmp_path: Path, info: dict[str, Any], keys: Keys, arrays: dict[str, Any] | None = None) -> Frame:
    """A frame with these entries, written and read again."""
    atoms = molecule("H2O")
    atoms.info = {"energy": -1.0, **info}
    for name, values in (arrays or {}).items():
        atoms.arrays[name] = np.asarray(values)
    write(tmp_path / "one.xyz", atoms)
    return read(tmp_path / "one.xyz", keys)[0][0]


# --- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dipole", "mu", "REF_dipole", "dipole_dft"])
@pytest.mark.parametrize(
    ("unit", "factor"), [("", 1.0), ("e*Ang", 1.0), ("Debye", 0.20819434), ("e*Bohr", 0.52917721)]
)
def test_dipoles_are_found_and_converted(tmp_path: Path, name: str, unit: str, factor: float) -> None:
    frame = one(tmp_path, {name: [1.0, -2.0, 3.0]}, keys(dipole=Target(unit=unit)))
    assert frame.targets["dipole"] == pytest.approx(factor * np.array([[1.0, -2.0, 3.0]]), rel=1e-6)
    assert name not in frame.atoms.info


@pytest.mark.parametrize(
    ("unit", "factor"), [("", 1.0), ("Ang^3", 1.0), ("Bohr^3", 0.14818471), ("e^2*Ang^2/eV", 14.3996454)]
)
def test_polarizabilities_in_any_shape_and_unit(tmp_path: Path, unit: str, factor: float) -> None:
    full = np.array([[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]])
    for value in (full, full.reshape(9), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]):
        frame = one(tmp_path, {"polarizability": value}, keys(polarizability=Target(unit=unit)))
        assert frame.targets["polarizability"] == pytest.approx(factor * full.reshape(1, 9), rel=1e-6)


def test_units_follow_the_unit_of_length(tmp_path: Path) -> None:
    asked = replace(keys(dipole=Target(), polarizability=Target()), length_unit="Bohr", energy_unit="Ha")
    frame = one(tmp_path, {"dipole": [1.0, 0.0, 0.0], "polarizability": np.eye(3)}, asked)
    assert frame.targets["dipole"][0, 0] == pytest.approx(0.52917721, rel=1e-6)
    assert frame.targets["polarizability"][0, 0] == pytest.approx(0.14818471, rel=1e-6)


def test_targets_of_the_user(tmp_path: Path) -> None:
    asked = keys(
        charges=Target(key="q", irreps="0e", per="atom"),
        born=Target(irreps="tensor", per="atom"),
        gap=Target(irreps="0e", per="mean"),
        third=Target(irreps="1o+3o"),
    )
    arrays = {"q": [-0.8, 0.4, 0.4], "born": np.arange(18.0).reshape(3, 6)}
    frame = one(tmp_path, {"gap": 7.5, "third": np.arange(10.0)}, asked, arrays)
    assert frame.targets["charges"].tolist() == [[-0.8], [0.4], [0.4]]
    assert frame.targets["born"][1].tolist() == [6, 11, 10, 11, 7, 9, 10, 9, 8]
    assert frame.targets["gap"].tolist() == [[7.5]]
    assert frame.targets["third"].tolist() == [list(range(10))]


@pytest.mark.parametrize(
    ("info", "given", "words"),
    [
        ({"dipole": [1.0, 2.0]}, {"dipole": Target()}, ["shape (2,)", "(3,)", "1o"]),
        ({"mu": "none"}, {"dipole": Target()}, ["'none'", "expected numbers"]),
        ({"dipole": [1e20, 0.0, 0.0]}, {"dipole": Target()}, ["1e+20", "damaged"]),
        ({"polarizability": np.arange(9.0)}, {"polarizability": Target()}, ["not symmetric", "1e"]),
        (
            {"polarizability": [1.0, 2.0]},
            {"polarizability": Target()},
            ["(3, 3) or (9,) or (6,)", "xx yy zz yz xz xy"],
        ),
        ({"dipole": [0.0] * 3}, {"dipole": Target(unit="D")}, ["'D'", "Debye"]),
        ({"q": [0.0] * 3}, {"q": Target(irreps="0e", per="atom")}, []),
    ],
)
def test_what_is_no_target_is_explained(tmp_path: Path, info: Any, given: Any, words: list[str]) -> None:
    if not words:
        assert one(tmp_path, info, keys(**given)).targets["q"].shape == (3, 1)
        return
    with pytest.raises(ValueError, match=r"dipole|polarizability") as error:
        one(tmp_path, info, keys(**given))
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"spin": Target()}, ["nothing is known of spin", "irreps"]),
        ({"spin": Target(irreps="1z")}, ["'1z'", "2x0e+1o"]),
        ({"energy": Target(irreps="0e")}, ["cannot be a target"]),
        ({"a.b": Target(irreps="0e")}, ["cannot be a target"]),
    ],
)
def test_settings_that_describe_no_target(given: dict[str, Target], words: list[str]) -> None:
    with pytest.raises(ValueError, match="targets") as error:
        resolved(given)
    assert all(word in str(error.value) for word in words)


def test_irreps_are_read_as_e3nn_reads_them() -> None:
    for text in ("0e", "1o", "2x0e+1o", "10x1e + 3x2e", "1o+3o"):
        assert dimension(text) == targets.layout(text).dim
        assert order({"x": Target(irreps=text)}) == targets.layout(text).lmax
    assert setting.TENSOR == targets.TENSOR
    assert dimension("tensor") == 9
    for text in ("", "0", "e", "0x1o", "1o,2e"):
        assert setting.terms(text) == []


def test_absent_is_nan_and_said(tmp_path: Path) -> None:
    rows = waters(6, energies=True)
    del rows[2].calc.results["dipole"]
    write(tmp_path / "w.xyz", rows)
    frames, found = read(tmp_path / "w.xyz", keys(dipole=Target(unit="Debye")))
    assert [bool(np.isnan(f.targets["dipole"]).all()) for f in frames] == [
        False,
        False,
        True,
        False,
        False,
        False,
    ]
    report = inspect(frames, found)
    assert "5/6 under 'dipole', taken as Debye, 1o of each structure" in report.text
    assert (
        "polarizability: under 'polarizability' in 6 of 6 frames, not used; --targets polarizability uses it"
        in report.text
    )
    (warning,) = [w for w in report.warnings if "no dipole" in w]
    assert "frame 2" in warning
    assert not report.problems


def test_half_a_vector_is_a_problem(tmp_path: Path) -> None:
    rows = waters(3)
    rows[1].calc.results["dipole"][2] = np.nan
    write(tmp_path / "w.xyz", rows)
    frames, found = read(tmp_path / "w.xyz", keys(dipole=Target()))
    (problem,) = inspect(frames, found).problems
    assert "frame 1: dipole not finite" in problem


def test_nan_is_no_way_to_say_absent(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frame 0: dipole is NaN"):
        one(tmp_path, {"dipole": [np.nan] * 3}, keys(dipole=Target()))


def test_a_target_misspelt_in_some_frames_is_refused(tmp_path: Path) -> None:
    rows = waters(4)
    rows[2].info["dipol"] = rows[2].calc.results.pop("dipole")
    write(tmp_path / "w.xyz", rows)
    with pytest.raises(ValueError, match=r"frame 2: no dipole .* 'dipol', in 1 of 4"):
        read(tmp_path / "w.xyz", keys(dipole=Target()))
    frames, _ = read(tmp_path / "w.xyz", keys(dipole=Target(key="dipole")))
    assert np.isnan(frames[2].targets["dipole"]).all()


def test_hdf5_has_no_place_for_them(tmp_path: Path) -> None:
    write(tmp_path / "w.xyz", waters(3))
    frames, _ = read(tmp_path / "w.xyz", keys(dipole=Target()))
    with pytest.raises(ValueError, match="no place for dipole"):
        write_hdf5(tmp_path / "w.h5", frames)
    write_hdf5(tmp_path / "w.h5", [replace(f, targets={}) for f in frames])
    with pytest.raises(ValueError, match="no frame has the target dipole"):
        read_sets(Config(data=Data(train=(str(tmp_path / "w.h5"),)), targets={"dipole": Target()}))


# --- measuring ----------------------------------------------------------------------------------------------


def test_offsets_and_scales() -> None:
    """Scalars that are sums of what elements have leave nothing but that; the rest is the scale."""
    rng, frames = np.random.default_rng(0), []
    for formula in ("H2O", "H2", "O2", "CO2", "CH4", "CO", "H2O2"):
        atoms = Atoms(formula, rng.normal(size=(len(Atoms(formula)), 3)))
        own = {"H": 0.5, "C": 2.0, "O": -1.0}
        values = np.array([[own[s]] for s in atoms.symbols])
        given = {
            "sum": values.sum(axis=0, keepdims=True),
            "mean": values.mean(axis=0, keepdims=True),
            "atoms": values,
            "vector": 2.0 * np.sqrt(len(atoms)) * np.sign(rng.normal(size=(1, 3))),
        }
        frames.append(Frame(atoms, None, None, None, "f", len(frames), targets=given))
    specs = resolved({
        "sum": Target(irreps="0e"),
        "mean": Target(irreps="0e", per="mean"),
        "atoms": Target(irreps="0e", per="atom"),
        "vector": Target(irreps="1o", unit="e"),
    })  # fmt: skip
    found = target_facts(frames, ("H", "C", "O"), specs)
    for facts in found[:3]:
        assert np.array(facts.offset)[:, 0] == pytest.approx([0.5, 2.0, -1.0], abs=0.02)
        assert facts.scale[0] < 0.02 or facts.scale[0] == 1.0
    assert found[3].scale == (pytest.approx(2.0),)
    assert found[3].offset == ((), (), ())
    assert found[3].unit == "e"


def test_isolated_atoms_are_the_offsets_of_their_elements() -> None:
    """Exactly, whatever the molecules say; the others are fitted to what is left."""
    rng, frames = np.random.default_rng(0), []
    own = {"H": 0.5, "C": 2.0, "O": -1.0}
    for formula in ("H2O", "H2", "O2", "CO2", "CH4", "CO", "H2O2"):
        atoms = Atoms(formula, rng.normal(size=(len(Atoms(formula)), 3)))
        size = sum(own[s] for s in atoms.symbols)
        given = {"size": np.array([[size, 0.3, size / len(atoms)]]), "alpha": size * np.eye(3).reshape(1, 9)}
        frames.append(Frame(atoms, None, None, None, "f", len(frames), targets=given))
    specs = resolved({"size": Target(irreps="3x0e"), "alpha": Target(irreps="tensor")})
    alone = [
        Frame(Atoms(s), None, None, None, "i", k,
              targets={"size": np.array([[x, 0.1, x]]), "alpha": x * np.eye(3).reshape(1, 9)})
        for k, (s, x) in enumerate([("H", 0.5), ("O", -0.9), ("O", -1.1), ("N", 4.0)])
    ]  # fmt: skip
    size, alpha = target_facts(frames, ("H", "C", "O"), specs, alone)
    assert np.array(size.offset)[[0, 2]] == pytest.approx(
        np.array([[0.5, 0.1, 0.5], [-1.0, 0.1, -1.0]]), abs=1e-12
    )
    assert size.offset[1][0] == pytest.approx(2.0, abs=0.02)
    assert np.array(alpha.offset)[:, 0] / 3**0.5 == pytest.approx([0.5, 2.0, -1.0], abs=0.02)
    every = [replace(f, atoms=Atoms(s)) for f, s in zip(alone, "HCON", strict=True)]
    (only,) = target_facts(frames, ("H", "C", "O"), {"size": specs["size"]}, every)
    assert [row[0] for row in only.offset] == pytest.approx([0.5, -0.9, -1.1])
    assert target_facts(frames, ("H", "C", "O"), specs, frames[:0]) == target_facts(
        frames, ("H", "C", "O"), specs
    )


# --- loss, errors, choice of the best ------------------------------------------------------------------------


def facts_and_samples(weight: float = 1.0) -> tuple[tuple[targets.TargetFacts, ...], list[Any]]:
    rows = waters(3)
    for atoms in rows:
        atoms.info["config_weight"] = weight
    frames = [
        Frame(
            a,
            None,
            None,
            None,
            "w",
            k,
            targets={"dipole": np.array([a.get_dipole_moment()]), "q": np.full((3, 1), np.nan)},
        )
        for k, a in enumerate(rows)
    ]
    frames[1].targets["q"][:] = 0.3
    facts = (
        targets.TargetFacts("dipole", "1o", "structure", "e*Ang", (0.5,), ((), ())),
        targets.TargetFacts("q", "0e", "atom", "e", (0.1,), ((0.0,), (0.0,))),
    )
    return facts, prepare(frames, 4.0)


@pytest.mark.parametrize(("kind", "expected"), [("mse", 1.0), ("mae", 1.0)])
def test_loss_of_an_error_as_large_as_the_scale_is_its_weight(kind: str, expected: float) -> None:
    facts, samples = facts_and_samples()
    graph = collate([s.graph for s in samples])
    label = samples[0].target
    others = {n: torch.cat([s.target.others[n] for s in samples]) for n in label.others}
    target = replace(label, energy=torch.full((3,), torch.nan), forces=torch.full((9, 3), torch.nan),
                     stress=torch.full((3, 3, 3), torch.nan), others=others)  # fmt: skip
    nan = torch.full((3,), torch.nan)
    off = {"dipole": others["dipole"] + 0.5 * 3**0.5, "q": torch.full((9, 1), 0.4)}
    prediction = Prediction(nan, nan, torch.full((9, 3), torch.nan), torch.full((3, 3, 3), torch.nan), off)
    weights = spread(torch.ones(3, 5), graph, target)
    sums = penalties(
        differences(prediction, graph, target), Fit(loss=kind), 1.0, weights, units(facts, graph)
    )
    assert [int(n) for _, n in sums.values()] == [0, 0, 0, 9, 3]
    assert float(total(sums, Fit(), {"dipole": 2.0, "q": 0.0})) == pytest.approx(2 * expected)
    assert float(total(sums, Fit(), {"dipole": 0.0, "q": 3.0})) == pytest.approx(3 * expected)


def test_config_weight_counts_for_targets() -> None:
    _, light = facts_and_samples(0.5)
    _, heavy = facts_and_samples(1.5)
    assert normalized([light[1], heavy[1]])[0].weights[0, 3:].tolist() == [0.5, 0.5]
    assert normalized([light[0], heavy[1]])[1].weights[0, 3:].tolist() == [1.5, 1.0]  # the first has no q


def test_errors_of_targets() -> None:
    label = np.array([[0.0, 1.0, 2.0], [4.0, 1.0, np.nan]])
    pairs = np.stack([label, label + 0.1], axis=-1)
    p = Predictions(np.array([1, 1]), np.array([1, 1]), np.full((2, 2), np.nan), np.full((2, 3, 2), np.nan),
                    np.full((2, 3, 3, 2), np.nan), {"dipole": pairs})  # fmt: skip
    found = errors(from_arrays(p.arrays()))
    assert found["dipole_rmse"] == found["dipole_mae"] == pytest.approx(100.0)
    assert found["dipole_deviation"] == pytest.approx(1e3 * (2 * 2.0**2 / 5) ** 0.5)
    facts = targets.TargetFacts("dipole", "1o", "structure", "e*Ang", (0.5,), ((),))
    found |= target_units([facts], 4.0)
    assert score(found, Fit(), {"dipole": 3.0}, 2.0) == pytest.approx(1e3 * 2.0 * 0.1, rel=1e-4)
    found["dipole_deviation"] = 0.0  # one label, or equal ones: the same
    assert score(found, Fit(), {"dipole": 3.0}, 2.0) == pytest.approx(1e3 * 2.0 * 0.1, rel=1e-4)


def test_something_has_to_be_learned() -> None:
    nothing = replace(Config(), fit=Fit(energy_weight=0.0, forces_weight=0.0, stress_weight=0.0))
    with pytest.raises(ValueError, match="nothing to learn"):
        check(nothing)
    check(replace(nothing, targets={"dipole": Target()}))
    with pytest.raises(ValueError, match="weight is -1"):
        check(replace(Config(), targets={"dipole": Target(weight=-1.0)}))
    frame = Frame(Atoms("H"), None, None, None, "f", 0, targets={"dipole": np.ones((1, 3))})
    require_labels(Fit(), "training", [frame], KNOWN)
    with pytest.raises(ValueError, match="no training frame has energy or forces or stress"):
        require_labels(Fit(), "training", [frame])


def test_a_target_of_no_weight_is_refused() -> None:
    frame = Frame(Atoms("H"), -1.0, None, None, "f", 0, targets={"dipole": np.ones((1, 3))})
    given = {"dipole": Target(weight=0.0)}
    require_labels(Fit(stage_two=0.5), "training", [frame], given)
    with pytest.raises(ValueError, match=r"targets\.dipole\] its weight is 0 throughout"):
        require_labels(Fit(), "training", [frame], given)


def test_a_type_without_energies_keeps_its_targets() -> None:
    some = {"dipole": np.ones((1, 3))}
    frame = Frame(Atoms("H"), -1.0, None, None, "f", 0, config_type="x", targets=some)
    nothing = {"x": Weights(0.0, 0.0, 0.0)}
    (got,), _ = weigh([frame], nothing)
    assert got.energy is None
    assert got.targets == some
    frame.atoms.info["config_weight"] = 0.0
    with pytest.raises(ValueError, match="every weight is 0"):
        weigh([frame], nothing)


def test_validation_has_what_is_trained(tmp_path: Path) -> None:
    """Energies judge nothing where none are trained."""
    rows, bare = waters(4, energies=False), waters(2)
    for atoms in bare:
        del atoms.calc.results["dipole"]
    for name, frames in (("a", rows), ("b", bare), ("c", waters(2, energies=False, seed=1))):
        write(tmp_path / f"{name}.xyz", frames)
    paths = {name: (str(tmp_path / f"{name}.xyz"),) for name in "abc"}
    config = Config(data=Data(train=paths["a"], valid=paths["c"]), targets=resolved({"dipole": Target()}))
    read_sets(config)
    with pytest.raises(ValueError, match=r"no validation frame has dipole, .* best model"):
        read_sets(replace(config, data=replace(config.data, valid=paths["b"])))


def test_energies_of_no_weight_are_not_predicted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["water.xyz", "--targets", "dipole", "--epochs", "1", "--output", "run", *QUICK]
    for label in ("energy", "forces", "stress"):
        line += ["--set", f"fit.{label}_weight=0"]
    assert main(line) == 0, capsys.readouterr().err
    assert not load("run/model.safetensors").statistics.has_energy
    assert summary("run")["errors"]["valid"]["dipole_rmse"] > 0


def test_options_make_settings() -> None:
    line = "a.xyz --targets dipole --set targets.dipole.weight=2 --set targets.q.irreps=0e"
    config = configuration(parser().parse_intermixed_args(line.split()))[0]
    assert config.targets == {"dipole": Target(weight=2.0), "q": Target(irreps="0e")}


# --- training -----------------------------------------------------------------------------------------------


def summary(directory: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(directory) / "summary.json").read_text())
    return found


def test_dipoles_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No energy, no forces: the model learns the dipole and says nothing of the energy."""
    line = ["dipoles.xyz", "--targets", "dipole", "--epochs", "20", "--output", "run", "--test", "water.xyz"]
    line += QUICK
    assert main(line) == 0, capsys.readouterr().err
    errors_found = summary("run")["errors"]
    assert errors_found["water"]["dipole_rmse"] < 0.1 * errors_found["water"]["dipole_deviation"]
    assert errors_found["water"]["energy_rmse"] is None
    model = load("run/model.safetensors")
    assert not model.statistics.has_energy
    assert model.network.config.lmax_out == 1
    worst, labels = [], waters(24)
    for atoms in labels:
        expected = atoms.get_dipole_moment()
        atoms.calc = EquivCalculator(model)
        worst.append(atoms.get_dipole_moment() - expected)
    assert 1e3 * np.sqrt(np.mean(np.square(worst))) == pytest.approx(
        errors_found["water"]["dipole_rmse"], rel=1e-4
    )
    with h5py.File("run/predictions.h5") as file:
        group = file["water/targets/dipole"]
        assert dict(group.attrs) == {"irreps": "1o", "per": "structure", "unit": "e*Ang"}
        assert np.mean(np.square(group["predicted"][:] - group["reference"][:])) == pytest.approx(
            np.mean(np.square(worst)), rel=1e-3
        )
    page = Path("run/report.html").read_text()
    assert "dipole component" in Path("run/report.html").read_text() or "10⁻³ e·Å" in page
    printed = capsys.readouterr().out
    assert "dipole RMSE 10^-3 e*Ang" in printed
    assert "lmax_out 1: for dipole" in printed


def test_everything_together_and_resumed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """3 + 3 epochs are 6, bit for bit, with energies, forces, dipole, tensor, charges and a second stage."""
    asked = ["--targets", "dipole", "polarizability", "--set", "targets.q.irreps=0e"]
    asked += ["--set", "targets.q.per=atom", "--set", "targets.q.key=charges_ref"]
    asked += ["--set", "targets.dipole.stage_two_weight=5.0"]
    line = ["water.xyz", *asked, "--set", "fit.stage_two=0.2", *QUICK]
    assert main([*line, "--epochs", "6", "--output", "six"]) == 0, capsys.readouterr().err
    assert main([*line, "--epochs", "3", "--output", "three"]) == 0
    assert main(["--resume", "--output", "three", "--epochs", "6"]) == 0, capsys.readouterr().err
    for name in ("state.safetensors", "model.safetensors"):
        a, b = (read_tensors(folder / run / name)[1] for run in ("six", "three"))
        assert all(torch.equal(a[key], b[key]) for key in a)
        assert a.keys() == b.keys()
    assert any(key.startswith("targets.2.") for key in a)
    lines = [json.loads(text) for text in Path("six/metrics.jsonl").read_text().splitlines()]
    assert {
        f"{part}_{name}_rmse" for part in ("train", "valid") for name in ("energy", "forces", "dipole", "q")
    } <= {*lines[-1]}
    assert main(["--resume", "--output", "three", "--epochs", "8", "--set", "targets.dipole.weight=3.0"]) == 1
    assert "other targets (dipole)" in capsys.readouterr().err
    tune = [
        "water.xyz",
        "--from",
        "six/model.safetensors",
        "--epochs",
        "1",
        "--output",
        "tuned",
        "--set",
        "fit.batch_size=8",
    ]
    assert main(tune) == 1
    assert "predicts dipole (1o, per structure)" in capsys.readouterr().err
    assert main([*tune, *asked, "--set", "fit.lora_rank=2"]) == 0, capsys.readouterr().err
    assert "dipole_rmse" in summary("tuned")["errors_before"]["valid"]
    bare = waters(8, energies=False, seed=2)
    write("bare.xyz", bare)
    alone = ["bare.xyz", *tune[1:4], "1", "--output", "bare", *tune[7:], *asked]
    assert main(alone) == 1
    told = capsys.readouterr().err
    assert "predicts energies, but no training frame has energy" in told
    freeze = told.split('"')[1]
    assert main([*alone, "--set", freeze]) == 0, capsys.readouterr().err
    at = waters(1)[0]
    energies = []
    for path in ("six", "bare"):
        at.calc = EquivCalculator(load(f"{path}/model.safetensors"))
        energies.append(at.get_potential_energy())
    assert energies[0] == energies[1]


def test_the_model_gives_an_atom_alone_what_isolated_atoms_have(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the training files and of a file for E0; a direction that an atom cannot have is told of."""
    alone = {
        s: Atoms(s, info={"energy": -1.0, "polarizability": a * np.eye(3)})
        for s, a in (("H", 0.67), ("O", 0.8))
    }
    alone["O"].info["dipole"] = [0.0, 0.0, 0.2]
    write("more.xyz", [*waters(12, seed=3), alone["O"]])
    write("atoms.xyz", [alone["H"]])
    line = ["more.xyz", "--targets", "dipole", "polarizability", "--epochs", "1", *QUICK]
    line += ["--set", "data.isolated_atoms=atoms.xyz", "--allow-missing"]
    assert main([*line, "--output", "run"]) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert "polarizability of isolated H, O: what the model gives an atom alone" in told
    assert "WARNING: dipole of isolated O has a direction" in told
    model = load("run/model.safetensors")
    for symbol, a in (("H", 0.67), ("O", 0.8)):
        found = predict(model, from_atoms(Atoms(symbol), model.cutoff)).targets
        torch.testing.assert_close(
            found["polarizability"], a * torch.eye(3).reshape(1, 9).double(), rtol=0, atol=1e-9
        )
        assert not found["dipole"].any()
    write("atoms.xyz", [Atoms("H", info={"energy": -1.0, "polarizability": 0.7 * np.eye(3)})])
    assert main(["--resume", "--output", "run", "--epochs", "2"]) == 1
    assert "other training and validation frames" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--targets", "polarizability"], ["no frame has the target polarizability", "the frames hold"]),
        (
            ["--targets", "dipole", "--set", "targets.dipole.key=dipol"],
            ["under dipol", "did you mean 'dipole'?"],
        ),
        (["--targets", "spin"], ["nothing is known of spin"]),
        (["--targets", "dipole", "--set", "model.lmax_out=0"], ["lmax_out is 0", "need 1"]),
        (["--set", "targets.dipole.irreps=1e"], ["1e", "natural parity"]),
    ],
)
def test_refusals(
    folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: list[str]
) -> None:
    rows = waters(6, energies=False)
    for atoms in rows:
        del atoms.info["polarizability"]
    write("plain.xyz", rows)
    assert main(["plain.xyz", "--epochs", "1", "--output", "run", *QUICK, *more]) == 1
    told = capsys.readouterr().err
    assert all(word in told for word in words), told
    assert not Path("run").exists()


def test_unasked_targets_are_told_and_not_trained(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["water.xyz", "--epochs", "1", "--output", "run", *QUICK]) == 0
    told = capsys.readouterr().out
    assert "dipole: under 'dipole' in 24 of 24 frames, not used; --targets dipole uses it" in told
    assert load("run/model.safetensors").statistics.targets == ()
    assert main(["dipoles.xyz", "--epochs", "1", "--output", "other"]) == 1
    assert "--targets dipole uses it" in capsys.readouterr().err


def test_training_steps_without_energies_need_no_second_derivative(folder: Path) -> None:
    """What the step skips changes nothing: gradients are those with the forces computed and thrown away."""
    facts, samples = facts_and_samples()
    from potential import Statistics, build
    from train.run import start
    from train.step import gradient

    given = Statistics(("H", "O"), (0.0, 0.0), 1.0, 3.0, facts)
    fit, grads = Fit(batch_size=3), []
    for wanted in (False, True):
        potential = build(
            {"channels": 8, "vector_channels": 4, "lmax_out": 1, "cutoff": 4.0}, given, dtype=torch.float64
        )
        run = start(
            potential, fit, targets=resolved({"dipole": Target(), "q": Target(irreps="0e", per="atom")})
        )
        batch = samples
        if wanted:  # a label of weight zero makes the step compute forces
            target = replace(samples[0].target, forces=torch.zeros(3, 3, dtype=torch.float64))
            batch = [replace(samples[0], target=target), *samples[1:]]
        gradient(run, batch, replace(fit, forces_weight=0.0))
        grads.append([p.grad for p in run.weights])
        assert predict(potential, samples[0].graph).energy.isfinite().all()
    for a, b in zip(*grads, strict=True):
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
