"""Allegro: strictly local. Tensors belong to ordered pairs; an atom never sees beyond its own cutoff.

    z_ij      = MLP((a[species_i] + b[species_j]) * (B phi(r_ij)))           phi: Bessel functions times the envelope
    V_ij[lm]  = w_l(z_ij) Y_lm(r_ij),   x_ij = X z_ij                        tensors and scalars of a pair
    A_i[lm]   = sum_j  e_l(x_ij) Y_lm(r_ij) / sqrt(n)                        environment of the center, by channel
    V_ij'     = sum_paths  W[path] (V_ij (x) A_i)                          every path (l1, l2 -> l3), channel by channel
    x_ij'     = MLP(all x_ij so far, V_ij'[0e])
    h_i       = sum_j  all x_ij / sqrt(n)

Nothing has a bias, so that everything of a pair fades with phi. n: mean number of neighbors. + in z: side by side.
Symbols: a, b `embedding`, B `radial`, w `weigh`, e is part of what gives x, W `paths`.

Source: Musaelian, Batzner, Johansson, Sun, Owen, Kornbluth, Kozinsky, Nature Communications 14, 579 (2023),
doi:10.1038/s41467-023-36329-y, in the form of the authors' later code (nequip-allegro 0.8: all earlier scalars go
into each MLP, elements by a product). What differs: scalars are summed over the pairs of an atom and the energy is read
from the sum by this package's head; in the paper each pair has an energy.

Checked beside nequip-allegro 0.8.3 with the same weights and z, float64: scalars after three layers and their gradients
by the edge vectors agree to 6e-15 of the largest (bench/networks/check.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from e3nn import o3
from torch import Tensor, nn

from potential.graph import pad
from potential.networks.dials import check_dials, dial, sizes
from potential.networks.layers import per_species, radial_basis
from potential.networks.tensor_product import (
    INVARIANT,
    MLP,
    Harmonics,
    both_parities,
    coupling,
    layout,
    leading_to,
    natural,
)


@dataclass(frozen=True)
class AllegroConfig:
    """Dials of Allegro. `channels` and `tensor_channels` set the width, `cutoff` the reach of the network."""

    presets: ClassVar = sizes(channels=(16, 32, 64, 128), tensor_channels=(4, 8, 16, 32))

    channels: int = dial(32, "scalars of a pair after each layer", (1, 4096))
    tensor_channels: int = dial(8, "tensors of a pair for each irrep", (1, 1024))
    lmax: int = dial(2, "highest l of tensors and of the spherical harmonics of an edge", (0, 4))
    parity: int = dial(1, "1: tensors of both parities; 0: only those of spherical harmonics", (0, 1))
    lmax_out: int = dial(0, "highest l of the features that leave the network; energies need 0", (0, 4))
    n_layers: int = dial(2, "products with the environment; body order minus two", (1, 8))
    n_radial: int = dial(8, "Bessel functions of the distance", (1, 64))
    cutoff: float = dial(5.0, "how far an atom sees, in all layers together", (0.1, 100.0), "Å")

    def __post_init__(self) -> None:
        check_dials(self)


class PairProduct(nn.Module):
    """V' of the module's equation: (n_atoms, channels, n_slots, dim of first) -> (..., dim of out)."""

    couple: Tensor  # (harmonics, dim of first * dim of out)
    path: Tensor  # the same shape: to which path an element belongs

    def __init__(self, channels: int, first: Sequence[o3.Irrep], lmax: int, out: Sequence[o3.Irrep]):
        super().__init__()
        self.dims = sum(a.dim for a in first), sum(c.dim for c in out)
        couple = torch.zeros((lmax + 1) ** 2, *self.dims, dtype=torch.float64)
        path = torch.zeros((lmax + 1) ** 2, *self.dims, dtype=torch.int64)
        begin = {
            k: [sum(ir.dim for ir in of[:i]) for i in range(len(of))] for k, of in enumerate((first, out))
        }
        known = [(i, b, k) for i, a in enumerate(first) for b in natural(lmax)
                 for k, c in enumerate(out) if c in a * b]  # fmt: skip
        for p, (i, b, k) in enumerate(known):
            share = math.sqrt(
                sum(k == other for _, _, other in known)
            )  # paths into one irrep share its variance
            block = coupling(first[i].l, b.l, out[k].l).permute(1, 0, 2) / share
            place = (
                slice(b.l**2, (b.l + 1) ** 2),
                slice(begin[0][i], begin[0][i] + first[i].dim),
                slice(begin[1][k], begin[1][k] + out[k].dim),
            )
            couple[place], path[place] = block, p
        self.paths = nn.Parameter(torch.randn(len(known), channels, dtype=torch.float64))
        self.register_buffer("couple", couple.flatten(1), persistent=False)
        self.register_buffer("path", path.flatten(1), persistent=False)

    def forward(self, tensors: Tensor, environment: Tensor) -> Tensor:
        """`environment` (channels, n_atoms, harmonics)."""
        weighted = self.paths.T[:, self.path] * self.couple
        matrices = torch.bmm(environment, weighted).transpose(0, 1)
        out: Tensor = tensors @ matrices.reshape(*matrices.shape[:2], *self.dims)
        return out


class Allegro(nn.Module):
    """Features per atom: the scalars of its pairs after each layer, (n_layers + 1) * channels, summed over the pairs;
    then, up to lmax_out, their tensors after the last.

    Args:
        n_species: number of elements.
        mean_neighbors: average number of neighbors within the cutoff; scales sums over neighbors.
    """

    order: Tensor  # (harmonics,): l of each component

    def __init__(self, config: AllegroConfig, n_species: int, mean_neighbors: float):
        super().__init__()
        c = self.config = config
        width, t, n_l = c.channels, c.tensor_channels, c.lmax + 1
        self.scale = 1.0 / math.sqrt(max(mean_neighbors, 1.0))
        self.harmonics = Harmonics(c.lmax)
        self.embedding = nn.ParameterList(per_species(n_species, width) for _ in range(2))
        self.radial = MLP(c.n_radial, 2 * width)
        self.pair = MLP(2 * width, width, width)
        self.weigh, self.start = MLP(width, t * n_l), MLP(width, width + t * n_l)
        hidden = both_parities(c.lmax) if c.parity else natural(c.lmax)
        tensors = [[ir for ir in hidden if ir == INVARIANT or 0 < ir.l <= c.lmax_out]]
        for k in range(c.n_layers):
            known = hidden if k < c.n_layers - 1 else natural(c.lmax)
            tensors.insert(0, leading_to(tensors[0], known, natural(c.lmax)))
        self.irreps = reachable(tensors, c.lmax)
        steps = range(c.n_layers)
        products = [PairProduct(t, self.irreps[k], c.lmax, self.irreps[k + 1]) for k in steps]
        outs = [width + t * n_l * (k < c.n_layers - 1) for k in steps]
        latents = [MLP((k + 1) * width + t, width, outs[k]) for k in steps]
        self.products = cast("Sequence[PairProduct]", nn.ModuleList(products))
        self.latents = nn.ModuleList(latents)
        self.irreps_out = layout([INVARIANT], (c.n_layers + 1) * width) + layout(self.irreps[-1][1:], t)
        order = torch.tensor([l for l in range(n_l) for _ in range(2 * l + 1)])
        self.register_buffer("order", order, persistent=False)

    def weighted(self, harmonics: Tensor, weights: Tensor) -> Tensor:
        """Y_lm times a weight for each l and channel: (n_atoms, n_slots, ...) -> (..., channels, harmonics)."""
        c = self.config
        of_order = weights.view(*weights.shape[:-1], c.tensor_channels, c.lmax + 1)
        return of_order.index_select(-1, self.order) * harmonics.unsqueeze(-2)

    def forward(self, vectors: Tensor, species: Tensor, center: Tensor, neighbor: Tensor) -> Tensor:
        c, width = self.config, self.config.channels
        padded, slots = pad(vectors, center, neighbor, len(species), c.cutoff)
        lengths = torch.linalg.vector_norm(padded, dim=2, keepdim=True)
        harmonics = self.harmonics(padded, lengths)
        basis = radial_basis(lengths.squeeze(2), c.n_radial, c.cutoff)
        own = self.embedding[0][species].unsqueeze(1).expand(*padded.shape[:2], -1)
        other = self.embedding[1][species[slots]].view(*padded.shape[:2], -1)
        z = self.pair(torch.cat([own, other], dim=2) * self.radial(basis))
        x, weights = torch.split(self.start(z), [width, self.start.weights[0].shape[1] - width], dim=2)
        tensors = self.weighted(harmonics, self.weigh(z)).transpose(
            1, 2
        )  # (n_atoms, channels, n_slots, harmonics)
        scalars = [x]
        for product, latent in zip(self.products, self.latents, strict=True):
            environment = self.scale * self.weighted(harmonics, weights).sum(1)
            tensors = product(tensors, environment.transpose(0, 1))
            invariant = tensors[..., 0].transpose(1, 2)
            out = latent(torch.cat([*scalars, invariant], dim=2))
            scalars.append(out[..., :width])
            weights = out[..., width:]
        total = self.scale * torch.cat(scalars, dim=2).sum(1)
        rest = [ir.dim for ir in self.irreps[-1]]
        higher = torch.split(self.scale * tensors.sum(2), rest, dim=2)[1:]  # (n_atoms, channels, 2l+1)
        return torch.cat([total, *(h.flatten(1) for h in higher)], dim=1)


def reachable(tensors: Sequence[Sequence[o3.Irrep]], lmax: int) -> list[list[o3.Irrep]]:
    """Of the irreps after each product, those that the ones before it can give."""
    out = [list(tensors[0])]
    for wanted in tensors[1:]:
        out.append([ir for ir in wanted if any(ir in a * b for a in out[-1] for b in natural(lmax))])
    return out
