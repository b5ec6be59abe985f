"""Laws of nature that every network obeys, in both precisions, on random molecules and crystals.

Each law compares two predictions that must be equal. Their largest difference is divided by a scale: per-atom
energies by the RMS of (energy - e0) in the structure, or by the potential's unit of energy if that is more; total
energies by that times the number of atoms; forces, stress and virial by the largest |component| expected, forces of
crystals whose edges cancel to less than a tenth (egnn, dense3: to 1/34) by a tenth of what they pull at an atom. The
quotient is at most 1e-8 in float64 and 1e-5 in float32.
`pytest --junitxml=FILE` writes the quotients down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import make_supercell, molecule
from ase.neighborlist import neighbor_list

from potential import Graph, Potential, Statistics, build, collate, from_atoms, predict
from potential.model import recast
from potential.networks import NETWORKS
from potential.physics import assemble, edge_gradient, stress

ELEMENTS = {
    "H": -13.59,
    "C": -1029.26,
    "O": -2041.84,
    "Si": -7872.51,
}  # as large as all-electron energies are
CUTOFF = 4.0
BOUND = {"float64": 1e-8, "float32": 1e-5}
# Dials that make a network quick to test; one without an entry is tested with its defaults.
SMALL = {
    "equivariant": {"channels": 16, "message_channels": 8, "vector_channels": 8},
    "allegro": {"channels": 8, "tensor_channels": 4, "n_radial": 4},
    "egnn": {"channels": 12, "n_layers": 2},
    "l1net": {"channels": 8, "n_layers": 2, "n_radial": 4, "radial_width": 8},
    "mace": {"channels": 4, "n_radial": 4, "radial_width": 8},
    "nequip": {"channels": 4, "lmax": 1, "n_radial": 4, "radial_width": 8},
    "painn": {"channels": 8, "n_layers": 2, "n_radial": 6},
    "ace": {"functions": 100},
    "schnet": {"channels": 8, "n_layers": 2, "n_radial": 6},
}
# lmax, hidden_lmax, correlation, n_layers of the flagship: every value of each at least once
FLAGSHIP = [
    (1, 0, 1, 1),
    (1, 1, 3, 2),
    (2, 0, 2, 3),
    (2, 1, 4, 2),
    (2, 2, 3, 2),
    (3, 0, 4, 1),
    (3, 2, 1, 4),
    (3, 3, 3, 2),
    (4, 2, 3, 2),
    (5, 1, 2, 1),
    (6, 2, 1, 2),
]
NAMES = ("lmax", "hidden_lmax", "correlation", "n_layers")
DIALS: list[tuple[str, dict[str, int]]] = [
    *(("equivariant", dict(zip(NAMES, dials, strict=True))) for dials in FLAGSHIP),
    ("ace", {"correlation": 1, "functions": 20}),
    ("ace", {"correlation": 4, "functions": 300, "lmax": 3}),
    ("allegro", {"lmax": 0, "n_layers": 1}),
    ("allegro", {"lmax": 1, "lmax_out": 1, "n_layers": 3}),
    ("allegro", {"lmax": 3, "parity": 0, "lmax_out": 2}),
    ("egnn", {"n_layers": 4}),
    ("l1net", {"n_layers": 1}),
    ("l1net", {"n_layers": 3, "lmax_out": 1}),
    ("mace", {"lmax": 1, "hidden_lmax": 0, "correlation": 4}),
    ("mace", {"lmax": 2, "hidden_lmax": 2, "correlation": 1, "lmax_out": 1, "n_layers": 3}),
    ("mace", {"lmax": 3, "hidden_lmax": 1, "correlation": 3, "n_layers": 1}),
    ("nequip", {"lmax": 0, "n_layers": 2}),
    ("nequip", {"lmax": 2, "parity": 0, "lmax_out": 1}),
    ("nequip", {"lmax": 3, "n_layers": 3}),
    ("painn", {"n_layers": 4}),
    ("schnet", {"n_layers": 1}),
]
SEEDS = range(4)
Within = Callable[[float], None]
Array = np.ndarray


@dataclass(frozen=True)
class Outcome:
    """What a potential says of one structure."""

    energy: float
    energies: Array
    forces: Array
    virial: Array
    stress: Array | None  # None unless periodic in all directions
    pull: float  # largest |component| of the forces, or a tenth of the sum of |dE/dr_ij| over an atom's edges
    interaction: float  # RMS of energy - e0 over the atoms, at least the potential's unit of energy


# --- potentials and structures ------------------------------------------------------------------------------


@cache
def potential(network: str, dtype: str, dials: tuple[tuple[str, int], ...] = ()) -> Potential:
    config = {"network": network, "cutoff": CUTOFF, **SMALL.get(network, {}), **dict(dials)}
    statistics = Statistics(tuple(ELEMENTS), tuple(ELEMENTS.values()), scale=1.7, mean_neighbors=14.0)
    return build(config, statistics, seed=5, dtype=getattr(torch, dtype)).requires_grad_(False)


def outcome(model: Potential, atoms: Atoms) -> Outcome:
    graph = from_atoms(atoms, CUTOFF)
    edges = edge_gradient(model, graph)
    p = assemble(graph, *edges[:3])
    relative = p.node_energy.detach().numpy() - [ELEMENTS[s] for s in atoms.symbols]
    pulls = torch.zeros(len(atoms)).index_add(0, graph.center, edges[2].norm(dim=1).float())
    return Outcome(
        energy=p.energy.item(),
        energies=p.node_energy.detach().numpy(),
        forces=p.forces.numpy(),
        virial=p.virial[0].numpy(),
        stress=stress(p.virial, graph.cell, graph.pbc)[0].numpy() if atoms.pbc.all() else None,
        pull=max(p.forces.abs().max().item(), 0.1 * pulls.max().item()),
        interaction=max(float(np.sqrt(np.mean(relative**2))), model.statistics.scale),
    )


def scatter(rng: np.random.Generator, atoms: Atoms, n_atoms: int, closest: float = 1.1) -> Atoms:
    """Random atoms in the cell, one by one, none nearer to another or to an image than `closest`."""
    images = np.array(list(product(*(range(-2 * p, 2 * p + 1) for p in atoms.pbc)))) @ atoms.cell.array
    own = np.linalg.norm(images, axis=1)
    assert own[own > 0].min(initial=np.inf) > closest
    while len(atoms) < n_atoms:
        new = Atoms([str(rng.choice(list(ELEMENTS)))], [rng.uniform(size=3) @ atoms.cell.array])
        apart = np.linalg.norm(atoms.positions - new.positions - images[:, None], axis=-1)
        if apart.min(initial=np.inf) > closest:
            atoms = atoms + new
    assert not len(neighbor_list("i", atoms, closest))
    return atoms


def triclinic(rng: np.random.Generator, lengths: tuple[float, float, float]) -> Array:
    return np.diag(lengths) + rng.uniform(-0.25, 0.25, (3, 3)) * min(lengths)


def ethanol(rng: np.random.Generator) -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.positions += rng.normal(scale=0.05, size=(len(atoms), 3))
    return atoms


def cluster(rng: np.random.Generator) -> Atoms:
    atoms = scatter(rng, Atoms(cell=np.eye(3) * 5.5), 14)
    atoms.cell = None
    return atoms


def crystal(rng: np.random.Generator) -> Atoms:
    return scatter(rng, Atoms(cell=triclinic(rng, (4.6, 5.2, 6.1)), pbc=True), 9)


def dense(rng: np.random.Generator) -> Atoms:
    """A crystal whose atoms have several images of each other within the cutoff."""
    return scatter(rng, Atoms(cell=triclinic(rng, (2.4, 2.6, 3.1)), pbc=True), 2)


def slab(rng: np.random.Generator) -> Atoms:
    return scatter(rng, Atoms(cell=triclinic(rng, (4.0, 4.4, 5.0)), pbc=(True, True, False)), 7)


KINDS = (ethanol, cluster, crystal, dense, slab)


def cases(*kinds: Callable[..., Atoms]) -> list[Any]:
    """Structures for each network: every seed for the flagship, two for the others."""
    found = [(n, kind, seed) for n in NETWORKS for kind in kinds for seed in SEEDS]
    few = [case for case in found if case[0] == "equivariant" or case[2] < 2]
    return [pytest.param(*case, id=f"{case[0]}-{case[1].__name__}{case[2]}") for case in few]


STRUCTURES, CRYSTALS = cases(*KINDS), cases(crystal, dense)


@pytest.fixture(params=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(BOUND))
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(network: str, dtype: str) -> Potential:
    return potential(network, dtype)


@pytest.fixture
def within(request: pytest.FixtureRequest) -> Iterator[Within]:
    """Assert that a relative error stays within the bound of the precision, and write it down."""
    dtype = request.getfixturevalue("dtype") if "dtype" in request.fixturenames else "float64"
    worst = [0.0]

    def check(error: float) -> None:
        worst[0] = max(worst[0], error) if np.isfinite(error) else np.inf
        assert error <= BOUND[dtype], f"relative error {error:.1e}, allowed {BOUND[dtype]:.0e} in {dtype}"

    yield check
    request.node.user_properties.append(("relative_error", float(worst[0])))


def relative(got: Array, expected: Array) -> float:
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def compare(got: Outcome, expected: Outcome, within: Within, stresses: bool = True) -> None:
    """Everything that two descriptions of the same atoms, in the same order, must agree on."""
    n = len(expected.energies)
    within(float(np.abs(got.energies - expected.energies).max()) / expected.interaction)
    within(abs(got.energy - expected.energy) / (n * expected.interaction))
    within(float(np.abs(got.forces - expected.forces).max()) / expected.pull)
    if stresses and got.stress is not None and expected.stress is not None:
        within(relative(got.stress, expected.stress))


def orthogonal(rng: np.random.Generator, improper: bool) -> Array:
    q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return q if (np.linalg.det(q) < 0) == improper else -q


def turned(atoms: Atoms, q: Array) -> Atoms:
    return Atoms(atoms.numbers, atoms.positions @ q.T, cell=atoms.cell.array @ q.T, pbc=atoms.pbc)


def check_turning(model: Potential, atoms: Atoms, q: Array, within: Within) -> None:
    one, two = outcome(model, atoms), outcome(model, turned(atoms, q))
    rotated = None if one.stress is None else q @ one.stress @ q.T
    expected = replace(one, forces=one.forces @ q.T, virial=q @ one.virial @ q.T, stress=rotated)
    compare(two, expected, within)
    within(relative(two.virial, expected.virial))


def test_structures_are_hard_enough() -> None:
    """The laws below are not satisfied by emptiness: neighbors, several elements, forces of every atom."""
    for kind, seed in product(KINDS, SEEDS):
        atoms = kind(np.random.default_rng(seed))
        graph = from_atoms(atoms, CUTOFF)
        assert len(set(atoms.symbols)) >= 2 - (kind is dense)
        assert torch.bincount(graph.center, minlength=len(atoms)).min() >= 3
        said = outcome(potential("equivariant", "float64"), atoms)
        assert np.linalg.norm(said.forces, axis=1).min() > 1e-3 * np.abs(said.forces).max()
        assert np.abs(said.energies - [ELEMENTS[s] for s in atoms.symbols]).min() > 1e-4


# --- symmetries ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("improper", [False, True], ids=["proper", "improper"])
@pytest.mark.parametrize(("network", "kind", "seed"), STRUCTURES)
def test_rotation(
    model: Potential, kind: Callable[..., Atoms], seed: int, improper: bool, within: Within
) -> None:
    rng = np.random.default_rng(seed)
    check_turning(model, kind(rng), orthogonal(rng, improper), within)


@pytest.mark.parametrize(("of", "dials"), DIALS, ids=str)
def test_rotation_at_every_dial(dtype: str, of: str, dials: dict[str, int], within: Within) -> None:
    model = potential(of, dtype, tuple(dials.items()))
    for kind in (ethanol, crystal):
        rng = np.random.default_rng(2)
        check_turning(model, kind(rng), orthogonal(rng, improper=True), within)


@pytest.mark.parametrize(("of", "dials"), DIALS, ids=str)
def test_a_single_precision_model_is_exact_in_double(of: str, dials: dict[str, int], within: Within) -> None:
    """`recast` renews the constants (couplings, quadrature) that float32 had rounded."""
    rng = np.random.default_rng(3)
    model = recast(potential(of, "float32", tuple(dials.items())), torch.float64)
    check_turning(model, crystal(rng), orthogonal(rng, improper=True), within)


@pytest.mark.parametrize(("network", "kind", "seed"), STRUCTURES)
def test_translation(model: Potential, kind: Callable[..., Atoms], seed: int, within: Within) -> None:
    rng = np.random.default_rng(seed)
    atoms = kind(rng)
    moved = atoms.copy()
    moved.positions += rng.uniform(-30, 30, 3)
    compare(outcome(model, moved), outcome(model, atoms), within)


@pytest.mark.parametrize(("network", "kind", "seed"), STRUCTURES)
def test_permutation(model: Potential, kind: Callable[..., Atoms], seed: int, within: Within) -> None:
    rng = np.random.default_rng(seed)
    atoms = kind(rng)
    order = rng.permutation(len(atoms))
    one, two = outcome(model, atoms), outcome(model, atoms[order])
    expected = replace(one, energies=one.energies[order], forces=one.forces[order])
    compare(two, expected, within)


# --- sums ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("network", "kind", "seed"), STRUCTURES)
def test_sums(model: Potential, kind: Callable[..., Atoms], seed: int, within: Within) -> None:
    """Energy is the sum of the atoms', nothing pulls at the whole, and nothing turns it."""
    p = outcome(model, kind(np.random.default_rng(seed)))
    within(abs(p.energies.sum() - p.energy) / (len(p.energies) * p.interaction))
    within(float(np.abs(p.forces.sum(axis=0)).max() / np.abs(p.forces).max()))
    within(relative(p.virial.T, p.virial))


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_distant_clusters_add_up(model: Potential, seed: int, periodic: bool, within: Within) -> None:
    rng = np.random.default_rng(seed)
    one, two = ethanol(rng), cluster(rng)
    two.positions += (30.0, -7.0, 4.0)
    both = one + two
    if periodic:
        both.cell, both.pbc = np.diag([60.0, 50.0, 40.0]), True
    a, b = outcome(model, one), outcome(model, two)
    forces = np.concatenate([a.forces, b.forces])
    energies = np.concatenate([a.energies, b.energies])
    pull, interaction = max(a.pull, b.pull), min(a.interaction, b.interaction)
    whole = Outcome(a.energy + b.energy, energies, forces, a.virial + b.virial, None, pull, interaction)
    compare(outcome(model, both), whole, within)


