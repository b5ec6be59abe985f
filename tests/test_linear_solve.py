"""Least squares that takes rows as they come: known answers, scikit-learn, brute force."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import multivariate_normal
from sklearn.linear_model import ARDRegression, BayesianRidge

from train.linear.rows import Triangle, accumulate, merged
from train.linear.solve import _best, by_evidence, by_relevance, by_validation, scales, spectrum

Array = NDArray[np.float64]


def problem(n: int, f: int, noise: float, seed: int = 0) -> tuple[Array, Array, Array]:
    """Features of very unlike sizes, planted coefficients, labels."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, f)) @ (np.eye(f) + 0.3 * random.normal(size=(f, f))) * np.logspace(0, 2, f)
    c = random.normal(size=f) / np.logspace(0, 2, f)
    return x, c, x @ c + noise * random.normal(size=n)


def triangle(x: Array, y: Array, block: int = 7) -> Triangle:
    pieces = [("rows", x[k : k + block], y[k : k + block]) for k in range(0, len(x), block)]
    return accumulate(pieces)["rows"]


def test_a_triangle_stands_for_its_rows_however_they_came() -> None:
    x, _, y = problem(200, 10, 0.5)
    c = np.random.default_rng(1).normal(size=(10, 3))
    expected = np.square(x @ c - y[:, None]).sum(0)
    for block in (1, 7, 200):
        one = triangle(x, y, block)
        assert one.n_rows == 200
        assert len(one.matrix) == 11
        np.testing.assert_allclose(one.squares(c), expected, rtol=1e-12)
        np.testing.assert_allclose(one.squares(c[:, 0]), expected[0], rtol=1e-12)


def test_kinds_are_weighed_after_they_were_read() -> None:
    x, _, y = problem(60, 5, 0.5)
    pieces = [("energy", x[:3], y[:3]), ("forces", x[3:40], y[3:40]), ("energy", x[40:], y[40:])]
    both = merged(accumulate(pieces), {"energy": 4.0})
    weight = np.where((np.arange(60) < 3) | (np.arange(60) >= 40), 4.0, 1.0)
    c = np.ones(5)
    np.testing.assert_allclose(both.squares(c), (weight * np.square(x @ c - y)).sum(), rtol=1e-12)
    assert both.n_rows == 60
    assert merged(accumulate(pieces), {"energy": 0.0}).n_rows == 37


@pytest.mark.parametrize("solve", [by_evidence, by_relevance, lambda t: by_validation([t, t])])
def test_planted_coefficients_are_found_exactly(solve) -> None:  # type: ignore[no-untyped-def]
    x, c, y = problem(100, 20, 0.0)
    found = solve(triangle(x, y))
    np.testing.assert_allclose(found.coefficients, c, rtol=1e-9)
    assert found.rank == 20
    assert found.effective == pytest.approx(20, abs=1e-6)


def test_evidence_is_that_of_brute_force() -> None:
    """log N(y | 0, noise^2 (1 + X P^2 X^T / ridge)), the noise at its best."""
    x, _, y = problem(30, 6, 1.0)
    one = triangle(x, y)
    prior = scales(one)
    found = by_evidence(one)
    best = -np.inf
    for power in np.linspace(-2, 2, 9):
        ridge = found.ridge * 10**power
        shape = np.eye(30) + (x * prior) @ (x * prior).T / ridge
        noises = np.logspace(-1.5, 1.5, 200)
        values = [multivariate_normal.logpdf(y, np.zeros(30), s**2 * shape) for s in noises]
        here = float(spectrum(one, prior).log_evidence(np.array(ridge)))
        assert here == pytest.approx(max(values), abs=0.02)  # as fine as the grid of noises
        assert here >= max(values) - 1e-9
        best = max(best, here)
    assert found.log_evidence == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize(("n", "f", "noise"), [(80, 10, 0.3), (25, 20, 2.0), (15, 30, 0.5)])
def test_evidence_is_bayesian_ridge_of_scikit_learn(n: int, f: int, noise: float) -> None:
    x, _, y = problem(n, f, noise, seed=3)
    prior = np.linspace(0.5, 2, f)
    none = {"alpha_1": 0.0, "alpha_2": 0.0, "lambda_1": 0.0, "lambda_2": 0.0}
    theirs = BayesianRidge(fit_intercept=False, max_iter=20000, tol=1e-12, compute_score=True, **none)
    theirs.fit(x * prior, y)
    ours = by_evidence(triangle(x, y), prior)
    if n > f:
        np.testing.assert_allclose(ours.coefficients / prior, theirs.coef_, rtol=1e-4, atol=1e-9)
        assert ours.ridge == pytest.approx(theirs.lambda_ / theirs.alpha_, rel=1e-3)
        assert ours.noise == pytest.approx(theirs.alpha_**-0.5, rel=1e-3)
    assert ours.log_evidence >= theirs.scores_[-1] - 1e-6


