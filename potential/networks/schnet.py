"""SchNet: continuous-filter convolutions of scalar features; sees distances only.

    x_i      = a[species_i]
    W(r)     = V2 ssp(V1 g(r) + b1) + b2            filters from Gaussians g_k(r) = exp(-(r - mu_k)^2 / (2 d^2))
    m_i      = sum_j  (U x_j) * W(r_ij) f(r_ij)     one filter for each channel
    x_i     += A2 ssp(A1 m_i + c1) + c2             ssp: softplus, shifted to 0 at 0

Source: Schütt, Sauceda, Kindermans, Tkatchenko, Müller, J. Chem. Phys. 148, 241722 (2018), doi:10.1063/1.5019779.
What differs: f is the envelope of this package, whose second derivative vanishes at the cutoff too (there: cosine);
sums over neighbors are divided by the root of their mean number; the energy is read by this package's head.

Checked beside schnetpack 2.1.1 with the same weights, float64: features and their gradients by the edge vectors agree
to 1e-15 of the largest (bench/networks/check.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from e3nn import o3
from torch import Tensor, nn

from potential.networks.dials import check_dials, dial, sizes
from potential.networks.layers import dense, gather, per_species, shifted_softplus
from potential.radial import envelope


@dataclass(frozen=True)
class SchNetConfig:
    """Dials of SchNet. `channels` sets the width, `cutoff` the reach of one layer."""

    presets: ClassVar = sizes(channels=(32, 64, 128, 256))

    channels: int = dial(64, "features of an atom, and filters of an edge", (1, 4096))
    n_layers: int = dial(3, "rounds of message passing; each reaches one cutoff further", (1, 12))
    n_radial: int = dial(20, "Gaussians of the distance, from 0 to the cutoff", (2, 512))
    cutoff: float = dial(5.0, "how far an atom sees its neighbors in one layer", (0.1, 100.0), "Å")

    def __post_init__(self) -> None:
        check_dials(self)


class Interaction(nn.Module):
    """One round: scalars (n_atoms, channels) in, their change out."""

    def __init__(self, config: SchNetConfig):
        super().__init__()
        c = config.channels
        self.filters = nn.ModuleList([dense(config.n_radial, c), dense(c, c)])
        self.send = dense(c, c, bias=False)
        self.update = nn.ModuleList([dense(c, c), dense(c, c)])

    def forward(self, x: Tensor, basis: Tensor, fade: Tensor, center: Tensor, neighbor: Tensor) -> Tensor:
        """`basis` (n_edges, n_radial), `fade` (n_edges, 1)."""
        filters = self.filters[1](shifted_softplus(self.filters[0](basis))) * fade
        gathered = gather(self.send(x).index_select(0, neighbor) * filters, center, len(x))
        changed: Tensor = self.update[1](shifted_softplus(self.update[0](gathered)))
        return changed


class SchNet(nn.Module):
    """Features per atom: the scalars of the last layer, shape (n_atoms, channels).

    Args:
        n_species: number of elements.
        mean_neighbors: average number of neighbors within the cutoff; scales sums over neighbors.
    """

    centers: Tensor

    def __init__(self, config: SchNetConfig, n_species: int, mean_neighbors: float):
        super().__init__()
        self.config = config
        self.irreps_out = o3.Irreps(f"{config.channels}x0e")
        self.scale = 1.0 / math.sqrt(max(mean_neighbors, 1.0))
        self.embedding = per_species(n_species, config.channels)
        layers = nn.ModuleList(Interaction(config) for _ in range(config.n_layers))
        self.layers = cast("Sequence[Interaction]", layers)
        centers = torch.linspace(0, config.cutoff, config.n_radial, dtype=torch.float64)
        self.register_buffer("centers", centers, persistent=False)

    def forward(self, vectors: Tensor, species: Tensor, center: Tensor, neighbor: Tensor) -> Tensor:
        lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        width = self.config.cutoff / (self.config.n_radial - 1)
        basis = torch.exp(-0.5 * ((lengths - self.centers) / width).square())
        fade = self.scale * envelope(lengths, self.config.cutoff)
        x = self.embedding[species]
        for layer in self.layers:
            x = x + layer(x, basis, fade, center, neighbor)
        return x
