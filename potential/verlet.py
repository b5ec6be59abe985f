"""A Verlet list: edges found once, a little beyond the cutoff, serve until the atoms have moved too far.

Looks at edges that graph.py has found; there is no neighbor search here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from potential.graph import Graph, check, from_atoms, within


@dataclass(frozen=True)
class VerletList:
    """Edges to start from at the next step."""

    wide: Graph  # on any device
    reach: float  # Å; `wide` holds every edge shorter than this


def follow(known: VerletList | None, atoms: Atoms, cutoff: float, skin: float) -> tuple[Graph, VerletList]:
    """The graph `from_atoms(atoms, cutoff)`, and the list to give here the next time.

    Args:
        known: what an earlier call returned, for whatever structure; None at first.
        skin: Å by which a new list reaches beyond the cutoff; 0 searches every time.

    Returns:
        The graph is equal to that of `from_atoms` in every edge, in their order and in every bit. The list is
        `known` itself if it served, otherwise the result of a new search.

    Raises:
        ValueError: as `from_atoms`.
    """
    if skin == 0:
        graph = from_atoms(atoms, cutoff)
        return graph, VerletList(graph, cutoff)
    present = None if known is None else moved(known, atoms, cutoff)
    if known is None or present is None:
        present = from_atoms(atoms, cutoff + skin)
        known = VerletList(present, cutoff + skin)
    return within(present, cutoff), known


@dataclass(frozen=True)
class Motion:
    """Where atoms are that were at `known.wide.positions`, on the device of these."""

    positions: Tensor  # (n_atoms, 3) Å, as given
    crossings: Tensor  # (n_atoms, 3) lattice vectors by which an atom was wrapped since, integer, as float64
    cell: Tensor  # (3, 3) Å


def moved(known: VerletList, atoms: Atoms, cutoff: float) -> Graph | None:
    """The wide graph at the present positions, or None when an edge shorter than the cutoff may be missing."""
    motion, wide = motion_since(known, atoms, cutoff), known.wide
    if motion is None:
        return None
    crossings = motion.crossings
    return replace(
        wide,
        positions=motion.positions,
        atomic_numbers=torch.from_numpy(atoms.numbers.astype(np.int64)).to(wide.positions.device),
        cell=motion.cell[None],
        image=wide.image + crossings.index_select(0, wide.center) - crossings.index_select(0, wide.neighbor),
    )


def motion_since(known: VerletList, atoms: Atoms, cutoff: float) -> Motion | None:
    """Where the atoms of a list are now, or None when an edge shorter than the cutoff may be missing in it.

    Let p, h be the positions and lattice vectors of the list and p', h' those of `atoms`. Take any matrix F with
    h F = h' and any integers n_i, and let d_i be the rest:

        p'_i = p_i F + d_i + n_i h'.

    The edge (i, j, S) with vector r is now (i, j, S + n_i - n_j) with vector r' = r F + d_j - d_i. One that is
    now shorter than the cutoff had |r| <= |r F| / s <= (|r'| + |d_j - d_i|) / s, where s is the smallest
    singular value of F. So nothing is missing as long as

        cutoff + max |d_j - d_i| <= s * reach,

    which for a cell that stays is the well-known 2 max |d| <= skin. The n_i take out the wrapping of atoms, F
    the strain and rotation of the cell; a poor choice of them costs a search, never an edge. Elements do not
    enter: edges are a matter of geometry.
    """
    check(atoms, cutoff)
    wide = known.wide
    pbc = torch.from_numpy(np.array(atoms.pbc, dtype=bool))
    if len(atoms) != len(wide.positions) or not torch.equal(pbc, wide.pbc[0].cpu()):
        return None
    device = wide.positions.device
    cell, old_cell = torch.from_numpy(atoms.cell.array.copy()), wide.cell[0].cpu()
    positions = torch.from_numpy(atoms.get_positions()).to(device)
    deformation = torch.eye(3, dtype=torch.float64) + _inverse(old_cell, pbc) @ (cell - old_cell)
    steps = positions - wide.positions @ deformation.to(device)
    crossings = torch.round(steps @ _inverse(cell, pbc).to(device))
    steps = steps - crossings @ cell.to(device)
    # A drift of all atoms moves none against another; of two atoms, each moves at most as the two farthest.
    farthest = torch.linalg.vector_norm(steps - steps.mean(dim=0), dim=1).topk(min(2, len(steps))).values
    if not cutoff + farthest.sum().item() <= _smallest(deformation) * known.reach:
        return None
    return Motion(positions, crossings, cell.to(device))


def _inverse(cell: Tensor, pbc: Tensor) -> Tensor:
    """(3, 3): the coordinates of x along the periodic lattice vectors are x @ inverse, 0 in the other directions."""
    inverse = torch.zeros_like(cell)
    inverse[:, pbc] = torch.linalg.pinv(cell[pbc], rtol=0.0)  # no singular value is too small to count
    return inverse


def _smallest(deformation: Tensor) -> float:
    return float(torch.linalg.svdvals(deformation).min())
