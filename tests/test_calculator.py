"""EquivCalculator as ASE's users know calculators: properties, caching, mixing, relaxation, dynamics, refusals."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator
from ase.filters import ExpCellFilter, FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE

from potential import EquivCalculator, Potential, Statistics, build, from_atoms, predict, save

CONFIG = {
    "channels": 8,
    "message_channels": 4,
    "vector_channels": 4,
    "lmax": 2,
    "correlation": 2,
    "cutoff": 3.5,
}
STATISTICS = Statistics(("H", "C", "O"), (-13.61, -1029.3, -2041.8), scale=0.5, mean_neighbors=9.0)
ALL = ["energy", "free_energy", "energies", "forces", "stress"]
PBC = list(product([False, True], repeat=3))


def small(dtype: torch.dtype = torch.float64, seed: int = 1) -> Potential:
    return build(CONFIG, STATISTICS, seed=seed, dtype=dtype)


def acid() -> Atoms:
    atoms = molecule("CH3COOH")
    atoms.rattle(0.03, seed=2)
    return atoms


def diamond() -> Atoms:
    """Two elements, no symmetry, a sheared cell."""
    atoms = bulk("C", "diamond", a=3.6, cubic=True)
    atoms.symbols[[1, 6]] = "O"
    atoms.rattle(0.08, seed=4)
    atoms.set_cell(
        atoms.cell.array @ [[1.0, 0.04, 0.0], [0.0, 1.02, 0.03], [-0.05, 0.0, 0.97]], scale_atoms=True
    )
    return atoms


@pytest.fixture
def calc() -> EquivCalculator:
    return EquivCalculator(small())


# --- properties ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_property_with_its_shape(dtype: str) -> None:
    atoms = diamond()
    atoms.calc = EquivCalculator(small(), dtype=dtype)
    n = len(atoms)
    assert set(ALL) == set(EquivCalculator.implemented_properties)
    assert isinstance(atoms.get_potential_energy(), float)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    assert atoms.get_potential_energies().shape == (n,)
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy(), rel=1e-14)
    assert atoms.get_forces().shape == (n, 3)
    assert atoms.get_stress().shape == (6,)
    assert atoms.get_stress(voigt=False).shape == (3, 3)
    for value in atoms.calc.results.values():
        assert np.asarray(value).dtype == np.float64
        assert np.isfinite(value).all()
    assert set(atoms.calc.results) == set(ALL)


def test_results_are_those_of_predict(calc: EquivCalculator) -> None:
    atoms, model = diamond(), small()
    p = predict(model, from_atoms(atoms, model.cutoff))
    atoms.calc = calc
    assert atoms.get_potential_energy() == p.energy.item()
    assert np.array_equal(atoms.get_forces(), p.forces.numpy())
    assert np.array_equal(atoms.get_potential_energies(), p.node_energy.numpy())


def test_voigt_order_and_sign_of_the_stress(calc: EquivCalculator) -> None:
    """xx yy zz yz xz xy, each dE/d(strain)/volume: a compressed crystal has negative stress."""
    atoms = diamond()
    atoms.calc = calc
    stress, h = atoms.get_stress(), 1e-4
    assert len({round(x, 6) for x in stress}) == 6  # no two alike: an order can be wrong
    for k, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energies = []
        for sign in (1, -1):
            deformation = np.eye(3)
            deformation[a, b] += sign * h / 2
            deformation[b, a] += sign * h / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
            strained.calc = calc
            energies.append(strained.get_potential_energy())
        slope = (energies[0] - energies[1]) / (2 * h) / atoms.get_volume()
        assert slope == pytest.approx(stress[k], abs=1e-5 * np.abs(stress).max())


def test_forces_by_ase_finite_differences(calc: EquivCalculator) -> None:
    atoms = acid()
    atoms.calc = calc
    forces = atoms.get_forces()
    for i, a in [(0, 0), (3, 2), (7, 1)]:
        energies = []
        for step in (1e-4, -1e-4):
            moved = atoms.copy()
            moved.positions[i, a] += step
            moved.calc = calc
            energies.append(moved.get_potential_energy())
        assert (energies[1] - energies[0]) / 2e-4 == pytest.approx(
            forces[i, a], abs=1e-5 * np.abs(forces).max()
        )


def test_double_precision_is_equivariant_to_the_last_digits() -> None:
    """A model fitted in single precision, used in double: its constants are renewed, not merely widened."""
    calc = EquivCalculator(small(torch.float32), dtype="float64")
    q = -np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    atoms = diamond()
    turned = Atoms(atoms.numbers, atoms.positions @ q.T, cell=atoms.cell.array @ q.T, pbc=True)
    one, two = (calc.get_forces(a) for a in (atoms, turned))
    assert np.abs(two - one @ q.T).max() < 1e-12 * np.abs(one).max()


@pytest.mark.parametrize("dtype", [None, "float32", "float64"])
def test_precision_is_chosen_or_the_models_own(dtype: str | None) -> None:
    model = small(torch.float32)
    calc = EquivCalculator(model, dtype=dtype)
    assert calc.potential.dtype == getattr(torch, dtype or "float32")
    assert model.dtype == torch.float32


def test_two_precisions_do_not_interact() -> None:
    atoms, model = diamond(), small()
    alone = EquivCalculator(model, dtype="float64").get_forces(atoms)
    single, double = EquivCalculator(model, dtype="float32"), EquivCalculator(model, dtype="float64")
    mixed = [c.get_forces(atoms) for c in (single, double, single, double)]
    assert np.array_equal(mixed[1], alone)
    assert np.array_equal(mixed[3], alone)
    assert np.array_equal(mixed[0], mixed[2])
    error = np.abs(mixed[0] - alone).max() / np.abs(alone).max()
    assert 0 < error < 1e-5


# --- where the model comes from -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, Path])
def test_from_a_path_as_from_the_model(tmp_path: Path, kind: type) -> None:
    model, atoms = small(torch.float32), diamond()
    save(model, tmp_path / "model.safetensors")
    one, two = EquivCalculator(model), EquivCalculator(kind(tmp_path / "model.safetensors"))
    one.calculate(atoms)
    two.calculate(atoms)
    for name in ALL:
        assert np.array_equal(one.results[name], two.results[name])


def test_training_the_model_afterwards_changes_nothing_here() -> None:
    model, atoms = small(), acid()
    calc = EquivCalculator(model)
    before = calc.get_forces(atoms).copy()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.5)
    moved = atoms.copy()
    moved.positions += 0.0
    calc.reset()
    assert np.array_equal(calc.get_forces(moved), before)
    assert not np.allclose(EquivCalculator(model).get_forces(atoms), before)


def test_the_model_stays_trainable() -> None:
    model = small().train()
    EquivCalculator(model).get_forces(acid())
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


# --- structures of every kind -------------------------------------------------------------------------------


@pytest.mark.parametrize("pbc", PBC, ids=lambda p: "".join("FT"[b] for b in p))
def test_any_periodicity(calc: EquivCalculator, pbc: tuple[bool, bool, bool]) -> None:
    """Open directions as vacuum; stress only where there is a volume."""
    atoms = diamond()
    atoms.pbc = pbc
    atoms.calc = calc
    far = atoms.copy()
    far.set_cell(atoms.cell.array + np.where(pbc, 0.0, 30.0)[:, None] * open_directions(atoms))
    far.pbc = True
    far.calc = EquivCalculator(small())
    np.testing.assert_allclose(atoms.get_forces(), far.get_forces(), rtol=0, atol=1e-10)
    assert ("stress" in calc.results) == all(pbc)
    if not all(pbc):
        with pytest.raises(ValueError, match="periodic in all three directions"):
            atoms.get_stress()
        assert np.isfinite(atoms.get_forces()).all()  # and goes on afterwards


def open_directions(atoms: Atoms) -> np.ndarray:
    """Unit vectors perpendicular to the other two lattice vectors, along the own one."""
    dual = np.linalg.inv(atoms.cell.array).T
    return dual / np.linalg.norm(dual, axis=1, keepdims=True)


@pytest.mark.parametrize("element", ["H", "C", "O"])
def test_single_atom_with_and_without_images(calc: EquivCalculator, element: str) -> None:
    e0 = dict(zip(STATISTICS.elements, STATISTICS.e0, strict=True))[element]
    for atoms in (Atoms(element), Atoms(element, cell=[9.0, 9.0, 9.0], pbc=True)):
        atoms.calc = calc
        assert atoms.get_potential_energy() == e0
        assert not atoms.get_forces().any()
    assert not atoms.get_stress().any()
    dense = Atoms(element, cell=[[0, 1.4, 1.4], [1.4, 0, 1.4], [1.4, 1.4, 0]], pbc=True)
    dense.calc = calc
    assert abs(dense.get_potential_energy() - e0) > 1e-3
    np.testing.assert_allclose(dense.get_forces(), 0, atol=1e-10)
    np.testing.assert_allclose(dense.get_stress()[3:], 0, atol=1e-10)  # cubic
    assert np.ptp(dense.get_stress()[:3]) < 1e-10


def test_left_handed_cell_has_the_same_stress(calc: EquivCalculator) -> None:
    atoms = diamond()
    swapped = atoms.copy()
    swapped.set_cell(atoms.cell.array[[1, 0, 2]])
    assert swapped.cell.handedness == -1
    np.testing.assert_allclose(calc.get_stress(swapped), calc.get_stress(atoms), rtol=0, atol=1e-10)


# --- ASE's machinery ----------------------------------------------------------------------------------------


def test_sum_with_another_calculator(calc: EquivCalculator) -> None:
    other = LennardJones(sigma=1.2, epsilon=0.02, rc=3.0, smooth=True)
    atoms = diamond()
    atoms.calc = SumCalculator([calc, other])
    for name in ("energy", "forces", "stress"):
        total, parts = (
            atoms.calc.get_property(name, atoms),
            [c.get_property(name, atoms) for c in (EquivCalculator(small()), other)],
        )
        np.testing.assert_allclose(total, parts[0] + parts[1], rtol=1e-12, atol=1e-12)
        assert np.abs(parts[1]).max() > 1e-6


def test_sum_of_open_structures_leaves_the_stress_out(calc: EquivCalculator) -> None:
    atoms = acid()
    atoms.calc = SumCalculator([calc, EquivCalculator(small(seed=2))])
    assert atoms.get_forces().shape == (8, 3)
    assert atoms.get_potential_energy() < 0


CHANGES: dict[str, Callable[[Atoms], object]] = {
    "positions": lambda a: a.positions.__setitem__((0, 0), a.positions[0, 0] + 0.1),
    "cell": lambda a: a.set_cell(a.cell.array * 1.03),
    "numbers": lambda a: a.numbers.__setitem__(0, 8),
    "pbc": lambda a: a.set_pbc((True, True, False)),
    "one atom fewer": lambda a: a.pop(),
    "one atom more": lambda a: a.append("H") or a.positions.__setitem__(-1, (1.2, 0.3, 0.9)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_changes_is_calculated_again(calc: EquivCalculator, change: Callable[[Atoms], object]) -> None:
    atoms = diamond()
    atoms.calc = calc
    before, kept = atoms.get_potential_energy(), atoms.get_forces().copy()
    change(atoms)
    assert atoms.get_potential_energy() != before
    assert np.array_equal(atoms.get_forces(), EquivCalculator(small()).get_forces(atoms))
    assert len(atoms.get_forces()) == len(atoms)
    assert np.isfinite(kept).all()


def test_what_does_not_change_is_not_calculated_again(
    calc: EquivCalculator, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    calculate = EquivCalculator.calculate

    def counted(self: EquivCalculator, *args: object, **kwargs: object) -> None:
        calls.append(1)
        calculate(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(EquivCalculator, "calculate", counted)
    atoms = diamond()
    atoms.calc = calc
    for _ in range(2):
        atoms.get_potential_energy()
        atoms.get_forces()
        atoms.get_stress()
        atoms.get_potential_energies()
    atoms.info["note"] = "no matter"
    atoms.get_forces()
    assert len(calls) == 1


def test_results_are_the_users_own(calc: EquivCalculator) -> None:
    """Writing into what was returned changes neither the calculator nor the atoms."""
    atoms = diamond()
    atoms.calc = calc
    forces, positions = atoms.get_forces(), atoms.positions.copy()
    expected = forces.copy()
    forces[:] = 0
    assert np.array_equal(atoms.get_forces(), expected)
    assert np.array_equal(atoms.positions, positions)


def test_changing_atoms_after_a_calculation_leaves_the_results(calc: EquivCalculator) -> None:
    atoms = diamond()
    atoms.calc = calc
    energy = atoms.get_potential_energy()
    other = diamond()
    other.positions += 0.2 * np.arange(len(other))[:, None]
    calc.get_forces(other)
    assert atoms.get_potential_energy() == energy


def test_deepcopy_and_read_back(calc: EquivCalculator, tmp_path: Path) -> None:
    atoms = diamond()
    atoms.calc = calc
    atoms.get_stress()
    path = tmp_path / "out.extxyz"
    atoms.write(path)
    from ase.io import read

    back = read(path)
    assert back.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    np.testing.assert_allclose(back.get_forces(), atoms.get_forces(), atol=1e-6)
    np.testing.assert_allclose(back.get_stress(), atoms.get_stress(), atol=1e-6)


@pytest.mark.parametrize("optimizer", [BFGS, FIRE])
def test_optimizers(calc: EquivCalculator, optimizer: type) -> None:
    atoms = acid()
    atoms.calc = calc
    before = atoms.get_potential_energy()
    with optimizer(atoms, logfile=None, maxstep=0.02) as run:
        run.run(fmax=0.0, steps=5)
    assert atoms.get_potential_energy() < before


@pytest.mark.parametrize("cell_filter", [ExpCellFilter, FrechetCellFilter])
@pytest.mark.filterwarnings("ignore:Use FrechetCellFilter:DeprecationWarning")
def test_cell_filters(calc: EquivCalculator, cell_filter: type) -> None:
    atoms = diamond()
    atoms.calc = calc
    before, cell = atoms.get_potential_energy(), atoms.cell.array.copy()
    with FIRE(cell_filter(atoms), logfile=None, maxstep=0.01) as run:
        run.run(fmax=0.0, steps=4)
    assert atoms.get_potential_energy() < before
    assert not np.allclose(atoms.cell.array, cell)


@pytest.mark.parametrize("make", [acid, diamond])
def test_dynamics_conserves_energy(calc: EquivCalculator, make: Callable[[], Atoms]) -> None:
    """Halving the time step divides the error by four, as it must when forces are the slope of the energy."""
    spread, exchanged = [], []
    for step in (0.2, 0.1):
        atoms = make()
        atoms.calc = calc
        atoms.set_velocities(np.random.default_rng(1).normal(scale=0.01, size=(len(atoms), 3)))
        total, kinetic = [atoms.get_total_energy()], [atoms.get_kinetic_energy()]
        with VelocityVerlet(atoms, timestep=step * units.fs) as run:
            for _ in range(round(4.0 / step)):
                run.run(1)
                total.append(atoms.get_total_energy())
                kinetic.append(atoms.get_kinetic_energy())
        spread.append(float(np.ptp(total)))
        exchanged.append(float(np.ptp(kinetic)))
    assert 3.5 < spread[0] / spread[1] < 4.5
    assert spread[1] < 2e-3 * exchanged[1]


# --- the world is left as it was ----------------------------------------------------------------------------


def world() -> tuple[object, ...]:
    return (
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch.get_rng_state().tolist(),
        torch.are_deterministic_algorithms_enabled(),
        str(torch.get_default_device()),
        str(np.random.get_state()),  # noqa: NPY002 - it is the legacy state that must not change
        random.getstate(),
        dict(os.environ),
        np.geterr(),
        os.getcwd(),
    )


@pytest.fixture
def unusual() -> Iterator[None]:
    """A user's own settings, all different from the defaults."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_global_state_is_untouched(tmp_path: Path, dtype: str) -> None:
    model = small()
    save(model, tmp_path / "model.safetensors")
    before = world()
    atoms = diamond()
    atoms.calc = EquivCalculator(tmp_path / "model.safetensors", dtype=dtype)
    atoms.get_stress()
    with pytest.raises(ValueError, match="Au"):
        atoms.calc.get_forces(Atoms("Au"))
    assert world() == before


