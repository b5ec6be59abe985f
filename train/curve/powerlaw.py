"""The curve error = a N^-b + c, fitted to many resampled curves at once, and what can be read off it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FLOOR_SIZES = 4  # sizes from which on a floor is fitted: three points are met exactly by three parameters
SLOPES = (0.001, 10.0)  # b outside of this is no learning curve
LEAST = 1e-3  # least part of a N^-b that a negative c may leave: the logarithm needs something positive
ITERATIONS = 100


@dataclass(frozen=True)
class Curves:
    """Parameters of n curves; `floor` is 0 where none was fitted."""

    log_a: Array  # (n,)
    b: Array  # (n,)
    c: Array  # (n,) in the unit of the error

    def at(self, sizes: Array) -> Array:
        """Errors (n, n_sizes); 0 where a curve with a negative floor has fallen below it."""
        log_n = np.log(np.atleast_1d(np.asarray(sizes, dtype=float)))
        rise = np.exp(
            np.clip(self.log_a[:, None] - self.b[:, None] * log_n, -700, 700)
        )  # few draws, long tails
        errors: Array = np.maximum(rise + self.c[:, None], 0.0)
        return errors

    def needed(self, error: float) -> Array:
        """Size (n,) at which each curve reaches an error; infinite where its floor is above, or it does not fall."""
        above = error - self.c
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            log_n = (self.log_a - np.log(above)) / self.b
            sizes: Array = np.where((above > 0) & ~(self.b <= 0), np.exp(log_n), np.inf)
        return sizes


def fit_curves(sizes: Array, logs: Array, bounded: bool = True) -> Curves:
    """Least squares on the logarithms (n, n_sizes) of errors, every size counting the same.

    `bounded`: the floor is not negative, as nature has it. Resampled curves are fitted without that bound: at the
    bound the distribution of b would be cut on one side, and its intervals cover too seldom (measured: 87 % instead of
    95 %, docs/LOG.md of 2026-11-27).

    Raises:
        ValueError: fewer than two sizes, or logarithms that are not finite.
    """
    logs = np.atleast_2d(logs)
    if len(sizes) < 2 or len(np.unique(sizes)) != len(sizes):
        raise ValueError(f"sizes are {list(sizes)}; a curve needs two different ones at least")
    if not np.isfinite(logs).all():
        raise ValueError(
            "an error is 0 or not finite; a curve is fitted to the logarithms of positive errors"
        )
    middle = np.log(sizes).mean()
    x = np.log(sizes) - middle
    slope = -(logs @ x) / (x @ x)
    start = np.stack([logs.mean(1), np.clip(slope, 0.05, 5.0), np.full(len(logs), 0.05)], 1)
    if len(sizes) < FLOOR_SIZES:
        start[:, 1], start[:, 2] = slope, 0.0
    else:
        start = _descend(start, x, logs, 0.0 if bounded else -np.inf)
    alpha, b, kappa = start.T
    return Curves(alpha + b * middle, b, np.exp(np.clip(alpha, -700, 700)) * kappa)


def _model(theta: Array, x: Array) -> tuple[Array, Array, Array]:
    """Logarithms of alpha's e^alpha (e^-bx + kappa), the first part in brackets, and all of it."""
    rise = np.exp(-theta[:, 1:2] * x)
    whole = rise + theta[:, 2:3]
    known = np.where(whole > LEAST * rise, whole, np.nan)  # a step to where it is not is never taken
    return theta[:, :1] + np.log(known), rise, whole


def _descend(theta: Array, x: Array, logs: Array, least: float) -> Array:
    """Levenberg and Marquardt's steps for all curves at once, those that have arrived left out."""
    todo, damping = np.arange(len(logs)), np.full(len(logs), 1e-2)
    fitted, _, _ = _model(theta, x)
    cost = ((logs - fitted) ** 2).sum(1)
    for _ in range(ITERATIONS):
        here, target = theta[todo], logs[todo]
        step = _step(here, x, target, damping[todo], least)
        new = here + step
        new[:, 1], new[:, 2] = np.clip(new[:, 1], *SLOPES), np.maximum(new[:, 2], least)
        new_cost = ((target - _model(new, x)[0]) ** 2).sum(1)
        better = new_cost <= cost[todo]
        fall = cost[todo] - new_cost
        theta[todo[better]], cost[todo[better]] = new[better], new_cost[better]
        damping[todo] = np.clip(damping[todo] * np.where(better, 0.3, 4.0), 1e-12, 1e10)
        stuck = ~better & (damping[todo] >= 1e10)
        arrived = better & (fall <= 1e-13 * (1 + cost[todo])) & (np.abs(new - here).max(1) < 1e-7)
        todo = todo[~(arrived | stuck)]
        if not len(todo):
            break
    return theta


def _step(theta: Array, x: Array, logs: Array, damping: Array, least: float) -> Array:
    fitted, rise, whole = _model(theta, x)
    slopes = np.stack([np.ones_like(rise), -x * rise / whole, 1 / whole], 2)
    gradient = np.einsum("nki,nk->ni", slopes, logs - fitted)
    curvature = np.einsum("nki,nkj->nij", slopes, slopes)
    held = (theta[:, 2] <= least) & (gradient[:, 2] < 0)  # the floor stays at its bound
    curvature[held, 2, :] = curvature[held, :, 2] = 0.0
    curvature[held, 2, 2], gradient[held, 2] = 1.0, 0.0
    diagonal = np.einsum("nii->ni", curvature)
    damped = curvature + (damping[:, None] * diagonal + 1e-15)[:, :, None] * np.eye(3)
    solved: Array = np.linalg.solve(damped, gradient[..., None])[..., 0]
    return solved
