"""Targets beside the energy in predictions.h5: labels and predictions, as they were read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PredictedTarget:
    """Labels and predictions of one target, [n_frames or n_atoms, dim] each, in its unit."""

    reference: Floats
    predicted: Floats
    of_atoms: bool  # a row for each atom, not for each frame


def read_targets(group: Any) -> dict[str, PredictedTarget]:
    """All of a set; none where the run had none."""
    found = group["targets"].items() if "targets" in group else ()
    return {
        name: PredictedTarget(one["reference"][()], one["predicted"][()], one.attrs["per"] == "atom")
        for name, one in found
    }


def only(targets: Mapping[str, PredictedTarget], frames: Any, atoms: Any) -> dict[str, PredictedTarget]:
    """Those of some frames and their atoms."""
    rows = {name: atoms if one.of_atoms else frames for name, one in targets.items()}
    return {
        name: replace(one, reference=one.reference[rows[name]], predicted=one.predicted[rows[name]])
        for name, one in targets.items()
    }
