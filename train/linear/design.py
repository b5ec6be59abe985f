"""The design matrix of linear ACE: energy, forces and virial of every function at once.

A function of atom i moves with r_ij as dB_i/dr_ij = (dB_i/dA_i) (dA_i/dr_ij). Tangents are pushed forward from every
edge and direction to all functions of its center in one pass, so that no function needs a backward pass of its own:
each column of A stands for an edge and is followed by its three tangents, and products follow the product rule. By
hand, as torch's forward mode loads code that it calls deprecated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from potential.networks.ace import ACE
from potential.physics import pull_back

EDGES = 32  # whose tangents go through the products at a time: as many as a cache holds
TANGENTS = 1024  # edges whose densities are moved at a time, a multiple of EDGES: bounded memory


@dataclass(frozen=True)
class Features:
    """What the coefficients of a linear network, as a flat vector of F, multiply."""

    energy: Tensor  # (F,)
    forces: Tensor  # (n_atoms, 3, F) 1/Å
    virial: Tensor  # (3, 3, F): sum over edges of r (x) dB/dr, symmetric


def features(network: ACE, edges: tuple[Tensor, Tensor, Tensor, Tensor]) -> Features:
    """The features of one structure, in units of the network's energy.

    Args:
        edges: vectors (n_edges, 3), species (n_atoms,), center and neighbor (n_edges,), as a network sees them.
    """
    vectors, species, center, neighbor = edges
    n_atoms, n_species, n_functions = len(species), network.n_species, len(network.functions)
    with torch.no_grad():
        element = species[neighbor]
        a = network.factors(network.densities(vectors), center, element, n_atoms)
        b = network.invariants(a)
        energy = b.new_zeros(n_species, n_functions).index_add(0, species, b.T)
        forces = b.new_zeros(n_atoms * n_species, 3, n_functions)
        virial = b.new_zeros(n_species, 3, 3, n_functions)
        moved: list[Tensor] = []
        for begin in range(0, len(vectors), EDGES):
            part, at = slice(begin, begin + EDGES), begin % TANGENTS
            if not at:
                many = slice(begin, begin + TANGENTS)
                moved = _moved(network, vectors[many], element[many])
            slopes = _slopes(
                network, [a.index_select(1, center[part]), *(x[:, at : at + EDGES] for x in moved)]
            )
            kind = species[center[part]]
            forces.index_add_(0, center[part] * n_species + kind, slopes)
            forces.index_add_(0, neighbor[part] * n_species + kind, slopes, alpha=-1)
            for k in range(3):
                virial[:, k].index_add_(0, kind, vectors[part, k, None, None] * slopes)
        virial = (virial + virial.transpose(1, 2)) / 2
    # the element running fastest, as in the coefficients
    return Features(
        energy.T.flatten(),
        forces.view(n_atoms, n_species, 3, n_functions).permute(0, 2, 3, 1).flatten(2),
        virial.permute(1, 2, 3, 0).flatten(2),
    )


def _slopes(network: ACE, columns: list[Tensor]) -> Tensor:
    """dB/dr of centers by some edges, (n_edges, 3, n_functions), from A and its tangents, (n_factors, n_edges) each."""
    n = columns[0].shape[1]

    def times(x: Tensor, y: Tensor) -> Tensor:
        """(x, dx) (y, dy) = (x y, x dy + dx y), the tangents in three directions after the values."""
        x, y = x.view(*x.shape[:-1], 4, n), y.view(*y.shape[:-1], 4, n)
        value = x[..., :1, :] * y[..., :1, :]
        change = x[..., :1, :] * y[..., 1:, :] + x[..., 1:, :] * y[..., :1, :]
        return torch.cat([value, change], dim=-2).flatten(-2)

    return network.invariants(torch.cat(columns, dim=1), times).view(-1, 4, n)[:, 1:].permute(2, 1, 0)


def _moved(network: ACE, vectors: Tensor, element: Tensor) -> list[Tensor]:
    """Change of the A of their centers as edges move along x, y and z, (n_factors, n_edges) each.

    Two reverse passes through the densities, the second by the weights of the first.
    """
    n = len(vectors)
    with torch.enable_grad():
        vectors = vectors.detach().requires_grad_()
        densities = network.densities(vectors)
        weights = torch.zeros_like(densities, requires_grad=True)
        pulled = pull_back([densities], [vectors], [weights], create_graph=True)
        directions = torch.eye(3, dtype=vectors.dtype).unsqueeze(1).expand(3, n, 3)
        tangents = [pull_back(pulled, [weights], [d], create_graph=True)[0].detach() for d in directions]
    return [network.factors(tangent, torch.arange(n), element, n) for tangent in tangents]
