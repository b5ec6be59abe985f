"""Are all labels of a data set in one unit? Only questions; what converts is `dataset`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from train.data.dataset import Array, Frame
from train.data.keys import ENERGY_UNITS, FORCES_UNITS
from train.doctor.checks import energy_of, is_finite
from train.doctor.findings import Finding, numbered, problem, warning

MIXED = "mixed units"
SPREAD = 0.1  # energies per atom within this fraction of each other share a unit


def mixed_units(frames: Sequence[Frame]) -> Iterator[Finding]:
    """Energies that fall into two tight groups, a unit factor apart.

    Compared are the energies per atom of one composition and, where most compositions occur once, their ratio
    to a fit. Tight means that every frame belongs to a group: energies that merely spread never do.
    """
    rows = [f for f in frames if is_finite(f.energy) and not f.is_isolated_atom]
    groups = _by_composition(rows)
    for group in groups:
        per_atom = np.array([energy_of(f) / len(f.atoms) for f in group])
        yield from _unit_groups(group, per_atom, ENERGY_UNITS, "energy")
    if 2 * len(groups) > len(rows):
        yield from _unit_groups(
            rows, _ratio_to_fit(rows), ENERGY_UNITS, "energy (after a fit over compositions)"
        )


def _ratio_to_fit(frames: Sequence[Frame]) -> Array:
    """Energy per atom over that of a least-absolute-deviations fit, which the majority decides."""
    elements = sorted({s for f in frames for s in f.atoms.symbols})
    counts = np.array([[f.atoms.symbols.count(s) for s in elements] for f in frames], dtype=np.float64)
    fractions = counts / counts.sum(axis=1, keepdims=True)
    per_atom = np.array([energy_of(f) / len(f.atoms) for f in frames])
    weight = np.ones(len(frames))
    for _ in range(50):  # iteratively reweighted least squares
        root = np.sqrt(weight)
        e0 = np.linalg.lstsq(fractions * root[:, None], per_atom * root, rcond=None)[0]
        weight = 1.0 / np.maximum(np.abs(per_atom - fractions @ e0), 1e-6 * np.abs(per_atom).max() + 1e-12)
    fitted = fractions @ e0
    ratio: Array = per_atom / np.where(fitted == 0.0, np.inf, fitted)
    return ratio


def mixed_force_units(frames: Sequence[Frame]) -> Iterator[Finding]:
    """Two blocks of frames whose force RMS is a unit factor apart. A hint: a cold block looks the same."""
    for rows in _by_composition([f for f in frames if is_finite(f.forces) and len(f.atoms) > 1]):
        rms = np.array([np.sqrt(np.mean(np.square(f.forces))) for f in rows])  # type: ignore[arg-type]
        if len(rows) < 10 or rms.min() <= 0:
            continue
        steps = np.abs(np.diff(np.log(rms)))
        cut = int(steps.argmax()) + 1
        first, second = rms[:cut], rms[cut:]
        tight = max(first.max() / first.min(), second.max() / second.min()) < 2.0
        factor = float(np.median(second) / np.median(first))
        # Only against eV/Å and only large factors: with twelve units any ratio is near that of some pair.
        known = np.abs(np.log(list(FORCES_UNITS.values())))
        error = float(np.abs(known[known > np.log(10.0)] - abs(np.log(factor))).min())
        if min(len(first), len(second)) < 5 or not tight or error > 0.15:
            continue
        yield warning(
            MIXED,
            f"{rows[cut].name}: from here on the force RMS is {factor:.4g} times that of the {cut} before; "
            "unless these are just closer to equilibrium, the file mixes units: split and convert it",
            rows[cut:],
        )


def _unit_groups(
    rows: Sequence[Frame], value: Array, table: dict[str, float], what: str
) -> Iterator[Finding]:
    if len(rows) < 4:
        return
    reference = float(np.sort(value)[(len(value) - 1) // 2])
    if abs(reference) < 1e-3:
        return
    ratio = value / reference
    other = np.flatnonzero(np.abs(ratio - 1) > SPREAD)
    if len(other) < 2:
        return
    middle = float(np.median(ratio[other]))
    if np.ptp(ratio[other]) > SPREAD * abs(middle):
        return
    match = _unit_pair(middle, table, 0.05)
    if match:
        found = [rows[int(k)] for k in other]
        yield problem(
            MIXED,
            f"{found[0].name}: {what} of {len(other)} frames is {middle:.4g} times that of the "
            f"{len(rows) - len(other)} others, the factor between {match[0]} and "
            f"{match[1]}: mixed units ({numbered(found)}); split the file by unit and read each part with its "
            "own --energy-unit",
            found,
        )


def _unit_pair(ratio: float, table: dict[str, float], tolerance: float) -> tuple[str, str] | None:
    """The two units whose factor is `ratio`; small factors, sooner hit by chance, are matched closely."""
    if not ratio > 0:
        return None
    pairs = [(abs(np.log(ratio * b / a)), n, m) for m, a in table.items() for n, b in table.items()]
    error, other, reference = min(p for p in pairs if table[p[1]] != table[p[2]])
    large = abs(np.log(table[other] / table[reference])) > np.log(10.0)
    return (other, reference) if error < (tolerance if large else tolerance / 5) else None


def _by_composition(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Groups of frames with the same fractions of elements."""
    groups: dict[bytes, list[Frame]] = {}
    for f in frames:
        elements, counts = np.unique(f.atoms.numbers, return_counts=True)
        key = elements.tobytes() + (counts // np.gcd.reduce(counts)).tobytes()
        groups.setdefault(key, []).append(f)
    return list(groups.values())
