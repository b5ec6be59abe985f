"""Targets beside the energy, of any irreps: dipole, polarizability, charges. No step on the way to the forces."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from e3nn import o3
from torch import Tensor, nn

from potential.heads import part
from potential.radial import envelope

TENSOR = (
    "tensor"  # instead of irreps: a symmetric 3x3 tensor, 0e + 2e, of which all nine components are given
)
MAGNITUDE = "magnitude"  # instead of irreps: a vector, 1o, of which only the length is given
SPECIAL = {TENSOR: "0e+2e", MAGNITUDE: "1o"}
PER = ("structure", "mean", "atom")


@dataclass(frozen=True)
class TargetFacts:
    """A target beside the energy: what it is, and what was measured of it in the training data."""

    name: str
    irreps: str  # of one value, its components in e3nn's order; or TENSOR or MAGNITUDE
    per: str  # what has a value: a structure (sum over its atoms), the mean of its atoms, or each atom
    unit: str
    scale: tuple[float, ...]  # in `unit`, for each term of the irreps
    offset: tuple[tuple[float, ...], ...]  # for each element: what an atom has of every scalar (0e) by itself

    @property
    def layout(self) -> o3.Irreps:
        """What the network gives."""
        return layout(self.irreps)

    @property
    def dim(self) -> int:
        """Numbers of one value."""
        return 9 if self.irreps == TENSOR else int(self.layout.dim)

    @property
    def title(self) -> str:
        """What is compared with labels, in words."""
        return f"{self.name} {MAGNITUDE}" if self.irreps == MAGNITUDE else self.name

    @property
    def spread(self) -> float:
        """Root mean square of the numbers of a label beyond the offsets, in `unit`; per root of atoms where these add
        up."""
        terms = [(mul * ir.dim, s) for (mul, ir), s in zip(self.layout, self.scale, strict=True)]
        return math.sqrt(sum(n * s**2 for n, s in terms) / (1 if self.irreps == MAGNITUDE else self.dim))

    def with_more(self, n: int) -> TargetFacts:
        """The same for n elements more, which have the mean offset of the others."""
        mean = tuple(sum(column) / len(self.offset) for column in zip(*self.offset, strict=True))
        return replace(self, offset=(*self.offset, *[mean] * n))


def layout(irreps: str) -> o3.Irreps:
    """The irreps that a text stands for."""
    return o3.Irreps(SPECIAL.get(irreps, irreps))


def as_labelled(values: Mapping[str, Tensor], facts: Iterable[TargetFacts]) -> dict[str, Tensor]:
    """Values (n, dim) as their labels are: the lengths (n, 1) of vectors that are labelled by these.

    The gradient of a length is zero where the vector is, as that of torch's norm.
    """
    lengths = {one.name for one in facts if one.irreps == MAGNITUDE}
    return {
        name: torch.linalg.vector_norm(x, dim=1, keepdim=True) if name in lengths else x
        for name, x in values.items()
    }


class TargetHead(nn.Module):
    """A target per atom (n_atoms, layout.dim) in units of its scale: x W + ((x B) silu(s A)) C for each irrep, of
    whose features x are made and s of the invariants. Gated readout, after Schütt et al., PaiNN (ICML 2021), fig. 3.

    A network that can give nothing but invariants has charges times positions instead, as SchNet has for dipoles. The
    charges q_i = sum_j f(r_ij) (g_j - g_i) / reach of a readout g move between neighbors, so their sum is zero; then

        sum_i q_i r_i = sum_i m_i,    m_i = sum_j f(r_ij) (g_i - g_j) r_ij / (2 reach),    f: the envelope

    needs neither origin nor neutral atoms, and has a meaning in a cell. Source: Schütt et al., J. Chem. Phys. 148,
    241722 (2018); with f = 1 these are its charges less their mean.

    Args:
        reach: of these charges in Å, the cutoff of a network without dials for higher orders; 0 for others.

    Raises:
        ValueError: the features lack an irrep of the target.
    """

    def __init__(self, irreps_in: o3.Irreps, facts: TargetFacts, reach: float = 0.0, hidden: int = 16):
        super().__init__()
        self.irreps_in, self.facts, self.weights = irreps_in, facts, nn.ParameterList()
        self.reach = reach if facts.layout == o3.Irreps("1o") and not irreps_in.lmax else 0.0
        self.read = o3.Irreps("0e") if self.reach else facts.layout
        for mul, ir in self.read:
            n, n_scalars = irreps_in.count(ir), irreps_in.count("0e")
            if not n or not n_scalars:
                raise ValueError(
                    f"target {facts.name!r} is made of {facts.layout}, but the network gives {irreps_in}; raise its "
                    f"lmax_out to {facts.layout.lmax}, or, if it has none, take the flagship (equivariant), which has "
                    "natural parity only: 0e, 1o, 2e, 3o"
                )
            for a, b in ((n, mul), (n, hidden), (n_scalars, hidden), (hidden, mul)):
                self.weights.append(torch.randn(a, b, dtype=torch.float64) / math.sqrt(a))

    def forward(self, features: Tensor) -> Tensor:
        scalars, out = part(features, self.irreps_in, o3.Irrep("0e")).squeeze(1), []
        for k, (_, ir) in enumerate(self.read):
            w, b, a, c = self.weights[4 * k : 4 * k + 4]
            # Products of two matrices only: of three axes torch rounds otherwise where gradients are wanted.
            x = part(features, self.irreps_in, ir).flatten(0, 1)
            gates = torch.nn.functional.silu(scalars @ a).repeat_interleave(ir.dim, dim=0)
            y = x @ w + ((x @ b) * gates) @ c
            out.append(y.view(len(features), ir.dim, -1).transpose(1, 2).flatten(1))
        return torch.cat(out, dim=1)

    def directed(self, output: Tensor, vectors: Tensor, center: Tensor, neighbor: Tensor) -> Tensor:
        """What `forward` says of atoms, with directions (n_atoms, 3) where these come from charges and edges."""
        if not self.reach:
            return output
        fade = envelope(torch.linalg.vector_norm(vectors, dim=1, keepdim=True), self.reach)
        moved = (output.index_select(0, center) - output.index_select(0, neighbor)) * fade / (2 * self.reach)
        return output.new_zeros(len(output), 3).index_add(0, center, moved * vectors)

    def values(self, output: Tensor, alone: Tensor, species: Tensor, isolated: Tensor) -> Tensor:
        """Values (n_atoms, dim) in the target's unit, float64, from what `forward` says of atoms and of atoms `alone`
        (n_species, dim): an atom without neighbors has its offset, and nothing of l > 0.
        """
        zeros = output.new_zeros(len(alone), 0, dtype=torch.float64)
        offset, scale = iter(zeros.new_tensor(self.facts.offset).T), iter(self.facts.scale)
        columns, scales, scalar = [], [], []
        for mul, ir in self.facts.layout:
            columns += [
                next(offset) if ir.l == 0 else zeros.new_zeros(len(alone)) for _ in range(mul * ir.dim)
            ]
            scales += [next(scale)] * mul * ir.dim
            scalar += [ir.l == 0] * mul * ir.dim
        change = output.double() - (alone.double() * zeros.new_tensor(scalar))[species]
        change = change.masked_fill(isolated[:, None], 0) * zeros.new_tensor(scales)
        value = torch.stack(columns, dim=1)[species] + change
        return value @ tensor_basis().to(value.device) if self.facts.irreps == TENSOR else value


def directed(
    heads: Sequence[TargetHead], outputs: Sequence[tuple[Tensor, ...]], edges: tuple[Tensor, Tensor, Tensor]
) -> list[tuple[Tensor, ...]]:
    """What each head says of atoms and of atoms alone, with directions by the edges (vectors, center, neighbor)."""
    pairs = zip(heads, outputs, strict=True)
    return [(head.directed(one, *edges), other) for head, (one, other) in pairs]


def tensor_basis() -> Tensor:
    """(6, 9): a symmetric tensor row by row from its 0e and 2e, an orthonormal change of basis, float64."""
    blocks = [
        math.sqrt(2 * l + 1) * o3.wigner_3j(1, 1, l, dtype=torch.float64).flatten(0, 1).T for l in (0, 2)
    ]
    return torch.cat(blocks)
