"""What the errors of all fits say on one test and quantity: curves, differences, ratios, forecasts, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.curve.intervals import Interval, holm, interval, two_sided
from train.curve.powerlaw import FLOOR_SIZES, SLOPES, Array, Curves, fit_curves
from train.curve.resample import Errors, Resampled, resample

RESAMPLES = 4000
BAND_POINTS, BEYOND = 15, 4  # on either side of the largest size, up to so many times that
SAME = 1e-9  # of logarithms
HIDDEN = (1, 2)  # so many of the largest sizes are hidden and predicted


def exp(logs: Array) -> Array:
    """Errors from logarithms that may be beyond all numbers: few draws have long tails."""
    values: Array = np.exp(np.clip(logs, -700, 700))
    return values


@dataclass(frozen=True)
class Fitted:
    """A model's mean errors, what else they could have been, and the curves through each of them."""

    data: Resampled
    best: Curves | None  # one; None with a single size
    curves: Curves | None  # n; None where no noise is known

    @property
    def last(self) -> float:
        return float(self.data.sizes[-1])


def fitted(data: Resampled) -> Fitted:
    """Both kinds of curves: the estimate's floor is not negative, those of intervals are free (`fit_curves`)."""
    if len(data.sizes) < 2:
        return Fitted(data, None, None)
    known = data.freedom > 0
    curves = fit_curves(data.sizes, data.all_logs, bounded=False) if known else None
    return Fitted(data, fit_curves(data.sizes, data.logs), curves)


def apart(data: Resampled, pool: float) -> NDArray[np.bool_]:
    """(n_sizes,) where the spread between draws is that of new frames: subsets of more than half of the pool overlap,
    and of the whole pool are all the same. Seeds on one subset are no draws."""
    return (data.unit != "draws") | (2 * data.sizes <= pool)


def analyze(
    errors: Errors, targets: Sequence[float] = (), n: int = RESAMPLES, pool: float = np.inf
) -> dict[str, Any]:
    """Everything that is reported, as plain numbers.

    Errors in the unit of `errors`; sizes and the `pool` they are drawn from in frames. Without `targets` two are chosen
    from the data.
    """
    models = {name: fitted(data) for name, data in resample(errors, n).items()}
    small = {name: one.data.at(apart(one.data, pool)) for name, one in models.items()}
    compared = {
        name: models[name] if len(data.sizes) == len(models[name].data.sizes) else fitted(data)
        for name, data in small.items()
        if len(data.sizes)
    }
    goals = list(targets) or chosen_targets(models)
    return {
        "models": {name: of_model(one, errors, name, pool) for name, one in models.items()},
        "pairs": pairs(compared),
        "targets": [of_target(models, goal) for goal in goals],
        "hidden": hidden({name: one.data for name, one in models.items()}),
    }


def of_model(one: Fitted, errors: Errors, name: str, pool: float) -> dict[str, Any]:
    """Points, parameters and band of one model."""
    data = one.data
    known = np.where(apart(data, pool), data.all_logs, np.nan)
    points = [interval(np.exp(m), exp(v)) for m, v in zip(data.logs, known.T, strict=True)]
    own = errors.model == name
    out: dict[str, Any] = {
        "sizes": data.sizes.astype(int).tolist(),
        "errors": points,
        "fits": [int((own & (errors.size == size)).sum()) for size in data.sizes],
        "unit": data.unit,
        "freedom": data.freedom,
        "floor_fitted": len(data.sizes) >= FLOOR_SIZES,
    }
    if one.best is None:
        return out
    nothing = Curves(*(np.full(len(data.all_logs), np.nan),) * 3)
    curves = one.curves or nothing
    out["a"] = interval(float(np.exp(one.best.log_a[0])), exp(curves.log_a))
    out["b"] = interval(float(one.best.b[0]), curves.b)
    floors = np.maximum(curves.c, 0.0) if out["floor_fitted"] else nothing.c
    out["c"] = interval(float(one.best.c[0]), floors)
    out["misfit"] = float(np.abs(data.logs - np.log(one.best.at(data.sizes)[0])).max())
    first, last = data.sizes[0], data.sizes[-1]
    measured, beyond = np.geomspace(first, last, BAND_POINTS), np.geomspace(last, BEYOND * last, BAND_POINTS)
    sizes = np.concatenate([measured[:-1], beyond])  # the largest size is one of them: there dashes begin
    low_high = [interval(e, v) for e, v in zip(one.best.at(sizes)[0], curves.at(sizes).T, strict=True)]
    out["band"] = {"sizes": sizes.tolist(), "errors": low_high}
    return out


