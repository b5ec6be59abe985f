"""The angular algebra against e3nn and against known integrals; the radial functions against theirs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import torch
from e3nn import o3
from scipy.integrate import lebedev_rule

from potential.irreps import (
    LEBEDEV_DEGREES,
    coupling_matrix,
    coupling_paths,
    harmonics_table,
    sphere_grid,
    spherical_harmonics,
)
from potential.networks.equivariant import Equivariant, EquivariantConfig, gate
from potential.radial import bessel, envelope

CUTOFF = 4.3


def random_unit(n: int, seed: int = 0) -> torch.Tensor:
    vectors = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return vectors / vectors.norm(dim=1, keepdim=True)


def random_orthogonal(seed: int, improper: bool) -> torch.Tensor:
    q = torch.linalg.qr(
        torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    )[0]
    return q if (torch.linalg.det(q) < 0) == improper else -q


def wigner(l: int, q: torch.Tensor) -> torch.Tensor:
    """e3nn's D of order l and natural parity (-1)^l, of a proper or improper rotation."""
    sign = float(torch.linalg.det(q).sign())
    # An improper rotation is the inversion times a proper one; the inversion acts as (-1)^l.
    angles = o3.matrix_to_angles(sign * q)
    return sign**l * o3.Irrep(l, 1).D_from_angles(*angles).to(torch.float64)


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    """e3nn builds its Wigner matrices in torch's default precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


# --- spherical harmonics ------------------------------------------------------------------------------------


@pytest.mark.parametrize("lmax", range(7))
def test_harmonics_equal_e3nn(lmax: int) -> None:
    unit = random_unit(200)
    ours = spherical_harmonics(unit, harmonics_table(lmax), lmax)
    theirs = o3.spherical_harmonics(list(range(lmax + 1)), unit, normalize=False, normalization="component")
    assert ours.shape == (200, (lmax + 1) ** 2)
    assert (ours - theirs).abs().max() < 1e-12


def test_first_order_is_x_y_z() -> None:
    unit = random_unit(5)
    ours = spherical_harmonics(unit, harmonics_table(1), 1)[:, 1:]
    torch.testing.assert_close(ours, 3**0.5 * unit, rtol=0, atol=1e-14)


@pytest.mark.parametrize("lmax", range(7))
def test_squares_of_an_order_sum_to_2l_plus_1(lmax: int) -> None:
    ours = spherical_harmonics(random_unit(50), harmonics_table(lmax), lmax)
    sums = ours[:, lmax**2 :].square().sum(dim=1)
    torch.testing.assert_close(sums, torch.full((50,), 2.0 * lmax + 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("improper", [False, True])
def test_harmonics_turn_as_wigner_matrices_say(improper: bool) -> None:
    q, unit, table = random_orthogonal(1, improper), random_unit(20), harmonics_table(3)
    before, after = (spherical_harmonics(u, table, 3) for u in (unit, unit @ q.T))
    for l in range(4):
        block = slice(l * l, (l + 1) ** 2)
        torch.testing.assert_close(after[:, block], before[:, block] @ wigner(l, q).T, rtol=0, atol=1e-12)


# --- couplings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("l1", "lmax"), [(0, 3), (1, 1), (1, 3), (2, 2), (2, 3), (3, 3), (2, 6)])
def test_paths_are_those_of_e3nn(l1: int, lmax: int) -> None:
    """A path exists where e3nn's product of natural-parity irreps contains the natural-parity output."""
    expected = [
        (l2, out.l)
        for l2 in range(lmax + 1)
        for out in o3.Irrep(l1, (-1) ** l1) * o3.Irrep(l2, (-1) ** l2)
        if out.l <= lmax and out.p == (-1) ** out.l
    ]
    assert coupling_paths(l1, lmax, lmax) == expected


