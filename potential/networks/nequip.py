"""NequIP: messages by tensor products of features with spherical harmonics, gated; irreps of both parities.

    h_i           = a[species_i]                                         scalars 0e
    m_i[path]     = sum_j  R_path(r_ij) (U h_j) (x) Y(r_ij) / sqrt(n)    every path (l1, l2 -> l3), channel by channel
    x_i           = V m_i + S[species_i] h_i                             paths and channels mixed within an irrep
    h_i'          = gate(x_i)

R: an MLP of Bessel functions times the envelope, a number for each path and channel. n: mean number of neighbors.
Symbols: a `embedding`, U `send`, V `update`, S `skip`, R `radial`.

Source: Batzner, Musaelian, Sun, Geiger, Mailoa, Kornbluth, Molinari, Smidt, Kozinsky, Nature Communications 13, 2453
(2022), doi:10.1038/s41467-022-29939-5. What differs: the energy is read by this package's head.

Checked beside nequip 0.19.1 with the same weights, float64: features of l = 0 and 1 after three layers of both parities
and their gradients by the edge vectors agree to 2e-14 of the largest (bench/networks/check.py). Paths that lead to
nothing, which nequip computes as well, are left out.
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
from potential.networks.layers import per_species, radial_basis
from potential.networks.tensor_product import (
    INVARIANT,
    MLP,
    Convolution,
    Harmonics,
    Linear,
    SpeciesLinear,
    both_parities,
    flat,
    gate,
    layout,
    leading_to,
    natural,
)


@dataclass(frozen=True)
class NequIPConfig:
    """Dials of NequIP. `channels` sets the width, `cutoff` the reach of one layer."""

    presets: ClassVar = sizes(channels=(8, 16, 32, 64))

    channels: int = dial(16, "features of each irrep", (1, 1024))
    lmax: int = dial(2, "highest l of features and of the spherical harmonics of an edge", (0, 4))
    parity: int = dial(1, "1: features of both parities; 0: only those of spherical harmonics", (0, 1))
    lmax_out: int = dial(0, "highest l of the features that leave the network; energies need 0", (0, 4))
    n_layers: int = dial(3, "rounds of message passing; each reaches one cutoff further", (1, 8))
    n_radial: int = dial(8, "Bessel functions of the distance", (1, 64))
    radial_width: int = dial(32, "width of the network of the distance", (1, 1024))
    cutoff: float = dial(5.0, "how far an atom sees its neighbors in one layer", (0.1, 100.0), "Å")

    def __post_init__(self) -> None:
        check_dials(self)


class Layer(nn.Module):
    """One round: features of `irreps_in` in, of `irreps_out` out."""

    def __init__(
        self, config: NequIPConfig, irreps_in: Sequence[o3.Irrep], wanted: Sequence[o3.Irrep], n_species: int
    ):
        super().__init__()
        c = self.channels = config.channels
        self.convolution = Convolution(irreps_in, config.lmax, wanted)
        product = self.convolution.product
        self.irreps_out = product.irreps_out
        gated = sum(ir.l > 0 for ir in self.irreps_out)
        widths = [c * (1 + gated) if ir == INVARIANT else c for ir in self.irreps_out]
        self.radial = MLP(config.n_radial, *[config.radial_width] * 2, len(product.paths) * c)
        self.send = Linear([c] * len(irreps_in), [c] * len(irreps_in))
        self.update = Linear([c * product.width(ir) for ir in self.irreps_out], widths)
        self.kept = [
            (i, self.irreps_out.index(ir)) for i, ir in enumerate(irreps_in) if ir in self.irreps_out
        ]
        self.skip = SpeciesLinear(n_species, [c] * len(self.kept), [widths[k] for _, k in self.kept])

    def forward(
        self,
        features: Sequence[Tensor],
        species: Tensor,
        edges: tuple[Tensor, ...],
        center: Tensor,
        neighbor: Tensor,
    ) -> list[Tensor]:
        """`edges`: harmonics (n_edges, (lmax+1)^2), already divided by sqrt(n), and radial basis."""
        harmonics, basis = edges
        gathered = self.convolution(self.send(features), harmonics, self.radial(basis), center, neighbor)
        out = self.update(gathered)
        own = self.skip([features[i] for i, _ in self.kept], species)
        for (_, k), x in zip(self.kept, own, strict=True):
            out[k] = out[k] + x
        return gate(out, self.irreps_out, self.channels)


class NequIP(nn.Module):
    """Features per atom: those of the last layer up to lmax_out; of l = 0 the even ones.

    Args:
        n_species: number of elements.
        mean_neighbors: average number of neighbors within the cutoff; scales sums over neighbors.
    """

    def __init__(self, config: NequIPConfig, n_species: int, mean_neighbors: float):
        super().__init__()
        self.config = config
        self.scale = 1.0 / math.sqrt(max(mean_neighbors, 1.0))
        self.embedding = per_species(n_species, config.channels)
        self.harmonics = Harmonics(config.lmax)
        hidden = both_parities(config.lmax) if config.parity else natural(config.lmax)
        wanted = [[ir for ir in hidden if ir == INVARIANT or 0 < ir.l <= config.lmax_out]]
        for _ in range(config.n_layers - 1):  # only what leads to something
            wanted.insert(0, leading_to(wanted[0], hidden, natural(config.lmax)))
        irreps, layers = [INVARIANT], []
        for of_layer in wanted:
            layers.append(Layer(config, irreps, of_layer, n_species))
            irreps = layers[-1].irreps_out
        self.layers = cast("Sequence[Layer]", nn.ModuleList(layers))
        self.irreps_out = layout(irreps, config.channels)

    def forward(self, vectors: Tensor, species: Tensor, center: Tensor, neighbor: Tensor) -> Tensor:
        c = self.config
        lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        harmonics = self.scale * self.harmonics(vectors, lengths)
        basis = radial_basis(lengths.squeeze(1), c.n_radial, c.cutoff)
        features = [self.embedding[species].unsqueeze(1)]
        for layer in self.layers:
            features = layer(features, species, (harmonics, basis), center, neighbor)
        return flat(features)
