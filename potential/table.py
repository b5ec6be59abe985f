"""A Graph of a fixed shape: its edges in a table with room to spare. What a GPU is to record must not change in shape.

Empty slots, and edges of a Verlet list that are longer than the cutoff, add nothing: the envelope and its derivatives
are zero there. Atoms that are only there to fill the table have no neighbors and belong to a structure of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import cast

import torch
from torch import Tensor

from potential.graph import Graph, slots
from potential.model import Potential
from potential.networks.equivariant import Equivariant
from potential.physics import Prediction, pull_back


@dataclass(frozen=True)
class Shape:
    """Numbers of a table: atoms, edges of an atom, structures."""

    n_atoms: int
    n_slots: int
    n_systems: int


@dataclass(frozen=True)
class Table:
    """Structures as a Graph has them, float64 where not said otherwise."""

    positions: Tensor  # (n_atoms, 3) Å
    species: Tensor  # (n_atoms,) int64
    e0: Tensor  # (n_atoms,) eV
    neighbor: Tensor  # (n_atoms * n_slots,) int64
    image: Tensor  # (n_atoms * n_slots, 3)
    filled: Tensor  # (n_atoms * n_slots, 1) bool
    system: Tensor  # (n_atoms,) int64
    cell: Tensor  # (n_systems, 3, 3) Å
    volume: Tensor  # (n_systems,) Å^3
    n_atoms: Tensor  # (n_systems,) at least 1

    def each(self, change: Callable[[Tensor], Tensor]) -> Table:
        """The same with every tensor changed."""
        return Table(*(change(getattr(self, f.name)) for f in fields(self)))

    def copy_(self, other: Table) -> None:
        """Take the numbers of another table of this shape over."""
        for f in fields(self):
            getattr(self, f.name).copy_(getattr(other, f.name), non_blocking=True)


def fits_a_table(potential: Potential) -> bool:
    """A potential of energies alone, whose network takes a table of edges, and does nothing else to find energies."""
    facts = potential.statistics
    if type(potential).forward is not Potential.forward:  # low-rank updates
        return False
    return isinstance(potential.network, Equivariant) and facts.has_energy and not facts.targets


def most_neighbors(graph: Graph) -> int:
    """Slots that a table needs."""
    return slots(graph.center, len(graph.positions))[1]


def tabulate(graph: Graph, species: Tensor, e0: Tensor, shape: Shape) -> Table:
    """The table of a graph on the CPU; `species` (n_atoms,) are its atoms', `e0` (n_species,) in eV, float64.

    Where the shape has more atoms than the graph, its last structure holds the rest.
    """
    n, size = len(species), shape.n_atoms * shape.n_slots
    place, _ = slots(graph.center, n, shape.n_slots)
    nothing = torch.zeros(size, 3, dtype=torch.float64)
    system = torch.full((shape.n_atoms,), shape.n_systems - 1).index_copy(0, torch.arange(n), graph.system)
    species = torch.zeros(shape.n_atoms, dtype=torch.int64).index_copy(0, torch.arange(n), species)
    cell = torch.eye(3, dtype=torch.float64).repeat(shape.n_systems, 1, 1)
    return Table(
        torch.cat([graph.positions, nothing[: shape.n_atoms - n]]),
        species,
        e0[species],
        torch.zeros(size, dtype=torch.int64).index_copy(0, place, graph.neighbor),
        nothing.index_copy(0, place, graph.image),
        torch.zeros(size, 1, dtype=torch.bool).index_fill(0, place, True),
        system,
        torch.cat([graph.cell, cell[graph.n_systems :]]),
        torch.cat([torch.linalg.det(graph.cell).abs(), cell[graph.n_systems :, 0, 0]]),
        torch.bincount(system, minlength=shape.n_systems).clamp(min=1),
    )


def predict(
    potential: Potential, table: Table, create_graph: bool = False, forces: bool = True
) -> tuple[Prediction, Tensor]:
    """`physics.predict` to rounding, and the shortest distance in Å; waits for nothing, so that it can be recorded."""
    network, facts = cast("Equivariant", potential.network), potential.statistics
    n_atoms, n_species = len(table.species), len(facts.elements)
    n_slots = len(table.neighbor) // n_atoms
    sent, image = (x.view(n_atoms, n_slots, 3) for x in (table.positions[table.neighbor], table.image))
    vectors = sent - table.positions[:, None] + image @ table.cell[table.system]
    far = torch.full_like(vectors[..., :1], 2 * potential.cutoff) * torch.eye(3, 1, device=vectors.device).T
    vectors = torch.where(table.filled.view(n_atoms, n_slots, 1), vectors, far)
    lengths = torch.linalg.vector_norm(vectors, dim=-1)
    with torch.enable_grad():  # atoms alone come last, as in Potential.forward
        padded = vectors.to(potential.dtype).requires_grad_()
        lonely = far[:1].to(padded.dtype).expand(n_species, n_slots, 3)
        neighbor = torch.cat([table.neighbor, table.neighbor.new_zeros(n_species * n_slots)])
        species = torch.cat([table.species, torch.arange(n_species, device=neighbor.device)])
        features = network.of_table(torch.cat([padded, lonely]), neighbor, species)
        output, alone = torch.split(potential.read(features)[0].double(), [n_atoms, n_species])
        isolated = (lengths >= potential.cutoff).all(1)
        difference = (output - alone.index_select(0, table.species)).masked_fill(isolated, 0)
        energy = table.e0 + facts.scale * difference
        slope = torch.full_like(padded, torch.nan)
        if forces:
            (slope,) = pull_back([energy.sum()], [padded], create_graph=create_graph)
    slope = slope.double()
    zeros = slope.new_zeros(len(table.cell), 9)
    force = slope.sum(1).index_add(0, table.neighbor, slope.flatten(0, 1), alpha=-1)
    virial = zeros.index_add(0, table.system, (padded.detach().double().mT @ slope).flatten(1))
    total = zeros[:, 0].index_add(0, table.system, energy)
    return Prediction(total, energy, force, virial.view(-1, 3, 3)), lengths.min()