def test_default_dtype_of_the_user_does_not_matter(unusual: None) -> None:
    atoms = diamond()
    torch.set_default_dtype(torch.float32)
    expected = EquivCalculator(small(), dtype="float32").get_forces(atoms)
    torch.set_default_dtype(torch.float64)
    assert np.array_equal(EquivCalculator(small(), dtype="float32").get_forces(atoms), expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_forces_whatever_the_grad_mode(calc: EquivCalculator, mode: Callable[[], torch.no_grad]) -> None:
    expected = EquivCalculator(small()).get_forces(acid())
    with mode():
        before = torch.is_grad_enabled()
        assert np.array_equal(calc.get_forces(acid()), expected)
        assert torch.is_grad_enabled() == before


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pbc", [False, True])
@pytest.mark.parametrize("formula", ["Au", "CAuH", "XH"])
def test_unknown_elements_are_named_with_the_known_ones(
    calc: EquivCalculator, formula: str, pbc: bool
) -> None:
    atoms = Atoms(formula, np.arange(len(Atoms(formula)))[:, None] * [1.1, 0.1, 0.0], cell=[8, 8, 8], pbc=pbc)
    with pytest.raises(ValueError, match=r"H, C, O") as caught:
        calc.get_potential_energy(atoms)
    assert ("X" if "X" in formula else "Au") in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("pbc", [False, True])
def test_positions_that_are_no_numbers(calc: EquivCalculator, value: float, pbc: bool) -> None:
    atoms = diamond()
    atoms.pbc = pbc
    atoms.positions[2, 1] = value
    with pytest.raises(ValueError, match=r"atom 2 .*finite"):
        calc.get_potential_energy(atoms)


def test_a_refusal_leaves_no_old_results(calc: EquivCalculator) -> None:
    """A loop that swallows the error must not go on with the forces of the step before."""
    atoms = diamond()
    atoms.calc = calc
    atoms.get_forces()
    atoms.positions[0] = np.nan
    for _ in range(2):
        with pytest.raises(ValueError, match="finite"):
            atoms.get_forces()
    assert calc.results == {}
    calc.calculate(diamond())
    with pytest.raises(ValueError, match="finite"):
        calc.calculate(atoms)
    assert calc.results == {}


def test_stress_of_a_slab_and_of_a_molecule(calc: EquivCalculator) -> None:
    slab = diamond()
    slab.pbc = (True, True, False)
    for atoms in (slab, acid()):
        atoms.calc = calc
        with pytest.raises(ValueError, match="periodic in all three directions"):
            atoms.get_stress()


def test_other_refusals(calc: EquivCalculator) -> None:
    with pytest.raises(ValueError, match="no atoms"):
        calc.get_potential_energy(Atoms())
    with pytest.raises(ValueError, match="apart"):
        calc.get_potential_energy(Atoms("HH", np.zeros((2, 3))))
    with pytest.raises(ValueError, match="no volume"):
        calc.get_potential_energy(Atoms("H", pbc=True))
    with pytest.raises(PropertyNotImplementedError):
        calc.get_property("magmom", acid())


def test_no_atoms_object_at_all(calc: EquivCalculator) -> None:
    with pytest.raises(ValueError, match="no atoms"):
        calc.calculate()


@pytest.mark.parametrize("dtype", ["float16", "double", torch.float64, 64])
def test_unknown_precision(dtype: object) -> None:
    with pytest.raises(ValueError, match="'float32' or 'float64'"):
        EquivCalculator(small(), dtype=dtype)  # type: ignore[arg-type]


def test_missing_file_is_named() -> None:
    with pytest.raises(ValueError, match=re.escape("nowhere.safetensors")):
        EquivCalculator("nowhere.safetensors")


@pytest.mark.parametrize("model", [None, 3, {"a": 1}, torch.nn.Linear(2, 2)])
def test_neither_model_nor_path(model: object) -> None:
    with pytest.raises((TypeError, ValueError), match="Potential"):
        EquivCalculator(model)  # type: ignore[arg-type]
