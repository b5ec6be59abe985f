"""Labels that are exactly zero because they are missing, and stresses too large to be true."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from train.data.dataset import Frame
from train.doctor.checks import is_finite
from train.doctor.findings import Finding, numbered, problem, warning

ZEROS = "labels of exactly zero"
MOST = 0.2  # above this part of the frames, zeros are no accident
AROUND = 6.0  # Å; how far an atom is asked to look the same in all directions
UNEVEN = 0.01  # part of the surroundings that does not cancel; below it the forces may vanish by symmetry
LARGEST_STRESS = 1.0  # eV/Å^3, RMS over a file: 160 GPa
SHOWN = 5


def zero_energies(frames: Sequence[Frame]) -> Iterator[Finding]:
    """Exactly 0 eV among other energies is a missing label: absent is not zero."""
    rows = [f for f in frames if f.energy is not None and len(f.atoms) > 1]
    zero = [f for f in rows if f.energy == 0.0]
    if zero and len(zero) < len(rows):
        yield problem(
            ZEROS,
            f"{zero[0].name}: the energy is exactly 0 in {len(zero)} frames and not in the others "
            f"({numbered(zero, SHOWN)}); a missing label must be absent, not zero: remove the value or the frame",
            zero,
        )


def zero_forces(frames: Sequence[Frame]) -> list[Finding]:
    """Problems and warnings: all forces exactly zero where no symmetry makes them vanish."""
    rows = [f for f in frames if f.forces is not None and len(f.atoms) > 1]
    zero = [f for f in rows if not np.any(f.forces) and not _may_balance(f)]
    return _told("forces", "although not every atom stands in a symmetric place", zero, len(rows))


def zero_stress(frames: Sequence[Frame]) -> list[Finding]:
    """Problems and warnings: every component exactly zero; no symmetry makes the pressure vanish."""
    rows = [f for f in frames if f.stress is not None and not f.is_isolated_atom]
    zero = [f for f in rows if not np.any(f.stress)]
    return _told("stress", "which no crystal has to the last digit", zero, len(rows))


def _told(label: str, why: str, zero: Sequence[Frame], n_rows: int) -> list[Finding]:
    if not zero:
        return []
    listed = ", ".join(str(f.index) for f in zero[:SHOWN]) + (", ..." if len(zero) > SHOWN else "")
    many = len(zero) > MOST * n_rows
    remedy = (
        f"a missing label must be absent, not zero: remove the values, or read none with --{label}-key none"
        if many
        else "look whether they are missing: a missing label must be absent, not zero"
    )
    text = (
        f"{zero[0].name}: the {label} {'are' if label == 'forces' else 'is'} exactly zero, {why}, in "
        f"{len(zero)} of {n_rows} frames ({listed}); {remedy}"
    )
    return [(problem if many else warning)(ZEROS, text, zero)]


def _may_balance(frame: Frame) -> bool:
    """Whether the surroundings of every atom cancel, as in a perfect crystal; True where that cannot be seen.

    Summed are the directions to all neighbors, weighted by distance and once also by element.
    """
    from potential.graph import from_atoms  # here, so that a report without such frames does not load torch

    try:
        graph = from_atoms(frame.atoms, AROUND)
    except ValueError:  # reported by the other checks
        return True
    center, neighbor = graph.center.numpy(), graph.neighbor.numpy()
    vectors = graph.edge_vectors().numpy()
    lengths = np.linalg.norm(vectors, axis=1)
    nearness = (1.0 - lengths / AROUND) ** 2 / lengths**4
    for weight in (nearness, nearness * frame.atoms.numbers[neighbor]):
        total = np.zeros((len(frame.atoms), 3))
        np.add.at(total, center, weight[:, None] * vectors / lengths[:, None])
        size = np.bincount(center, weights=weight, minlength=len(frame.atoms))
        if (np.linalg.norm(total, axis=1) > UNEVEN * size).any():
            return False
    return True


def large_stress(frames: Sequence[Frame], unit: str) -> Iterator[Finding]:
    """A stress that no material bears was read in the wrong unit."""
    rows = [f for f in frames if is_finite(f.stress)]
    if not rows:
        return
    rms = float(np.sqrt(np.mean([np.square(f.stress) for f in rows])))  # type: ignore[arg-type]
    if rms > LARGEST_STRESS:
        largest = max(rows, key=lambda f: float(np.abs(f.stress).max()))  # type: ignore[arg-type]
        yield warning(
            "large stress",
            f"{largest.name}: the stress, taken as {unit}, has an RMS of {rms:.3g} eV/Å^3 ({160.2177 * rms:.3g} "
            "GPa) over the file and its largest value here; if it is in another unit, say so with "
            "--set data.stress_unit=kbar or --set data.stress_unit=GPa",
            [largest],
        )
