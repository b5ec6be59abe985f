"""Atoms -> Graph: who is within the cutoff of whom. The only place with a neighbor search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from ase import Atoms
from matscipy.neighbours import neighbour_list
from torch import Tensor

CLOSEST = 0.05  # Å; two atoms closer than this are a mistake in the file, not a structure


@dataclass(frozen=True)
class Graph:
    """One or several structures with their edges, sorted by center.

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
        shift = torch.einsum("ea,eab->eb", self.image, self.cell[self.system[self.center]])
        return self.positions[self.neighbor] - self.positions[self.center] + shift

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
    pbc = np.asarray(atoms.pbc, dtype=bool)
    cell = atoms.cell.array.copy()
    i, j, r, image = neighbour_list(
        "ijdS", positions=positions, cell=_search_cell(positions, cell, pbc, cutoff), pbc=pbc, cutoff=cutoff
    )
    keep = r < cutoff
    i, j, r, image = i[keep], j[keep], r[keep], image[keep]
    if len(r) and r.min() < CLOSEST:
        e = int(r.argmin())
        raise ValueError(
            f"atoms {i[e]} ({atoms.symbols[i[e]]}) and {j[e]} ({atoms.symbols[j[e]]}) are {r[e]:.4f} Å apart; "
            f"atoms must be at least {CLOSEST} Å apart; remove the duplicate or correct the positions or the cell"
        )
    order = np.argsort(i, kind="stable")
    return Graph(
        positions=torch.from_numpy(positions),
        atomic_numbers=torch.from_numpy(atoms.numbers.astype(np.int64)),
        cell=torch.from_numpy(cell)[None],
        pbc=torch.from_numpy(pbc)[None],
        center=torch.from_numpy(i[order].astype(np.int64)),
        neighbor=torch.from_numpy(j[order].astype(np.int64)),
        image=torch.from_numpy(image[order].astype(np.float64)),
        system=torch.zeros(len(atoms), dtype=torch.int64),
    )


def check(atoms: Atoms, cutoff: float) -> None:
    """Refuse what has no graph (see `from_atoms` for the cases)."""
    if not cutoff > 0 or not np.isfinite(cutoff):
        raise ValueError(f"cutoff is {cutoff} Å; it must be a positive length")
    if len(atoms) == 0:
        raise ValueError("the structure holds no atoms; at least one is needed")
    bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if len(bad):
        raise ValueError(
            f"atom {bad[0]} ({atoms.symbols[bad[0]]}) is at {atoms.positions[bad[0]]}; positions must be finite; "
            "look for a diverged simulation or a damaged file"
        )
    if not np.isfinite(atoms.cell.array).all():
        raise ValueError(f"the cell is {atoms.cell.array.tolist()}; it must be finite")
    periodic = atoms.cell.array[np.asarray(atoms.pbc, dtype=bool)]
    if len(periodic) and np.linalg.svd(periodic, compute_uv=False)[-1] < 1e-6:
        raise ValueError(
            f"pbc is {atoms.pbc.tolist()} but the periodic lattice vectors {periodic.tolist()} span no volume; "
            "give a cell, or set pbc=False for a molecule"
        )


def _search_cell(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> np.ndarray:
    """A right-angled box of its own in every direction that is not periodic, so that any cell can be searched.

    Edges cross only periodic directions, so the replaced vectors never enter r_ij.
    """
    if pbc.all():
        return cell
    full = cell.copy()
    span = float(np.ptp(positions, axis=0).max()) + 2.0 * cutoff + 1.0
    # An orthonormal basis whose first rows span the periodic directions; the rest is perpendicular to them.
    periodic = cell[pbc]
    rest = np.linalg.svd(periodic, full_matrices=True)[2][len(periodic) :] if len(periodic) else np.eye(3)
    full[~pbc] = rest * span
    return full


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
