"""Linear ACE: invariant products of neighbor densities, and an energy that is linear in its coefficients.

    A_i[l m, nz] = sum_j  [z_j = z] R_n(r_ij) Y_lm(r_ij) / sqrt(m)
    P_i[L M, ..] = sum_(m m')  CG(l m, l' m' -> L M) A_i[l m, nz] A_i[l' m', n'z']
    B_i          = A[0 0],   P[0 0],   sum_M P[L M] A[L M],   sum_M P[L M] P'[L M]        2, 3, 4 and 5 bodies
    energy_i     = sum_k c_k[species_i] B_ik

Neighbors are summed first, then densities are multiplied (at most four: `correlation`) and made invariant through
the couplings of the other networks; `ace_basis.py` says which products there are. All up to a total degree are
taken, for each element of the center the same ones with coefficients of its own. Pairs are coupled once and used by all
functions that hold them (recursion as in Kaliuzhnyi and Ortner). Radial functions are Chebyshev polynomials of
exp(-decay r / cutoff), finer near the atom, times the envelope. m: mean number of neighbors.

Being linear, it is fitted by least squares (train/linear) and not by gradient descent. Moment tensor potentials
(Shapeev 2016) span the same invariant polynomials with other generators, as Drautz (2019, section IV) and Dusson et al.
show: degree for degree the two are the same space, up to which products are taken.

Sources: R. Drautz, Phys. Rev. B 99, 014104 (2019), eqs. 20-29, for the radial functions eq. 24; G. Dusson et al.,
J. Comput. Phys. 454, 110946 (2022) (completeness, total degree); D. P. Kovács et al., J. Chem. Theory Comput. 17, 7696
(2021) (molecules); I. Kaliuzhnyi and C. Ortner, arXiv:2202.04140 (recursive evaluation); A. V. Shapeev, Multiscale
Model. Simul. 14, 1153 (2016).

Checked: spans the same polynomials as the symmetric couplings of `mace.py`, for every number of factors; its design
matrix (train/linear/design.py) is what this file predicts, to rounding (tests/test_ace.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from e3nn import o3
from torch import Tensor, nn

from potential.networks.ace_basis import Function, Size, basis, recipe
from potential.networks.dials import check_dials, dial, sizes
from potential.networks.layers import gather
from potential.networks.tensor_product import Harmonics, coupling
from potential.radial import envelope


@dataclass(frozen=True)
class ACEConfig:
    """Dials of linear ACE. `functions` sets the size, `cutoff` the reach."""

    presets: ClassVar = sizes(functions=(100, 1000, 2000, 4000))

    functions: int = dial(
        1000, "most functions of an element; all up to the degree that they allow are taken", (1, 100_000)
    )
    correlation: int = dial(4, "factors of a product: body order minus one", (1, 4))
    lmax: int = dial(4, "highest l of the spherical harmonics of an edge", (0, 6))
    angular_weight: float = dial(1.0, "degree of an l, where the next radial function has 1", (0.1, 10.0))
    order_weight: float = dial(3.0, "degree of another factor", (0.0, 20.0))
    radial_decay: float = dial(4.0, "how much finer radial functions are near the atom", (0.01, 20.0))
    envelope_power: int = dial(2, "power of the envelope: the lower, the less far neighbors count", (1, 20))
    cutoff: float = dial(5.0, "how far an atom sees its neighbors", (0.1, 100.0), "Å")

    def __post_init__(self) -> None:
        check_dials(self)

    @property
    def size(self) -> Size:
        return Size(self.functions, self.correlation, self.lmax, self.angular_weight, self.order_weight)


def chebyshev(u: Tensor, n: int) -> Tensor:
    """T_0 ... T_(n-1): (...,) -> (..., n)."""
    found = [torch.ones_like(u), u]
    while len(found) < n:
        found.append(2 * u * found[-1] - found[-2])
    return torch.stack(found[:n], dim=-1)


class ACE(nn.Module):
    """The energy of each atom as its only feature.

    Args:
        n_species: number of elements.
        mean_neighbors: average number of neighbors within the cutoff; scales sums over neighbors.
    """

    rows: Tensor  # which sums over neighbors are factors

    def __init__(self, config: ACEConfig, n_species: int, mean_neighbors: float):
        super().__init__()
        self.config, self.n_species = config, n_species
        self.scale = 1.0 / math.sqrt(max(mean_neighbors, 1.0))
        self.functions: tuple[Function, ...] = basis(config.size, n_species)
        self.recipe = recipe(config.size, n_species)
        self.harmonics = Harmonics(len(self.recipe.factors) - 1)
        self.n_radial = max(f.n for of_l in self.recipe.factors for f in of_l)
        rows = [
            ((l * l + m) * n_species + f.z) * self.n_radial + f.n - 1
            for l, of_l in enumerate(self.recipe.factors)
            for m in range(2 * l + 1)
            for f in of_l
        ]
        self.register_buffer("rows", torch.tensor(rows), persistent=False)
        for k, pairs in enumerate(self.recipe.pairs):
            couple = [coupling(pairs.l1, pairs.l2, l).flatten(0, 1).T for l in pairs.through]
            self.register_buffer(f"couple{k}", torch.cat(couple), persistent=False)
            self._keep(f"pair{k}", pairs.first, pairs.second)
        for k, block in enumerate(self.recipe.blocks):
            self._keep(f"block{k}", block.first, block.second)
        n = len(self.functions)
        self.coefficients = nn.Parameter(torch.randn(n, n_species, dtype=torch.float64) / math.sqrt(n))
        self.irreps_out = o3.Irreps("1x0e")

    def _keep(self, name: str, first: Sequence[int], second: Sequence[int]) -> None:
        self.register_buffer(f"{name}_first", torch.tensor(first), persistent=False)
        self.register_buffer(f"{name}_second", torch.tensor(second, dtype=torch.int64), persistent=False)

    def densities(self, vectors: Tensor) -> Tensor:
        """R_n Y_lm of each edge, (n_edges, (lmax+1)^2 * n_radial)."""
        c = self.config
        lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        r = lengths.squeeze(1)
        least = math.exp(-c.radial_decay)
        u = (torch.exp(-c.radial_decay / c.cutoff * r) - least) / (1 - least)
        fade = self.scale * envelope(r, c.cutoff, c.envelope_power)
        radial = chebyshev(2 * u - 1, self.n_radial) * fade.unsqueeze(1)
        harmonics: Tensor = self.harmonics(vectors, lengths)
        return (harmonics.unsqueeze(2) * radial.unsqueeze(1)).flatten(1)

    def factors(self, densities: Tensor, into: Tensor, element: Tensor, n: int) -> Tensor:
        """A, (n_factors, n), from densities of edges, the sum that each adds to, and the element of its neighbor."""
        sums = gather(densities, into * self.n_species + element, n * self.n_species)
        parts = sums.view(n, self.n_species, -1, self.n_radial).permute(2, 1, 3, 0)
        return parts.reshape(-1, n).index_select(0, self.rows)

    def invariants(self, factors: Tensor, times: Callable[[Tensor, Tensor], Tensor] = torch.mul) -> Tensor:
        """B, (n_functions, n), from A (n_factors, n). All else than `times` is linear and mixes no columns."""
        n, widths = factors.shape[1], [len(of_l) for of_l in self.recipe.factors]
        parts = torch.split(factors, [(2 * l + 1) * width for l, width in enumerate(widths)])
        single = {l: part.view(2 * l + 1, -1, n) for l, part in enumerate(parts)}
        coupled: dict[int, list[Tensor]] = {}
        for k, pairs in enumerate(self.recipe.pairs):
            first = single[pairs.l1].index_select(1, self.get_buffer(f"pair{k}_first"))
            second = single[pairs.l2].index_select(1, self.get_buffer(f"pair{k}_second"))
            outer = times(first.unsqueeze(1), second.unsqueeze(0)).flatten(0, 1)
            rows = (self.get_buffer(f"couple{k}") @ outer.flatten(1)).view(-1, *outer.shape[1:])
            of_order = torch.split(rows, [2 * l + 1 for l in pairs.through])
            for l, part in zip(pairs.through, of_order, strict=True):
                coupled.setdefault(l, []).append(part)
        double = {l: torch.cat(of_l, dim=1) for l, of_l in coupled.items()}
        out = []
        for k, block in enumerate(self.recipe.blocks):
            sides = single if block.order == 1 else double
            value = sides[block.through].index_select(1, self.get_buffer(f"block{k}_first"))
            if block.order > 2:
                others = single if block.order == 3 else double
                other = others[block.through].index_select(1, self.get_buffer(f"block{k}_second"))
                value = times(value, other)
            out.append(value.sum(0))
        return torch.cat(out)

    def forward(self, vectors: Tensor, species: Tensor, center: Tensor, neighbor: Tensor) -> Tensor:
        a = self.factors(self.densities(vectors), center, species[neighbor], len(species))
        return (self.invariants(a) * self.coefficients.index_select(1, species)).sum(0).unsqueeze(1)
