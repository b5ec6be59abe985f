"""MACE: messages by tensor products as in NequIP, then symmetric products of them at each atom, of any body order.

    h_i         = a[species_i]
    m_i[path]   = sum_j  R_path(r_ij) (U h_j) (x) Y(r_ij) / sqrt(n)        every path (l1, l2 -> l), channel by channel
    A_i[l m, c] = V_l m_i                                                    0e, 1o, 2e ... up to lmax
    B_i[L M, c] = sum_nu sum_eta W[nu, L, eta, species_i, c] sum_(lm) C[nu, L, eta](M; l1 m1 ... lnu mnu) A ... A
    h_i'        = X B_i + S[species_i] h_i                                   0e ... up to hidden_lmax

C[nu, L, eta] are all independent symmetric maps of nu factors to order L (generalized Clebsch-Gordan coefficients),
made here by coupling Wigner 3j symbols one factor after the other. A symmetric map is a polynomial: it acts on the
monomials of the components of A, of which there are fewer than products. n: mean number of neighbors.
Symbols: a `embedding`, R `radial`, U `send`, V `gather`, W `weights`, C `couple`, X `update`, S `skip`.

Source: Batatia, Kovács, Simm, Ortner, Csányi, NeurIPS 2022, arXiv:2206.07697 (eqs. 7-11). What differs: the energy is
read from the invariants of all layers together by this package's head; sums are divided by the root of n (there: n);
the envelope is this package's.

Checked beside mace-torch 0.3.16 with the same weights, float64, lmax 3, correlation 3: its couplings span the same
space and, with W expressed in them, features of l = 0 and 1 after two layers and their gradients by the edge vectors
agree to 1.1e-14 of the largest (bench/networks/check.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement, permutations
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
    coupling,
    flat,
    layout,
    natural,
)


@dataclass(frozen=True)
class MACEConfig:
    """Dials of MACE. `channels` sets the width, `cutoff` the reach of one layer."""

    presets: ClassVar = sizes(channels=(8, 16, 32, 64))

    channels: int = dial(16, "features of each irrep", (1, 1024))
    lmax: int = dial(2, "highest l of the spherical harmonics of an edge and of what is multiplied", (1, 3))
    hidden_lmax: int = dial(1, "highest l of the features between layers; at most lmax", (0, 3))
    lmax_out: int = dial(0, "highest l of the features that leave the network; energies need 0", (0, 3))
    correlation: int = dial(3, "factors of the product: body order minus one", (1, 4))
    n_layers: int = dial(2, "rounds of message passing; each reaches one cutoff further", (1, 4))
    n_radial: int = dial(8, "Bessel functions of the distance", (1, 64))
    radial_width: int = dial(32, "width of the network of the distance", (1, 1024))
    cutoff: float = dial(5.0, "how far an atom sees its neighbors in one layer", (0.1, 100.0), "Å")

    def __post_init__(self) -> None:
        check_dials(self)


def monomials(n: int, degree: int) -> list[tuple[int, ...]]:
    """Products of `degree` out of n components, each as its sorted indices."""
    return list(combinations_with_replacement(range(n), degree))


@cache
def symmetric_couplings(lmax: int, l_out: int, degree: int) -> Tensor:
    """C of the module's equation on monomials: (n_couplings, 2 l_out + 1, n_monomials), float64; not to be changed.

    Orthonormal as tensors, by Gram and Schmidt in the order of the paths, so that any machine finds the same; then
    scaled to outputs of variance one for independent components of A.
    """
    number = {m: k for k, m in enumerate(monomials((lmax + 1) ** 2, degree))}
    n_orders = torch.tensor([len(set(permutations(m))) for m in number], dtype=torch.float64)
    basis = []
    for factors in combinations_with_replacement(range(lmax + 1), degree):
        kept: list[Tensor] = []  # factors of other l have other monomials
        for path in sequential(factors, l_out):
            row = torch.zeros(2 * l_out + 1, len(number), dtype=torch.float64)
            index = [tuple(sorted(l * l + m for l, m in zip(factors, ms, strict=True)))
                     for ms in torch.cartesian_prod(*(torch.arange(2 * l + 1) for l in factors))
                     .view(-1, degree).tolist()]  # fmt: skip
            row.index_add_(1, torch.tensor([number[k] for k in index]), path.reshape(-1, 2 * l_out + 1).T)
            row = row / n_orders.sqrt()
            for _ in range(2):  # once more against rounding
                for other in kept:
                    row = row - other * (row * other).sum()
            if float(row.norm()) > 1e-6:
                kept.append(row / row.norm())
        basis += kept
    scale = math.sqrt((2 * l_out + 1) / math.factorial(degree))
    empty = torch.zeros(0, 2 * l_out + 1, len(number), dtype=torch.float64)
    return torch.stack(basis) * n_orders.sqrt() * scale if basis else empty


def sequential(factors: tuple[int, ...], l_out: int) -> list[Tensor]:
    """Couplings (2 l1 + 1, ..., 2 l_out + 1) of the factors, one after the other, with the parity of l_out."""
    if (sum(factors) + l_out) % 2:
        return []
    known = [(factors[0], torch.eye(2 * factors[0] + 1, dtype=torch.float64))]
    for l2 in factors[1:]:
        known = [
            (l3, torch.einsum("...a,abc->...bc", tensor, coupling(l1, l2, l3)))
            for l1, tensor in known
            for l3 in range(abs(l1 - l2), l1 + l2 + 1)
        ]
    return [tensor for l, tensor in known if l == l_out]


class SymmetricProduct(nn.Module):
    """B of the module's equation: ((lmax+1)^2, n_atoms, channels) -> for each L (2L+1, n_atoms, channels)."""

    def __init__(self, config: MACEConfig, lmax_out: int, n_species: int):
        super().__init__()
        self.degrees, n = range(1, config.correlation + 1), (config.lmax + 1) ** 2
        self.counts: list[list[int]] = []  # couplings for each degree and L
        self.weights = nn.ParameterList()
        for degree in self.degrees:
            of_degree = [symmetric_couplings(config.lmax, l, degree) for l in range(lmax_out + 1)]
            self.counts.append([len(c) for c in of_degree])
            rows = torch.cat([c.flatten(0, 1) for c in of_degree])
            self.register_buffer(f"couple{degree}", rows, persistent=False)
            known = {m: k for k, m in enumerate(monomials(n, degree - 1))}
            parent, last = zip(*((known[m[:-1]], m[-1]) for m in monomials(n, degree)), strict=True)
            self.register_buffer(f"parent{degree}", torch.tensor(parent), persistent=False)
            self.register_buffer(f"last{degree}", torch.tensor(last), persistent=False)
        for counts in self.counts:
            for l, count in enumerate(counts):
                share = math.sqrt(sum(of_degree[l] for of_degree in self.counts))
                weight = torch.randn(n_species, count, config.channels, dtype=torch.float64)
                self.weights.append(nn.Parameter(weight / share))

    def forward(self, a: Tensor, species: Tensor) -> list[Tensor]:
        n_atoms, channels = a.shape[1:]
        products, out = a, [torch.zeros_like(a[: 2 * l + 1]) for l in range(len(self.counts[0]))]
        weights = iter(self.weights)
        for degree, counts in zip(self.degrees, self.counts, strict=True):
            if degree > 1:
                last = a.index_select(0, self.get_buffer(f"last{degree}"))
                products = products.index_select(0, self.get_buffer(f"parent{degree}")) * last
            rows = self.get_buffer(f"couple{degree}") @ products.view(len(products), -1)
            parts = torch.split(rows, [count * (2 * l + 1) for l, count in enumerate(counts)])
            for l, part in enumerate(parts):
                weight = (
                    next(weights)[species].transpose(0, 1).unsqueeze(1)
                )  # (n_couplings, 1, n_atoms, channels)
                out[l] = out[l] + (part.view(counts[l], 2 * l + 1, n_atoms, channels) * weight).sum(0)
        return out