@pytest.mark.parametrize("improper", [False, True])
@pytest.mark.parametrize("l1", range(4))
def test_couplings_are_equivariant(l1: int, improper: bool) -> None:
    lmax, q = 3, random_orthogonal(2, improper)
    generator = torch.Generator().manual_seed(l1)
    x2 = torch.randn((lmax + 1) ** 2, generator=generator)
    x1 = torch.randn(2 * l1 + 1, generator=generator)
    matrix = coupling_matrix(l1, lmax, lmax)
    turn = torch.block_diag(*(wigner(l, q) for l in range(lmax + 1)))
    plain = matrix @ torch.outer(x2, x1).flatten()
    turned = matrix @ torch.outer(turn @ x2, wigner(l1, q) @ x1).flatten()
    rows = [2 * l3 + 1 for _, l3 in coupling_paths(l1, lmax, lmax)]
    assert matrix.shape == (sum(rows), (lmax + 1) ** 2 * (2 * l1 + 1))
    for before, after, n in zip(plain.split(rows), turned.split(rows), rows, strict=True):
        assert before.norm() > 1e-3
        torch.testing.assert_close(after, wigner((n - 1) // 2, q) @ before, rtol=0, atol=1e-12)


@pytest.mark.parametrize("l1", range(4))
def test_couplings_keep_unit_variance(l1: int) -> None:
    """Each row has unit norm: independent inputs of unit variance give outputs of unit variance."""
    norms = coupling_matrix(l1, 3, 3).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=1e-12)


# --- the grid of the sphere ---------------------------------------------------------------------------------

GRIDS = [(1, 0, 1), (1, 1, 4), (2, 1, 3), (2, 2, 4), (3, 0, 3), (3, 1, 4), (3, 3, 2), (4, 2, 3), (6, 2, 3)]


@pytest.mark.parametrize(("lmax", "lmax_out", "n_factors"), GRIDS)
def test_products_on_the_grid_are_exact(lmax: int, lmax_out: int, n_factors: int) -> None:
    """A product of `n_factors` functions, projected, against a quadrature of much higher degree."""
    to_grid, from_grid = sphere_grid(lmax, lmax_out, n_factors * lmax + lmax_out)
    generator = torch.Generator().manual_seed(0)
    functions = torch.randn(n_factors, (lmax + 1) ** 2, generator=generator)
    ours = from_grid @ (functions @ to_grid.T).prod(dim=0)
    points, weights = lebedev_rule(53)
    values = spherical_harmonics(
        torch.from_numpy(np.ascontiguousarray(points.T)), harmonics_table(lmax), lmax
    )
    weighted = (functions @ values.T).prod(dim=0) * torch.from_numpy(weights) / (4 * np.pi)
    expected = weighted @ values[:, : (lmax_out + 1) ** 2]
    assert ours.shape == ((lmax_out + 1) ** 2,)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12 * float(expected.abs().max() + 1))


def test_a_product_of_two_is_the_gaunt_coefficient() -> None:
    """Analytic: the average of Y_l1 Y_l2 Y_l3 over the sphere is sqrt((2l1+1)(2l2+1)(2l3+1)) (000)3j w3j."""
    lmax = 3
    to_grid, from_grid = sphere_grid(lmax, lmax, 3 * lmax)
    gaunt = torch.einsum("op,pa,pb->oab", from_grid, to_grid, to_grid)
    blocks = [slice(l * l, (l + 1) ** 2) for l in range(lmax + 1)]
    north = spherical_harmonics(torch.tensor([[0.0, 1.0, 0.0]]), harmonics_table(lmax), lmax)[0]
    for l1, l2, l3 in product(range(lmax + 1), repeat=3):
        block = gaunt[blocks[l3], blocks[l1], blocks[l2]]
        if (l1 + l2 + l3) % 2 or not abs(l1 - l2) <= l3 <= l1 + l2:
            assert block.abs().max() < 1e-13
            continue
        w3j = o3.wigner_3j(l3, l1, l2, dtype=torch.float64)
        # Proportional to w3j (unit norm); at the north pole the harmonics give the proportion itself.
        proportion = torch.einsum("oab,o,a,b->", w3j, *(north[blocks[l]] for l in (l3, l1, l2)))
        torch.testing.assert_close(block, proportion * w3j, rtol=0, atol=1e-12)


def test_back_and_forth_is_the_identity() -> None:
    to_grid, from_grid = sphere_grid(3, 3, 6)
    torch.testing.assert_close(from_grid @ to_grid, torch.eye(16), rtol=0, atol=1e-13)


def test_too_small_a_grid_would_be_noticed() -> None:
    """The exactness above is no accident of the test: with a smaller quadrature it is gone."""
    to_grid, from_grid = sphere_grid(3, 1, 7)
    generator = torch.Generator().manual_seed(0)
    functions = torch.randn(4, 16, generator=generator)
    big_to, big_from = sphere_grid(3, 1, 13)
    coarse = from_grid @ (functions @ to_grid.T).prod(dim=0)
    exact = big_from @ (functions @ big_to.T).prod(dim=0)
    assert (coarse - exact).abs().max() > 1e-3


def test_a_degree_beyond_the_quadratures_is_refused() -> None:
    with pytest.raises(ValueError, match="lower lmax or correlation"):
        sphere_grid(3, 3, LEBEDEV_DEGREES[-1] + 1)


