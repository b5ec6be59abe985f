"""Functions of the distance: Bessel functions and the envelope that brings them to zero at the cutoff."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def bessel(lengths: Tensor, n_radial: int, cutoff: float) -> Tensor:
    """sin(n pi r / cutoff) / r for n = 1 ... n_radial, orthonormal on the ball of radius `cutoff`.

    Args:
        lengths: r in Å, any shape, positive.

    Returns:
        shape (..., n_radial), 1/Å^(3/2).

    Source: Gasteiger et al., Directional Message Passing (ICLR 2020), eq. 7.
    """
    n = torch.arange(1, n_radial + 1, device=lengths.device, dtype=lengths.dtype)
    r = lengths.unsqueeze(-1)
    return math.sqrt(2.0 / cutoff) * torch.sin(n * (math.pi / cutoff) * r) / r


def envelope(lengths: Tensor, cutoff: float, power: int = 5) -> Tensor:
    """Smooth factor: 1 at r = 0, 0 at and beyond the cutoff together with its first two derivatives.

    Source: Gasteiger et al. (ICLR 2020), eq. 8, with p = `power`.
    """
    p = float(power)
    x = lengths / cutoff
    inside = x < 1
    safe = torch.where(inside, x, torch.ones_like(x))
    value = 1 - safe**power * ((p + 1) * (p + 2) / 2 - safe * (p * (p + 2) - safe * (p * (p + 1) / 2)))
    return torch.where(inside, value, torch.zeros_like(x))
