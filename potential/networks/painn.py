"""PaiNN: messages of scalars and vectors, without higher tensors.

    s_i, v_i  = a[species_i], 0
    phi_j     = A2 silu(A1 s_j + a1) + a2                          three numbers for each channel
    W(r)      = (B b(r) + b0) f(r)                                 three filters for each channel, b: Bessel functions
    ds_i      = sum_j phi_j W|s
    dv_i      = sum_j v_j phi_j W|vv + (r_ij / r) phi_j W|vs
    p, q      = U v_i, V v_i                                       mixed channels of the updated vectors
    x_s, x_vv, x_sv = C2 silu(C1 [s_i, |q|] + c1) + c2
    s_i      += x_s + x_sv (p . q),       v_i += x_vv p

Symbols: s `scalars`, v `vectors`, phi `context`, W `filters`, U and V `mix`, C `update`.

Source: Schütt, Unke, Gastegger, ICML 2021, arXiv:2102.03150 (eqs. 7, 8 and figure 2). What differs: the envelope f is
that of this package, whose second derivative vanishes at the cutoff too (there: cosine); messages are divided by the
root of the mean number of neighbors; 1e-4 is added to |q|^2; the energy is read by this package's head.

Checked beside schnetpack 2.1.1 with the same weights, float64: scalars, vectors and their gradients by the edge vectors
agree to 5e-15 of the largest (bench/networks/check.py).
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
from potential.networks.layers import dense, gather, per_species
from potential.radial import bessel, envelope

SMALLEST = 1e-4  # added to the square of a vector, so that its length is smooth where symmetry makes it 0


@dataclass(frozen=True)
class PaiNNConfig:
    """Dials of PaiNN. `channels` sets the width, `cutoff` the reach of one layer."""

    presets: ClassVar = sizes(channels=(16, 32, 64, 128))

    channels: int = dial(32, "scalars of an atom, and vectors", (1, 4096))
    n_layers: int = dial(3, "rounds of message passing; each reaches one cutoff further", (1, 12))
    n_radial: int = dial(20, "Bessel functions of the distance", (1, 512))
    cutoff: float = dial(5.0, "how far an atom sees its neighbors in one layer", (0.1, 100.0), "Å")

    def __post_init__(self) -> None:
        check_dials(self)


class Layer(nn.Module):
    """One message and one update of scalars (n_atoms, channels) and vectors (n_atoms, 3, channels)."""

    def __init__(self, config: PaiNNConfig):
        super().__init__()
        c = config.channels
        self.context = nn.ModuleList([dense(c, c), dense(c, 3 * c)])
        self.filters = dense(config.n_radial, 3 * c)
        self.mix = dense(c, 2 * c, bias=False)
        self.update = nn.ModuleList([dense(2 * c, c), dense(c, 3 * c)])

    def message(self, scalars: Tensor, vectors: Tensor, edges: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """What the neighbors add; `edges`: unit vectors (n_edges, 3), basis, fade, center, neighbor."""
        unit, basis, fade, center, neighbor = edges
        context = self.context[1](nn.functional.silu(self.context[0](scalars)))
        weighted = context.index_select(0, neighbor) * (self.filters(basis) * fade)
        ds, along, kept = torch.chunk(weighted, 3, dim=1)
        dv = unit.unsqueeze(2) * along.unsqueeze(1) + vectors.index_select(0, neighbor) * kept.unsqueeze(1)
        return gather(ds, center, len(scalars)), gather(dv, center, len(scalars))

    def change(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """What an atom makes of its own."""
        q, p = torch.chunk(self.mix(vectors), 2, dim=2)
        norm = torch.sqrt(q.square().sum(1) + SMALLEST)
        mixed = self.update[1](nn.functional.silu(self.update[0](torch.cat([scalars, norm], dim=1))))
        own, gate, scale = torch.chunk(mixed, 3, dim=1)
        return own + scale * (q * p).sum(1), gate.unsqueeze(1) * p

    def forward(self, scalars: Tensor, vectors: Tensor, edges: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        ds, dv = self.message(scalars, vectors, edges)
        scalars, vectors = scalars + ds, vectors + dv
        ds, dv = self.change(scalars, vectors)
        return scalars + ds, vectors + dv


class PaiNN(nn.Module):
    """Features per atom: scalars and vectors of the last layer, shape (n_atoms, 4 * channels).

    Args:
        n_species: number of elements.
        mean_neighbors: average number of neighbors within the cutoff; scales sums over neighbors.
    """

    def __init__(self, config: PaiNNConfig, n_species: int, mean_neighbors: float):
        super().__init__()
        self.config = config
        self.irreps_out = o3.Irreps(f"{config.channels}x0e + {config.channels}x1o")
        self.scale = 1.0 / math.sqrt(max(mean_neighbors, 1.0))
        self.embedding = per_species(n_species, config.channels)
        layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.layers = cast("Sequence[Layer]", layers)

    def forward(self, vectors: Tensor, species: Tensor, center: Tensor, neighbor: Tensor) -> Tensor:
        c = self.config
        lengths = torch.linalg.vector_norm(vectors, dim=1)
        unit, fade = vectors / lengths[:, None], self.scale * envelope(lengths, c.cutoff)[:, None]
        edges = (unit, bessel(lengths, c.n_radial, c.cutoff), fade, center, neighbor)
        s = self.embedding[species]
        v = s.new_zeros(len(s), 3, c.channels)
        for layer in self.layers:
            s, v = layer(s, v, edges)
        return torch.cat([s, v.transpose(1, 2).flatten(1)], dim=1)
