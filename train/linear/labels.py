"""Labelled frames -> weighted rows of a linear problem, kind by kind and fold by fold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple

import numpy as np
from ase import Atoms

from potential.linear.snap import Rows
from train.data.dataset import Frame
from train.data.labels import LABELS
from train.linear.rows import SIX, Array

Piece = tuple[tuple[str, int], Array, Array]


def pieces(
    frames: Sequence[Frame],
    rows_of: Callable[[Atoms], Rows],
    e0: Mapping[str, float],
    folds: Sequence[int],
    kinds: Sequence[str] = LABELS,
) -> Iterator[Piece]:
    """Rows and labels of every frame, named by (kind, fold): energy and virial per atom (eV), without E0, and forces
    (eV/Å).

    Rows are multiplied by the root of the frame's weights. A label that a frame does not have, or of weight 0, or of a
    kind not among `kinds`, gives no rows.

    Raises:
        ValueError: an element without E0, and as `rows_of`.
    """
    for frame, fold in zip(frames, folds, strict=True):
        r, n = rows_of(frame.atoms), len(frame.atoms)
        of_frame: dict[str, tuple[Array, Array]] = {}
        unknown = sorted(set(frame.atoms.symbols) - e0.keys())
        if unknown:
            raise ValueError(f"{frame.name}: no E0 of {', '.join(unknown)}; it is known of {', '.join(e0)}")
        if frame.energy is not None:
            rest = frame.energy - sum(e0[s] for s in frame.atoms.symbols)
            of_frame["energy"] = r.energy[None] / n, np.array([rest / n])
        if frame.forces is not None:
            of_frame["forces"] = r.forces.reshape(3 * n, -1), np.ravel(frame.forces)
        if frame.stress is not None:
            volume = frame.atoms.get_volume()
            of_frame["stress"] = r.virial[SIX] / n, frame.stress[SIX] * (volume / n)
        own = dict(zip(LABELS, astuple(frame.weights), strict=True))
        for kind in kinds:
            if kind in of_frame and own[kind] > 0:
                features, labels = of_frame[kind]
                root = np.sqrt(own[kind])
                yield (kind, fold), features * root, labels * root
