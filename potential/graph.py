"""Atoms -> Graph: who is within the cutoff of whom. The only place with a neighbor search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from matscipy.neighbours import neighbour_list
from torch import Tensor

CLOSEST = 0.05  # Å; two atoms closer than this are a mistake in the file, not a structure
MAX_BINS = 1e6  # of the neighbor search: some 10 MB

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Graph:
    """One or several structures with their edges, sorted by center, then by neighbor and image.

    An edge goes from `center` i (receives) to `neighbor` j (sends); its vector is
    r_ij = r_j - r_i + image @ cell. Geometry is float64; a network casts to its own dtype.
    """

    positions: Tensor  # (n_atoms, 3) Å
    atomic_numbers: Tensor  # (n_atoms,) Z
    cell: Tensor  # (n_systems, 3, 3) Å, rows are the lattice vectors
    pbc: Tensor  # (n_systems, 3) bool
    center: Tensor  # (n_edges,)
    neighbor: Tensor  # (n_edges,)
    image: Tensor  # (n_edges, 3) integer cell crossings, as float64
    system: Tensor  # (n_atoms,) which structure an atom belongs to

    @property
    def n_systems(self) -> int:
        return len(self.cell)

    @property
    def n_atoms(self) -> Tensor:
        """Atoms per structure, shape (n_systems,)."""
        return torch.bincount(self.system, minlength=self.n_systems)

    def edge_vectors(self) -> Tensor:
        """r_ij in Å, shape (n_edges, 3), float64."""
        if self.n_systems == 1:
            shift = self.image @ self.cell[0]
        else:
            shift = torch.einsum("ea,eab->eb", self.image, self.cell[self.system[self.center]])
        sent, received = (self.positions.index_select(0, k) for k in (self.neighbor, self.center))
        return sent - received + shift

    def to(self, device: torch.device | str) -> Graph:
        return Graph(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def from_atoms(atoms: Atoms, cutoff: float) -> Graph:
    """The graph of one structure: every pair within `cutoff` (Å), all periodic images included.

    Raises:
        ValueError: non-finite positions or cell, a periodic direction without a lattice vector,
            two atoms in the same place, no atoms, or a cutoff that is not positive.
    """
    check(atoms, cutoff)
    positions = atoms.get_positions()
    pbc = np.array(atoms.pbc, dtype=bool)  # a copy: ASE writes into its own array
    cell = atoms.cell.array.copy()
    # A little wider: on which side of the cutoff an edge is has to be said by its own vector, not by the search.
    i, j, image = _search(positions, cell, pbc, cutoff * (1 + 1e-9))
    # One order for one structure, however it was searched: sums over edges are then equal in every bit.
    pair = i.astype(np.int64) * len(atoms) + j
    order = np.lexsort((image[:, 2], image[:, 1], image[:, 0], pair))
    graph = Graph(
        positions=torch.from_numpy(positions),
        atomic_numbers=torch.from_numpy(atoms.numbers.astype(np.int64)),
        cell=torch.from_numpy(cell)[None],
        pbc=torch.from_numpy(pbc)[None],
        center=torch.from_numpy(i[order].astype(np.int64)),
        neighbor=torch.from_numpy(j[order].astype(np.int64)),
        image=torch.from_numpy(image[order].astype(np.float64)),
        system=torch.zeros(len(atoms), dtype=torch.int64),
    )
    return within(graph, cutoff)


def within(graph: Graph, cutoff: float) -> Graph:
    """The graph without its edges of `cutoff` (Å) and longer.

    Raises:
        ValueError: two atoms in the same place.
    """
    lengths = torch.linalg.vector_norm(graph.edge_vectors(), dim=1)
    if len(lengths) and lengths.min() < CLOSEST:
        _refuse_overlap(graph, lengths)
    keep = torch.nonzero(lengths < cutoff).squeeze(1)
    center, neighbor, image = (x.index_select(0, keep) for x in (graph.center, graph.neighbor, graph.image))
    return replace(graph, center=center, neighbor=neighbor, image=image)


def check(atoms: Atoms, cutoff: float) -> None:
    """Refuse what has no graph (see `from_atoms` for the cases)."""
    if not cutoff > 0 or not np.isfinite(cutoff):
        raise ValueError(f"cutoff is {cutoff} Å; it must be a positive length")
    if len(atoms) == 0:
        raise ValueError("the structure holds no atoms; at least one is needed")
    bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if len(bad):
        raise ValueError(
            f"atom {bad[0]} ({atoms.symbols[bad[0]]}) is at {atoms.positions[bad[0]].tolist()}; "
            "positions must be finite; look for a diverged simulation or a damaged file"
        )
    if not np.isfinite(atoms.cell.array).all():
        raise ValueError(f"the cell is {atoms.cell.array.tolist()}; it must be finite")
    periodic = atoms.cell.array[np.asarray(atoms.pbc, dtype=bool)]
    volume = float(np.prod(np.linalg.svd(periodic, compute_uv=False)))  # or area, or length
    # Minkowski: one lattice vector is shorter than 1.13 volume^(1/k): an atom would meet its own image.
    if len(periodic) and volume < (CLOSEST / 1.13) ** len(periodic):
        raise ValueError(
            f"pbc is {atoms.pbc.tolist()} but the periodic lattice vectors {periodic.tolist()} "
            "span no volume; give a cell, or set pbc=False for a molecule"
        )


def _refuse_overlap(graph: Graph, lengths: Tensor) -> None:
    e = int(lengths.argmin())
    i, j = int(graph.center[e]), int(graph.neighbor[e])
    one, other = (f"atom {k} ({chemical_symbols[int(graph.atomic_numbers[k])]})" for k in (i, j))
    raise ValueError(
        f"{one} and {other if i != j else 'its own periodic image'} are {lengths[e]:.4f} Å apart; "
        f"atoms must be at least {CLOSEST} Å apart; remove the duplicate or correct the positions or the cell"
    )


def _search(positions: Array, cell: Array, pbc: Array, cutoff: float) -> tuple[Array, Array, Array]:
    """Center, neighbor and image of every pair closer than `cutoff`.

    The search sorts atoms into bins as wide as its cutoff. A structure that is nearly all vacuum would
    need more bins than memory holds, so it is searched with wider ones.
    """
    box, positions = _search_box(positions, cell, pbc, cutoff)
    # Atoms may be many cells away from home: bring them in, and put the crossings back afterwards.
    inverse = np.linalg.inv(box)
    home = np.where(pbc, np.floor(positions @ inverse), 0.0)
    heights = 1.0 / np.linalg.norm(inverse, axis=0)
    width = cutoff
    while np.prod(np.maximum(heights / width, 1.0)) > MAX_BINS:
        width *= 2.0
    i, j, r, image = neighbour_list("ijdS", positions=positions - home @ box, cell=box, pbc=pbc, cutoff=width)
    keep = r < cutoff
    i, j = i[keep], j[keep]
    return i, j, image[keep] + home[i] - home[j]


def _search_box(positions: Array, cell: Array, pbc: Array, cutoff: float) -> tuple[Array, Array]:
    """The cell with a right-angled box in every direction that is not periodic, and positions in it.

    Edges cross only periodic directions, so the replaced vectors never enter r_ij and the given ones may
    be anything. The box is centered on the median atom; the search counts atoms outside to its outermost
    bins, so a few that have flown away do not make it large.
    """
    if pbc.all():
        return cell, positions
    # Orthonormal rows perpendicular to the periodic directions.
    rest = np.linalg.svd(cell[pbc], full_matrices=True)[2][pbc.sum() :] if pbc.any() else np.eye(3)
    along = positions @ rest.T
    size = np.minimum(np.ptp(along, axis=0) + 2.0 * cutoff, MAX_BINS ** (1 / 3) * cutoff)
    box = cell.copy()
    box[~pbc] = rest * size[:, None]
    return box, positions - (np.median(along, axis=0) - size / 2.0) @ rest


def collate(graphs: Sequence[Graph]) -> Graph:
    """Several graphs as one, without edges between them."""
    if not graphs:
        raise ValueError("no graphs to collate; give at least one")
    atoms = np.cumsum([0, *(len(g.positions) for g in graphs)])
    systems = np.cumsum([0, *(g.n_systems for g in graphs)])
    offset = {"center": atoms, "neighbor": atoms, "system": systems}
    parts = {
        f.name: [
            getattr(g, f.name) + int(offset[f.name][k]) if f.name in offset else getattr(g, f.name)
            for k, g in enumerate(graphs)
        ]
        for f in fields(Graph)
    }
    return Graph(**{name: torch.cat(tensors) for name, tensors in parts.items()})


def slots(center: Tensor, n_atoms: int, n_slots: int = 0) -> tuple[Tensor, int]:
    """Where each edge (n_edges,) stands in a table of `n_slots` edges per atom, by default as many as the most have."""
    degree = torch.bincount(center, minlength=n_atoms)
    n_slots = n_slots or max(int(degree.max()), 1)
    first = torch.cumsum(degree, 0) - degree
    return torch.arange(len(center), device=center.device) - first[center] + center * n_slots, n_slots


def pad(
    vectors: Tensor, center: Tensor, neighbor: Tensor, n_atoms: int, cutoff: float
) -> tuple[Tensor, Tensor]:
    """Edges as a table of (n_atoms, most neighbors): vectors (n_atoms, n_slots, 3), neighbors (n_atoms * n_slots,).

    Empty slots hold a vector beyond the cutoff, where the envelope and its derivatives vanish.
    """
    slot, n_slots = slots(center, n_atoms)
    beyond = vectors.new_tensor([2 * cutoff, 0.0, 0.0]).expand(n_atoms * n_slots, 3)
    table = neighbor.new_zeros(n_atoms * n_slots).index_copy(0, slot, neighbor)
    return beyond.index_copy(0, slot, vectors).view(n_atoms, n_slots, 3), table
