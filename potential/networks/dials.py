"""How an architecture describes its dials: default, meaning, range and unit, beside the field itself."""

from __future__ import annotations

import math
from dataclasses import field, fields
from typing import Any, TypeVar

N = TypeVar("N", int, float)
SIZES = ("tiny", "small", "medium", "large")


def dial(default: N, text: str, range: tuple[N, N], unit: str = "") -> N:
    """A field of a frozen dataclass of dials; both ends of the range are allowed."""
    found: N = field(default=default, metadata={"text": text, "range": range, "unit": unit})
    return found


def sizes(**values: tuple[int, int, int, int]) -> dict[str, dict[str, int]]:
    """What each preset makes of the dials that it sets.

    >>> sizes(channels=(16, 32, 64, 128))["medium"]
    {'channels': 64}
    """
    return {size: {name: of[k] for name, of in values.items()} for k, size in enumerate(SIZES)}


def check_dials(dials: Any) -> None:
    """Refuse values of another type, out of range, or an order of features above that of the harmonics, `lmax`.

    Raises:
        ValueError: naming the dial, what it was and what it may be.
    """
    for f in fields(dials):
        value, (low, high), unit = getattr(dials, f.name), f.metadata["range"], f.metadata["unit"]
        whole = type(f.default) is int
        if type(value) not in ((int,) if whole else (int, float)) or not low <= value <= high:
            kind = "an integer" if whole else "a number"
            raise ValueError(f"{f.name} is {value!r}; it must be {kind} from {low} to {high} {unit}".rstrip())
    for name in ("hidden_lmax", "lmax_out"):
        if getattr(dials, name, 0) > (lmax := getattr(dials, "lmax", math.inf)):
            raise ValueError(f"{name} {getattr(dials, name)} exceeds lmax {lmax}; raise lmax or lower {name}")
