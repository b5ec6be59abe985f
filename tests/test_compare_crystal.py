"""potential-compare: which crystal is taken, how it relaxes, and what its numbers are called."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from train.compare import words
from train.compare.checks import CHECKS, function_of, worries
from train.compare.crystal import find_crystal, is_dense, relaxed
from train.compare.physics.elastic import turned, under_pressure
from train.compare.run import Request, compare
from train.compare.subject import Subject
from train.data.dataset import Frame


class Stressless(EMT):  # type: ignore[misc]
    """EMT that has no stress."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = ()) -> None:
        super().calculate(atoms, ["energy"], system_changes)
        self.results.pop("stress", None)


class Halved(EMT):  # type: ignore[misc]
    """EMT with 99 % of its forces: no fault can be seen where they are zero."""

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = ()) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results["forces"] = 0.99 * self.results["forces"]


def frame(atoms: Atoms, energy: float = 0.0, force: float = 0.0) -> Frame:
    return Frame(atoms, energy, np.full((len(atoms), 3), force), None, "f.xyz", 0)


def asked(
    name: str, calculator: Any, crystal: Atoms, structures: list[Atoms] | None = None
) -> dict[str, Any]:
    given = structures or [crystal]
    one = Subject(given, [""] * len(given), given[0], crystal, "given", relaxed=crystal)
    result = function_of(name)(calculator, one)
    assert set(result.get("values", {})) <= set(CHECKS[name].values), "every value has a label and a unit"
    return result


@pytest.fixture(scope="module")
def copper() -> Atoms:
    """As EMT has it, conventional."""
    return relaxed(bulk("Cu", cubic=True), EMT())


def water() -> Atoms:
    atoms = molecule("H2O", cell=[9.0] * 3, pbc=True)
    atoms.center()
    return atoms


# --- which crystal --------------------------------------------------------------------------------------------


def test_atoms_in_a_box_are_no_crystal() -> None:
    slab = fcc111("Cu", (1, 1, 4), vacuum=6.0, periodic=True)
    for atoms in (Atoms("Cu", cell=[8.0] * 3, pbc=True), water(), slab):
        assert not is_dense(atoms)
        crystal, why = find_crystal("", [frame(atoms)])
        assert crystal is None
        assert "without vacuum; give --crystal" in why
    assert is_dense(bulk("Si"))
    found, _ = find_crystal("", [frame(water(), -100.0), frame(bulk("Cu"))])
    assert found == bulk("Cu")


def test_energies_of_several_compositions_are_not_compared() -> None:
    salt = bulk("NaCl", "rocksalt", a=5.64)
    crystal, why = find_crystal(
        "", [frame(bulk("Cu"), -1.0), frame(salt, -9.0), frame(salt.repeat((2, 1, 1)))]
    )
    assert crystal is None
    assert "several compositions, whose energies cannot be compared (Cu, NaCl); give --crystal" in why


def test_an_element_that_ase_does_not_build_needs_no_crystal() -> None:
    boron = Atoms("B12", bulk("Cu", cubic=True).repeat((3, 1, 1)).positions, pbc=True)
    boron.set_cell(bulk("Cu", cubic=True).repeat((3, 1, 1)).cell)
    crystal, why = find_crystal("", [frame(boron, force=1.0)])
    assert crystal is None
    assert "ase.build.bulk does not build B; give --crystal" in why


def test_without_checks_of_crystals_none_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "train.compare.run.find_crystal", lambda given, frames: pytest.fail("it was looked for")
    )
    with pytest.raises(ValueError, match="no contestant could be made"):
        compare([frame(bulk("Cu"))], Request([], checks=["symmetry"]), lambda text: None)


# --- at rest --------------------------------------------------------------------------------------------------


def test_without_stress_the_atoms_come_to_rest_too(copper: Atoms) -> None:
    with pytest.raises(ValueError, match="shape"):
        relaxed(bulk("Cu", "hcp", a=2.5, c=4.1), Stressless())
    rattled = bulk("Cu", cubic=True)
    rattled.rattle(0.05, seed=1)
    one = relaxed(rattled, Stressless())
    one.calc = EMT()
    assert np.abs(one.get_forces()).max() < 1e-4
    assert one.cell.lengths() == pytest.approx(copper.cell.lengths(), abs=1e-3)


def test_a_crystal_that_ends_far_away_is_refused() -> None:
    far = bulk("Cu", cubic=True)
    far.set_cell(1.2 * far.cell, scale_atoms=True)
    with pytest.raises(ValueError, match="no minimum of this potential, or the start is too far"):
        relaxed(far, Stressless())


def test_forces_of_a_perfect_crystal_are_no_false_alarm_and_hide_no_fault(copper: Atoms) -> None:
    cell = copper.repeat((2, 1, 1))
    found = asked("conservation", EMT(), cell)
    assert worries("conservation", found) == []
    assert "at rest" in found["notes"][0]
    assert "not the slope" in " ".join(worries("conservation", asked("conservation", Halved(), cell)))
    assert worries("conservation", {"values": {"slope_error": 0.9, "slope_percent": 50.0}}) == []
    assert worries("conservation", {"values": {"slope_error": 1.1, "slope_percent": 50.0}})


