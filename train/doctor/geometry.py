"""Distances of a data set in one pass: shortest, by element pair, neighbors per cutoff, and a signature per frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from train.data.dataset import Array, Frame
from train.doctor.findings import Finding, problem

Integers = NDArray[np.int64]

OVERLAP = 0.3  # Å; closer than any nuclei in a reference calculation
CUTOFFS = (3.0, 4.0, 5.0, 6.0)  # Å
REACH = CUTOFFS[-1]
N_WAVES = 8  # of the signature, for each of two weights
SMALL = 64  # atoms of a molecule up to which all distances are taken at once
MANY = 500_000  # distances of molecules that are held at a time
N_ELEMENTS = len(chemical_symbols)


@dataclass(frozen=True)
class Edges:
    """Distances below `REACH` of several frames, each pair of atoms twice."""

    frames: Integers  # (n_frames,) positions of these frames in the data set
    n_atoms: Integers  # (n_frames,)
    numbers: Integers  # (all atoms,)
    center: Integers  # (n_edges,) which of all atoms
    neighbor: Integers  # (n_edges,) likewise
    vector: Array  # (n_edges, 3) Å, from center to neighbor
    length: Array  # (n_edges,) Å


@dataclass(frozen=True)
class Geometry:
    """What the distances of a data set say; frames are counted from 0 in the order given.

    Isolated atoms and frames that have no distances (cells without volume, positions that are not finite) are
    left out: inf and zeros stand for them.
    """

    shortest: Array  # (n_frames,) Å, inf beyond REACH
    pairs: dict[tuple[str, str], tuple[float, int]]  # elements -> shortest distance (Å) and its frame
    neighbors: dict[float, tuple[float, int, int]]  # cutoff (Å) -> mean, smallest and largest number
    lonely: dict[float, Integers]  # cutoff (Å) -> frames with an atom that has no neighbor
    signature: Array  # (n_frames, 2 * N_WAVES) Å; the same for rotated, shifted and renumbered structures
    nearest: Array  # (all atoms,) distance to the nearest neighbor over the sum of covalent radii


def survey(frames: Sequence[Frame]) -> Geometry:
    """All distances below 6 Å, periodic images included, in one pass over the frames."""
    n = len(frames)
    shortest, signature = np.full(n, np.inf), np.zeros((n, 2 * N_WAVES))
    table = np.full((N_ELEMENTS**2, 2), np.inf)  # distance, frame
    totals = {c: [0, 0, np.iinfo(np.int64).max, 0] for c in CUTOFFS}  # atoms, sum, min, max
    lonely: dict[float, list[Integers]] = {c: [] for c in CUTOFFS}
    nearest: list[Array] = []
    for edges in all_edges(frames):
        system = np.repeat(np.arange(len(edges.frames)), edges.n_atoms)
        of_edge = system[edges.center]
        least = np.full(len(edges.numbers), np.inf)
        np.minimum.at(least, edges.center, edges.length)
        nearest.append(least / _bond_length(edges, least))
        closest = np.full(len(edges.frames), np.inf)
        np.minimum.at(closest, system, least)
        shortest[edges.frames] = closest
        signature[edges.frames] = _signature(edges, of_edge)
        _closest_pairs(edges, of_edge, table)
        for c in CUTOFFS:
            count = np.bincount(edges.center[edges.length < c], minlength=len(edges.numbers))
            old = totals[c]
            old[:2] = [old[0] + len(count), old[1] + int(count.sum())]
            old[2:] = [min(old[2], int(count.min())), max(old[3], int(count.max()))]
            lonely[c].append(edges.frames[np.unique(system[count == 0])])
    return Geometry(
        shortest,
        _named_pairs(table),
        {c: (t[1] / t[0], t[2], t[3]) for c, t in totals.items() if t[0]},
        {c: np.sort(np.concatenate([np.zeros(0, np.int64), *found])) for c, found in lonely.items()},
        signature,
        np.concatenate([np.zeros(0), *nearest]),
    )


def all_edges(frames: Sequence[Frame]) -> Iterator[Edges]:
    """Edges of all frames that have them: small molecules by size and many at a time, the others one by one."""
    groups: dict[int, list[int]] = {}
    held: list[Edges] = []
    n_held = 0
    for k, f in enumerate(frames):
        if not has_distances(f):
            continue
        if not f.atoms.pbc.any() and len(f.atoms) <= SMALL:
            groups.setdefault(len(f.atoms), []).append(k)
            continue
        held.append(_searched(f, k))
        n_held += len(held[-1].length)
        if n_held > MANY:
            yield _merged(held)
            held, n_held = [], 0
    if held:
        yield _merged(held)
    for size, members in groups.items():
        step = max(1, MANY // size**2)
        for start in range(0, len(members), step):
            part = members[start : start + step]
            yield _molecules([frames[k] for k in part], np.array(part))


def _merged(parts: Sequence[Edges]) -> Edges:
    first = np.cumsum([0, *(len(one.numbers) for one in parts)])

    def joined(name: str, shift: bool = False) -> NDArray[Any]:
        arrays = (getattr(one, name) + (first[k] if shift else 0) for k, one in enumerate(parts))
        return np.concatenate(list(arrays))

    structures = joined("frames"), joined("n_atoms"), joined("numbers")
    ends = joined("center", True), joined("neighbor", True)
    return Edges(*structures, *ends, joined("vector"), joined("length"))


def has_distances(frame: Frame) -> bool:
    """Whether distances mean anything: finite, with volume where periodic, not an isolated atom."""
    atoms = frame.atoms
    if not np.isfinite(atoms.positions).all() or not np.isfinite(atoms.cell.array).all() or is_flat(frame):
        return False
    return len(atoms) > 0 and not frame.is_isolated_atom


def is_flat(frame: Frame) -> bool:
    """Periodic without the lattice vectors for it."""
    if not frame.atoms.pbc.any():
        return False
    periodic = frame.atoms.cell.array[np.asarray(frame.atoms.pbc, dtype=bool)]
    if not np.isfinite(periodic).all():
        return False
    return bool(np.linalg.svd(periodic, compute_uv=False)[-1] < 1e-3)


def _molecules(frames: Sequence[Frame], where: Integers) -> Edges:
    """All pairs of molecules of one size: a table of distances is shorter than a search for neighbors."""
    x = np.stack([f.atoms.positions for f in frames])
    n_frames, n_atoms, _ = x.shape
    vector = x[:, None] - x[:, :, None]
    length = np.sqrt(np.square(vector).sum(axis=-1))
    length[:, np.arange(n_atoms), np.arange(n_atoms)] = np.inf
    k, i, j = np.nonzero(length < REACH)
    numbers = np.concatenate([f.atoms.numbers for f in frames]).astype(np.int64)
    sizes = np.full(n_frames, n_atoms, dtype=np.int64)
    ends = k * n_atoms + i, k * n_atoms + j
    return Edges(where, sizes, numbers, *ends, vector[k, i, j], length[k, i, j])


def _searched(frame: Frame, where: int) -> Edges:
    from potential.graph import from_atoms  # here, so that a report on molecules does not load torch

    sizes, numbers = np.array([len(frame.atoms)]), frame.atoms.numbers.astype(np.int64)
    try:
        graph = from_atoms(frame.atoms, REACH)
    except ValueError:  # two atoms in one place: a Graph is refused below its own limit
        distance, i, j = _closest_without_images(frame)
        ends = np.array([i, j]), np.array([j, i])
        length = np.array([distance, distance])
        return Edges(np.array([where]), sizes, numbers, *ends, np.zeros((2, 3)), length)
    center, neighbor, image = (part.numpy() for part in (graph.center, graph.neighbor, graph.image))
    x = frame.atoms.positions
    # In numpy: for so few edges the threads of torch cost more than the arithmetic.
    vector = x[neighbor] - x[center] + image @ frame.atoms.cell.array
    length = np.linalg.norm(vector, axis=1)
    return Edges(np.array([where]), sizes, numbers, center, neighbor, vector, length)


def _closest_without_images(frame: Frame) -> tuple[float, int, int]:
    """Closest pair in fractional coordinates, enough where two atoms sit on each other."""
    x = frame.atoms.positions
    distance = np.array([frame.atoms.get_distances(i, range(len(x)), mic=True) for i in range(len(x))])
    np.fill_diagonal(distance, np.inf)
    i, j = divmod(int(distance.argmin()), len(x))
    if distance[i, j] < OVERLAP:
        return float(distance[i, j]), i, j
    periodic = frame.atoms.cell.array[np.asarray(frame.atoms.pbc, dtype=bool)]
    return float(np.linalg.norm(periodic, axis=1).min()), 0, 0  # an atom on its own image


def _bond_length(edges: Edges, least: Array) -> Array:
    """Sum of the covalent radii (Å) of each atom and its nearest neighbor; inf for an atom alone."""
    from ase.data import covalent_radii

    bond = np.full(len(edges.numbers), np.inf)
    here = edges.length == least[edges.center]
    i, j = edges.center[here], edges.neighbor[here]
    bond[i] = covalent_radii[edges.numbers[i]] + covalent_radii[edges.numbers[j]]
    bond[np.isinf(least)] = 1.0
    return bond


def _signature(edges: Edges, of_edge: Integers) -> Array:
    """Mean cosines of the distances, near ones weighing more, scaled to Å: waves of all and of heavy pairs."""
    n, t = len(edges.frames), edges.length / REACH
    charge = np.sqrt(edges.numbers.astype(np.float64))
    columns = []
    for weight in ((1 - t) ** 2, (1 - t) ** 2 * charge[edges.center] * charge[edges.neighbor]):
        total = np.bincount(of_edge, weights=weight, minlength=n) + 1e-12
        before, wave, step = np.ones_like(t), np.cos(np.pi * t), 2 * np.cos(np.pi * t)
        for k in range(1, N_WAVES + 1):
            mean = np.bincount(of_edge, weights=weight * wave, minlength=n) / total
            columns.append(mean * REACH / (np.pi * k))
            before, wave = wave, step * wave - before
    return np.stack(columns, axis=1)


def _closest_pairs(edges: Edges, of_edge: Integers, table: Array) -> None:
    """Fill in the shortest distance of every pair of elements, and the frame it is in."""
    z = edges.numbers[edges.center], edges.numbers[edges.neighbor]
    key = np.minimum(*z) * N_ELEMENTS + np.maximum(*z)
    best = table[:, 0].copy()
    np.minimum.at(best, key, edges.length)
    found = np.flatnonzero((edges.length == best[key]) & (best[key] < table[key, 0]))
    table[key[found], 1] = edges.frames[of_edge[found]]
    table[:, 0] = best


def _named_pairs(table: Array) -> dict[tuple[str, str], tuple[float, int]]:
    found = np.flatnonzero(np.isfinite(table[:, 0]))
    names = [divmod(int(k), N_ELEMENTS) for k in found]
    return {
        (chemical_symbols[a], chemical_symbols[b]): (float(table[k, 0]), int(table[k, 1]))
        for k, (a, b) in zip(found, names, strict=True)
    }


def overlaps(frames: Sequence[Frame], geometry: Geometry) -> Iterator[Finding]:
    """Atoms closer to each other than nuclei can be."""
    for k in np.flatnonzero(geometry.shortest < OVERLAP):
        f = frames[int(k)]
        (edges,) = all_edges([f])
        e = int(edges.length.argmin())
        i, j = int(edges.center[e]), int(edges.neighbor[e])
        yield problem(
            "overlapping atoms",
            f"{f.name}: atoms {i} ({f.atoms.symbols[i]}) and {j} ({f.atoms.symbols[j]}) overlap, "
            f"{edges.length[e]:.3f} Å apart (at least {OVERLAP} Å expected); check positions, cell and length "
            "unit, or remove this frame",
            [f],
        )