@pytest.mark.parametrize("pbc", [False, True])
@pytest.mark.parametrize("element", list(ELEMENTS))
def test_isolated_atom_has_exactly_its_e0(model: Potential, element: str, pbc: bool) -> None:
    p = outcome(model, Atoms(element, [[1.0, 2.0, 3.0]], cell=np.eye(3) * 12.0, pbc=pbc))
    assert p.energy == ELEMENTS[element]
    assert not p.forces.any()
    assert not p.virial.any()


@pytest.mark.parametrize("pbc", [False, True])
def test_several_isolated_atoms_have_exactly_their_e0(model: Potential, pbc: bool) -> None:
    """Also beside a molecule, where the batched products of matrices have other shapes."""
    cell = np.diag([80.0, 20.0, 20.0])
    atoms = Atoms("HCOSiOH", [[8.0 * k, 1.0, 2.0] for k in range(6)], cell=cell, pbc=pbc)
    assert outcome(model, atoms).energies.tolist() == [ELEMENTS[s] for s in atoms.symbols]
    guest = ethanol(np.random.default_rng(0))
    guest.translate((60.0, 8.0, 8.0))
    p = outcome(model, atoms + guest)
    assert p.energies[: len(atoms)].tolist() == [ELEMENTS[s] for s in atoms.symbols]
    assert not p.forces[: len(atoms)].any()
    assert np.abs(p.energies[len(atoms) :] - [ELEMENTS[s] for s in guest.symbols]).min() > 1e-3


