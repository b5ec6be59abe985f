"""Tensor products of equivariant features as matrix products, in e3nn's conventions.

Features are a list of tensors (n, 2l+1, channels), one for each irrep (o3.Irrep: l and parity), channels last and equal
in number. Couplings are e3nn's Wigner 3j symbols, normalised as its TensorProduct does ("component": unit variance in,
unit variance out); tests hold every part against e3nn's own module. Those modules are not used themselves: they keep
couplings in single precision, whatever the dtype of the model, and generate their code at run time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import torch
from e3nn import o3
from torch import Tensor, nn

from potential.irreps import harmonics_table, spherical_harmonics
from potential.networks.layers import gather

SILU_GAIN, TANH_GAIN = 1.676532, 1.592537  # the outputs of a standard normal have second moment 1
INVARIANT = o3.Irrep("0e")


def natural(lmax: int) -> list[o3.Irrep]:
    """0e, 1o, 2e, ...: the irreps of spherical harmonics."""
    return [o3.Irrep(l, (-1) ** l) for l in range(lmax + 1)]


def both_parities(lmax: int) -> list[o3.Irrep]:
    """0e, 0o, 1o, 1e, 2e, 2o, ..."""
    return [o3.Irrep(l, sign * (-1) ** l) for l in range(lmax + 1) for sign in (1, -1)]


def leading_to(
    wanted: Sequence[o3.Irrep], known: Sequence[o3.Irrep], second: Sequence[o3.Irrep]
) -> list[o3.Irrep]:
    """Which of the known irreps have a product with one of the second that is wanted."""
    return [a for a in known if any(out in wanted for b in second for out in a * b)]


@cache
def coupling(l1: int, l2: int, l3: int) -> Tensor:
    """Clebsch-Gordan coefficients (2l1+1, 2l2+1, 2l3+1), float64, of unit variance; not to be changed."""
    found: Tensor = math.sqrt(2 * l3 + 1) * o3.wigner_3j(l1, l2, l3, dtype=torch.float64)
    return found


class Harmonics(nn.Module):
    """Spherical harmonics of edges: vectors (n_edges, 3), their lengths (n_edges, 1) -> (n_edges, (lmax+1)^2)."""

    table: Tensor

    def __init__(self, lmax: int):
        super().__init__()
        self.lmax = lmax
        self.register_buffer("table", harmonics_table(lmax), persistent=False)

    def forward(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        return spherical_harmonics(vectors / lengths, self.table, self.lmax)


class Product(nn.Module):
    """Every path of features (irrep i) with a second tensor (irrep j) into the wanted irreps, channel by channel.

    The second tensor has one channel, as spherical harmonics have; `forward` gives all components of all paths, in
    the order of `paths`: (n, n_columns, channels). `by_irrep` sorts sums of them.
    """

    path: Tensor  # (n_columns,): to which path a column belongs

    def __init__(self, first: Sequence[o3.Irrep], second: Sequence[o3.Irrep], wanted: Sequence[o3.Irrep]):
        super().__init__()
        self.paths = [
            (i, j, ir)
            for i, a in enumerate(first)
            for j, b in enumerate(second)
            for ir in a * b
            if ir in wanted
        ]
        self.irreps_out = [ir for ir in wanted if any(ir == out for _, _, out in self.paths)]
        columns = [k for k, (_, _, ir) in enumerate(self.paths) for _ in range(ir.dim)]
        self.register_buffer("path", torch.tensor(columns), persistent=False)
        offset = [sum(b.dim for b in second[:j]) for j in range(len(second) + 1)]
        for i, a in enumerate(first):
            blocks = []
            for _, j, ir in (p for p in self.paths if p[0] == i):
                block = torch.zeros(offset[-1], ir.dim, a.dim, dtype=torch.float64)
                block[offset[j] : offset[j + 1]] = coupling(a.l, second[j].l, ir.l).permute(1, 2, 0)
                blocks.append(block)
            together = torch.cat(blocks, dim=1) if blocks else torch.zeros(offset[-1], 0, a.dim).double()
            self.register_buffer(f"couple{i}", together.flatten(1), persistent=False)

    def forward(self, first: Sequence[Tensor], second: Tensor) -> Tensor:
        parts = []
        for i, x in enumerate(first):
            matrices = second @ self.get_buffer(f"couple{i}")
            n_columns = matrices.shape[1] // x.shape[1]
            parts.append(torch.bmm(matrices.view(len(x), n_columns, x.shape[1]), x))
        return torch.cat(parts, dim=1)

    def width(self, ir: o3.Irrep) -> int:
        """How many paths lead into an irrep."""
        return sum(out == ir for _, _, out in self.paths)

    def by_irrep(self, columns: Tensor) -> list[Tensor]:
        """(n, n_columns, channels) -> for each of irreps_out (n, 2l+1, paths * channels)."""
        parts = torch.split(columns, [ir.dim for _, _, ir in self.paths], dim=1)
        sorted_parts = [
            [part for part, (_, _, out) in zip(parts, self.paths, strict=True) if out == ir]
            for ir in self.irreps_out
        ]
        return [torch.cat(of, dim=2) for of in sorted_parts]


class Convolution(nn.Module):
    """Sum over neighbors of features times harmonics, each path and channel with a weight of the edge."""

    def __init__(self, features: Sequence[o3.Irrep], lmax: int, wanted: Sequence[o3.Irrep]):
        super().__init__()
        self.product = Product(features, natural(lmax), wanted)

    def forward(
        self, features: Sequence[Tensor], harmonics: Tensor, weights: Tensor, center: Tensor, neighbor: Tensor
    ) -> list[Tensor]:
        """`weights` (n_edges, n_paths * channels) -> for each of product.irreps_out (n, 2l+1, paths * channels)."""
        sent = [x.index_select(0, neighbor) for x in features]
        columns = self.product(sent, harmonics)
        of_path = weights.view(len(weights), len(self.product.paths), columns.shape[2])
        weighted = columns * of_path.index_select(1, self.product.path)
        return self.product.by_irrep(gather(weighted, center, len(features[0])))


def mixing(*shape: int) -> nn.Parameter:
    """A weight (..., n_in, n_out) that keeps unit variance, float64."""
    return nn.Parameter(torch.randn(*shape, dtype=torch.float64) / math.sqrt(shape[-2]))


class Linear(nn.Module):
    """Channels mixed within each irrep."""

    def __init__(self, n_in: Sequence[int], n_out: Sequence[int]):
        super().__init__()
        self.weights = nn.ParameterList(mixing(a, b) for a, b in zip(n_in, n_out, strict=True))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [x @ w for x, w in zip(features, self.weights, strict=True)]


class SpeciesLinear(nn.Module):
    """Channels mixed within each irrep, with weights of the element."""

    def __init__(self, n_species: int, n_in: Sequence[int], n_out: Sequence[int]):
        super().__init__()
        self.weights = nn.ParameterList(mixing(n_species, a, b) for a, b in zip(n_in, n_out, strict=True))

    def forward(self, features: Sequence[Tensor], species: Tensor) -> list[Tensor]:
        return [torch.bmm(x, w[species]) for x, w in zip(features, self.weights, strict=True)]


class MLP(nn.Module):
    """Linear maps of the given widths with SiLU between; without biases, so that it is 0 where its input is."""

    def __init__(self, *widths: int):
        super().__init__()
        self.weights = nn.ParameterList(mixing(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for k, w in enumerate(self.weights):
            x = (SILU_GAIN * nn.functional.silu(x) if k else x) @ w
        return x


def gate(features: Sequence[Tensor], irreps: Sequence[o3.Irrep], channels: int) -> list[Tensor]:
    """SiLU of even scalars, tanh of odd ones; higher orders times the SiLU of more even scalars, as e3nn's Gate.

    The first of `features` are 0e: `channels` of them, and as many again for each irrep that they gate.
    """
    scalars, *gates = torch.split(features[0], channels, dim=2)
    out = [SILU_GAIN * nn.functional.silu(scalars)]
    for x, ir in zip(features[1:], irreps[1:], strict=True):
        if ir.l == 0:
            out.append(TANH_GAIN * torch.tanh(x))
        else:
            out.append(x * (SILU_GAIN * nn.functional.silu(gates.pop(0))))
    return out


def flat(features: Sequence[Tensor]) -> Tensor:
    """Features in e3nn's layout: (n, channels * (2l+1) + ...)."""
    return torch.cat([x.transpose(1, 2).flatten(1) for x in features], dim=1)


def layout(irreps: Sequence[o3.Irrep], channels: int) -> o3.Irreps:
    """The irreps of `flat`."""
    return o3.Irreps([(channels, ir) for ir in irreps])
