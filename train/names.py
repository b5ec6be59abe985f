"""What sets of frames are called: after their files or patterns."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def set_name(pattern: str) -> str:
    """What the frames of a file or pattern are called.

    >>> set_name("data/test_300K.xyz.xz"), set_name("runs/md_*.xyz"), set_name("runs/*.xyz")
    ('test_300K', 'md_*', 'runs')
    """
    path = Path(pattern)
    parts = [part.split(".")[0] for part in (path.name, *reversed(path.parent.parts))]
    return next((part for part in parts if part.strip("*?/")), path.name)


def set_names(patterns: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """A name of its own for each test set -> its file or pattern.

    >>> set_names(["a/300K.xyz", "b/300K.xyz"], ["train", "valid"])
    {'300K': 'a/300K.xyz', '300K (3)': 'b/300K.xyz'}
    """
    names = list(taken)
    out: dict[str, str] = {}
    for pattern in patterns:
        name = set_name(pattern)
        name = name if name not in names else f"{name} ({len(names)})"
        names.append(name)
        out[name] = pattern
    return out
