"""potential-compare: known answers of errors and physics, planted faults that must be found, failures named."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.neighborlist import neighbor_list

from potential.analysis.worker import load_factory
from train.compare.checks import CHECKS, function_of, worries
from train.compare.cli import main, parser
from train.compare.contestants import contestants
from train.compare.crystal import find_crystal, relaxed, repeats
from train.compare.errors import Deviations, deviations, error_of, errors_of, groups_of, pairs_of
from train.compare.physics.dimers import has_hole
from train.compare.physics.dynamics import trend
from train.compare.shift import align, fitted
from train.compare.subject import Subject
from train.data.dataset import Frame
from train.report.run_directory import PredictedSet

ROOT = Path(__file__).parents[1]
EMT_NAME = "ase.calculators.emt:EMT"
# An EMT with faults: a constant energy per atom, a force that no energy has, a frame that kills the process.
FAULTY = """
import os
import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

class Faulty(Calculator):
    implemented_properties = ["energy", "forces"]
    def __init__(self, shift=0.0, push=0.0, die=-1, refuse=-1):
        super().__init__()
        self.emt, self.faults = EMT(), (shift, push, die, refuse)
    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        shift, push, die, refuse = self.faults
        number = self.atoms.info.get("number")
        if number is not None and number == die:
            os._exit(3)
        if number is not None and number == refuse:
            raise RuntimeError("no thanks")
        atoms = self.atoms.copy()
        atoms.calc = self.emt
        forces = atoms.get_forces()
        forces[:, 0] += push if number is not None else 0.0
        self.results = {"energy": atoms.get_potential_energy() + shift * len(atoms), "forces": forces}

def faulty(shift=0.0, push=0.0, die=-1, refuse=-1):
    return Faulty(shift, push, die, refuse)
"""


class Springs(Calculator):  # type: ignore[misc]
    """Nearest neighbors of an fcc crystal joined by springs at rest."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012
    stiffness, length = 3.0, 2.5  # eV/Å^2, Å

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        i, vectors, lengths = neighbor_list("iDd", self.atoms, 1.2 * self.length)
        stretch = lengths - self.length
        pull = (self.stiffness * stretch / lengths)[:, None] * vectors
        forces = np.stack([np.bincount(i, pull[:, k], len(self.atoms)) for k in range(3)], axis=1)
        self.results = {"energy": 0.25 * self.stiffness * float((stretch**2).sum()), "forces": forces}


