"""A setting and all that is to be said of it, in one place: option(default, meaning, unit, choices, bounds).

What is said there is checked (`checked`, `check_values`), printed by --print-config, and written to docs/CONFIG.md and
the JSON schema (`train/manual.py`; `make docs`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

T = TypeVar("T")
KINDS = {tuple: "list of strings", str: "string", float: "number", int: "whole number", bool: "bool"}


def option(default: T, text: str, unit: str = "", choices: Sequence[str] = (), bounds: str = "") -> T:
    """A field of a dataclass of settings. `bounds` is an interval such as "[0, inf)" or "(0, 1]"."""
    parse(bounds)
    facts = {"text": text, "unit": unit, "choices": tuple(choices), "bounds": bounds}
    found: T = field(default=default, metadata=facts)
    return found


@dataclass(frozen=True)
class Option:
    """One setting as its field describes it."""

    name: str
    default: Any
    text: str
    unit: str = ""
    choices: tuple[str, ...] = ()  # of a string, or of each string of a list
    bounds: str = ""

    @property
    def allowed(self) -> str:
        """What the value may be, in words; empty where any value of its type may stand.

        >>> [Option("x", 0.5, "", bounds=b).allowed for b in ("(0, 1]", "[0, inf)", "[1, 4]")]
        ['above 0 and at most 1', 'at least 0', 'from 1 to 4']
        """
        if self.choices:
            return "one of " + ", ".join(repr(c) if c == "" else c for c in self.choices)
        low, high, open_low, open_high = parse(self.bounds)
        if not open_low and not open_high:
            return f"from {low:g} to {high:g}"
        ends = [f"{'above' if open_low else 'at least'} {low:g}"] if low > -math.inf else []
        ends += [f"{'below' if open_high else 'at most'} {high:g}"] if high < math.inf else []
        return " and ".join(ends)


def parse(bounds: str) -> tuple[float, float, bool, bool]:
    """Low and high end of an interval, and whether each is left out of it; "" is every number.

    >>> parse("(0, 1]")
    (0.0, 1.0, True, False)
    """
    match = re.fullmatch(r"([\[(])(\S+), (\S+)([\])])", bounds or "(-inf, inf)")
    if not match:
        raise ValueError(f"bounds are {bounds!r}; expected an interval such as '[0, inf)' or '(0, 1]'")
    return float(match[2]), float(match[3]), match[1] == "(", match[4] == ")"


def inside(value: float, bounds: str) -> bool:
    """Whether a finite number lies in an interval; NaN lies in none."""
    low, high, open_low, open_high = parse(bounds)
    return (low < value if open_low else low <= value) and (value < high if open_high else value <= high)


def options(settings: Any) -> list[Option]:
    """The settings of a dataclass, or of an object of one. Networks describe their dials in the same way
    (text, unit, and the closed range of a number), without this module."""
    found = []
    for f in fields(settings):
        facts = dict(f.metadata)
        if ends := facts.pop("range", None):
            facts["bounds"] = f"[{ends[0]}, {ends[1]}]"
        found.append(Option(f.name, f.default, **facts))
    return found


def suggest(word: str, known: Any) -> str:
    """`; did you mean 'cutoff'?`, or nothing."""
    from potential.model import suggestion  # heavy, and needed only for an error

    return suggestion(word, known)


def checked(section: str, settings: Any, key: str, value: Any) -> Any:
    """A value for the setting `key`, as its type: a whole number may stand for a number, a string for a list of one.

    Raises:
        ValueError: no such setting, with the nearest one, or a value of another type.
    """
    known = {o.name: o.default for o in options(settings)}
    if key not in known:
        raise ValueError(
            f"[{section}] has no setting {key!r}{suggest(key, known)}; it has {', '.join(known)}"
        )
    wanted = type(known[key])
    if type(value) is int and abs(value) >= 2**63:
        raise ValueError(f"[{section}] {key} is {value}; whole numbers end at 64 bits, as in TOML")
    if wanted is float and type(value) is int:
        return float(value)
    if wanted is tuple and isinstance(value, str):
        return (value,) if value else ()
    if wanted is tuple and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return tuple(value)
    if type(value) is not wanted:
        raise ValueError(f"[{section}] {key} is {value!r}; expected a {KINDS[wanted]} such as {known[key]!r}")
    return value


def check_values(section: str, settings: Any) -> None:
    """Refuse values beyond the choices and bounds of their settings.

    Raises:
        ValueError: naming the setting, what it was and what it may be.
    """
    for o in options(settings):
        value = getattr(settings, o.name)
        for v in value if isinstance(value, tuple) else [value]:
            if o.choices and v not in o.choices:
                raise ValueError(
                    f"[{section}] {o.name} is {v!r}{suggest(v, o.choices)}; it must be {o.allowed}"
                )
            if isinstance(v, (int, float)) and not inside(v, o.bounds):
                raise ValueError(f"[{section}] {o.name} is {v}; it must be {o.allowed or 'a finite number'}")
