"""Energy, forces and stress from ONE gradient: dE/dr_ij. The only place that calls torch.autograd.grad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from potential.graph import Graph

# name of a target -> (what has a value: "structure", "mean" or "atom"; values per atom (n_atoms, dim), float64)
AtomTargets: TypeAlias = Mapping[str, tuple[str, Tensor]]


class EnergyModel(Protocol):
    """What physics needs of a Potential: energies per atom (n_atoms,) in eV, float64, and targets."""

    @property
    def dtype(self) -> torch.dtype: ...

    def __call__(
        self, vectors: Tensor, atomic_numbers: Tensor, center: Tensor, neighbor: Tensor, /
    ) -> tuple[Tensor, AtomTargets]: ...


@dataclass(frozen=True)
class Prediction:
    """What a potential says of a Graph."""

    energy: Tensor  # (n_systems,) eV, float64
    node_energy: Tensor  # (n_atoms,) eV, float64
    forces: Tensor  # (n_atoms, 3) eV/Å, float64
    virial: Tensor  # (n_systems, 3, 3) eV, float64: sum over edges of r_ij (x) dE/dr_ij
    targets: Mapping[str, Tensor] = field(default_factory=dict)  # (n_systems or n_atoms, dim) each, float64


def edge_gradient(
    model: EnergyModel, graph: Graph, create_graph: bool = False, wanted: bool = True
) -> tuple[Tensor, Tensor, Tensor, AtomTargets]:
    """Per-atom energies (n_atoms,), edge vectors r_ij and dE/dr_ij (n_edges, 3), and targets of atoms.

    With `create_graph` the gradient can itself be differentiated, which fitting to forces needs. It is NaN where it is
    not `wanted` or there are no energies.
    """
    with torch.enable_grad():  # also for a caller under no_grad
        vectors = graph.edge_vectors().to(model.dtype).requires_grad_()
        energy, targets = model(vectors, graph.atomic_numbers, graph.center, graph.neighbor)
        total = energy.sum()
    if len(vectors) == 0:  # lonely atoms: nothing to differentiate by
        return energy, vectors, torch.zeros_like(vectors), targets
    if not wanted or not total.requires_grad:
        return energy, vectors, torch.full_like(vectors, torch.nan), targets
    (gradient,) = torch.autograd.grad(total, vectors, create_graph=create_graph)
    return energy, vectors, gradient, targets


def pull_back(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    cotangents: Sequence[Tensor] | None = None,
    create_graph: bool = False,
) -> tuple[Tensor, ...]:
    """Gradient of sum(outputs * cotangents) by each of the inputs, zero where nothing depends on one."""
    return torch.autograd.grad(outputs, inputs, cotangents, create_graph=create_graph, materialize_grads=True)


def predict(model: EnergyModel, graph: Graph, create_graph: bool = False, forces: bool = True) -> Prediction:
    """Energy, per-atom energies, forces, virial and targets of every structure in the graph.

    forces_i = sum_j dE/dr_ij - sum_j dE/dr_ji, because r_ij = r_j - r_i. Sums are float64. Without `forces` these and
    the virial are NaN and cost nothing; so is all that a potential without energies says of them.
    """
    *parts, targets = edge_gradient(model, graph, create_graph, forces)
    prediction = replace(assemble(graph, *parts), targets=pooled(graph, targets))
    if create_graph:
        return prediction
    detached = {name: value.detach() for name, value in prediction.targets.items()}
    energy, node_energy = prediction.energy.detach(), prediction.node_energy.detach()
    return replace(prediction, energy=energy, node_energy=node_energy, targets=detached)


def pooled(graph: Graph, targets: AtomTargets) -> dict[str, Tensor]:
    """Values of structures (n_systems, dim), or of atoms (n_atoms, dim) where these have them."""
    out = {}
    for name, (per, value) in targets.items():
        total = value.new_zeros(graph.n_systems, value.shape[1]).index_add(0, graph.system, value)
        out[name] = value if per == "atom" else total / graph.n_atoms[:, None] if per == "mean" else total
    return out


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