def test_batch_equals_single(model: Potential, within: Within) -> None:
    structures = [kind(np.random.default_rng(seed)) for seed in SEEDS for kind in KINDS]
    structures.insert(3, Atoms("O"))
    together = predict(model, collate([from_atoms(atoms, CUTOFF) for atoms in structures]))
    start = 0
    for k, atoms in enumerate(structures):
        rows, alone = slice(start, start + len(atoms)), outcome(model, atoms)
        start += len(atoms)
        if len(atoms) == 1:
            assert together.energy[k].item() == alone.energy
            continue
        within(float(np.abs(together.node_energy[rows].numpy() - alone.energies).max()) / alone.interaction)
        within(abs(together.energy[k].item() - alone.energy) / (len(atoms) * alone.interaction))
        within(float(np.abs(together.forces[rows].numpy() - alone.forces).max()) / alone.pull)
        within(relative(together.virial[k].numpy(), alone.virial))


# --- derivatives --------------------------------------------------------------------------------------------

# Central differences of 8th order, without the large e0 and its rounding. The third derivative of the energy jumps
# where a pair crosses the cutoff, so steps are small.
STENCIL = ((1, 4 / 5), (2, -1 / 5), (3, 4 / 105), (4, -1 / 280))
STEP = 0.001  # Å, or 1 for a derivative by a number


