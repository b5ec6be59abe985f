"""How long each fit of a study is: the protocol as settings of potential-train."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from train.loop import VALIDATE_STEPS

# Parts of the longest converged fit, but some validations at least: until the rate is halved, until it ends.
PLATEAU, PATIENCE = 0.04, 0.16


def length(protocol: str, budget: float, n_batches: int, seconds: tuple[float, float]) -> dict[str, Any]:
    """Settings of [fit] for a training set of `n_batches` batches an epoch; `seconds` of a step and of a validation.

    Lengths are whole epochs, so that a fit can be resumed exactly; the steps that were made are recorded.
    Early stopping belongs to `converged` alone: a budget is used up.
    """
    if protocol == "converged":
        flat, over = (max(part * budget, n * VALIDATE_STEPS) for part, n in ((PLATEAU, 2), (PATIENCE, 8)))
        return {
            "epochs": max(1, math.ceil(budget / n_batches)),
            "schedule": "plateau",
            "plateau_patience": math.ceil(flat / n_batches),
            "patience": math.ceil(over / n_batches),
        }
    if protocol == "equal-epochs":
        epochs = max(1, round(budget))
    elif protocol == "equal-steps":
        epochs = max(1, round(budget / n_batches))
    else:
        step, validation = seconds
        epoch = n_batches * step + validation * min(1.0, n_batches / VALIDATE_STEPS)
        epochs = max(1, round(budget / epoch))
    return {"epochs": epochs, "patience": epochs}


def ended(protocol: str, steps: int, settings: Mapping[str, Any], n_batches: int) -> str:
    """How a fit ended: converged, bound (it was stopped before it had), or budget."""
    if protocol != "converged":
        return "budget"
    return "converged" if steps < settings["epochs"] * n_batches else "bound"
