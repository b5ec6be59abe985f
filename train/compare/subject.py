"""What the physical checks are made on, the same for every contestant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from train.data.dataset import Frame

STRUCTURES = 3  # test frames for checks of single structures
LARGEST = 300  # atoms of such a frame


@dataclass(frozen=True)
class Subject:
    """Structures and settings of all checks."""

    structures: Sequence[Atoms]  # a few test frames
    names: Sequence[str]  # of these
    start: Atoms  # where dynamics begins if there is no crystal
    crystal: Atoms | None
    crystal_text: str  # where it comes from, or why there is none
    elements: Sequence[int] = ()  # Z of all test frames
    seed: int = 0
    steps: int = 400  # of dynamics
    temperature: float = 300.0  # K
    relaxed: Atoms | None = None  # the crystal as this contestant relaxed it
    trouble: str = ""  # why it could not


def choose(frames: Sequence[Frame]) -> tuple[list[Atoms], list[str], Atoms]:
    """A few frames spread over the test set, their names, and the one nearest to rest."""
    small = [frame for frame in frames if 1 < len(frame.atoms) <= LARGEST] or list(frames)
    rows = np.unique(np.linspace(0, len(small) - 1, STRUCTURES).round().astype(int))
    chosen = [small[int(k)] for k in rows]

    def unrest(frame: Frame) -> float:
        return float("inf") if frame.forces is None else float(np.abs(frame.forces).max())

    return [f.atoms for f in chosen], [f.name for f in chosen], min(small, key=unrest).atoms