def energies_of(model: Potential, structures: list[Atoms]) -> Array:
    """Without e0."""
    model = recast(model, model.dtype)
    model.statistics = replace(model.statistics, e0=(0.0,) * len(ELEMENTS))
    graphs: list[Graph] = [from_atoms(atoms, CUTOFF) for atoms in structures]
    return predict(model, collate(graphs)).energy.numpy()


def derivative(values: Array) -> Array:
    """From values at +1, -1, +2, -2, ... steps along the last axis."""
    weights = [c for _, c in STENCIL]
    return (values[..., 0::2] - values[..., 1::2]) @ np.array(weights) / STEP


def shifts() -> list[float]:
    return [sign * k * STEP for k, _ in STENCIL for sign in (1, -1)]


@pytest.mark.parametrize("kind", KINDS)
def test_forces_are_the_slope_of_the_energy(network: str, kind: Callable[..., Atoms], within: Within) -> None:
    model, atoms = potential(network, "float64"), kind(np.random.default_rng(4))
    moved = []
    for i, a, step in product(range(min(len(atoms), 5)), range(3), shifts()):
        moved.append(atoms.copy())
        moved[-1].positions[i, a] += step
    slope = derivative(energies_of(model, moved).reshape(-1, 3, len(shifts())))
    forces = outcome(model, atoms).forces
    within(float(np.abs(slope + forces[: len(slope)]).max() / np.abs(forces).max()))


