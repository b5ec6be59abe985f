"""Energies with another zero: the shift of each element that brings predictions nearest to the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from train.report.run_directory import Floats, PredictedSet, symbols

ZERO = (
    0.05  # eV/atom; smaller offsets are errors of a potential, not another zero (train/finetune.py says why)
)
HALF = 0.5  # of the error has to go with the shift
ENOUGH = 3  # frames for each shift that is fitted; fewer cannot tell another zero from errors


@dataclass(frozen=True)
class Shift:
    """What is added to predicted energies, and what the error of these is before and after."""

    per_element: dict[str, float]  # eV
    rank: int  # independent compositions; fewer than elements: only their sums are known
    before: float  # RMSE in eV/atom
    after: float  # of these frames themselves
    frames: int  # to which the shifts were fitted

    @property
    def is_fair(self) -> bool:
        """Whether the frames are enough to tell another zero from errors."""
        return self.frames >= ENOUGH * self.rank

    @property
    def unfitted(self) -> float:
        """The error after, in eV/atom, as of frames that the shifts were not fitted to."""
        left = self.frames - self.rank
        return self.after * (self.frames / left) ** 0.5 if left > 0 else float("inf")

    @property
    def is_needed(self) -> bool:
        """Whether the two zeros differ, rather than the energies."""
        return self.is_fair and self.before > ZERO and self.unfitted < HALF * self.before


def compositions(one: PredictedSet) -> tuple[list[str], Floats]:
    """The elements, and the number of atoms of each in every frame (n_frames, n_elements)."""
    numbers = np.unique(one.atomic_numbers)
    counts = np.stack(
        [np.bincount(one.system, one.atomic_numbers == z, len(one.n_atoms)) for z in numbers], 1
    )
    return [str(symbols(z)) for z in numbers], counts.astype(float)


def fitted(one: PredictedSet) -> Shift | None:
    """Least squares over the frames, each by its energy per atom; None where no frame has both energies."""
    elements, counts = compositions(one)
    gap = (one.energy_reference - one.energy_predicted) / one.n_atoms
    known = np.isfinite(gap)
    if not known.any():
        return None
    rows = (counts / one.n_atoms[:, None])[known]
    found, _, rank, _ = np.linalg.lstsq(rows, gap[known], rcond=1e-9)
    left = gap[known] - rows @ found
    before, after = (float(np.sqrt(np.mean(x**2))) for x in (gap[known], left))
    return Shift(dict(zip(elements, found.tolist(), strict=True)), int(rank), before, after, int(known.sum()))


def shifted(one: PredictedSet, shift: Shift) -> PredictedSet:
    """The predictions with their energies moved."""
    elements, counts = compositions(one)
    moved = counts @ np.array([shift.per_element[symbol] for symbol in elements])
    return replace(one, energy_predicted=one.energy_predicted + moved)


def align(sets: Sequence[PredictedSet], mode: str) -> tuple[list[PredictedSet], dict[str, Shift]]:
    """The sets as they are compared, and the shifts applied: to all contestants, or to none.

    `mode`: "never", "always", or "auto": where one contestant has another zero, since a fitted one alone would have
    an advantage; and only if there are frames enough for the shifts of every contestant.
    """
    found = {one.name: fitted(one) for one in sets}
    known = {name: shift for name, shift in found.items() if shift is not None}
    fair = all(shift.is_fair for shift in known.values())
    needed = fair and any(shift.is_needed for shift in known.values())
    wanted = mode == "always" or (mode == "auto" and needed)
    if not wanted:
        return list(sets), {}
    return [shifted(one, known[one.name]) if one.name in known else one for one in sets], known


def doubts(sets: Sequence[PredictedSet]) -> list[str]:
    """Who may have another zero, or errors, with frames too few to tell."""
    found = {one.name: fitted(one) for one in sets}
    return [
        name
        for name, shift in found.items()
        if shift is not None and shift.before > ZERO and not shift.is_fair
    ]