class Layer(nn.Module):
    """One round: features of `irreps_in` in, 0e, 1o ... up to lmax_out out."""

    def __init__(self, config: MACEConfig, irreps_in: Sequence[o3.Irrep], lmax_out: int, n_species: int):
        super().__init__()
        c = config.channels
        self.convolution = Convolution(irreps_in, config.lmax, natural(config.lmax))
        product = self.convolution.product
        self.radial = MLP(config.n_radial, *[config.radial_width] * 3, len(product.paths) * c)
        self.send = Linear([c] * len(irreps_in), [c] * len(irreps_in))
        self.gather = Linear(
            [c * product.width(ir) for ir in product.irreps_out], [c] * len(product.irreps_out)
        )
        self.product = SymmetricProduct(config, lmax_out, n_species)
        self.update = Linear([c] * (lmax_out + 1), [c] * (lmax_out + 1))
        self.n_kept = min(len(irreps_in), lmax_out + 1)
        self.skip = SpeciesLinear(n_species, [c] * self.n_kept, [c] * self.n_kept)

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
        a = torch.cat(self.gather(gathered), dim=1).transpose(0, 1).contiguous()
        out = self.update([b.transpose(0, 1) for b in self.product(a, species)])
        own = self.skip(features[: self.n_kept], species)
        return [*(x + y for x, y in zip(out, own, strict=False)), *out[self.n_kept :]]


class MACE(nn.Module):
    """Features per atom: the invariants of every layer, n_layers * channels; then those of the last up to lmax_out.

    Args:
        n_species: number of elements.
        mean_neighbors: average number of neighbors within the cutoff; scales sums over neighbors.
    """

    def __init__(self, config: MACEConfig, n_species: int, mean_neighbors: float):
        super().__init__()
        c = self.config = config
        self.scale = 1.0 / math.sqrt(max(mean_neighbors, 1.0))
        self.embedding = per_species(n_species, c.channels)
        self.harmonics = Harmonics(c.lmax)
        tops = [*[c.hidden_lmax] * (c.n_layers - 1), c.lmax_out]
        into = [[INVARIANT], *(natural(top) for top in tops)]
        layers = [Layer(c, irreps, top, n_species) for irreps, top in zip(into, tops, strict=False)]
        self.layers = cast("Sequence[Layer]", nn.ModuleList(layers))
        higher = layout(natural(c.lmax_out)[1:], c.channels)
        self.irreps_out = layout([INVARIANT], c.n_layers * c.channels) + higher

    def forward(self, vectors: Tensor, species: Tensor, center: Tensor, neighbor: Tensor) -> Tensor:
        c = self.config
        lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        harmonics = self.scale * self.harmonics(vectors, lengths)
        basis = radial_basis(lengths.squeeze(1), c.n_radial, c.cutoff)
        features = [self.embedding[species].unsqueeze(1)]
        invariants = []
        for layer in self.layers:
            features = layer(features, species, (harmonics, basis), center, neighbor)
            invariants.append(features[0])
        return flat([torch.cat(invariants, dim=2), *features[1:]])