def pairs(models: dict[str, Fitted]) -> list[dict[str, Any]]:
    """Every two models: the ratio of their errors at the largest common size, and the difference of their slopes.

    Only sizes whose draws are `apart` are among theirs: at others p-values would be too small.
    p-values are Holm's over all rows together, whether of slopes or of errors.
    """
    rows: list[dict[str, Any]] = []
    for one, other in combinations(models, 2):
        a, b = models[one], models[other]
        common = np.intersect1d(a.data.sizes, b.data.sizes)
        if len(common):
            size = common[-1]
            (i,), (j,) = (np.flatnonzero(m.data.sizes == size) for m in (a, b))
            difference = b.data.all_logs[:, j] - a.data.all_logs[:, i]
            row = {"one": one, "other": other, "what": "errors", "size": int(size)}
            ratio = interval(float(np.exp(b.data.logs[j] - a.data.logs[i])), exp(difference))
            rows.append(row | {"value": ratio, "p": two_sided(difference)})
        if a.best and b.best:
            slopes = b.curves.b - a.curves.b if a.curves and b.curves else np.full(2, np.nan)
            row = {"one": one, "other": other, "what": "slopes", "size": None}
            value = interval(float(b.best.b[0] - a.best.b[0]), slopes)
            rows.append(row | {"value": value, "p": two_sided(slopes)})
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p
    return rows


def chosen_targets(models: dict[str, Fitted]) -> list[float]:
    """An error that every model reaches or comes near to, and one beyond the best measured."""
    means = [np.exp(one.data.logs) for one in models.values()]
    low, high = max(e.min() for e in means), min(e.max() for e in means)
    both = np.sqrt(low * high) if low < high else low
    return [float(f"{value:.2g}") for value in (both, 0.75 * min(e.min() for e in means))]


def of_target(models: dict[str, Fitted], goal: float) -> dict[str, Any]:
    """Frames that each model needs for an error, how many more than it had, and between models the ratio of them."""
    needs: dict[str, tuple[float, Array]] = {}
    rows = []
    for name, one in models.items():
        if one.best is None:
            continue
        estimate = float(one.best.needed(goal)[0])
        values = one.curves.needed(goal) if one.curves else np.full(2, np.nan)
        needs[name] = estimate, values
        total = interval(estimate, values)
        rows.append(
            {
                "model": name,
                "needed": total,
                "falls": bool(one.best.b[0] > SLOPES[0]),
                "first": float(one.data.sizes[0]),
                "last": one.last,
                "more": np.maximum(0.0, np.array(total) - one.last).tolist(),
                "inside": bool(one.data.sizes[0] <= estimate <= one.last),
            }
        )
    order = sorted(needs, key=lambda name: needs[name][0])  # who needs fewest comes first
    ratios = [
        {"one": one, "other": other, "ratio": ratio_of(needs[one], needs[other])}
        for one, other in combinations(order, 2)
    ]
    return {"error": goal, "models": rows, "ratios": ratios}


def ratio_of(one: tuple[float, Array], other: tuple[float, Array]) -> Interval:
    """How many times as many frames the other needs; where neither ever comes to the error it may be any number."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        estimate, values = float(np.divide(other[0], one[0])), other[1] / one[1]
    if np.isnan(one[1]).any() or np.isnan(other[1]).any() or np.isnan(estimate):
        return [estimate, float("nan"), float("nan")]
    low = interval(estimate, np.nan_to_num(values, nan=0.0, posinf=np.inf))[1]
    return [estimate, low, interval(estimate, np.nan_to_num(values, nan=np.inf, posinf=np.inf))[2]]


def hidden(models: dict[str, Resampled]) -> dict[str, Any]:
    """Are the forecasts right? The largest sizes are hidden, predicted from the others, and looked at.

    The interval is that of a measurement to come: of the curve, and of as many fits as at the largest size that was not
    hidden, whose spread it takes. The test frames are the same for both, so they are not resampled.
    """
    points = []
    for name, data in models.items():
        if not data.freedom or np.abs(data.noise).max() < SAME:  # what no draw changes is not learned
            continue
        for many in HIDDEN:
            seen = len(data.sizes) - many
            if (
                seen < FLOOR_SIZES
            ):  # without a floor it would be another forecast than the one that is checked
                continue
            curves = fit_curves(data.sizes[:seen], (data.logs + data.noise)[:, :seen], bounded=False)
            best = fit_curves(data.sizes[:seen], data.logs[:seen])
            rng = np.random.default_rng(seen)
            own = rng.permutation(data.noise[:, seen - 1])  # independent of that of the curve
            for k in range(seen, len(data.sizes)):
                with np.errstate(divide="ignore"):
                    values = exp(np.log(curves.at(data.sizes[k : k + 1])[:, 0]) + own)
                predicted = interval(float(best.at(data.sizes[k : k + 1])[0, 0]), values)
                measured = float(np.exp(data.logs[k]))
                points.append(
                    {
                        "model": name,
                        "from": int(data.sizes[seen - 1]),
                        "size": int(data.sizes[k]),
                        "predicted": predicted,
                        "measured": measured,
                        "inside": bool(predicted[1] <= measured <= predicted[2]),
                    }
                )
    return {"points": points, "inside": sum(p["inside"] for p in points), "of": len(points)}
