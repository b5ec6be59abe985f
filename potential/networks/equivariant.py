"""The flagship: equivariant message passing in which every heavy step is a matrix product.

One layer, for atom i with neighbors j (algebra after ACE/MACE; the product after Gaunt tensor products):

    D_i[l2 m2, k, l1 m1 c] = sum_j  Y_l2m2(r_ij) phi_k(r_ij) m_j[l1 m1 c]   density: one product of matrices per atom
    A_i[l3 m3, c]          = sum_paths CG(l2 m2, l1 m1 -> l3 m3) D_i[l2 m2, k, l1 m1 c'] W[path, k c', c]
    B_i(s)                 = prod_n ( b_n[species_i] + (V_n A_i)(s) )       point by point on a grid of the sphere
    x_i[l m, c]            = U_l B_i[l m] + S_l (s_l[species_i] h_i[l m])
    h_i'[0, c]             = silu(x_i[0, c]),   h_i'[l m, c] = x_i[l m, c] sigmoid(x_i[0, c])  for l > 0

Neighbors are summed first and channels mixed afterwards. The constants b_n make one product of `correlation`
factors hold every lower order too. The quadrature is exact for the degree. Fast radial functions come in with small
weights (1/n), and a gate stands between products: both keep the function smooth where there are no data.

Symbols: phi radial functions, Y spherical harmonics, m messages (a linear map of h; of the species in the
first layer), W `mix`, V `factors`, b `offset`, U `update`, S s `skip`.

Sources: Drautz, PRB 99, 014104 (2019) (density trick); Batatia et al., MACE, NeurIPS 2022 (message passing with
many-body messages); Luo et al., Gaunt tensor products, ICLR 2024 (products on the sphere). Checked: harmonics and paths
against e3nn, products against Gaunt coefficients (tests/test_irreps.py); as a whole no other code has it.
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
from potential.irreps import (
    coupling_matrix,
    coupling_paths,
    harmonics_table,
    sphere_grid,
    spherical_harmonics,
)
from potential.networks.dials import check_dials, dial, sizes
from potential.radial import bessel, envelope

SILU_GAIN, SIGMOID_GAIN = 1.676532, 1.846229  # the outputs of a standard normal have second moment 1


@dataclass(frozen=True)
class EquivariantConfig:
    """Dials of the network. `channels` sets the width, `cutoff` the reach of one layer."""

    presets: ClassVar = sizes(
        channels=(16, 64, 96, 128), message_channels=(16, 32, 48, 64), vector_channels=(8, 16, 24, 32),
        lmax=(2, 2, 2, 3), hidden_lmax=(1, 2, 2, 2), correlation=(2, 3, 3, 3),
    )  # fmt: skip
    dense: ClassVar = sizes(  # of metals and the like, where many neighbors are told apart by directions
        channels=(16, 32, 48, 64), message_channels=(8, 16, 24, 32), vector_channels=(4, 8, 12, 16),
        lmax=(4, 4, 4, 6), hidden_lmax=(1, 2, 2, 2), correlation=(2, 3, 3, 3),
    )  # fmt: skip

    channels: int = dial(64, "scalar features of an atom: the width of the network", (1, 4096))
    message_channels: int = dial(32, "channels of the messages that are summed over neighbors", (1, 4096))
    vector_channels: int = dial(16, "vectors of an atom (l of 1), half as many for every next l", (1, 4096))
    lmax: int = dial(2, "highest degree l of the spherical harmonics of an edge", (1, 6))
    hidden_lmax: int = dial(2, "highest l of the features between layers; at most lmax", (0, 3))
    correlation: int = dial(3, "factors of the product of features: body order minus one", (1, 4))
    n_layers: int = dial(2, "rounds of message passing; each reaches one cutoff further", (1, 4))
    n_radial: int = dial(6, "Bessel functions of the distance", (1, 64))
    smoothness: float = dial(1.0, "the n-th radial function enters with weight n^-smoothness", (0.0, 4.0))
    envelope_power: int = dial(2, "power of the envelope: the lower, the less far neighbors count", (1, 20))
    lmax_out: int = dial(0, "highest l of the features that leave it; not given: as targets need", (0, 3))
    cutoff: float = dial(5.0, "how far an atom sees its neighbors in one layer", (0.1, 100.0), "Å")

    def __post_init__(self) -> None:
        check_dials(self)
        has_vectors = (self.hidden_lmax > 0 and self.n_layers > 1) or self.lmax_out > 0
        if self.vector_channels > self.channels and has_vectors:
            raise ValueError(
                f"vector_channels {self.vector_channels} exceed channels {self.channels}, which gate them; "
                "raise channels or lower vector_channels"
            )

    def widths(self, channels: int, lmax: int) -> list[int]:
        """Channels of each order 0 ... lmax: `channels` scalars, and vectors that halve with every further order."""
        return [channels, *(max(1, self.vector_channels >> l) for l in range(lmax))]


def matrix(*shape: int) -> nn.Parameter:
    """A weight (..., n_in, n_out) that keeps unit variance."""
    return nn.Parameter(torch.randn(*shape, dtype=torch.float64) / math.sqrt(shape[-2]))


def orders(x: Tensor, lmax: int) -> tuple[Tensor, ...]:
    """Views of the components of each order l = 0 ... lmax along the first axis."""
    return torch.split(x, [2 * l + 1 for l in range(lmax + 1)])


def orders_of(lmax: int) -> Tensor:
    """The order l of each of the (lmax+1)^2 components: 0, 1, 1, 1, 2, ..."""
    return torch.cat([torch.full((2 * l + 1,), l) for l in range(lmax + 1)])


class Coupling(nn.Module):
    """Messages of one order l1 with the harmonics: every path (l2, l1 -> l3), then its channels mixed by W."""

    couple: Tensor  # (n_rows, components of (l2 m2, m1)): Clebsch-Gordan, a row for each (path, m3)
    path: Tensor  # (n_rows,) to which path a row belongs
    target: Tensor  # (n_rows,) to which component (l3, m3) it contributes

    def __init__(self, config: EquivariantConfig, l1: int, width: int, n_paths: list[int]):
        """`width`: channels of the messages; `n_paths[l3]`: paths into l3 from all l1, which share its variance."""
        super().__init__()
        self.l1, self.width, self.n_radial = l1, width, config.n_radial
        paths = coupling_paths(l1, config.lmax, config.lmax)
        self.mix = matrix(len(paths), config.n_radial * width, config.channels)
        share = torch.tensor([n_paths[l3] for _, l3 in paths], dtype=torch.float64)
        self.mix.data /= share.sqrt()[:, None, None]
        rows = [(k, l3 * l3 + m) for k, (_, l3) in enumerate(paths) for m in range(2 * l3 + 1)]
        path, target = torch.tensor(rows).T.contiguous()
        self.register_buffer("couple", coupling_matrix(l1, config.lmax, config.lmax), persistent=False)
        self.register_buffer("path", path, persistent=False)
        self.register_buffer("target", target, persistent=False)

    def forward(self, density: Tensor) -> Tensor:
        """(n_atoms, harmonics, n_radial, (2 l1 + 1) * width) -> (n_rows, n_atoms, channels)."""
        n_atoms, n_harmonics, n_radial, _ = density.shape
        if self.l1 == 0:  # l3 = l2: the coefficients are 1
            coupled = density.transpose(0, 1).reshape(n_harmonics, n_atoms, -1)
        else:
            split = density.reshape(n_atoms, n_harmonics, n_radial, 2 * self.l1 + 1, self.width)
            columns = split.permute(1, 3, 0, 2, 4).reshape(n_harmonics * (2 * self.l1 + 1), -1)
            coupled = (self.couple @ columns).view(-1, n_atoms, n_radial * self.width)
        return torch.bmm(coupled, self.mix.index_select(0, self.path))


class Density(nn.Module):
    """D and A of the module's equation.

    basis (n_atoms, n_slots, (lmax+1)^2 * n_radial), messages of the neighbors (n_atoms, n_slots, width)
    -> ((lmax+1)^2, n_atoms, channels).
    """

    def __init__(self, config: EquivariantConfig, message: list[int]):
        """`message`: channels of the messages of order 0, 1, ..."""
        super().__init__()
        self.shape = ((config.lmax + 1) ** 2, config.n_radial)
        self.widths = [(2 * l1 + 1) * width for l1, width in enumerate(message)]
        into = [l3 for l1 in range(len(message)) for _, l3 in coupling_paths(l1, config.lmax, config.lmax)]
        n_paths = [into.count(l) for l in range(config.lmax + 1)]
        self.couplings = nn.ModuleList(Coupling(config, l1, w, n_paths) for l1, w in enumerate(message))

    def forward(self, basis: Tensor, sent: Tensor) -> Tensor:
        density = torch.bmm(basis.transpose(1, 2), sent).view(len(basis), *self.shape, -1)
        parts = torch.split(density, self.widths, dim=-1)
        terms = [coupling(part) for coupling, part in zip(self.couplings, parts, strict=True)]
        targets = [coupling.get_buffer("target") for coupling in self.couplings]
        total: Tensor = terms[0]
        for target, term in zip(targets[1:], terms[1:], strict=True):
            total = total.index_add(0, target, term)
        return total


class Product(nn.Module):
    """B of the module's equation: ((lmax+1)^2, n_atoms, channels) -> ((lmax_out+1)^2, n_atoms, channels)."""

    to_grid: Tensor
    from_grid: Tensor
    order: Tensor

    def __init__(self, config: EquivariantConfig, lmax_out: int, n_species: int):
        super().__init__()
        self.n_species, n, c = n_species, config.correlation, config.channels
        self.factors = matrix(n * (config.lmax + 1), c, c)
        self.offset = nn.Parameter(torch.ones(n * n_species, c, dtype=torch.float64))
        self.offset.data[:n_species] = 0
        to_grid, from_grid = sphere_grid(config.lmax, lmax_out, n * config.lmax + lmax_out)
        self.register_buffer("to_grid", to_grid.contiguous(), persistent=False)
        self.register_buffer("from_grid", from_grid.contiguous(), persistent=False)
        order = orders_of(config.lmax)
        index = torch.cat([order + k * (config.lmax + 1) for k in range(n)])
        self.register_buffer("order", index, persistent=False)

    def forward(self, density: Tensor, species: Tensor) -> Tensor:
        n_harmonics, n_atoms, channels = density.shape
        values = []
        factors = torch.split(self.factors.index_select(0, self.order), n_harmonics)
        for k, factor in enumerate(factors):
            field = torch.bmm(density, factor).view(n_harmonics, -1)
            offset = self.offset.index_select(0, species + k * self.n_species).view(1, -1)
            values.append(torch.addmm(offset, self.to_grid, field))
        return (self.from_grid @ math.prod(values[1:], start=values[0])).view(-1, n_atoms, channels)


