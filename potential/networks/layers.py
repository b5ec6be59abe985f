"""What several architectures are made of: dense layers of scalars, sums over neighbors, the distances of edges."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from potential.radial import bessel, envelope

SHIFT = math.log(2.0)


def shifted_softplus(x: Tensor) -> Tensor:
    """ln(e^x / 2 + 1 / 2), which is 0 at 0 (Schütt et al., SchNet, NeurIPS 2017)."""
    return nn.functional.softplus(x) - SHIFT


def dense(n_in: int, n_out: int, bias: bool = True) -> nn.Linear:
    """A linear map with Xavier's weights and a bias that begins at 0, float64."""
    layer = nn.Linear(n_in, n_out, bias, dtype=torch.float64)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def per_species(n_species: int, *shape: int) -> nn.Parameter:
    """A weight of its own for each element, (n_species, *shape), of unit variance."""
    return nn.Parameter(torch.randn(n_species, *shape, dtype=torch.float64))


def gather(x: Tensor, center: Tensor, n_atoms: int) -> Tensor:
    """The sum over the edges into each atom: (n_edges, ...) -> (n_atoms, ...)."""
    return x.new_zeros(n_atoms, *x.shape[1:]).index_add(0, center, x)


def radial_basis(lengths: Tensor, n_radial: int, cutoff: float) -> Tensor:
    """Bessel functions that vanish at the cutoff with their first two derivatives: (...,) -> (..., n_radial).

    Scaled to numbers of order one at a third of the cutoff.
    """
    scale = math.sqrt(cutoff**3 / 8.0)
    return scale * bessel(lengths, n_radial, cutoff) * envelope(lengths, cutoff).unsqueeze(-1)
