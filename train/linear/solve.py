"""Least squares with a prior, by evidence, by cross-validation, or with a relevance for each feature.

    minimize over c:  sum over rows (x c - y)^2 + ridge * sum_k (c_k / prior_k)^2

Rows come as triangles (`train/linear/rows.py`), weights already in them; `prior` says how large each coefficient may be
relative to the others. All is float64, any rank is allowed: what the rows do not determine stays small by the ridge.

Use: by_evidence(merged(accumulate(pieces), weights), prior).coefficients

Sources: D. J. C. MacKay, Neural Computation 4, 415 (1992) (evidence, effective number of parameters); M. E. Tipping,
J. Mach. Learn. Res. 1, 211 (2001) (relevance). Both are held against scikit-learn's BayesianRidge and ARDRegression in
tests; these want all rows in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import minimize_scalar

from train.linear.rows import Array, Triangle, merged

EPS, TINY = float(np.finfo(np.float64).eps), float(np.finfo(np.float64).tiny)
GRID = 4  # strengths of the ridge per power of ten in the first search
ROUNDS, CONVERGED = 300, 1e-6
SETTLED, NOTHING = (
    0.1,
    1e-3,
)  # determined parts of a parameter: below the first, evidence may leave it out; the second does


@dataclass(frozen=True)
class Solution:
    """Coefficients and what can be said of them."""

    coefficients: Array  # (F,)
    ridge: float
    noise: float  # standard deviation of a (weighted) row, estimated
    rank: int  # columns that are independent in float64
    effective: float  # parameters that the rows determine rather than the ridge
    log_evidence: float
    text: str
    doubt: str  # why these coefficients may be worth nothing; mostly empty


@dataclass(frozen=True)
class Spectrum:
    """The problem in the directions in which its parts are independent: singular values and labels along each."""

    values: Array  # (q,) singular values of the features times prior
    labels: Array  # (q,)
    back: Array  # (F, q): from these directions to coefficients
    rest: float  # squared labels that no coefficients reach
    n_rows: int
    width: int  # of the matrix decomposed, for the rounding of its values

    @property
    def rank(self) -> int:
        if not len(self.values):
            return 0
        return int((self.values > self.width * EPS * self.values[0]).sum())

    def squares(self, ridge: Array) -> tuple[Array, Array]:
        """Squared errors, and squared coefficients in units of the prior, for each ridge."""
        square = np.square(self.values)
        damped = square + ridge[..., None]
        errors = np.square(ridge[..., None] / damped * self.labels).sum(-1) + self.rest
        return errors, np.square(self.values / damped * self.labels).sum(-1)

    def log_evidence(self, ridge: Array) -> Array:
        """Log of the probability of the labels, the noise at its most probable for this ridge."""
        errors, size = self.squares(ridge)
        total = np.maximum(errors + ridge * size, self._least)
        shrinking = -np.log1p(np.square(self.values) / ridge[..., None]).sum(-1)
        n = self.n_rows
        found: Array = 0.5 * (shrinking - n * np.log(total / n) - n * (1 + np.log(2 * np.pi)))
        return found

    @property
    def _least(self) -> float:
        """Errors below the rounding of the labels are no errors."""
        whole = float(np.square(self.labels).sum()) + self.rest
        return max(EPS**2 * whole, TINY)

    def bounds(self) -> tuple[float, float]:
        """From where the ridge changes nothing in float64 to where it leaves nothing, in powers of ten."""
        top = 2 * np.log10(self.values[0])
        return top + 2 * np.log10(EPS) + 2, top + 8


def spectrum(triangle: Triangle, prior: Array) -> Spectrum:
    """Singular values of the features in units of the prior."""
    x, y = triangle.matrix[:, :-1] * prior, triangle.matrix[:, -1]
    left, values, right = np.linalg.svd(x, full_matrices=False)
    labels = left.T @ y
    rest = float(np.square(y - left @ labels).sum())
    return Spectrum(values, labels, prior[:, None] * right.T, rest, triangle.n_rows, max(x.shape))


def scales(triangle: Triangle) -> Array:
    """The prior that takes all features as equally important: 1 / their root mean square, 0 for those that are zero."""
    size = np.linalg.norm(triangle.matrix[:, :-1], axis=0)
    found: Array = np.sqrt(triangle.n_rows) * np.divide(
        1.0, size, out=np.zeros_like(size), where=size > EPS * size.max(initial=0)
    )
    return found


def by_evidence(triangle: Triangle, prior: Array | None = None) -> Solution:
    """The ridge under which the labels are most probable; MacKay's fixed point is where that is stationary.

    Raises:
        ValueError: a prior of another length or sign.
    """
    found = spectrum(triangle, _checked(triangle, prior))
    if not len(found.values) or found.values[0] == 0:
        return _solution(found, 1.0, "without meaning, as every feature is zero")
    best = _best(lambda ridge: -found.log_evidence(ridge), found.bounds())
    return _solution(found, best, "by evidence", searched=True)


def by_validation(folds: Sequence[Triangle], prior: Array | None = None) -> Solution:
    """The ridge with the least squared error on each fold when fitted to the others; then fitted to all.

    Raises:
        ValueError: less than two folds, or a prior of another length or sign.
    """
    if len(folds) < 2:
        raise ValueError(f"{len(folds)} folds; cross-validation needs two or more")
    whole = merged(dict(enumerate(folds)))
    prior = _checked(whole, prior)
    rest = [merged({k: fold for k, fold in enumerate(folds) if k != out}) for out in range(len(folds))]
    spectra = [spectrum(triangle, prior) for triangle in rest]
    found = spectrum(whole, prior)
    if not len(found.values) or found.values[0] == 0:
        return _solution(found, 1.0, "without meaning, as every feature is zero")

    def errors(ridge: Array) -> Array:
        total = np.zeros(ridge.shape)
        for fold, part, others in zip(folds, spectra, rest, strict=True):
            share = ridge * others.n_rows / whole.n_rows  # as strong against fewer rows
            damped = part.values * part.labels / (np.square(part.values) + share[..., None])
            total += fold.squares((damped @ part.back.T).T)
        return total

    how = f"by {len(folds)}-fold cross-validation"
    return _solution(found, _best(errors, found.bounds()), how, searched=True)


def by_relevance(triangle: Triangle, prior: Array | None = None) -> Solution:
    """A ridge of its own for each feature, by evidence; features that turn out irrelevant are left out.

    Raises:
        ValueError: a prior of another length or sign.
    """
    prior = _checked(triangle, prior)
    first = by_evidence(triangle, prior)
    kept = np.flatnonzero(first.coefficients != 0)
    if not len(kept) or first.noise == 0:
        return first
    x, y = triangle.matrix[:, :-1] * prior, triangle.matrix[:, -1]
    precision = np.full(len(kept), first.ridge)  # in units of that of the noise
    before = np.full(len(kept), np.inf)
    for _ in range(ROUNDS):
        c, spread, errors = _posterior(x[:, kept], y, precision)
        determined = np.clip(1 - precision * spread, EPS, 1)
        noise = max(errors / max(triangle.n_rows - determined.sum(), 1.0), TINY)
        alone = np.square(c / spread) <= noise * (1 / spread - precision)  # its best precision is infinite
        stays = (determined > NOTHING) & ~(alone & (determined < SETTLED))
        if not stays.any() or (stays.all() and np.abs(c - before).sum() <= CONVERGED * np.abs(c).sum()):
            break
        kept, before = kept[stays], c[stays]
        precision = determined[stays] * noise / np.maximum(np.square(before), TINY)
    own = np.zeros(triangle.n_features)
    own[kept] = prior[kept] / np.sqrt(precision)
    how = f"for each feature by relevance, which leaves {len(kept)} of {triangle.n_features}"
    return _solution(spectrum(triangle, own), 1.0, how)


def _posterior(x: Array, y: Array, precision: Array) -> tuple[Array, Array, float]:
    """Mean and variances of the coefficients, in units of the noise, and the squared errors at the mean."""
    rows = np.concatenate([x, np.diag(np.sqrt(precision))])
    q, r = np.linalg.qr(rows)
    inverse = solve_triangular(r, np.eye(len(r)))
    c = inverse @ (q[: len(x)].T @ y)
    return c, np.square(inverse).sum(1), float(np.square(x @ c - y).sum())


def _checked(triangle: Triangle, prior: Array | None) -> Array:
    """The prior, or `scales` where none is given.

    Raises:
        ValueError: another length, or values that are negative or not finite.
    """
    if prior is None:
        return scales(triangle)
    if prior.shape != (triangle.n_features,) or not (np.isfinite(prior) & (prior >= 0)).all():
        raise ValueError(
            f"prior of shape {prior.shape}: expected {triangle.n_features} finite numbers, none negative"
        )
    return np.asarray(prior, dtype=np.float64)


def _best(cost: Callable[[Array], Array], bounds: tuple[float, float]) -> float:
    """Where the cost is least, the ridge in even steps of its logarithm, then between the neighbors of the best."""
    low, high = bounds
    grid = np.linspace(low, high, round(GRID * (high - low)) + 1)
    costs = cost(10**grid)
    k = int(np.argmin(costs))
    around = (grid[max(k - 1, 0)], grid[min(k + 1, len(grid) - 1)])
    inner = minimize_scalar(
        lambda x: float(cost(np.array(10**x))), bounds=around, method="bounded", options={"xatol": 1e-6}
    )
    return float(10 ** (inner.x if inner.fun < costs[k] else grid[k]))


def _doubt(found: Spectrum, ridge: float, effective: float, searched: bool) -> str:
    if effective < 1:
        return f"next to nothing of the labels is explained: {effective:.1f} effective parameters"
    if searched:
        (low, high), power = found.bounds(), np.log10(ridge)
        if power < low + 1 / GRID:
            return "the ridge is as weak as float64 knows, so that nothing holds coefficients back"
        if power > high - 1 / GRID:
            return "the ridge is as strong as it may be"
    return ""


def _solution(found: Spectrum, ridge: float, how: str, searched: bool = False) -> Solution:
    square = np.square(found.values)
    c = found.back @ (found.values / (square + ridge) * found.labels)
    errors, size = (float(x) for x in found.squares(np.array(ridge)))
    effective = float((square / (square + ridge)).sum())
    noise = float(np.sqrt((errors + ridge * size) / max(found.n_rows, 1)))
    n, rank = len(c), found.rank
    text = (
        f"{n:,} coefficients from {found.n_rows:,} rows; ridge {ridge:.3g}, {how}; "
        f"{effective:.1f} effective parameters"
    )
    if rank < n:
        text += f"; rank {rank:,}: what the rows do not determine is kept small by the ridge"
    doubt = _doubt(found, ridge, effective, searched)
    return Solution(c, ridge, noise, rank, effective, float(found.log_evidence(np.array(ridge))), text, doubt)