class Layer(nn.Module):
    """One round of message passing: features of each order in, features of each order out."""

    def __init__(self, config: EquivariantConfig, n_species: int, first: bool, last: bool):
        super().__init__()
        c = config
        lmax_in = 0 if first else c.hidden_lmax
        self.lmax_out = c.lmax_out if last else c.hidden_lmax
        widths_in = [n_species] if first else c.widths(c.channels, lmax_in)
        message = [n_species] if first else c.widths(c.message_channels, lmax_in)
        self.widths = c.widths(c.channels, self.lmax_out)
        pairs = [] if first else zip(widths_in, message, strict=True)
        self.send = nn.ParameterList(matrix(a, b) for a, b in pairs)
        self.density = Density(c, message)
        self.product = Product(c, self.lmax_out, n_species)
        self.update = nn.ParameterList(matrix(c.channels, width) for width in self.widths)
        shared = min(lmax_in, self.lmax_out) + 1
        self.skip = nn.ParameterList(matrix(widths_in[l], self.widths[l]) for l in range(shared))
        self.skip_scale = nn.ParameterList(
            nn.Parameter(torch.ones(n_species, widths_in[l], dtype=torch.float64)) for l in range(shared)
        )

    def messages(self, features: list[Tensor]) -> Tensor:
        """What every atom sends to its neighbors: (n_atoms, width)."""
        sent = [h @ w for h, w in zip(features, self.send, strict=True)] if len(self.send) else features
        return torch.cat([m.transpose(0, 1).reshape(m.shape[1], -1) for m in sent], dim=1)

    def forward(self, features: list[Tensor], species: Tensor, basis: Tensor, sent: Tensor) -> list[Tensor]:
        product = self.product(self.density(basis, sent), species)
        out = [b @ w for b, w in zip(orders(product, self.lmax_out), self.update, strict=True)]
        for l, (scale, w) in enumerate(zip(self.skip_scale, self.skip, strict=True)):
            out[l] = out[l] + (features[l] * scale.index_select(0, species)) @ w
        return gate(out)


