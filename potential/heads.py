"""From features per atom to the energy of each atom."""

from __future__ import annotations

import math

import torch
from e3nn import o3
from torch import Tensor, nn


def part(features: Tensor, irreps: o3.Irreps, ir: o3.Irrep) -> Tensor:
    """The features of one irrep, (n_atoms, 2 l + 1, channels)."""
    blocks = zip(irreps, irreps.slices(), strict=True)
    found = [features[:, s].reshape(len(features), mul, ir.dim) for (mul, i), s in blocks if i == ir]
    return torch.cat(found, dim=1).transpose(1, 2)


class EnergyHead(nn.Module):
    """Energy per atom (n_atoms,) in units of the model's scale: a linear map of the invariants plus a small MLP.

    Raises:
        ValueError: the features hold no invariants (0e) to read an energy from.
    """

    def __init__(self, irreps_in: o3.Irreps, hidden: int = 16):
        super().__init__()
        self.irreps_in, n = irreps_in, irreps_in.count("0e")
        if n == 0:
            raise ValueError(f"an energy is read from invariant features, got {irreps_in}; give e.g. '64x0e'")
        self.linear = nn.Parameter(torch.randn(n, 1, dtype=torch.float64) / math.sqrt(n))
        self.hidden = nn.Parameter(torch.randn(n, hidden, dtype=torch.float64) / math.sqrt(n))
        self.out = nn.Parameter(torch.randn(hidden, 1, dtype=torch.float64) / math.sqrt(hidden))

    def forward(self, features: Tensor) -> Tensor:
        if len(self.linear) < self.irreps_in.dim:
            features = part(features, self.irreps_in, o3.Irrep("0e")).squeeze(1)
        nonlinear = torch.nn.functional.silu(features @ self.hidden) @ self.out
        return (features @ self.linear + nonlinear).squeeze(1)
