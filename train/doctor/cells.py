"""Cells that do not fit their periodicity: thin ones, molecules in boxes, crystals marked as molecules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from train.data.dataset import Frame
from train.doctor.findings import NOTE, Finding, numbered, warning
from train.doctor.geometry import has_distances

CUTOFF = 6.0  # Å
VACUUM = 8.0  # Å; a gap wider than this in every direction leaves a molecule
FULL = 30.0  # Å^3 per atom and less: a cell filled like a solid or liquid (silicon has 20, ice 11)
SPANNED = (0.7, 1.5)  # part of the cell over which the atoms extend, in every direction


def odd_cells(frames: Sequence[Frame]) -> Iterator[Finding]:
    """Notes on thin cells and molecules in boxes; warnings about dense cells that are not periodic."""
    known = [f for f in frames if has_distances(f)]
    yield from _dense([f for f in known if not f.atoms.pbc.any()])
    periodic = [f for f in known if f.atoms.pbc.all()]
    thin = [f for f in periodic if _heights(f).min() < CUTOFF]
    if thin:
        low = min(thin, key=lambda f: float(_heights(f).min()))
        yield Finding(
            "thin cells",
            f"{len(thin)} of {len(frames)} frames have cells thinner than {CUTOFF:g} Å, {low.name} with "
            f"{_heights(low).min():.2f} Å the thinnest: atoms interact with several of their own images, which is "
            f"treated exactly here but not by codes that use the nearest image only ({numbered(thin)})",
            tuple(thin),
            NOTE,
        )
    boxed = [f for f in periodic if _is_boxed(f)]
    if boxed:
        yield Finding(
            "molecules in boxes",
            f"{boxed[0].name}: a periodic cell with more than {VACUUM:g} Å of vacuum in every direction, as in "
            f"{len(boxed)} of {len(frames)} frames ({numbered(boxed)}); a molecule needs no cell: with "
            'pbc="F F F" it is the same to the model, and its stress, which means nothing, is not fitted',
            tuple(boxed),
            NOTE,
        )


def _heights(frame: Frame) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Distances between opposite faces, Å."""
    heights: np.ndarray[tuple[int], np.dtype[np.float64]] = 1.0 / np.linalg.norm(
        np.linalg.inv(frame.atoms.cell.array), axis=0
    )
    return heights


def _is_boxed(frame: Frame) -> bool:
    """Whether the widest gap between the atoms is wide in every direction."""
    fractions = np.sort(frame.atoms.positions @ np.linalg.inv(frame.atoms.cell.array) % 1.0, axis=0)
    gaps = np.diff(np.vstack([fractions, fractions[:1] + 1.0]), axis=0).max(axis=0)
    return bool((gaps * _heights(frame) > VACUUM).all())


def _dense(frames: Sequence[Frame]) -> Iterator[Finding]:
    """Not periodic, but with a cell that the atoms fill: the periodicity was lost on the way."""
    found = []
    for f in frames:
        cell = f.atoms.cell.array
        volume = abs(float(np.linalg.det(cell)))
        if len(f.atoms) < 4 or not 0 < volume < FULL * len(f.atoms):
            continue
        fractions = f.atoms.positions @ np.linalg.inv(cell)
        spanned = np.ptp(fractions, axis=0)
        if ((spanned > SPANNED[0]) & (spanned < SPANNED[1])).all():
            found.append(f)
    if found:
        f = found[0]
        volume = abs(float(np.linalg.det(f.atoms.cell.array))) / len(f.atoms)
        yield warning(
            "lost periodicity",
            f"{f.name}: not periodic, but with a cell of {volume:.1f} Å^3 per atom, as full as a solid or liquid; "
            f"so in {len(found)} of {len(frames)} frames without periodicity ({numbered(found)}); set "
            'pbc="T T T", or remove the cell if these are molecules',
            found,
        )