class Spoiled(EMT):  # type: ignore[misc]
    """EMT with forces changed by a function of the positions (n, 3)."""

    def __init__(self, more: Callable[[np.ndarray], np.ndarray]):
        super().__init__()
        self.more = more

    def calculate(
        self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results["forces"] = self.results["forces"] + self.more(self.atoms.positions)


class Stressless(EMT):  # type: ignore[misc]
    """EMT that has no stress."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(
        self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, ["energy"], system_changes)
        self.results.pop("stress", None)


def copper(seed: int, n: int = 2) -> Atoms:
    atoms = bulk("Cu", cubic=True).repeat((n, 1, 1))
    atoms.rattle(0.1, seed=seed)
    return atoms


def subject(crystal: Atoms | None = None, **more: Any) -> Subject:
    frames = [copper(0), copper(1)]
    return Subject(frames, ["a", "b"], frames[0], crystal, "given", [29], relaxed=crystal, **more)


@pytest.fixture(scope="module")
def crystal() -> Atoms:
    """Copper as EMT has it."""
    return relaxed(bulk("Cu", cubic=True), EMT())


def asked(name: str, calculator: Calculator, one: Subject) -> dict[str, Any]:
    result = function_of(name)(calculator, one)
    assert set(result.get("values", {})) <= set(CHECKS[name].values), "every value has a label and a unit"
    return result


# --- physics: known answers ----------------------------------------------------------------------------------


def test_copper_of_emt(crystal: Atoms) -> None:
    found = asked("eos", EMT(), subject(crystal))
    assert found["values"]["a0"] == pytest.approx(3.59, abs=0.002)  # as in ASE's own tests
    assert found["values"]["B0"] == pytest.approx(134.4, abs=0.5)
    assert not worries("eos", found)


def test_elastic_constants_against_energies_alone(crystal: Atoms) -> None:
    """C11, C' and C44 once more from parabolas through energies, with other strains."""

    def stiffness(mode: np.ndarray) -> float:
        strains, energies = np.linspace(-0.01, 0.01, 9), []
        for strain in strains:
            one = crystal.copy()
            one.set_cell(crystal.cell.array @ (np.eye(3) + strain * mode), scale_atoms=True)
            one.calc = EMT()
            energies.append(one.get_potential_energy())
        return float(2 * np.polyfit(strains, energies, 4)[2] / crystal.get_volume() / units.GPa)

    found = asked("elastic", EMT(), subject(crystal))
    values = found["values"]
    assert values["C11"] == pytest.approx(stiffness(np.diag([1.0, 0, 0])), abs=0.3)
    assert 2 * (values["C11"] - values["C12"]) == pytest.approx(stiffness(np.diag([1.0, -1, 0])), abs=0.5)
    assert values["C44"] == pytest.approx(stiffness(np.array([[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]])), abs=0.3)
    assert values["bulk_modulus"] == pytest.approx((values["C11"] + 2 * values["C12"]) / 3)
    assert values["energy_check"] < 0.1
    assert not worries("elastic", found)


def test_silicon_of_stillinger_and_weber() -> None:
    """Its constants are in the literature (Balamane, Halicioglu, Tiller, Phys. Rev. B 46, 2250 (1992)): 161.6, 81.6,
    60.3 GPa, and C44 = 117.2 GPa where the atoms stay, in a unit of energy that is 2.315 eV instead of 2.1678."""
    published = 2.1678 / 2.315 * np.array([161.6, 81.6, 60.3, 117.2])
    _, factory = load_factory(str(ROOT / "examples/compare/stillinger_weber.py") + ":factory")
    calculator = factory()
    found = asked("elastic", calculator, subject(relaxed(bulk("Si", cubic=True), calculator)))
    values = [found["values"][name] for name in ("C11", "C12", "C44")]
    assert [*values, found["clamped"][3][3]] == pytest.approx(published, rel=2e-3)
    assert found["values"]["energy_check"] < 0.1


def test_vacancy_of_springs_costs_nothing_and_of_emt_what_it_costs(crystal: Atoms) -> None:
    """Springs at rest hold no energy, so taking an atom away takes none; EMT's vacancy is known (1.2 to 1.3 eV)."""
    found = asked("vacancy", Springs(), subject(bulk("Cu", a=Springs.length * 2**0.5, cubic=True)))
    assert found["values"]["vacancy"] == pytest.approx(0.0, abs=1e-5)
    found = asked("vacancy", EMT(), subject(crystal))
    assert 1.1 < found["values"]["vacancy"] < found["values"]["unrelaxed"] < 1.3
    assert "skipped" in asked("vacancy", EMT(), subject(bulk("CuAu", "rocksalt", a=5.0)))


def test_phonons_of_springs() -> None:
    """The highest frequency of an fcc crystal with springs k between neighbors is sqrt(8 k/m), at X."""
    found = asked("phonons", Springs(), subject(bulk("Cu", a=Springs.length * 2**0.5, cubic=True)))
    mass = bulk("Cu").get_masses()[0] * units._amu
    highest = np.sqrt(8 * Springs.stiffness * units._e / 1e-20 / mass) / (2 * np.pi) / 1e12
    assert found["values"]["highest"] == pytest.approx(highest, rel=5e-3)  # X is not on the mesh
    assert found["values"]["imaginary"] == 0.0
    assert np.max(found["curve"]["band"]["frequencies"]) == pytest.approx(highest, rel=1e-3)
    dos = found["curve"]["dos"]
    assert np.trapezoid(dos["dos"], dos["frequency"]) == pytest.approx(3.0, rel=0.01)  # modes of an atom


def test_imaginary_modes_are_counted(crystal: Atoms) -> None:
    wide = crystal.copy()
    wide.set_cell(1.25 * crystal.cell.array, scale_atoms=True)
    found = asked("phonons", EMT(), subject(wide))
    assert found["values"]["imaginary"] > 5
    assert any("imaginary" in text for text in worries("phonons", found))


def test_phonopy_is_an_extra(monkeypatch: pytest.MonkeyPatch, crystal: Atoms) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "equiv-potential[phonons]" in asked("phonons", EMT(), subject(crystal))["skipped"]


def test_crystal_without_stress_is_relaxed_by_energies(crystal: Atoms) -> None:
    found = relaxed(bulk("Cu", cubic=True), Stressless())
    assert found.cell.lengths() == pytest.approx(crystal.cell.lengths(), abs=1e-3)
    assert "stress" in asked("elastic", Stressless(), subject(crystal))["skipped"]


# --- physics: faults are found, and nothing else --------------------------------------------------------------


@pytest.mark.parametrize("name", ["symmetry", "conservation", "dynamics", "dimers"])
def test_emt_is_without_fault(name: str, crystal: Atoms) -> None:
    found = asked(name, EMT(), subject(crystal, steps=60))
    assert worries(name, found) == []
    assert found["values"]


def swirl(positions: np.ndarray) -> np.ndarray:
    """A force with a curl, 0.2 eV/Å^2."""
    return 0.1 * np.stack([-positions[:, 1], positions[:, 0], 0 * positions[:, 0]], axis=1)


@pytest.mark.parametrize(
    ("name", "more", "worry"),
    [
        ("conservation", swirl, "forces have a curl"),
        ("conservation", swirl, "not the slope of the energy"),
        ("conservation", lambda x: 0.1 * np.sin(x), "not the slope of the energy"),
        ("symmetry", lambda x: np.array([0.01, 0, 0]) + 0 * x, "do not turn with the structure"),
        ("symmetry", lambda x: np.array([0.01, 0, 0]) + 0 * x, "do not add up to zero"),
        ("symmetry", lambda x: 0.01 * np.sin(x), "moved as a whole"),
        ("symmetry", lambda x: 0.01 * np.arange(len(x))[:, None] + 0 * x, "order of the atoms"),
        ("dynamics", lambda x: np.array([0.02, 0, 0]) + 0 * x, "drifts"),
    ],
)  # fmt: skip
def test_faults_are_found(name: str, more: Callable[[np.ndarray], np.ndarray], worry: str) -> None:
    found = asked(name, Spoiled(more), subject(steps=200))
    assert any(worry in text for text in worries(name, found)), worries(name, found)


def test_a_gradient_without_its_energy_has_no_curl() -> None:
    """sin(x) is the slope of -cos(x): missing in the energy, but no curl. The two faults are told apart."""
    found = asked("conservation", Spoiled(lambda x: 0.1 * np.sin(x)), subject())
    assert found["values"]["curl_percent"] < 0.01
    assert found["values"]["slope_percent"] > 1


def test_atoms_that_fly_apart_are_reported() -> None:
    with pytest.raises(ValueError, match="fly apart"):
        function_of("dynamics")(Spoiled(lambda x: 5 * (x - x.mean(0))), subject(steps=200))


def test_drift_and_its_error() -> None:
    time = np.linspace(0, 1, 400)
    assert trend(time, 3 * time)[0] == pytest.approx(3.0)
    slope, error = trend(time, np.random.default_rng(0).normal(size=400))
    assert abs(slope) < 3 * error


@pytest.mark.parametrize(
    ("energy", "hole"),
    [
        ([9, 3, 0, -1, 0], False),
        ([9, 6, 3, 2, 0], False),  # no bond at all
        ([9, 3, 1.5, 1.6, 0], False),  # a shoulder
        ([-3, 3, 0, -1, 0], True),
        ([0, 3, 0, -1, 0], True),  # a hole behind a wall
        ([2.95, 3, 0, -1, 0], False),  # a ripple
        ([-4, -3, -2, -1, 0], True),
    ],
)
def test_holes(energy: list[float], hole: bool) -> None:
    assert has_hole(np.array([0.5, 0.65, 0.8, 1.0, 2.0]), np.array(energy, dtype=float)) is hole


def test_pairs_that_fall_into_each_other_are_named() -> None:
    from ase.calculators.lj import LennardJones

    found = asked("dimers", LennardJones(sigma=0.1, epsilon=0.1, rc=20.0), subject())
    assert worries("dimers", found) == ["pairs of atoms attract each other at short distance (Cu-Cu)"]


# --- errors --------------------------------------------------------------------------------------------------


def predicted(name: str = "a", n_frames: int = 6, seed: int = 0) -> PredictedSet:
    """Labels drawn at random of frames with two elements, predictions without error."""
    rng = np.random.default_rng(seed)
    n_atoms = rng.integers(2, 6, n_frames)
    n = int(n_atoms.sum())
    energy, stress, forces = (
        rng.normal(size=n_frames),
        rng.normal(size=(n_frames, 9)),
        rng.normal(size=(n, 3)),
    )
    kinds = np.array(["x", "y"] * (n_frames // 2))
    numbers = rng.choice([8, 14], n)
    return PredictedSet(name, "f", n_atoms, np.arange(n_frames), energy, energy.copy(), stress, stress.copy(), numbers,
                        forces, forces.copy(), kinds)  # fmt: skip


def test_planted_errors_have_exactly_their_size() -> None:
    one = predicted()
    one.energy_predicted[:] += 0.01 * one.n_atoms
    one.forces_predicted[one.atomic_numbers == 8] += np.array([0.03, 0, 0])
    one.stress_predicted[2, 4] += 0.5
    found = errors_of(one, 1)
    assert found["energy"]["rmse"] == pytest.approx([10, 10, 10])
    assert found["energy"]["max"] == pytest.approx(10)
    share = (one.atomic_numbers == 8).mean()
    assert found["forces"]["rmse"][0] == pytest.approx(30 * np.sqrt(share / 3))
    assert found["forces"]["mae"][0] == pytest.approx(30 * share / 3)
    assert (found["stress"]["max"], found["stress"]["frame"]) == (pytest.approx(500), 2)
    assert found["structure"]["rmse"][0] == pytest.approx(10 * np.sqrt((one.n_atoms**2).mean()))
    groups = groups_of(one, {"kind": one.config_type}, 1)
    assert groups["element"]["O"]["forces"][0] == pytest.approx(30 / np.sqrt(3))
    assert groups["element"]["Si"]["forces"][0] < 1e-6
    assert groups["kind"]["x"]["stress"][0] == pytest.approx(500 / np.sqrt(27))
    assert groups["kind"]["y"]["stress"][0] < 1e-6
    one.forces_predicted[:] = -one.forces_reference
    assert errors_of(one, 1)["forces"]["cosine"][0] == pytest.approx(-1)


def test_what_is_absent_is_not_counted() -> None:
    one = predicted()
    one.energy_reference[1] = one.energy_predicted[2] = np.nan
    assert (errors_of(one, 1)["energy"]["labels"], errors_of(one, 1)["forces"]["frames"]) == (4, 6)
    one.stress_predicted[:] = np.nan
    assert "stress" not in errors_of(one, 1)


def test_differences_are_paired_over_frames_that_both_know() -> None:
    one, other = predicted("a"), predicted("b")
    rng = np.random.default_rng(1)
    noise = rng.normal(size=one.forces_predicted.shape)
    one.forces_predicted[:] += noise
    other.forces_predicted[:] += 1.1 * noise  # worse by a tenth in every frame, whatever the frames
    other.forces_predicted[one.system == 3] = np.nan
    (row,) = [row for row in pairs_of([one, other], "rmse", 1) if row["quantity"] == "forces"]
    assert row["ratio"] == pytest.approx([1.1, 1.1, 1.1])
    assert row["p_holm"] < 0.01
    assert row["frames"] == 5
    low, high = row["difference"][1:]
    assert 0 < low < high, "the ratio is the same in all samples, the difference is not"


def test_intervals_hold_the_truth() -> None:
    """Errors of 30 frames with a known RMSE, many times: about 95 % of the intervals hold it."""
    rng, hits, frames = np.random.default_rng(0), 0, np.arange(30)
    for _ in range(500):
        found = error_of(Deviations(rng.normal(0, 10, 30), frames, -1 - 0 * frames, 30), "rmse", 1)
        assert found is not None
        hits += found[1] < 10 < found[2]
    assert (
        460 <= hits <= 485
    )  # 95 % within three standard deviations, less what bootstraps of few frames lack


def test_blocks_count_as_one() -> None:
    one = predicted(n_frames=40)
    one.energy_predicted[:] += one.n_atoms * np.repeat(np.random.default_rng(0).normal(0, 0.01, 10), 4)
    widths = [np.ptp(errors_of(one, block)["energy"]["rmse"][1:]) for block in (1, 4)]
    assert widths[1] > 1.5 * widths[0]


# --- zeros of energies ---------------------------------------------------------------------------------------


def test_shift_of_each_element_is_found_exactly() -> None:
    one, exact = predicted("a"), predicted("b")
    counts = np.stack([np.bincount(one.system, one.atomic_numbers == z, 6) for z in (8, 14)], axis=1)
    one.energy_predicted[:] += counts @ [2.0, -3.0]
    shift = fitted(one)
    assert shift is not None
    assert shift.per_element == pytest.approx({"O": -2.0, "Si": 3.0})
    assert shift.is_needed
    sets, shifts = align([one, exact], "auto")
    assert set(shifts) == {"a", "b"}, "all contestants alike"
    assert np.abs(deviations(sets[0], "energy").error).max() < 1e-9
    assert align([one, exact], "never") == ([one, exact], {})
    assert align([exact], "auto")[1] == {}


def test_a_bad_potential_is_no_other_zero() -> None:
    one = predicted(n_frames=40)
    one.energy_predicted[:] += one.n_atoms * np.random.default_rng(0).normal(0, 0.3, 40)
    shift = fitted(one)
    assert shift is not None
    assert not shift.is_needed


# --- the crystal ---------------------------------------------------------------------------------------------


def frame(atoms: Atoms, energy: float | None = 0.0, force: float = 1.0) -> Frame:
    return Frame(atoms, energy, np.full((len(atoms), 3), force), None, "f.xyz", 0)


def test_crystal_is_given_found_or_none(tmp_path: Path) -> None:
    water, hot, quiet = frame(molecule("H2O")), frame(copper(0)), frame(bulk("Cu"), energy=-1.0, force=0.0)
    assert find_crystal("", [water])[0] is None
    assert "give --crystal" in find_crystal("", [water])[1]
    found, where = find_crystal("", [water, hot, quiet])
    assert found == quiet.atoms
    assert "lowest in energy" in where
    assert len(find_crystal("", [hot])[0] or ()) == 4  # as ASE knows it
    assert find_crystal("none", [hot])[0] is None
    assert (find_crystal("NaCl:rocksalt:5.6", [])[0] or Atoms()).get_chemical_formula() == "Cl4Na4"
    write(tmp_path / "c.xyz", bulk("Al"))
    assert (find_crystal(str(tmp_path / "c.xyz"), [])[0] or Atoms()).symbols == "Al"
    with pytest.raises(ValueError, match="neither a file nor a crystal"):
        find_crystal("Xx", [])


def test_supercells_are_wide_enough_but_not_too_large() -> None:
    assert repeats(bulk("Cu", cubic=True)) == (3, 3, 3)
    assert np.prod(repeats(bulk("Si", cubic=True), edge=1e3, most=500)) in range(48, 63)
    assert repeats(bulk("Cu", cubic=True).repeat((4, 4, 4))) == (1, 1, 1)


# --- the command ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six numbered frames of copper with the labels of EMT, and the faulty calculator."""
    path = tmp_path_factory.mktemp("compare")
    frames = []
    for number in range(6):
        atoms = copper(number)
        atoms.info |= {"config_type": "odd" if number % 2 else "even", "number": number}
        atoms.calc = EMT()
        labels = {name: atoms.calc.get_property(name, atoms) for name in ("energy", "forces", "stress")}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    write(path / "test.xyz", frames)
    (path / "faulty.py").write_text(FAULTY, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    """EMT beside a faulty one and one that cannot be made: the exit code and comparison.json."""
    faulty = str(folder / "faulty.py:faulty")
    code = main([
        str(folder / "test.xyz"), "--calculator", f"emt={EMT_NAME}", "--calculator", f"bad <i>={faulty}",
        "--option", "bad <i>.shift=0.5", "--option", "bad <i>.push=0.02", "--option", "bad <i>.die=1",
        "--option", "bad <i>.refuse=4", "--calculator", "none=nowhere:at", "--checks", "symmetry,eos,elastic",
        "--known", "a0=3.6", "--rounds", "3", "--seconds", "1", "--systems", "Cu32", "--output", str(folder / "out"),
    ])  # fmt: skip
    return {"code": code, **json.loads((folder / "out/comparison.json").read_text(encoding="utf-8"))}


def test_one_that_cannot_be_made_is_named_and_the_others_go_on(found: dict[str, Any]) -> None:
    assert found["code"] == 1
    assert "No module named 'nowhere'" in found["broken"]["none"]
    assert set(found["errors"]) == {"emt", "bad <i>"}


def test_failed_frames_are_counted_and_named(found: dict[str, Any]) -> None:
    assert found["failures"]["emt"] == []
    one, four = found["failures"]["bad <i>"]
    assert (one["frame"], four["frame"]) == (1, 4)
    assert "its process ended with code 3" in one["reason"]
    assert four["reason"] == "RuntimeError: no thanks"
    assert found["errors"]["bad <i>"]["forces"]["frames"] == 4
    assert [row["frames"] for row in found["pairs"]] == [4, 4]  # energy, forces; it has no stress
    assert found["contestants"]["bad <i>"]["lacks"] == ["stress"]


def test_planted_errors_come_out_of_the_command(found: dict[str, Any]) -> None:
    assert found["unshifted"]["bad <i>"]["rmse"][0] == pytest.approx(500, abs=0.01)
    assert found["shifts"]["bad <i>"]["per_element"]["Cu"] == pytest.approx(-0.5, abs=1e-5)
    assert found["errors"]["bad <i>"]["energy"]["rmse"][0] < 0.01
    assert found["errors"]["bad <i>"]["forces"]["rmse"][0] == pytest.approx(20 / np.sqrt(3), rel=1e-3)
    assert found["groups"]["bad <i>"]["config_type"]["odd"]["frames"] == 3
    assert found["errors"]["emt"]["forces"]["rmse"][0] < 0.01
    assert found["checks"]["emt"]["eos"]["values"]["a0"] == pytest.approx(3.59, abs=0.002)
    assert "stress" in found["checks"]["bad <i>"]["elastic"]["skipped"]
    assert found["checks"]["bad <i>"]["symmetry"]["values"]["rotation_forces"] > 10


def test_contestants_are_timed_in_turns(found: dict[str, Any]) -> None:
    assert [line["contestant"] for line in found["speed"]] == ["emt", "bad <i>"]
    assert found["speed"][1]["reference"] == "emt"
    assert found["speed"][0]["peak_mib"] > 10


def test_everything_is_written(found: dict[str, Any], folder: Path) -> None:
    page = (folder / "out/report.html").read_text(encoding="utf-8")
    assert "bad &lt;i&gt;" in page
    told = (
        "no thanks",
        "What cannot be concluded",
        found["machine"],
        "is not that of the labels",
        "do not turn with",
    )
    assert [text for text in told if text not in page] == []
    rows = list(csv.DictReader((folder / "out/comparison.csv").read_text(encoding="utf-8").splitlines()))
    assert {"contestant", "of", "which", "value", "low", "high", "unit"} == set(rows[0])
    (row,) = [
        row for row in rows if (row["contestant"], row["of"], row["which"]) == ("bad <i>", "forces", "mae")
    ]
    assert float(row["value"]) == pytest.approx(20 / 3, rel=1e-3)
    for name in ("parity.png", "parity.svg", "checks.png", "checks.svg"):
        assert (folder / "out" / name).stat().st_size > 1000


def test_our_models_presets_and_factories_are_contestants(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").touch()
    model = str(tmp_path / "m.safetensors")
    found = contestants(
        [model, "small", "p=painn-tiny", f"emt={EMT_NAME}"], ["emt=python3"], ["p.cutoff=4.0", "emt.a=b"]
    )
    assert [one.name for one in found] == ["m", "small", "p", "emt"]
    assert [dict(one.options) for one in found] == [
        {"model": model}, {"preset": "small"}, {"preset": "painn-tiny", "cutoff": 4.0}, {"a": "b"},
    ]  # fmt: skip
    assert found[3].python == "python3"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no calculator"),
        (["--calculator", "smal"], "no such file or preset; did you mean 'small'?"),
        (["--calculator", "m.safetensors"], "there is no such file"),
        (["--calculator", EMT_NAME, "--calculator", EMT_NAME], "two contestants are called 'EMT'"),
        (["--calculator", EMT_NAME, "--python", "python3"], "--python python3: expected NAME=PATH"),
        (["--calculator", EMT_NAME, "--option", "emt.a=1"], "with the name of a calculator; there are EMT"),
        (["--calculator", EMT_NAME, "--option", "EMT.a"], "expected NAME.KEY=VALUE"),
        (["--calculator", EMT_NAME, "--checks", "phonon"], "did you mean 'phonons'?"),
        (["--calculator", EMT_NAME, "--known", "C13=3"], "no check gives 'C13'; did you mean 'C1"),
        (["--calculator", EMT_NAME, "--known", "a0=x"], "expected a number after a0="),
        (["--calculator", EMT_NAME, "--rounds", "0"], "--rounds 0: it must be positive"),
        (["--calculator", EMT_NAME, "--steps", "3"], "a drift needs 100 or more"),
        (["--calculator", EMT_NAME, "--crystal", "nothing"], "neither a file nor a crystal"),
        (["--calculator", EMT_NAME, "--systems", "Si65"], "give a multiple, such as Si64"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_mistakes_are_explained(
    arguments: list[str], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [] if "--checks" in arguments else ["--checks", "none"]
    assert main([str(folder / "test.xyz"), *arguments, *checks, "--output", str(tmp_path)]) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("potential-compare: ")]
    assert len(error) == 1
    assert message in error[0]


def test_names_that_a_module_makes_when_asked_are_factories() -> None:
    assert load_factory("potential:EquivCalculator")[1].__name__ == "EquivCalculator"


def test_an_option_that_a_factory_does_not_know(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faulty = ["--calculator", str(folder / "faulty.py:faulty"), "--option", "faulty.colour=red"]
    assert main([str(folder / "test.xyz"), *faulty, "--checks", "none", "--output", str(tmp_path)]) == 1
    assert "unexpected keyword argument 'colour'" in capsys.readouterr().err


def test_no_file_and_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--calculator", EMT_NAME]) == 1
    assert "no test set" in capsys.readouterr().err
    assert main(["nowhere.xyz", "--calculator", EMT_NAME]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_help_answers_without_loading_anything_heavy() -> None:
    code = """
import sys
from train.compare.cli import parser
parser().format_help()
print(sorted({"torch", "ase", "numpy", "scipy", "matplotlib", "phonopy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
    assert all(name in parser().format_help() for name in CHECKS)
