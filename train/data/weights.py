"""What each frame counts: config_weight of the frame times the weights of its config_type; 0: a label is not used."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from train.config import Weights
from train.data.dataset import Frame
from train.option import check_values, suggest

KEY = "config_weight"  # in info; a number of at least 0


def weigh(
    frames: Sequence[Frame], weights: Mapping[str, Weights], keep: bool = False
) -> tuple[list[Frame], list[str]]:
    """The frames with their weights, without the labels of weight 0; and sentences for the label report.

    Frames in which every weight is 0 are left out. `keep`: nothing is left out, for tests. A frame without
    config_weight, or of a type without weights, counts 1.

    Raises:
        ValueError: a weight that is not a number of at least 0, or no frame left.
    """
    kept, own = [], []
    for frame in frames:
        factor = _config_weight(frame)
        if factor != 1.0:
            own.append(factor)
        kinds = asdict(weights.get(frame.config_type or "", Weights()))
        of_frame = Weights(**{label: factor * value for label, value in kinds.items()})
        unused: dict[str, Any] = {label: None for label, value in asdict(of_frame).items() if value == 0}
        if keep:
            kept.append(replace(frame, weights=of_frame))
        elif len(unused) < len(kinds):
            kept.append(replace(frame, weights=of_frame, **unused))
    if frames and not kept:
        raise ValueError(
            f"{frames[0].source}: every weight is 0 in every frame: none is left; give other weights"
        )
    notes = []
    if own:
        notes.append(f"{KEY}: {min(own):g} to {max(own):g} in {len(own)} frames, 1 in the others")
    if len(kept) < len(frames):
        notes.append(f"{len(frames) - len(kept)} frames in which every weight is 0 are left out")
    return kept, notes + _type_notes(kept, weights)


def _config_weight(frame: Frame) -> float:
    value = frame.atoms.info.get(KEY, 1.0)
    try:
        factor = math.nan if isinstance(value, (str, bool)) else float(value)
    except (TypeError, ValueError):
        factor = math.nan
    if not (math.isfinite(factor) and factor >= 0):
        raise ValueError(
            f"{frame.name}: {KEY} is {value!r}; expected a number of at least 0; correct or remove it"
        )
    return factor


def _type_notes(frames: Sequence[Frame], weights: Mapping[str, Weights]) -> list[str]:
    notes = []
    for kind, of_type in weights.items():
        n = sum(f.config_type == kind for f in frames)
        told = [
            f"{label} {value:g}" if value else f"{label} not used" for label, value in asdict(of_type).items()
        ]
        if n:
            notes.append(f"weights of config_type '{kind}' ({n} frames): {', '.join(told)}")
    return notes


def check_weights(weights: Mapping[str, Weights], frames: Sequence[Frame]) -> None:
    """Refuse weights that are no weights, or that belong to no frame.

    Raises:
        ValueError: a weight below 0 or not finite, or a config_type that no training frame has.
    """
    known = sorted({f.config_type for f in frames if f.config_type is not None})
    for kind, of_type in weights.items():
        check_values(f"weights.{kind}", of_type)
        if kind not in known:
            raise ValueError(
                f"[weights.{kind}]: no training frame has config_type '{kind}'{suggest(kind, known)}; there are "
                f"{', '.join(known) or 'none: set config_type in the info of the frames'}"
            )


def weights_record(frames: Sequence[Frame]) -> list[dict[str, Any]]:
    """Every combination of config_type and weights among the frames, and how many have it; none where all are 1."""
    found = Counter((f.config_type, f.weights) for f in frames)
    if {w for _, w in found} <= {Weights()}:
        return []
    return [{"config_type": kind, **asdict(w), "frames": n} for (kind, w), n in found.items()]
