"""Error against time: what each model at each size costs, and which of them nothing else beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# what is on the time axis: key in results.jsonl -> title
TIMES = {
    "cpu_seconds": "CPU seconds of a training",
    "us_per_atom": "µs per atom for energy and forces",
}
BY_SIZE = ("cpu_seconds",)  # the others depend on the model only


@dataclass(frozen=True)
class Point:
    """A model at a size."""

    model: str
    size: int
    time: float  # median over fits
    error: float
    best: bool  # no other point is faster and more accurate


def points(found: dict[str, Any], test: str, quantity: str, time: str) -> list[Point]:
    """All points with a time, the fastest first."""
    models = found["tests"][test][quantity]["models"]
    known: dict[tuple[str, int], list[float]] = {}
    for fit in found["fits"]:
        if fit.get(time) is not None:
            for size in [fit["size"]] if time in BY_SIZE else found["study"]["sizes"]:
                known.setdefault((fit["model"], size), []).append(fit[time])
    rows = []
    for name, model in models.items():
        for size, error in zip(model["sizes"], model["errors"], strict=True):
            if (name, size) in known:
                rows.append((float(np.median(known[name, size])), error[0], name, size))
    rows.sort()
    best = front([(row[0], row[1]) for row in rows])
    return [Point(name, n, t, error, k in best) for k, (t, error, name, n) in enumerate(rows)]


def front(pairs: Sequence[tuple[float, float]]) -> set[int]:
    """Which of (time, error), sorted by time, are beaten by none.

    >>> sorted(front([(1, 5), (2, 6), (3, 2), (4, 3)]))
    [0, 2]
    """
    found, least = set(), float("inf")
    for k, (_, error) in enumerate(pairs):
        if error < least:
            found.add(k)
            least = error
    return found