def test_relevance_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(5)
    x = random.normal(size=(200, 12))
    c = np.where(np.arange(12) % 3 == 0, random.normal(size=12) + 2, 0)
    y = x @ c + 0.2 * random.normal(size=200)
    none = {"alpha_1": 0.0, "alpha_2": 0.0, "lambda_1": 0.0, "lambda_2": 0.0}
    theirs = ARDRegression(fit_intercept=False, max_iter=5000, tol=1e-8, threshold_lambda=1e9, **none)
    theirs.fit(x, y)
    ours = by_relevance(triangle(x, y), np.ones(12))
    np.testing.assert_allclose(ours.coefficients, theirs.coef_, atol=2e-3)
    assert np.abs(ours.coefficients - c).max() < 0.05
    assert (ours.coefficients[c == 0] == 0).sum() >= 4


def test_validation_finds_the_ridge_of_brute_force() -> None:
    x, _, y = problem(60, 25, 3.0)
    folds = [triangle(x[k::3], y[k::3]) for k in range(3)]
    prior = scales(merged(dict(enumerate(folds))))
    found = by_validation(folds)

    def error(ridge: float) -> float:
        total = 0.0
        for k in range(3):
            rest = np.arange(60) % 3 != k
            a = x[rest] * prior
            c = prior * np.linalg.solve(a.T @ a + ridge * 2 / 3 * np.eye(25), a.T @ y[rest])
            total += float(np.square(x[~rest] @ c - y[~rest]).sum())
        return total

    best = min(error(found.ridge * 10**p) for p in np.linspace(-3, 3, 61))
    assert error(found.ridge) == pytest.approx(best, rel=1e-9)
    assert found.ridge > 1e-3


def test_what_is_not_determined_stays_small_and_is_said() -> None:
    x, c, y = problem(100, 6, 1e-3)
    twice = np.concatenate(
        [x, x[:, :2], np.zeros((100, 1))], axis=1
    )  # two columns again, one without meaning
    found = by_evidence(triangle(twice, y))
    assert found.rank == 6
    assert "rank 6" in found.text
    assert found.coefficients[8] == 0
    np.testing.assert_allclose(found.coefficients[:2] + found.coefficients[6:8], c[:2], rtol=1e-2)
    np.testing.assert_allclose(found.coefficients[:2], found.coefficients[6:8], rtol=1e-3)
    for solve in (by_relevance, lambda t: by_validation([t, t])):
        assert np.isfinite(solve(triangle(twice, y)).coefficients).all()


@pytest.mark.parametrize("solve", [by_evidence, by_relevance, lambda t: by_validation([t, t])])
@pytest.mark.parametrize("rows", [1, 2, 5, 40])
def test_never_a_number_that_is_none(solve, rows: int) -> None:  # type: ignore[no-untyped-def]
    x, _, y = problem(rows, 5, 0.1)
    for features, labels in ((x, y), (x, 0 * y), (0 * x, y), (1e-200 * x, y), (1e150 * x, 1e-150 * y)):
        found = solve(triangle(features, labels))
        assert np.isfinite(found.coefficients).all()
        assert np.isfinite([found.ridge, found.noise, found.effective, found.log_evidence]).all()


def test_pure_noise_is_not_learned() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(300, 50)), random.normal(size=300)
    assert by_evidence(triangle(x, y)).effective < 10
    assert by_validation([triangle(x[k::5], y[k::5]) for k in range(5)]).effective < 10


def test_a_solution_that_may_be_worth_nothing_says_so() -> None:
    x, c, y = problem(100, 20, 0.1)
    assert by_evidence(triangle(x, y)).doubt == ""
    other = np.random.default_rng(1).normal(size=100)
    other -= x @ np.linalg.lstsq(x, other, rcond=None)[0]  # nothing of it can be explained
    null = by_evidence(triangle(x, other))
    assert null.effective < 1
    assert "next to nothing" in null.doubt
    assert "as weak as" in by_evidence(triangle(x, x @ c)).doubt


def test_the_best_ridge_is_never_worse_than_that_of_the_grid() -> None:
    """A valley too narrow for the refinement, exactly on the grid."""
    found = _best(lambda ridge: np.where(np.abs(np.log10(ridge)) < 1e-7, -1.0, 0.0), (-1.0, 1.0))
    assert found == pytest.approx(1.0)


def test_what_is_wrong_is_refused() -> None:
    x, _, y = problem(20, 3, 0.1)
    with pytest.raises(ValueError, match="labels that are not finite"):
        triangle(x, np.where(np.arange(20) == 3, np.nan, y))
    with pytest.raises(ValueError, match="2 features, those before had 3"):
        accumulate([("a", x, y), ("b", x[:, :2], y)])
    with pytest.raises(ValueError, match="no rows with a weight"):
        merged(accumulate([("a", x, y)]), {"a": 0.0})
    with pytest.raises(ValueError, match="weight of a is -1"):
        merged(accumulate([("a", x, y)]), {"a": -1.0})
    with pytest.raises(ValueError, match="expected 3 finite numbers"):
        by_evidence(triangle(x, y), np.ones(4))
    with pytest.raises(ValueError, match="1 folds"):
        by_validation([triangle(x, y)])