# --- radial functions ---------------------------------------------------------------------------------------


def derivatives(r: torch.Tensor) -> list[torch.Tensor]:
    """Envelope with its first three derivatives."""
    r = r.clone().requires_grad_()
    found = [envelope(r, CUTOFF)]
    for _ in range(3):
        found.append(torch.autograd.grad(found[-1].sum(), r, create_graph=True)[0])
    return [x.detach() for x in found]


def test_envelope_vanishes_at_the_cutoff_with_two_derivatives() -> None:
    near = derivatives(torch.tensor([CUTOFF * (1 - 1e-7)]))
    assert near[0].abs() < 1e-14
    assert near[1].abs() < 1e-11
    assert near[2].abs() < 1e-5
    assert near[3].abs() > 0.1  # the third is where it stops
    for value in derivatives(torch.tensor([CUTOFF, CUTOFF * (1 + 1e-9), 2 * CUTOFF, 1e6])):
        assert not value.any()


def test_envelope_is_one_at_the_origin_and_falls() -> None:
    r = torch.linspace(0, CUTOFF, 400)
    value = envelope(r, CUTOFF)
    assert value[0] == 1
    assert bool((value.diff() <= 0).all())
    assert bool(((value >= 0) & (value <= 1)).all())
    assert derivatives(torch.tensor([0.0]))[1].abs() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_envelope_keeps_the_precision(dtype: torch.dtype) -> None:
    assert envelope(torch.tensor([1.0], dtype=dtype), CUTOFF).dtype == dtype
    assert bessel(torch.tensor([1.0], dtype=dtype), 3, CUTOFF).dtype == dtype


def test_bessel_functions_are_orthonormal_on_the_ball() -> None:
    nodes, weights = np.polynomial.legendre.leggauss(60)
    r = torch.from_numpy((nodes + 1) * CUTOFF / 2)
    measure = torch.from_numpy(weights * CUTOFF / 2) * r**2
    values = bessel(r, 8, CUTOFF)
    torch.testing.assert_close((values * measure[:, None]).T @ values, torch.eye(8), rtol=0, atol=1e-12)


def test_bessel_functions_solve_their_equation() -> None:
    """(r b)'' = -(n pi / cutoff)^2 (r b), and b vanishes at the cutoff."""
    r = torch.linspace(0.3, CUTOFF, 30).requires_grad_()
    for n in range(1, 9):
        u = r * bessel(r, 8, CUTOFF)[:, n - 1]
        (slope,) = torch.autograd.grad(u.sum(), r, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), r)
        torch.testing.assert_close(curvature, -((n * np.pi / CUTOFF) ** 2) * u.detach(), rtol=1e-9, atol=1e-9)
        assert u[-1].abs() < 1e-13


# --- the gate, and the weights of the radial functions ------------------------------------------------------


def test_the_gate_keeps_unit_second_moments() -> None:
    """Of independent standard normals, by Gauss-Hermite quadrature: exact gains to their printed digits."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    scalars = torch.from_numpy(nodes).reshape(1, -1, 1)
    measure = torch.from_numpy(weights / weights.sum())
    bounded, vectors = gate([scalars, torch.ones(3, len(nodes), 1, dtype=torch.float64)])
    assert abs(float(measure @ bounded[0, :, 0] ** 2) - 1) < 1e-4
    assert abs(float(measure @ vectors[0, :, 0] ** 2) - 1) < 1e-4


def test_the_gate_scales_an_order_as_a_whole() -> None:
    """Each vector keeps its direction; the scalars decide its length."""
    x = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))
    scalars = torch.tensor([-2.0, 0.5, 3.0]).expand(1, 5, 3)
    y = gate([scalars, x])[1]
    ratio = y / x
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
    assert bool((ratio[0, :, 0] < ratio[0, :, 1]).all())


def test_radial_functions_are_weighted_by_smoothness() -> None:
    def basis(smoothness: float) -> torch.Tensor:
        config = EquivariantConfig(
            channels=2, vector_channels=1, lmax=1, hidden_lmax=1, n_radial=4, smoothness=smoothness
        )
        r = torch.tensor([[1.3, 0.0, 0.0]], dtype=torch.float64)
        return Equivariant(config, 1, 4.0).double().edge_basis(r)[0, :4]  # of l = 0

    ratio = basis(1.0) / basis(0.0)
    torch.testing.assert_close(ratio / ratio[0], 1 / torch.arange(1, 5, dtype=torch.float64))
    assert abs(float(ratio.square().mean()) - 1) < 1e-12