def gate(features: list[Tensor]) -> list[Tensor]:
    """SiLU of the scalars; higher orders times the sigmoid of the first scalars. Keeps unit second moments."""
    scalars = features[0]
    gates = SIGMOID_GAIN * torch.sigmoid(scalars)
    first = SILU_GAIN * torch.nn.functional.silu(scalars)
    return [first, *(x * gates[..., : x.shape[-1]] for x in features[1:])]


class Equivariant(nn.Module):
    """Features per atom (n_atoms, irreps_out.dim): invariants of every layer, and the last one's orders to lmax_out.

    Args:
        n_species: number of elements.
        mean_neighbors: average number of neighbors within the cutoff; scales sums over neighbors.
    """

    weights: Tensor
    harmonics: Tensor
    identity: Tensor

    def __init__(self, config: EquivariantConfig, n_species: int, mean_neighbors: float):
        super().__init__()
        self.config = config
        widths = config.widths(config.n_layers * config.channels, config.lmax_out)
        self.irreps_out = o3.Irreps([(width, (l, (-1) ** l)) for l, width in enumerate(widths)])
        self.scale = 2.0 / math.sqrt(max(mean_neighbors, 1.0))
        layers = [Layer(config, n_species, t == 0, t == config.n_layers - 1) for t in range(config.n_layers)]
        self.layers = cast("Sequence[Layer]", nn.ModuleList(layers))
        weights = torch.arange(1, config.n_radial + 1, dtype=torch.float64) ** -config.smoothness
        weights = weights / weights.square().mean().sqrt()
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("harmonics", harmonics_table(config.lmax), persistent=False)
        self.register_buffer("identity", torch.eye(n_species, dtype=torch.float64), persistent=False)

    def edge_basis(self, vectors: Tensor) -> Tensor:
        """Y_lm(r_ij) phi_k(r_ij): (..., 3) -> (..., (lmax+1)^2 * n_radial)."""
        c = self.config
        lengths = torch.linalg.vector_norm(vectors, dim=-1)
        radial = bessel(lengths, c.n_radial, c.cutoff) * self.weights
        radial = radial * (self.scale * envelope(lengths, c.cutoff, c.envelope_power)).unsqueeze(-1)
        angular = spherical_harmonics(vectors / lengths.unsqueeze(-1), self.harmonics, c.lmax)
        return (angular.unsqueeze(-1) * radial.unsqueeze(-2)).flatten(-2)

    def start(self, species: Tensor) -> list[Tensor]:
        """Features before the first layer: which element an atom is."""
        return [self.identity[species].unsqueeze(0)]

    def forward(self, vectors: Tensor, species: Tensor, center: Tensor, neighbor: Tensor) -> Tensor:
        return self.of_table(*pad(vectors, center, neighbor, len(species), self.config.cutoff), species)

    def of_table(self, padded: Tensor, slots: Tensor, species: Tensor) -> Tensor:
        """The same from a table of edges, as `pad` makes it."""
        basis = self.edge_basis(padded)
        features = self.start(species)
        scalars = []
        for layer in self.layers:
            sent = layer.messages(features).index_select(0, slots).view(*padded.shape[:2], -1)
            features = layer(features, species, basis, sent)
            scalars.append(features[0].squeeze(0))
        return self.leaving(scalars, features)

    def leaving(self, scalars: list[Tensor], last: list[Tensor]) -> Tensor:
        """Features in e3nn's layout, from the scalars of every layer and what the `last` has of each order."""
        return torch.cat([*scalars, *(x.permute(1, 2, 0).flatten(1) for x in last[1:])], dim=1)