# --- what numbers are called ----------------------------------------------------------------------------------


def test_a_lattice_constant_is_of_the_conventional_cell(copper: Atoms) -> None:
    for crystal in (relaxed(bulk("Cu"), EMT()), copper.repeat((2, 1, 1))):
        found = asked("eos", EMT(), crystal)
        assert found["values"]["a0"] == pytest.approx(copper.cell.lengths()[0], abs=1e-3)


def test_without_spglib_there_is_no_lattice_constant(monkeypatch: pytest.MonkeyPatch, copper: Atoms) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = asked("eos", EMT(), copper)
    assert "a0" not in found["values"]
    assert "B0" in found["values"]
    assert "equiv-potential[phonons]" in found["notes"][0]


def test_the_modulus_of_a_crystal_that_is_not_cubic() -> None:
    """Under pressure the shape gives way: Reuss, 1/sum S, which is what volumes at free shape give."""
    argon = LennardJones(rc=9.0, smooth=True, sigma=3.4, epsilon=0.0104)
    strange = relaxed(bulk("Ar", "hcp", a=3.75, c=6.3), argon)
    found = asked("eos", argon, strange)
    assert "B0" not in found["values"]
    assert found["values"]["B0_shape"] > 0
    elastic = asked("elastic", argon, strange)
    assert elastic["notes"] == ["no C11, C12, C44: the crystal is not cubic"]
    assert elastic["values"]["bulk_reuss"] <= elastic["values"]["bulk_modulus"]


def test_bulk_modulus_of_graphite() -> None:
    """Hexagonal: ((C11 + C12) C33 - 2 C13^2) / (C11 + C12 + 2 C33 - 4 C13); a tenth of the mean over equal strains."""
    c11, c12, c13, c33, c44 = 1060.0, 180.0, 15.0, 36.5, 4.5
    matrix = np.diag([c11, c11, c33, c44, c44, (c11 - c12) / 2])
    matrix[0, 1] = matrix[1, 0] = c12
    matrix[:2, 2] = matrix[2, :2] = c13
    known = ((c11 + c12) * c33 - 2 * c13**2) / (c11 + c12 + 2 * c33 - 4 * c13)
    assert under_pressure(matrix) == pytest.approx(known)
    assert known < 0.15 * matrix[:3, :3].mean()


def test_constants_of_a_turned_crystal_are_those_of_its_lattice(copper: Atoms) -> None:
    one = copper.copy()
    one.rotate(35, (1, 2, 3), rotate_cell=True)
    straight, other = (asked("elastic", EMT(), atoms)["values"] for atoms in (copper, one))
    for name in ("C11", "C12", "C44", "bulk_modulus", "bulk_reuss"):
        assert other[name] == pytest.approx(straight[name], rel=2e-3)


def test_a_turned_matrix_is_that_of_turned_stresses_and_strains() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(6, 6))
    matrix = matrix + matrix.T
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    strain = rng.normal(size=(3, 3))
    strain = strain + strain.T

    def stress(stiffness: np.ndarray, e: np.ndarray) -> np.ndarray:
        xx, yy, zz, yz, xz, xy = stiffness @ [
            e[0, 0],
            e[1, 1],
            e[2, 2],
            2 * e[1, 2],
            2 * e[0, 2],
            2 * e[0, 1],
        ]
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])

    there = stress(turned(matrix, turn), turn @ strain @ turn.T)
    assert turn.T @ there @ turn == pytest.approx(stress(matrix, strain))


def test_known_values_that_stand_beside_nothing_are_told() -> None:
    result = {"elastic": {"values": {"C11": 1.0}}}
    found = {"checks": {"a": result}, "settings": {"known": {"C11": 1.0, "vacancy": 1.2}}}
    assert words.skipped(found) == [
        "--known vacancy=1.2 stands beside nothing: no contestant has a value of it"
    ]


def test_vacancies_on_every_site_that_symmetry_tells_apart() -> None:
    """Graphite-like stacking gives two sites to one element: double hcp (ABAC) of argon."""
    argon = LennardJones(rc=7.0, smooth=True, sigma=3.4, epsilon=0.0104)
    a = 3.72
    h = a * (2 / 3) ** 0.5
    places = [(0, 0, 0), (1 / 3, 2 / 3, 0.25), (0, 0, 0.5), (2 / 3, 1 / 3, 0.75)]
    crystal = Atoms("Ar4", scaled_positions=places, cell=[[a, 0, 0], [-a / 2, a * 3**0.5 / 2, 0], [0, 0, 4 * h]],
                    pbc=True)  # fmt: skip
    found = asked("vacancy", argon, crystal)
    assert "the lowest of 2 sites" in found["notes"][0]
    numbers = [float(x) for x in re.findall(r"atom \d: ([\d.]+)", found["notes"][0])]
    assert len(set(numbers)) == 2
    assert found["values"]["vacancy"] == pytest.approx(min(numbers), rel=1e-3)
