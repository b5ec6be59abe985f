"""from_atoms against brute force on random cells; edges, collate and refusals."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from matscipy.neighbours import neighbour_list

from potential.graph import CLOSEST, Graph, collate, from_atoms

Edge = tuple[int, int, int, int, int]  # center, neighbor, image
BOUNDARY = 1e-9  # Å; a pair this near to the cutoff is on either side by rounding
FIELDS = ("positions", "atomic_numbers", "cell", "pbc", "center", "neighbor", "image", "system")


# --- the independent reference ------------------------------------------------------------------------------


def images_within(dr: np.ndarray, cell: np.ndarray, pbc: np.ndarray, reach: float) -> np.ndarray:
    """Every integer S, zero in non-periodic directions, that can bring dr + S·cell to a length below reach.

    Row k of the pseudo-inverse is dual to lattice vector k: S_k + dr·dual_k = (dr + S·cell)·dual_k, which is
    at most reach * |dual_k|.
    """
    ranges = [np.zeros(1)] * 3
    if pbc.any():
        dual = np.linalg.pinv(cell[pbc], rcond=1e-12).T
        for k, b in zip(np.flatnonzero(pbc), dual, strict=True):
            middle, half = -dr @ b, reach * np.linalg.norm(b)
            ranges[k] = np.arange(np.floor(middle - half), np.ceil(middle + half) + 1)
    return np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)


def brute_force(atoms: Atoms, cutoff: float) -> tuple[dict[Edge, np.ndarray], float, float]:
    """Edges and their vectors; the shortest distance; how near any distance comes to the cutoff."""
    found, shortest, margin = {}, np.inf, np.inf
    lattice = np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)
    for i in range(len(atoms)):
        for j in range(len(atoms)):
            dr = atoms.positions[j] - atoms.positions[i]
            images = images_within(dr, atoms.cell.array, atoms.pbc, cutoff + 0.01)
            vectors = dr + images @ lattice
            lengths = np.linalg.norm(vectors, axis=1)
            if i == j:  # the atom itself
                keep = (images != 0).any(axis=1)
                images, vectors, lengths = images[keep], vectors[keep], lengths[keep]
            if len(lengths):
                shortest = min(shortest, lengths.min())
                margin = min(margin, np.abs(lengths - cutoff).min())
            for k in np.flatnonzero(lengths < cutoff):
                found[(i, j, *(int(s) for s in images[k]))] = vectors[k]
    return found, shortest, margin


def edges(graph: Graph) -> list[Edge]:
    columns = torch.cat([graph.center[:, None], graph.neighbor[:, None], graph.image.long()], dim=1)
    return [tuple(row) for row in columns.tolist()]


def assert_same_edges(graph: Graph, reference: dict[Edge, np.ndarray]) -> None:
    assert Counter(edges(graph)) == Counter(reference.keys())
    if reference:
        expected = np.array([reference[e] for e in edges(graph)])
        np.testing.assert_allclose(graph.edge_vectors().numpy(), expected, rtol=0, atol=1e-10)


# --- random structures --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dials:
    """What hypothesis varies; positions and lattice vectors follow from the seed."""

    seed: int
    shape: str
    left_handed: bool
    rotated: bool
    pbc: tuple[bool, bool, bool]
    bare: bool  # zero vectors in the non-periodic directions
    n_atoms: int
    cutoff: float  # in units of the shortest lattice vector
    spread: float  # atoms lie up to this many cells outside


SHAPES = ("cubic", "triclinic", "skewed", "needle", "plate", "tiny")
DIALS = st.builds(
    Dials,
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from(SHAPES),
    left_handed=st.booleans(),
    rotated=st.booleans(),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    bare=st.booleans(),
    n_atoms=st.integers(1, 5),
    cutoff=st.one_of(st.floats(0.02, 1.0), st.floats(0.5, 3.5)),
    spread=st.sampled_from([0.0, 0.0, 1.5, 40.0]),
)


def random_cell(rng: np.random.Generator, shape: str) -> np.ndarray:
    lengths = rng.uniform(2.0, 5.0, size=3)
    if shape == "needle":
        lengths[rng.integers(3)] *= 6.0
    if shape == "plate":
        lengths[rng.integers(3)] = rng.uniform(0.4, 1.0)
    if shape == "tiny":
        lengths = rng.uniform(0.8, 1.4, size=3)
    cell = np.diag(lengths)
    if shape in ("triclinic", "tiny"):
        cell += rng.uniform(-0.35, 0.35, size=(3, 3)) * lengths.min()
    if shape == "skewed":  # several cells sideways in every direction
        cell[1, 0] = rng.uniform(-9, 9) * lengths[0]
        cell[2, :2] = rng.uniform(-9, 9, size=2) * lengths[:2]
        cell = cell[rng.permutation(3)]
    return cell


def random_atoms(dials: Dials) -> tuple[Atoms, float]:
    rng = np.random.default_rng(dials.seed)
    cell = random_cell(rng, dials.shape)
    if dials.rotated:
        cell = cell @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    if (np.linalg.det(cell) < 0) != dials.left_handed:
        cell[rng.integers(3)] *= -1
    fractional = rng.uniform(-dials.spread, 1.0 + dials.spread, size=(dials.n_atoms, 3))
    positions = fractional @ cell
    cutoff = dials.cutoff * min(np.linalg.norm(cell, axis=1).min(), 4.0)
    if dials.bare:
        cell[~np.array(dials.pbc)] = 0.0
    return Atoms(rng.choice(["H", "C", "O"], dials.n_atoms), positions, cell=cell, pbc=dials.pbc), cutoff


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(DIALS)
def test_equal_to_brute_force_on_random_cells(dials: Dials) -> None:
    atoms, cutoff = random_atoms(dials)
    reference, shortest, margin = brute_force(atoms, cutoff)
    assume(shortest > CLOSEST)
    assume(margin > BOUNDARY)
    graph = from_atoms(atoms, cutoff)
    assert_same_edges(graph, reference)
    assert_invariants(graph, cutoff)


def assert_invariants(graph: Graph, cutoff: float) -> None:
    """What holds for every graph: in order, each edge once and with its reverse, none too long."""
    assert edges(graph) == sorted(edges(graph))
    forward = set(edges(graph))
    assert len(forward) == len(graph.center)
    assert forward == {(j, i, -a, -b, -c) for i, j, a, b, c in forward}
    assert bool((graph.edge_vectors().norm(dim=1) < cutoff).all())
    assert not bool(graph.image[:, ~graph.pbc[0]].any())


@pytest.mark.parametrize("pbc", [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)])
@pytest.mark.parametrize("shape", SHAPES)
def test_single_atom_meets_its_own_images(shape: str, pbc: tuple[int, int, int]) -> None:
    cell = random_cell(np.random.default_rng(3), shape)
    cell[~np.array(pbc, dtype=bool)] = 0.0
    atoms = Atoms("C", [[0.3, -0.2, 7.0]], cell=cell, pbc=pbc)
    reference, _, margin = brute_force(atoms, 6.1)
    assert margin > BOUNDARY
    nearest = np.linalg.norm(atoms.cell.array, axis=1)[atoms.pbc].min(initial=np.inf)
    assert bool(reference) or nearest > 6.1
    assert_same_edges(from_atoms(atoms, 6.1), reference)


def test_random_cells_cover_the_hard_cases() -> None:
    """The generator makes what its names promise, so that the test above means what it says."""
    seen: Counter[str] = Counter()
    for seed in range(60):
        for shape in SHAPES:
            dials = Dials(seed, shape, seed % 2 == 1, True, (True, True, True), False, 2, 1.5, 1.5)
            atoms, cutoff = random_atoms(dials)
            heights = 1.0 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
            seen["left-handed"] += bool(np.linalg.det(atoms.cell.array) < 0)
            seen["thinner than the cutoff"] += bool(heights.min() < cutoff)
            seen["several images"] += bool(heights.min() < cutoff / 3)
            seen["smaller than the cutoff"] += bool(np.linalg.norm(atoms.cell.array, axis=1).max() < cutoff)
            seen["angle below 30 degrees"] += bool(min(atoms.cell.angles()) < 30)
            fractional = atoms.positions @ np.linalg.inv(atoms.cell.array)
            seen["outside"] += bool((fractional < 0).any() or (fractional > 1).any())
    assert len(seen) == 6
    assert min(seen.values()) >= 20, seen


# --- direction, wrapping, distance --------------------------------------------------------------------------


def silicon(n: int = 1, seed: int = 0) -> Atoms:
    atoms = bulk("Si", cubic=True) * (n, n, n)
    atoms.rattle(0.1, seed=seed)
    return atoms


def by_edge(graph: Graph) -> dict[Edge, np.ndarray]:
    return dict(zip(edges(graph), graph.edge_vectors().numpy(), strict=True))


def test_direction_is_from_center_to_neighbor_as_in_matscipy() -> None:
    atoms = silicon()
    i, j, image, vectors = neighbour_list("ijSD", atoms, 4.4)
    keys = [tuple(row) for row in np.column_stack([i, j, image]).tolist()]
    assert_same_edges(from_atoms(atoms, 4.4), dict(zip(keys, vectors, strict=True)))


def test_direction_of_a_single_pair() -> None:
    graph = from_atoms(Atoms("HC", [[0, 0, 0], [0, 0, 1.1]]), 2.0)
    assert graph.center.tolist() == [0, 1]
    assert graph.neighbor.tolist() == [1, 0]
    assert graph.edge_vectors().tolist() == [[0, 0, 1.1], [0, 0, -1.1]]
    assert graph.edge_vectors().dtype == torch.float64


def test_edges_across_the_boundary_count_cells_from_where_the_atoms_are() -> None:
    """r_ij = r_j - r_i + image @ cell, with a cell that is not symmetric so that a transposed one shows."""
    atoms = Atoms("HC", [[0.1, 0, 0], [3.2, 1.0, 0]], cell=[[4, 1, 0], [0, 9, 0], [0, 0, 9]], pbc=True)
    graph = from_atoms(atoms, 1.2)
    assert by_edge(graph).keys() == {(0, 1, -1, 0, 0), (1, 0, 1, 0, 0)}
    np.testing.assert_allclose(by_edge(graph)[0, 1, -1, 0, 0], [-0.9, 0, 0], atol=1e-12)


@pytest.mark.parametrize("far", [1, 3, 1000, 10**7])
def test_wrapped_equals_unwrapped(far: int) -> None:
    atoms = silicon()
    moved = atoms.copy()
    crossings = np.random.default_rng(1).integers(-far, far + 1, size=(len(atoms), 3))
    moved.positions += crossings @ atoms.cell.array
    home, away = by_edge(from_atoms(atoms, 5.0)), by_edge(from_atoms(moved, 5.0))
    assert len(home) == len(away)
    for (i, j, *image), vector in away.items():
        back = tuple(int(s) for s in np.array(image) + crossings[j] - crossings[i])
        np.testing.assert_allclose(vector, home[(i, j, *back)], rtol=0, atol=1e-13 * max(1000, 60 * far))


def test_atoms_outside_the_box_of_a_non_periodic_direction_are_found() -> None:
    """The cell written next to a molecule or slab says nothing about where its atoms are."""
    water = molecule("H2O")
    free = by_edge(from_atoms(water, 2.0))
    for pbc in ([0, 0, 0], [1, 0, 0], [0, 1, 1]):
        for cell in ([8.0, 9.0, 10.0], [[8, 0, 0], [4, 9, 0], [1, 2, 10]]):
            boxed = Atoms(water.symbols, water.positions + np.array([0, 0, 500.3]), cell=cell, pbc=pbc)
            boxed.positions[:, ~boxed.pbc] -= 77.7
            found = by_edge(from_atoms(boxed, 2.0))
            assert len(found) == len(free)
            for (i, j, *_), vector in free.items():
                image = next(e for e in found if e[:2] == (i, j))
                np.testing.assert_allclose(found[image], vector, atol=1e-10)


@pytest.mark.parametrize("pbc", [False, True])
@pytest.mark.parametrize("distance", [20.0, 1e3, 1e5, 1e8])
def test_far_atoms_have_no_edges_however_far(distance: float, pbc: bool) -> None:
    """A molecule that lost an atom, or a cell that is nearly all vacuum, takes neither memory nor time."""
    atoms = Atoms("H3", [[0, 0, 0], [0, 0, 0.8], [distance] * 3], cell=[4 * distance] * 3, pbc=pbc)
    graph = from_atoms(atoms, 5.0)
    assert by_edge(graph).keys() == {(0, 1, 0, 0, 0), (1, 0, 0, 0, 0)}
    assert len(from_atoms(atoms[::2], 5.0).center) == 0


def test_short_cutoff_in_a_large_cell() -> None:
    assert len(from_atoms(silicon(3), 0.01).center) == 0


def test_one_flown_away_atom_leaves_the_others_edges_alone() -> None:
    slab = bulk("Cu", cubic=True) * (3, 3, 3)
    slab.pbc = (True, True, False)
    slab.rattle(0.05, seed=2)
    away = slab.copy()
    away.append("Cu")
    away.positions[-1] = [1.0, 1.0, -3e4]
    assert by_edge(from_atoms(away, 4.5)).keys() == by_edge(from_atoms(slab, 4.5)).keys()


@pytest.mark.parametrize("pbc", [(0, 0, 0), (0, 1, 0)])
def test_two_molecules_far_apart_keep_their_own_edges(pbc: tuple[int, int, int]) -> None:
    """Both lie outside the box of the search, which is between them."""
    one = Atoms("C8", np.random.default_rng(4).uniform(0, 4, size=(8, 3)), cell=[0, 9, 0], pbc=pbc)
    two = one.copy()
    two.positions += [3e4, 0, -5e4]
    graph, single = from_atoms(one + two, 2.5), from_atoms(one, 2.5)
    assert len(single.center) > 0
    twice = edges(single) + [(i + 8, j + 8, *image) for i, j, *image in edges(single)]
    assert Counter(edges(graph)) == Counter(twice)


def test_perfect_crystals_have_their_shells() -> None:
    for lattice, cutoff, n in (
        ("Cu", 3.0, 12),
        ("Fe", 2.6, 8),
        ("Fe", 3.0, 14),
        ("Si", 2.5, 4),
        ("Si", 4.0, 16),
    ):
        graph = from_atoms(bulk(lattice), cutoff)
        assert torch.bincount(graph.center).tolist() == [n] * len(graph.positions)


def test_graph_shares_nothing_with_the_atoms_and_leaves_them_alone() -> None:
    atoms = silicon()
    before = atoms.copy()
    graph = from_atoms(atoms, 4.0)
    vectors = graph.edge_vectors()
    assert atoms == before
    atoms.positions += 0.3 * np.arange(24).reshape(8, 3)
    atoms.cell[:] *= 2
    atoms.numbers[:] = 1
    atoms.pbc = False
    assert torch.equal(graph.edge_vectors(), vectors)
    assert graph.atomic_numbers.tolist() == [14] * 8
    assert bool(graph.pbc.all())


# --- collate ------------------------------------------------------------------------------------------------


def some_graphs() -> list[Graph]:
    slab = Atoms("CO", [[0, 0, 0], [0, 0, 1.1]], cell=[2.5, 3.0, 0], pbc=(1, 1, 0))
    frames = [silicon(), molecule("H2O"), Atoms("He"), slab, silicon(seed=5)]
    return [from_atoms(atoms, 3.7) for atoms in frames]


def test_collate_is_block_structure() -> None:
    graphs = some_graphs()
    batch = collate(graphs)
    assert batch.n_systems == len(graphs)
    assert batch.n_atoms.tolist() == [len(g.positions) for g in graphs]
    assert bool((batch.system[batch.center] == batch.system[batch.neighbor]).all())
    assert bool((batch.center[1:] >= batch.center[:-1]).all())
    vectors, atom = batch.edge_vectors(), 0
    for k, graph in enumerate(graphs):
        mine = batch.system[batch.center] == k
        assert torch.equal(batch.center[mine] - atom, graph.center)
        assert torch.equal(batch.neighbor[mine] - atom, graph.neighbor)
        assert torch.equal(batch.image[mine], graph.image)
        assert torch.equal(vectors[mine], graph.edge_vectors())
        own = batch.system == k
        assert torch.equal(batch.positions[own], graph.positions)
        assert torch.equal(batch.atomic_numbers[own], graph.atomic_numbers)
        assert torch.equal(batch.cell[k], graph.cell[0])
        assert torch.equal(batch.pbc[k], graph.pbc[0])
        atom += len(graph.positions)


def test_collate_of_one_and_of_collated() -> None:
    graphs = some_graphs()
    assert_equal(collate(graphs[:1]), graphs[0])
    assert_equal(collate([collate(graphs[:2]), collate(graphs[2:])]), collate(graphs))


def test_collate_does_not_modify_its_parts() -> None:
    graphs = some_graphs()
    collate(graphs)
    for graph, fresh in zip(graphs, some_graphs(), strict=True):
        assert_equal(graph, fresh)


def assert_equal(one: Graph, other: Graph) -> None:
    for name in FIELDS:
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_collate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no graphs"):
        collate([])


def test_graph_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        some_graphs()[0].center = torch.zeros(0)  # type: ignore[misc]


def test_dtypes_and_shapes() -> None:
    for graph in some_graphs():
        n, e = len(graph.positions), len(graph.center)
        assert graph.to("cpu").positions.shape == (n, 3)
        assert graph.cell.shape == (1, 3, 3)
        assert graph.pbc.dtype == torch.bool
        assert graph.image.shape == (e, 3)
        assert graph.neighbor.shape == (e,)
        assert {graph.positions.dtype, graph.cell.dtype, graph.image.dtype} == {torch.float64}
        assert {getattr(graph, f).dtype for f in ("center", "neighbor", "system", "atomic_numbers")} == {
            torch.int64
        }


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("pbc", [False, True])
def test_positions_that_are_not_finite(value: float, pbc: bool) -> None:
    atoms = Atoms("HCO", np.arange(9.0).reshape(3, 3), cell=[9, 9, 9], pbc=pbc)
    atoms.positions[1, 2] = value
    with pytest.raises(ValueError, match=r"atom 1 \(C\).*finite"):
        from_atoms(atoms, 3.0)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, np.nan, np.inf])
def test_cutoff_that_is_no_length(cutoff: float) -> None:
    with pytest.raises(ValueError, match=f"cutoff is {cutoff}"):
        from_atoms(silicon(), cutoff)


def test_no_atoms() -> None:
    with pytest.raises(ValueError, match="no atoms"):
        from_atoms(Atoms(cell=[3, 3, 3], pbc=True), 3.0)


@pytest.mark.parametrize(
    ("cell", "pbc"),
    [
        (np.zeros((3, 3)), (1, 1, 1)),
        (np.zeros((3, 3)), (0, 0, 1)),
        (np.diag([3.0, 3.0, 0.0]), (1, 1, 1)),
        (np.diag([3.0, 3.0, 0.0]), (1, 0, 1)),
        (np.array([[3.0, 0, 0], [1.5, 0, 0], [0, 0, 3]]), (1, 1, 0)),  # parallel
        (np.array([[3.0, 0, 0], [0, 3, 0], [1, 1, 0]]), (1, 1, 1)),  # in one plane
        (np.array([[3.0, 0, 0], [3000, 1e-6, 0], [0, 0, 3]]), (1, 1, 1)),  # nearly parallel
    ],
)
def test_periodic_direction_without_a_lattice_vector(cell: np.ndarray, pbc: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"span no volume.*pbc=False"):
        from_atoms(Atoms("H", cell=cell, pbc=pbc), 3.0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_cell_that_is_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match=r"cell is .*finite"):
        from_atoms(Atoms("H", cell=[value, 3, 3], pbc=(0, 1, 1)), 3.0)


def test_overlapping_atoms_are_both_named() -> None:
    atoms = Atoms("HCO", [[0, 0, 0], [2, 0, 0], [2, 0, 0.001]])
    with pytest.raises(ValueError, match=r"atom 1 \(C\) and atom 2 \(O\) are 0\.0010 Å apart"):
        from_atoms(atoms, 3.0)


def test_atoms_on_one_spot_through_the_boundary() -> None:
    atoms = Atoms("HC", [[0, 0, 0], [4, 4, 8]], cell=[4, 4, 4], pbc=True)
    with pytest.raises(ValueError, match=r"atom 0 \(H\) and atom 1 \(C\)"):
        from_atoms(atoms, 3.0)
    atoms.pbc = False
    assert len(from_atoms(atoms, 3.0).center) == 0


def test_atom_on_its_own_image() -> None:
    with pytest.raises(ValueError, match=r"atom 0 \(H\) and its own periodic image are 0\.0100"):
        from_atoms(Atoms("H", cell=[0.01, 3, 3], pbc=True), 3.0)