@pytest.mark.parametrize(("network", "kind", "seed"), CRYSTALS)
def test_stress_is_the_slope_of_the_energy_with_strain(
    network: str, kind: Callable[..., Atoms], seed: int, within: Within
) -> None:
    """stress_ab = dE/d strain_ab / volume: positive when the crystal pulls inward, as in ASE."""
    model, atoms = potential(network, "float64"), kind(np.random.default_rng(seed))
    strained = []
    for a, b, step in product(range(3), range(3), shifts()):
        deformation = np.eye(3)
        deformation[a, b] += 0.1 * step / 2
        deformation[b, a] += 0.1 * step / 2
        strained.append(atoms.copy())
        strained[-1].set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    slope = derivative(energies_of(model, strained).reshape(3, 3, len(shifts()))) / 0.1 / atoms.get_volume()
    expected = outcome(model, atoms).stress
    assert expected is not None
    within(relative(slope, expected))


@pytest.mark.parametrize(("network", "kind", "seed"), STRUCTURES)
def test_float32_says_what_float64_says(network: str, kind: Callable[..., Atoms], seed: int) -> None:
    """Ties single precision, too coarse for differences, to the forces and stress whose slopes are tested above.

    Virial and stress are held to 1e-6 of the sum of |r_ij| |dE/dr_ij|, as rounding goes with the terms: where they
    cancel most (dense1 of the flagship, to 1/38) the virial differs by 1.2e-5 of itself but 3e-7 of its terms.
    Others get 3e-6: fast radial functions, which the flagship damps, feel the rounding of r (painn, dense3: 1.6e-6).
    """
    of_terms = 1e-6 if network == "equivariant" else 3e-6
    single, bound = potential(network, "float32"), BOUND["float32"]
    double, atoms = recast(single, torch.float64), kind(np.random.default_rng(seed))
    got, expected = outcome(single, atoms), outcome(double, atoms)

    def check(error: float) -> None:
        assert error <= bound, f"relative error {error:.1e}, allowed {bound:.0e}"

    compare(got, expected, check, stresses=False)
    _, vectors, gradient, _ = edge_gradient(double, from_atoms(atoms, CUTOFF))
    terms = (vectors.detach().norm(dim=1) * gradient.detach().norm(dim=1)).sum().item()
    assert np.abs(got.virial - expected.virial).max() <= of_terms * terms
    if got.stress is not None and expected.stress is not None:
        assert np.abs(got.stress - expected.stress).max() * atoms.get_volume() <= of_terms * terms


