"""EGNN: scalar messages of distances, which also move the atoms; here their edges, since a network sees no positions.

    m_ij   = phi_e(h_i, h_j, |r_ij|^2, a_ij) f(r0_ij)            phi: MLPs with SiLU; Å^2
    x_i   += C sum_j (x_i - x_j) phi_x(m_ij)     that is        u_i = -C sum_j r_ij phi_x(m_ij) f(r0_ij)
                                                                r_ij += u_j - u_i
    h_i   += phi_h(h_i, C' sum_j m_ij)

An edge from i to j changes by what its ends move, so that all edges stay differences of positions, through periodic
boundaries as well. r0: the edge as it was given; a_ij: its Bessel functions times f, without which forces are learned
very slowly. C = 1/n and C' = 1/sqrt(n), n the mean number of neighbors.

Source: Satorras, Hoogeboom, Welling, E(n) equivariant graph neural networks, ICML 2021, arXiv:2102.09844 (eqs. 3-6).
What differs: neighbors within the cutoff in place of all atoms, hence the envelope f of this package on the messages
and once more on the moves; a_ij by default (`n_radial` = 0 leaves it away); the last layer moves nothing, as nobody
would look; the energy is read by this package's head.

Checked beside egnn-pytorch 0.2.8, which moves positions, with the same weights, `n_radial` 0 and no envelope, float64:
scalars after four layers and their gradients agree to 2e-15 of the largest (bench/networks/check.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from e3nn import o3
from torch import Tensor, nn
from torch.nn.functional import silu

from potential.networks.dials import check_dials, dial, sizes
from potential.networks.layers import dense, gather, per_species, radial_basis
from potential.radial import envelope

SLOWLY = 1e-3  # initial weights of phi_x: atoms hardly move at first (the authors' code)


@dataclass(frozen=True)
class EGNNConfig:
    """Dials of EGNN. `channels` sets the width, `cutoff` the reach of one layer."""

    presets: ClassVar = sizes(channels=(16, 32, 64, 128))

    channels: int = dial(32, "features of an atom and of a message", (1, 4096))
    n_layers: int = dial(4, "rounds of message passing; each reaches one cutoff further", (1, 12))
    n_radial: int = dial(8, "Bessel functions of the distance, as attributes of an edge", (0, 64))
    cutoff: float = dial(5.0, "how far an atom sees its neighbors in one layer", (0.1, 100.0), "Å")

    def __post_init__(self) -> None:
        check_dials(self)


class Layer(nn.Module):
    """One round: messages of edges, moves and features of atoms."""

    def __init__(self, config: EGNNConfig, moves: bool):
        super().__init__()
        c = config.channels
        self.message = nn.ModuleList([dense(2 * c + 1 + config.n_radial, c), dense(c, c)])
        self.update = nn.ModuleList([dense(2 * c, c), dense(c, c)])
        last = dense(c, 1, bias=False)
        last.weight.data *= SLOWLY
        self.move = nn.ModuleList([dense(c, c), last] if moves else [])

    def forward(
        self, h: Tensor, r: Tensor, edges: tuple[Tensor, Tensor], center: Tensor, neighbor: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`edges`: f (n_edges, 1) and a -> sums of messages (n_atoms, channels), u of each atom (n_atoms, 3)."""
        distance = r.square().sum(1, keepdim=True)
        fade, basis = edges
        pair = torch.cat([h.index_select(0, center), h.index_select(0, neighbor), distance, basis], dim=1)
        message = silu(self.message[1](silu(self.message[0](pair)))) * fade
        move = r.new_zeros(len(h), 3)
        if len(self.move):
            factor = self.move[1](silu(self.move[0](message))) * fade
            move = gather(-r * factor, center, len(h))
        return gather(message, center, len(h)), move


class EGNN(nn.Module):
    """Features per atom: the scalars of the last layer, shape (n_atoms, channels).

    Args:
        n_species: number of elements.
        mean_neighbors: average number of neighbors within the cutoff; scales sums over neighbors.
    """

    def __init__(self, config: EGNNConfig, n_species: int, mean_neighbors: float):
        super().__init__()
        self.config = config
        self.irreps_out = o3.Irreps(f"{config.channels}x0e")
        self.n = max(mean_neighbors, 1.0)
        self.embedding = per_species(n_species, config.channels)
        layers = [Layer(config, moves=t < config.n_layers - 1) for t in range(config.n_layers)]
        self.layers = cast("Sequence[Layer]", nn.ModuleList(layers))

    def forward(self, vectors: Tensor, species: Tensor, center: Tensor, neighbor: Tensor) -> Tensor:
        lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        fade = envelope(lengths, self.config.cutoff)
        basis = radial_basis(lengths.squeeze(1), self.config.n_radial, self.config.cutoff)
        h, r = self.embedding[species], vectors
        for layer in self.layers:
            gathered, move = layer(h, r, (fade, basis), center, neighbor)
            r = r + (move.index_select(0, neighbor) - move.index_select(0, center)) / self.n
            both = torch.cat([h, gathered / math.sqrt(self.n)], dim=1)
            h = h + layer.update[1](silu(layer.update[0](both)))
        return h
