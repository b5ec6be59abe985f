"""Capacity controls: contestants made as wide as has as many parameters, or takes as long a step, as a reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from train.curve.network import WIDTHS, widths

MATCHES = ("none", "parameters", "time")
FACTORS = (1 / 16, 16.0)
HALVINGS = 12


def matched(
    model: Mapping[str, Any], target: float, cost: Callable[[Mapping[str, Any]], float]
) -> tuple[dict[str, Any], float]:
    """The dials whose cost comes nearest to the target, and that cost as part of it.

    Widths are scaled by one factor, found by halving the interval; a cost that is measured may waver.

    Raises:
        ValueError: no dial of the network is a number of channels or functions.
    """
    if not any(name.endswith(WIDTHS) for name in model):
        raise ValueError(
            f"no dial of {model.get('network')} is a number of channels or functions; use --match none"
        )
    low, high = (math.log(factor) for factor in FACTORS)
    tried: dict[str, tuple[float, dict[str, Any]]] = {}
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        dials = widths(model, math.exp(middle))
        key = repr(dials)
        if key not in tried:
            tried[key] = cost(dials) / target, dials
        reached = tried[key][0]
        if reached > 1:
            high = middle
        else:
            low = middle
    reached, dials = min(tried.values(), key=lambda one: abs(math.log(one[0])))
    return dials, reached
