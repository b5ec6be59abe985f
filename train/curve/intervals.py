"""From resampled values to intervals and p-values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from train.curve.powerlaw import Array

LEVEL = 0.95
Interval = list[float]  # estimate, low, high; NaN: not known, infinite: without bound


def interval(estimate: float, values: Array) -> Interval:
    """The estimate between the quantiles of what could have been; they move apart where they would leave it out."""
    if np.isnan(estimate) or not len(values) or np.isnan(values).any():
        return [float(estimate), float("nan"), float("nan")]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(
        values, (tail, 1 - tail), method="inverted_cdf"
    )  # of numbers that may be infinite
    return [float(estimate), float(min(low, estimate)), float(max(high, estimate))]


def two_sided(values: Array) -> float:
    """p-value of the hypothesis that a value is 0: the level of the interval that just reaches 0."""
    if np.isnan(values).any():
        return float("nan")
    below, above = (values <= 0).sum(), (values >= 0).sum()
    return float(min(1.0, 2 * (1 + min(below, above)) / (1 + len(values))))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values that may be compared with a level as if there were only one (Holm 1979); NaN stay and do not count.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    out = list(p_values)
    order = [int(k) for k in np.argsort(p_values) if not np.isnan(p_values[k])]
    least = 0.0
    for rank, k in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p_values[k]))
        out[k] = least
    return out
