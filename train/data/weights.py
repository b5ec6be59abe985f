"""What each frame counts: config_weight of the frame times the weights of its config_type; 0: a label is not used."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from train.config import Weights
from train.data.dataset import Frame
from train.option import check_values, suggest

KEY = "config_weight"  # in info; a number of at least 0


def weigh(
    frames: Sequence[Frame], weights: Mapping[str, Weights], keep: bool = False
) -> tuple[list[Frame], list[str]]:
    """The frames with their weights, without the labels of weight 0; and sentences for the label report.

    Frames in which every weight is 0 are left out; those with a target only where config_weight is 0. `keep`: nothing
    is left out, for tests. A frame without config_weight, or of a type without weights, counts 1.

    Raises:
        ValueError: a weight that is not a number of at least 0, or no frame left.
    """
    kept, own = [], []
    for frame in frames:
        factor = config_weight(frame)
        if factor != 1.0:
            own.append(factor)
        kinds = asdict(weights.get(frame.config_type or "", Weights()))
        of_frame = Weights(**{label: factor * value for label, value in kinds.items()})
        unused: dict[str, Any] = {label: None for label, value in asdict(of_frame).items() if value == 0}
        if keep:
            kept.append(replace(frame, weights=of_frame))
        elif len(unused) < len(kinds) or (factor and has_target(frame)):
            kept.append(replace(frame, weights=of_frame, **unused))
    if frames and not kept:
        refuse_all_zero(frames[0].source)
    types = Counter(f.config_type for f in kept)
    return kept, weight_notes(own, len(frames) - len(kept), types, weights)


def has_target(frame: Frame) -> bool:
    return any(np.isfinite(values).any() for values in frame.targets.values())


def refuse_all_zero(source: str) -> None:
    raise ValueError(f"{source}: every weight is 0 in every frame: none is left; give other weights")


def weight_notes(
    own: Sequence[float], left_out: int, types: Mapping[str | None, int], weights: Mapping[str, Weights]
) -> list[str]:
    """Sentences about weights of frames, frames left out, and weights of those types that have frames."""
    notes = []
    if own:
        notes.append(f"{KEY}: {min(own):g} to {max(own):g} in {len(own)} frames, 1 in the others")
    if left_out:
        notes.append(f"{left_out} frames in which every weight is 0 are left out")
    for kind, of_type in weights.items():
        told = [
            f"{label} {value:g}" if value else f"{label} not used" for label, value in asdict(of_type).items()
        ]
        if types.get(kind):
            notes.append(f"weights of config_type '{kind}' ({types[kind]} frames): {', '.join(told)}")
    return notes


def config_weight(frame: Frame) -> float:
    """The frame's own weight; 1 where it has none.

    Raises:
        ValueError: not a number of at least 0.
    """
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


def check_weights(weights: Mapping[str, Weights], types: Iterable[str | None]) -> None:
    """Refuse weights that are no weights, or that belong to no frame.

    Raises:
        ValueError: a weight below 0 or not finite, or a config_type that no training frame has.
    """
    known = sorted({kind for kind in types if kind is not None})
    for kind, of_type in weights.items():
        check_values(f"weights.{kind}", of_type)
        if kind not in known:
            raise ValueError(
                f"[weights.{kind}]: no training frame has config_type '{kind}'{suggest(kind, known)}; there are "
                f"{', '.join(known) or 'none: set config_type in the info of the frames'}"
            )


def weights_record(found: Mapping[tuple[str | None, Weights], int]) -> list[dict[str, Any]]:
    """Every combination of config_type and weights, and how many frames have it; none where all are 1."""
    if {w for _, w in found} <= {Weights()}:
        return []
    return [{"config_type": kind, **asdict(w), "frames": n} for (kind, w), n in found.items()]
