"""Angular algebra in e3nn's conventions: spherical harmonics, couplings, and products on the sphere.

Components of order l stand at l^2 ... (l+1)^2 - 1 of one axis of length (lmax+1)^2, m from -l to l
(for l = 1: x, y, z; the polar axis is y). Harmonics have `component` normalisation: the squares of order l sum to 2l+1.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from e3nn import o3
from scipy.integrate import lebedev_rule
from torch import Tensor

LEBEDEV_DEGREES = (3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)


def harmonics_table(lmax: int) -> Tensor:
    """The matrix from the products of `monomials` to spherical harmonics, float64: (n_monomials, (lmax+1)^2)."""
    sample = torch.from_numpy(np.ascontiguousarray(lebedev_rule(15)[0].T))
    powers = monomials(sample, lmax)
    table, start = powers.new_zeros(powers.shape[1], (lmax + 1) ** 2), 0
    for l in range(lmax + 1):
        stop = start + (l + 1) * (l + 2) // 2
        values = o3.spherical_harmonics(l, sample, normalize=False, normalization="component")
        table[start:stop, l * l : (l + 1) ** 2] = torch.linalg.pinv(powers[:, start:stop]) @ values
        start = stop
    return table


def monomials(unit: Tensor, lmax: int) -> Tensor:
    """The products x^a y^b z^c of degree a + b + c = 0, then 1 ... lmax: (..., 3) -> (..., C(lmax+3, 3))."""
    x, y, z = torch.split(unit, 1, dim=-1)
    degrees = [torch.ones_like(x)]
    for l in range(lmax):
        last = degrees[-1]  # in the last l + 1 of them there is no x, in the very last no y
        degrees.append(torch.cat([x * last, y * last[..., -l - 1 :], z * last[..., -1:]], dim=-1))
    return torch.cat(degrees, dim=-1)


def spherical_harmonics(unit: Tensor, table: Tensor, lmax: int) -> Tensor:
    """Real spherical harmonics of unit vectors: (..., 3) -> (..., (lmax+1)^2), `component` normalisation."""
    return monomials(unit, lmax) @ table


def coupling_paths(l1: int, l2_max: int, l3_max: int) -> list[tuple[int, int]]:
    """All (l2, l3) with l1 (x) l2 -> l3 allowed and natural parity kept (l1 + l2 + l3 even)."""
    return [
        (l2, l3)
        for l2 in range(l2_max + 1)
        for l3 in range(abs(l1 - l2), min(l1 + l2, l3_max) + 1)
        if (l1 + l2 + l3) % 2 == 0
    ]


def coupling_matrix(l1: int, l2_max: int, l3_max: int) -> Tensor:
    """Every path of `coupling_paths` as one matrix, float64.

    Rows: the (2 l3 + 1) outputs of each path, one path after the other. Columns: (l2 m2, m1).
    Normalised so that independent unit-variance inputs give unit-variance outputs.
    """
    rows = []
    for l2, l3 in coupling_paths(l1, l2_max, l3_max):
        block = torch.zeros(2 * l3 + 1, (l2_max + 1) ** 2, 2 * l1 + 1, dtype=torch.float64)
        block[:, l2 * l2 : (l2 + 1) ** 2] = math.sqrt(2 * l3 + 1) * o3.wigner_3j(
            l2, l1, l3, dtype=torch.float64
        ).permute(2, 0, 1)
        rows.append(block.flatten(1))
    return torch.cat(rows)


def sphere_grid(lmax: int, lmax_out: int, degree: int) -> tuple[Tensor, Tensor]:
    """Matrices to and from point values on the sphere, float64.

    A product of functions whose orders sum to `degree` - lmax_out, taken point by point, comes back exactly:
    the quadrature (Lebedev) integrates every polynomial up to `degree`.

    Returns:
        to_grid (n_points, (lmax+1)^2) and from_grid ((lmax_out+1)^2, n_points).
    """
    order = next((d for d in LEBEDEV_DEGREES if d >= degree), None)
    if order is None:
        raise ValueError(
            f"a product of degree {degree} needs a quadrature beyond {LEBEDEV_DEGREES[-1]}; lower lmax or correlation"
        )
    points, weights = lebedev_rule(order)
    unit = torch.from_numpy(np.ascontiguousarray(points.T))
    top = max(lmax, lmax_out)
    values = spherical_harmonics(unit, harmonics_table(top), top)
    weight = torch.from_numpy(weights / (4 * math.pi))
    return values[:, : (lmax + 1) ** 2], (values[:, : (lmax_out + 1) ** 2] * weight[:, None]).T
