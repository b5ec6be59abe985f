"""What the checks say: one sentence, the check it comes from, how bad it is, and the frames it is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from train.dataset import Frame

PROBLEM, WARNING, NOTE = "problem", "warning", "note"
SHOWN = 8


@dataclass(frozen=True)
class Finding:
    """A sentence that names file, frame and remedy; a problem stops a training, a warning is
    to be judged by a person, a note is no complaint."""

    check: str  # short name of the check, e.g. "net torque"
    text: str
    frames: tuple[Frame, ...] = ()  # all it is about, also those that the sentence does not list
    level: str = WARNING


def problem(check: str, text: str, frames: Iterable[Frame] = ()) -> Finding:
    """A finding that makes training pointless."""
    return Finding(check, text, tuple(frames), PROBLEM)


def warning(check: str, text: str, frames: Iterable[Frame] = ()) -> Finding:
    """A finding that a person has to judge."""
    return Finding(check, text, tuple(frames))


def numbered(frames: Sequence[Frame], shown: int = SHOWN) -> str:
    """Frames by number.

    >>> from ase import Atoms
    >>> numbered([Frame(Atoms(), None, None, None, "a.xyz", k) for k in (3, 5, 8)], shown=2)
    'frames 3, 5, ... (3 in all)'
    """
    listed = ", ".join(str(f.index) for f in frames[:shown])
    more = f", ... ({len(frames)} in all)" if len(frames) > shown else ""
    return f"frame{'s' * (len(frames) > 1)} {listed}{more}"


def texts(findings: Iterable[Finding], level: str) -> tuple[str, ...]:
    """The sentences of one level."""
    return tuple(f.text for f in findings if f.level == level)
