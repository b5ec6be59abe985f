"""The labels beside what the quick model of `pairfit` makes of the forces; `agreement` judges them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.data.dataset import Array, Frame
from train.doctor.checks import energy_of, is_finite
from train.doctor.geometry import Integers, has_distances
from train.doctor.pairfit import FOLDS, Guess, guess


@dataclass(frozen=True)
class Consistency:
    """The quick model beside the labels, one row per frame that was looked at."""

    frames: tuple[Frame, ...]
    energy: Array  # (n,) eV/atom, labelled, relative to the mean of its composition; NaN where that is alone
    guessed: Array  # (n,) eV/atom, the same of the quick model
    grouped: bool  # False: relative to a fit over compositions, as most occur too rarely
    alignment: Array  # (n,) cosine of labelled and modelled forces
    size: Array  # (n,) labelled forces in units of the modelled ones
    group: Integers  # (n,) frames of one composition
    guess: Guess

    @property
    def correlation(self) -> float:
        a, b = self._known
        norm = float(np.sqrt((a @ a) * (b @ b)))
        return float(a @ b) / max(norm, 1e-30)

    @property
    def ratio(self) -> float:
        """Labelled over modelled energy differences, with the sign of their correlation."""
        a, b = self._known
        return float(np.sign(a @ b) * np.sqrt((a @ a) / max(float(b @ b), 1e-30)))

    @property
    def _known(self) -> tuple[Array, Array]:
        """The comparable energies without the farthest twentieth on either side: one outlier must not decide."""
        use = np.isfinite(self.energy)
        for values in (self.energy, self.guessed):
            use &= np.abs(values) <= np.nanquantile(np.abs(values), 0.95) if use.any() else use
        a, b = self.energy[use], self.guessed[use]
        return (a - a.mean(), b - b.mean()) if len(a) else (a, b)


def compare(frames: Sequence[Frame]) -> Consistency | None:
    """Fit the quick model to the forces and hold it against all labels; None where it says nothing."""
    rows = [
        f
        for f in frames
        if is_finite(f.energy)
        and is_finite(f.forces)
        and len(f.atoms) > 1
        and np.any(f.forces)
        and has_distances(f)
    ]
    found = guess(rows)
    if found is None:
        return None
    chosen = found.frames
    group = _groups(chosen)
    n_atoms = np.array([len(f.atoms) for f in chosen])
    label = np.array([energy_of(f) for f in chosen]) / n_atoms
    labelled = [f.forces for f in chosen]
    dots = np.array([float(np.sum(a * b)) for a, b in zip(labelled, found.forces, strict=True)])  # type: ignore[operator]
    ours = np.array([float(np.sum(np.square(b))) for b in found.forces]) + 1e-30
    theirs = np.array([float(np.sum(np.square(a))) for a in labelled]) + 1e-30  # type: ignore[arg-type]
    modelled = found.energy / n_atoms
    energy, guessed = (_centered(values, group * FOLDS + found.fold) for values in (label, modelled))
    grouped = bool(np.isfinite(energy).mean() > 0.5)
    if not grouped:
        energy, guessed = (_beyond_composition(values, chosen, found.fold) for values in (label, modelled))
    return Consistency(
        chosen,
        energy,
        guessed,
        grouped,
        dots / np.sqrt(ours * theirs),
        dots / ours,
        group,
        found,
    )


def _groups(frames: Sequence[Frame]) -> Integers:
    known: dict[bytes, int] = {}
    keys = (np.sort(f.atoms.numbers).astype(np.int64).tobytes() for f in frames)
    return np.array([known.setdefault(key, len(known)) for key in keys], dtype=np.int64)


def _centered(values: Array, group: Integers) -> Array:
    """Minus the median of the group; NaN in groups of fewer than four."""
    out = np.full(len(values), np.nan)
    for g in np.unique(group):
        here = group == g
        if here.sum() >= 4:
            out[here] = values[here] - np.median(values[here])
    return out


def _beyond_composition(values: Array, frames: Sequence[Frame], fold: Integers) -> Array:
    """Minus a least-squares fit of an energy per element, in each fold."""
    elements = sorted({s for f in frames for s in f.atoms.symbols})
    share = np.array([[f.atoms.symbols.count(s) / len(f.atoms) for s in elements] for f in frames])
    design = np.concatenate([share * (fold == k)[:, None] for k in range(FOLDS)], axis=1)
    rest: Array = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return rest