@pytest.mark.parametrize("kind", [ethanol, crystal])
def test_gradient_of_a_force_loss(network: str, kind: Callable[..., Atoms], within: Within) -> None:
    """What fitting needs: d/d(weights) of a function of forces and virial, against central differences."""
    model = recast(potential(network, "float64"), torch.float64)
    graph = from_atoms(kind(np.random.default_rng(6)), CUTOFF)

    def loss(create_graph: bool) -> torch.Tensor:
        p = predict(model, graph, create_graph=create_graph)
        return p.forces.square().mean() + p.virial.square().mean() + p.energy.sum() * 1e-3

    loss(create_graph=True).backward()
    weights = [p for p in model.parameters() if p.requires_grad]
    gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    assert all(bool(torch.isfinite(g).all()) for g in gradients)
    assert sum(bool(g.any()) for g in gradients) >= len(weights) - 1
    size = float(torch.sqrt(sum((g.square().sum() for g in gradients), torch.tensor(0.0))))
    generator = torch.Generator().manual_seed(0)
    start = [w.detach().clone() for w in weights]
    for _ in range(3):
        direction = [torch.randn(w.shape, generator=generator, dtype=torch.float64) for w in weights]
        values = []
        for step in shifts():
            with torch.no_grad():
                for w, s, d in zip(weights, start, direction, strict=True):
                    w.copy_(s + 0.05 * step * d)
            values.append(loss(create_graph=False).item())
        slope = derivative(np.array(values)) / 0.05
        expected = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
        within(abs(slope - expected) / size)


# --- smoothness ---------------------------------------------------------------------------------------------


def approach(distance: float) -> Atoms:
    """A cluster and one atom on a line: `distance` from the nearest atom, all others beyond the cutoff."""
    tail = [(-1.1, 0.3, 0.2), (-1.7, -0.9, 0.4), (-0.9, 0.1, -1.2)]
    return Atoms("OCHHSi", [(0.0, 0.0, 0.0), *tail, (distance, 0.0, 0.0)])


def check_arrival(model: Potential, within: Within) -> None:
    """Beyond the cutoff an atom is alone; energy and forces grow from nothing as it comes in."""
    outside, edge = outcome(model, approach(CUTOFF + 1e-6)), outcome(model, approach(CUTOFF - 1e-6))
    assert outside.energies[-1] == ELEMENTS["Si"]
    assert not outside.forces[-1].any()
    compare(edge, outside, within)
    pull = [np.abs(outcome(model, approach(CUTOFF - d)).forces[-1]).max() for d in (0.2, 0.1, 0.05)]
    assert pull[0] > 0
    # Any jump would leave the ratio near 1; a force that is merely continuous halves.
    assert pull[1] < 0.65 * pull[0]
    assert pull[2] < 0.65 * pull[1]


