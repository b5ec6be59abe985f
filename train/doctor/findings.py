"""What the checks say: one sentence, the check it comes from, how bad it is, and the frames it is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from train.data.dataset import Frame

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
    """Frames by number, and by file where there are several.

    >>> from ase import Atoms
    >>> a, b = ([Frame(Atoms(), None, None, None, name, k) for k in (3, 5, 8)] for name in ("a.xyz", "b.xyz"))
    >>> numbered(a, shown=2)
    'frames 3, 5, ... (3 in all)'
    >>> numbered([*a, *b], shown=4)
    'frames 3, 5, 8 of a.xyz, 3 of b.xyz, ... (6 in all)'
    """
    files: dict[str, list[str]] = {}
    for f in frames[:shown]:
        files.setdefault(f.source, []).append(str(f.index))
    several = len({f.source for f in frames}) > 1
    listed = ", ".join(", ".join(n) + f" of {name}" * several for name, n in files.items())
    more = f", ... ({len(frames)} in all)" if len(frames) > shown else ""
    return f"frame{'s' * (len(frames) > 1)} {listed}{more}"


def place(frame: Frame, among: Sequence[Frame]) -> str:
    """`frame 3`, with its file where the set holds several."""
    return f"frame {frame.index}" if frame.source == among[0].source == among[-1].source else frame.name


def texts(findings: Iterable[Finding], level: str) -> tuple[str, ...]:
    """The sentences of one level."""
    return tuple(f.text for f in findings if f.level == level)
