"""Energy, forces and stress from ONE gradient: dE/dr_ij. The only place that calls torch.autograd.grad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from potential.graph import Graph


class EnergyModel(Protocol):
    """What physics needs of a Potential: energies per atom (n_atoms,) in eV, float64, from edge vectors."""

    @property
    def dtype(self) -> torch.dtype: ...

    def __call__(
        self, vectors: Tensor, atomic_numbers: Tensor, center: Tensor, neighbor: Tensor, /
    ) -> Tensor: ...


@dataclass(frozen=True)
class Prediction:
    """What a potential says of a Graph."""

    energy: Tensor  # (n_systems,) eV, float64
    node_energy: Tensor  # (n_atoms,) eV, float64
    forces: Tensor  # (n_atoms, 3) eV/Å, float64
    virial: Tensor  # (n_systems, 3, 3) eV, float64: sum over edges of r_ij (x) dE/dr_ij


def edge_gradient(
    model: EnergyModel, graph: Graph, create_graph: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Per-atom energies (n_atoms,), edge vectors r_ij and dE/dr_ij (n_edges, 3).

    With `create_graph` the gradient can itself be differentiated, which fitting to forces needs.
    """
    with torch.enable_grad():  # also for a caller under no_grad
        vectors = graph.edge_vectors().to(model.dtype).requires_grad_()
        energy = model(vectors, graph.atomic_numbers, graph.center, graph.neighbor)
        total = energy.sum()
    if len(vectors) == 0:  # lonely atoms: nothing to differentiate by
        return energy, vectors, torch.zeros_like(vectors)
    (gradient,) = torch.autograd.grad(total, vectors, create_graph=create_graph)
    return energy, vectors, gradient


def pull_back(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor] | None = None
) -> tuple[Tensor, ...]:
    """Gradient of sum(outputs * cotangents) by each of the inputs, zero where nothing depends on one."""
    return torch.autograd.grad(outputs, inputs, cotangents, materialize_grads=True)


def predict(model: EnergyModel, graph: Graph, create_graph: bool = False) -> Prediction:
    """Energy, per-atom energies, forces and virial of every structure in the graph.

    forces_i = sum_j dE/dr_ij - sum_j dE/dr_ji, because r_ij = r_j - r_i. Sums are float64.
    """
    prediction = assemble(graph, *edge_gradient(model, graph, create_graph))
    if create_graph:
        return prediction
    return replace(prediction, energy=prediction.energy.detach(), node_energy=prediction.node_energy.detach())


def assemble(graph: Graph, atom_energy: Tensor, vectors: Tensor, gradient: Tensor) -> Prediction:
    """The prediction from energies per atom (n_atoms,), edge vectors and dE/dr_ij (n_edges, 3)."""
    gradient, vectors = gradient.double(), vectors.detach().double()
    zeros = torch.zeros_like(graph.positions)
    forces = zeros.index_add(0, graph.center, gradient).index_add(0, graph.neighbor, gradient, alpha=-1)
    n, edge_system = graph.n_systems, graph.system[graph.center]
    virial = zeros.new_zeros(n, 9).index_add(
        0, edge_system, (vectors[:, :, None] * gradient[:, None, :]).flatten(1)
    )
    energy = zeros.new_zeros(n).index_add(0, graph.system, atom_energy)
    return Prediction(energy, atom_energy, forces, virial.view(n, 3, 3))


def stress(virial: Tensor, cell: Tensor, pbc: Tensor) -> Tensor:
    """Stress (n_systems, 3, 3) in eV/Å^3 with ASE's sign (tension positive): virial / |det cell|.

    The absolute value matters: left-handed cells have a negative determinant.

    Raises:
        ValueError: a structure that is not periodic in all three directions has no volume.
    """
    if not bool(pbc.all()):
        raise ValueError(
            f"stress asked for pbc = {pbc[~pbc.all(dim=1)][0].tolist()}; it is defined only for structures "
            "periodic in all three directions; make the cell fully periodic or do not ask for stress"
        )
    symmetric = (virial + virial.transpose(1, 2)) / 2
    volume: Tensor = torch.linalg.det(cell).abs()
    return symmetric / volume[:, None, None]