def test_an_atom_arrives_smoothly(model: Potential, within: Within) -> None:
    check_arrival(model, within)


@pytest.mark.parametrize(("of", "dials"), DIALS, ids=str)
def test_an_atom_arrives_smoothly_at_every_dial(
    dtype: str, of: str, dials: dict[str, int], within: Within
) -> None:
    check_arrival(potential(of, dtype, tuple(dials.items())), within)


@pytest.mark.parametrize("kind", [cluster, crystal])
def test_smooth_through_the_cutoff_within_a_structure(
    network: str, kind: Callable[..., Atoms], within: Within
) -> None:
    """A pair inside a structure crosses the cutoff: the energy follows the force, and the force is continuous.

    The pair is the one nearest to the cutoff; its second atom moves along the line of both.
    """
    model, atoms = potential(network, "float64"), kind(np.random.default_rng(7))
    i, j, r, r_ij = neighbor_list("ijdD", atoms, CUTOFF + 0.3)
    i, j, r, r_ij = (x[i != j] for x in (i, j, r, r_ij))
    e = int(np.abs(r - CUTOFF).argmin())
    line = r_ij[e] / r[e]

    def at(offset: float) -> Outcome:
        moved = atoms.copy()
        moved.positions[j[e]] += (CUTOFF + offset - r[e]) * line
        return outcome(model, moved)

    delta = 1e-6
    before, after = at(-delta), at(delta)
    mean_force = (before.forces[j[e]] + after.forces[j[e]]) @ line / 2
    within(abs(after.energy - before.energy + 2 * delta * mean_force) / before.interaction)
    # Forces: the step across the cutoff is no larger than steps beside it, up to the curvature over 1e-3 Å.
    across = np.abs(after.forces - before.forces).max()
    beside = max(np.abs(at(o + delta).forces - at(o - delta).forces).max() for o in (-1e-3, 1e-3))
    assert across < 1.1 * beside


# --- periodic boundaries ------------------------------------------------------------------------------------


def repeated(p: Outcome, n: int) -> Outcome:
    energies, forces = np.tile(p.energies, n), np.tile(p.forces, (n, 1))
    return replace(p, energy=n * p.energy, energies=energies, forces=forces, virial=n * p.virial)


@pytest.mark.parametrize("times", [(2, 1, 1), (2, 2, 2)], ids=["2x1x1", "2x2x2"])
@pytest.mark.parametrize(("network", "kind", "seed"), CRYSTALS)
def test_supercell_is_n_cells(
    model: Potential, kind: Callable[..., Atoms], seed: int, times: tuple[int, int, int], within: Within
) -> None:
    atoms = kind(np.random.default_rng(seed))
    compare(outcome(model, atoms.repeat(times)), repeated(outcome(model, atoms), int(np.prod(times))), within)


@pytest.mark.parametrize("lengths", [(2.0, 2.2, 2.5), (1.6, 4.5, 5.0), (1.6, 1.8, 9.0)], ids=str)
def test_cell_smaller_than_the_cutoff(
    model: Potential, lengths: tuple[float, float, float], within: Within
) -> None:
    """Small, thin and needle-like cells against a supercell with every height beyond twice the cutoff."""
    rng = np.random.default_rng(8)
    cell = np.diag(lengths) + rng.uniform(-0.1, 0.1, (3, 3))
    atoms = scatter(rng, Atoms(cell=cell, pbc=True), 2 if max(lengths) < CUTOFF else 5)
    times = tuple(int(np.ceil(2.3 * CUTOFF / x)) for x in lengths)
    big = atoms.repeat(times)
    heights = 1 / np.linalg.norm(np.linalg.inv(big.cell.array), axis=0)
    assert heights.min() > 2 * CUTOFF
    compare(outcome(model, big), repeated(outcome(model, atoms), int(np.prod(times))), within)


