"""From features per atom to targets."""

from __future__ import annotations

import math

import torch
from e3nn import o3
from torch import Tensor, nn


class EnergyHead(nn.Module):
    """Energy per atom (n_atoms,) in units of the model's scale: a linear map of the invariants plus a small MLP.

    Raises:
        ValueError: the features hold no invariants (0e) to read an energy from.
    """

    def __init__(self, irreps_in: o3.Irreps, hidden: int = 16):
        super().__init__()
        n = irreps_in.count("0e")
        if n == 0:
            raise ValueError(f"an energy is read from invariant features, got {irreps_in}; give e.g. '64x0e'")
        self.scalars = [
            s for s, (_, ir) in zip(irreps_in.slices(), irreps_in, strict=True) if ir == o3.Irrep("0e")
        ]
        self.linear = nn.Parameter(torch.randn(n, 1, dtype=torch.float64) / math.sqrt(n))
        self.hidden = nn.Parameter(torch.randn(n, hidden, dtype=torch.float64) / math.sqrt(n))
        self.out = nn.Parameter(torch.randn(hidden, 1, dtype=torch.float64) / math.sqrt(hidden))

    def forward(self, features: Tensor) -> Tensor:
        invariants = torch.cat([features[:, s] for s in self.scalars], dim=1)
        nonlinear = torch.nn.functional.silu(invariants @ self.hidden) @ self.out
        return (invariants @ self.linear + nonlinear).squeeze(1)
