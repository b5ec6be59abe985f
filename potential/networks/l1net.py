"""l1net: the simplest equivariant network, a convolution of scalars and vectors without Clebsch-Gordan coefficients.

    s_i, v_i = a[species_i], 0
    p_i      = sum_j  R1 s_j,   R2 (v_j . u_ij)                  scalars, two for each channel
    q_i      = sum_j  R3 s_j u_ij,   R4 v_j                      vectors, two for each channel
    x_i      = A p_i + S[species_i] s_i,   y_i = B q_i + T[species_i] v_i
    s_i'     = silu(x_i first),   v_i' = y_i silu(x_i last)

These are the paths 0 0 -> 0, 1 1 -> 0, 0 1 -> 1 and 1 0 -> 1 of an e3nn convolution with features of l <= 1 and natural
parity; R: a small MLP of Bessel functions times the envelope, a number for each path and channel; u: unit vector.

Source: Thomas et al., Tensor field networks, arXiv:1802.08219 (2018), restricted to l <= 1; gate and self-connection as
in Batzner et al., Nature Communications 13, 2453 (2022).

Checked beside the same convolutions made by e3nn 0.6.0's TensorProduct, float64: scalars, vectors and their gradients
by the edge vectors agree to 2e-15 of the largest (bench/networks/check.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from potential.networks.dials import check_dials, dial, sizes
from potential.networks.layers import gather, per_species, radial_basis
from potential.networks.tensor_product import (
    MLP,
    SILU_GAIN,
    SpeciesLinear,
    flat,
    layout,
    mixing,
    natural,
)


@dataclass(frozen=True)
class L1NetConfig:
    """Dials of l1net. `channels` sets the width, `cutoff` the reach of one layer."""

    presets: ClassVar = sizes(channels=(16, 32, 64, 128))

    channels: int = dial(32, "scalars of an atom, and vectors", (1, 4096))
    lmax_out: int = dial(0, "highest l of the features that leave the network; energies need 0", (0, 1))
    n_layers: int = dial(3, "rounds of message passing; each reaches one cutoff further", (1, 12))
    n_radial: int = dial(8, "Bessel functions of the distance", (1, 64))
    radial_width: int = dial(32, "width of the network of the distance", (1, 1024))
    cutoff: float = dial(5.0, "how far an atom sees its neighbors in one layer", (0.1, 100.0), "Å")

    def __post_init__(self) -> None:
        check_dials(self)


class Layer(nn.Module):
    """One round of scalars (n_atoms, channels) and vectors (n_atoms, 3, channels)."""

    def __init__(self, config: L1NetConfig, n_species: int, scale: float, vectors: bool):
        """`scale`: of sums over neighbors; `vectors`: whether there are any in the end."""
        super().__init__()
        c, self.scale, self.vectors = config.channels, scale, vectors
        n_paths, n_scalars = (4, 2 * c) if vectors else (2, c)
        self.radial = MLP(config.n_radial, *[config.radial_width] * 2, n_paths * c)
        self.mix = nn.ParameterList([mixing(2 * c, n_scalars), *[mixing(2 * c, c)] * vectors])
        self.skip = SpeciesLinear(n_species, [c, c][: 1 + vectors], [n_scalars, c][: 1 + vectors])

    def forward(
        self, s: Tensor, v: Tensor, species: Tensor, edges: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """`edges`: unit vectors (n_edges, 3), radial basis, center, neighbor."""
        unit, basis, center, neighbor = edges
        r1, r2, *more = torch.split(self.scale * self.radial(basis), s.shape[1], dim=1)
        s_j, v_j, u = s.index_select(0, neighbor), v.index_select(0, neighbor), unit.unsqueeze(2)
        p = torch.cat([r1 * s_j, r2 * (v_j * u).sum(1)], dim=1)
        own = self.skip([s.unsqueeze(1), v][: 1 + self.vectors], species)
        x = gather(p, center, len(s)) @ self.mix[0] + own[0].squeeze(1)
        scalars, *gates = torch.split(SILU_GAIN * nn.functional.silu(x), s.shape[1], dim=1)
        if not self.vectors:
            return scalars, v
        q = torch.cat([(more[0] * s_j).unsqueeze(1) * u, more[1].unsqueeze(1) * v_j], dim=2)
        y = gather(q, center, len(s)) @ self.mix[1] + own[1]
        return scalars, y * gates[0].unsqueeze(1)


class L1Net(nn.Module):
    """Features per atom: scalars of the last layer and, with lmax_out = 1, its vectors.

    Args:
        n_species: number of elements.
        mean_neighbors: average number of neighbors within the cutoff; scales sums over neighbors.
    """

    def __init__(self, config: L1NetConfig, n_species: int, mean_neighbors: float):
        super().__init__()
        self.config = config
        scale = 1.0 / math.sqrt(max(mean_neighbors, 1.0))
        self.irreps_out = layout(natural(config.lmax_out), config.channels)
        self.embedding = per_species(n_species, config.channels)
        last = config.n_layers - 1
        layers = [Layer(config, n_species, scale, t < last or config.lmax_out > 0) for t in range(last + 1)]
        self.layers = cast("Sequence[Layer]", nn.ModuleList(layers))

    def forward(self, vectors: Tensor, species: Tensor, center: Tensor, neighbor: Tensor) -> Tensor:
        c = self.config
        lengths = torch.linalg.vector_norm(vectors, dim=1)
        basis = radial_basis(lengths, c.n_radial, c.cutoff)
        edges = (vectors / lengths[:, None], basis, center, neighbor)
        s = self.embedding[species]
        v = s.new_zeros(len(s), 3, c.channels)
        for layer in self.layers:
            s, v = layer(s, v, species, edges)
        return flat([s.unsqueeze(1), v][: 1 + c.lmax_out])