@pytest.mark.parametrize("kind", [crystal, dense, slab])
def test_wrapped_equals_unwrapped(model: Potential, kind: Callable[..., Atoms], within: Within) -> None:
    rng = np.random.default_rng(9)
    atoms = kind(rng)
    strewn = atoms.copy()
    strewn.positions += (rng.integers(-4, 5, (len(atoms), 3)) * atoms.pbc) @ atoms.cell.array
    wrapped = strewn.copy()
    wrapped.wrap()
    assert np.abs(strewn.positions - wrapped.positions).max() > 3
    compare(outcome(model, strewn), outcome(model, atoms), within)
    compare(outcome(model, wrapped), outcome(model, atoms), within)


@pytest.mark.parametrize(
    "pbc", list(product([False, True], repeat=3)), ids=lambda p: "".join("FT"[b] for b in p)
)
def test_open_direction_equals_vacuum(model: Potential, pbc: tuple[bool, bool, bool], within: Within) -> None:
    """All 8 combinations: what is not periodic behaves as if its images were far away, whatever its vector."""
    rng = np.random.default_rng(10)
    cell = np.diag([3.1, 3.6, 4.3])
    atoms = scatter(rng, Atoms(cell=cell, pbc=pbc), 5)
    far = atoms.copy()
    far.set_cell(np.diag(np.where(pbc, np.diag(cell), 25.0)))
    far.pbc = True
    expected = outcome(model, far)
    compare(outcome(model, atoms), expected, within)
    bare = atoms.copy()
    bare.set_cell(np.diag(np.where(pbc, np.diag(cell), 0.0)))
    compare(outcome(model, bare), expected, within)
    assert (outcome(model, atoms).stress is None) == (not all(pbc))


OTHER_CELLS = {
    "skewed": [[1, 0, 0], [2, 1, 0], [-1, 3, 1]],
    "very skewed": [[1, 0, 0], [7, 1, 0], [-5, 9, 1]],
    "left-handed by a swap": [[0, 1, 0], [1, 0, 0], [0, 0, 1]],
    "left-handed by a sign": [[1, 0, 0], [0, -1, 0], [0, 0, 1]],
    "left-handed and skewed": [[1, 4, 0], [0, 0, 1], [0, 1, -3]],
    "cyclic": [[0, 1, 0], [0, 0, 1], [1, 0, 0]],
}


@pytest.mark.parametrize("matrix", OTHER_CELLS.values(), ids=OTHER_CELLS.keys())
@pytest.mark.parametrize(("network", "kind", "seed"), CRYSTALS)
def test_the_same_crystal_in_another_cell(
    model: Potential, kind: Callable[..., Atoms], seed: int, matrix: list[list[int]], within: Within
) -> None:
    """Skewed, thin and left-handed cells of one lattice: same energies, forces and stress."""
    atoms = kind(np.random.default_rng(seed))
    other = atoms.copy()
    other.set_cell(np.array(matrix) @ atoms.cell.array)
    assert abs(np.linalg.det(matrix)) == pytest.approx(1)
    compare(outcome(model, other), outcome(model, atoms), within)


@pytest.mark.parametrize(("network", "kind", "seed"), CRYSTALS)
def test_a_skewed_supercell(model: Potential, kind: Callable[..., Atoms], seed: int, within: Within) -> None:
    """A supercell that is no multiple of the cell's own vectors, and left-handed."""
    atoms = kind(np.random.default_rng(seed))
    matrix = np.array([[2, 1, 0], [1, -1, 1], [0, 1, 1]])
    n = round(abs(np.linalg.det(matrix)))
    big = make_supercell(atoms, matrix, order="cell-major")
    assert n == 5
    assert len(big) == n * len(atoms)
    assert big.cell.handedness == -atoms.cell.handedness
    compare(outcome(model, big), repeated(outcome(model, atoms), n), within)
