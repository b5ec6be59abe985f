"""The label report: what a data set holds, what is impossible in it (stops) and what is odd (warnings)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from train import (
    agreement,
    cells,
    checks,
    consistency,
    geometry,
    magnitude,
    mechanics,
    similar,
    strain,
    units,
    zeros,
)
from train.consistency import Consistency
from train.dataset import Found, Frame, Keys, is_virial
from train.findings import NOTE, PROBLEM, WARNING, Finding, numbered, texts, warning
from train.geometry import Geometry
from train.mechanics import Mechanics
from train.strain import StrainPairs

SHOWN = 10
TOLD = ("stress", agreement.CHECK)  # checks of which the table also tells that all is well


@dataclass(frozen=True)
class Measured:
    """What the findings rest on, for tables and plots."""

    geometry: Geometry
    balance: Mechanics
    strain: StrainPairs
    consistency: Consistency | None
    outliers: tuple[tuple[float, str, Frame], ...]  # size, sentence, frame
    duplicates: tuple[list[tuple[Frame, Frame]], list[tuple[Frame, Frame]]]  # equal and different labels


@dataclass(frozen=True)
class LabelReport:
    """A printable table, reasons to stop and warnings; each names file, frame and remedy."""

    text: str
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    findings: tuple[Finding, ...] = ()  # the same and the notes, with their frames
    measured: Measured | None = None
    rows: tuple[tuple[str, str], ...] = ()  # of the table


def require_clean(report: LabelReport) -> None:
    """Raises ValueError with the problems, if there are any."""
    if not report.problems:
        return
    shown = "\n".join(f"  - {p}" for p in report.problems[:SHOWN])
    more = len(report.problems) - SHOWN
    tail = f"\n  ... and {more} more" if more > 0 else ""
    count = f"{len(report.problems)} problem{'s' * (len(report.problems) > 1)}"
    raise ValueError(f"{count} in the labels; training would go wrong silently:\n{shown}{tail}")


def inspect(
    frames: Sequence[Frame],
    found: Found,
    keys: Keys | None = None,
    cutoff: float | None = None,
    allow_missing: bool = False,
) -> LabelReport:
    """Look at all labels of a data set.

    Args:
        frames, found: from `dataset.read`.
        keys: as given to `read`; its units are stated in the report.
        cutoff: Å, at most 6; with it, frames in which no two atoms are that close are reported as well.
        allow_missing: labels absent in some frames are a warning instead of a problem.

    Raises:
        ValueError: no frames.
    """
    if not frames:
        raise ValueError("no frames to inspect; give at least one")
    keys = keys or Keys()
    measured = Measured(
        geometry=geometry.survey(frames),
        balance=mechanics.balance(frames),
        strain=strain.strain_pairs(frames),
        consistency=consistency.compare(frames),
        outliers=tuple(checks.outliers(frames)),
        duplicates=checks.duplicates(frames),
    )
    findings = [
        *_gaps(frames, allow_missing),
        *_labels(frames, found, keys),
        *geometry.overlaps(frames, measured.geometry),
        *units.mixed_force_units(frames),
        *_lonely(frames, measured.geometry, cutoff),
        *_outliers(measured.outliers),
        *_duplicates(*measured.duplicates),
        *mechanics.unbalanced(frames, measured.balance),
        *_physics(frames, found, keys, measured),
        *cells.odd_cells(frames),
        *similar.within(frames, similar.near_pairs(frames, measured.geometry.signature)),
    ]
    problems, warnings = (texts(findings, level) for level in (PROBLEM, WARNING))
    rows = [
        *_structure_rows(frames, float(measured.geometry.shortest.min())),
        *_label_rows(frames, found, keys),
        *_value_rows(frames),
        ("outliers", f"{len(measured.outliers)}"),
        (
            "duplicates",
            "{} with equal labels, {} with different labels".format(*map(len, measured.duplicates)),
        ),
        *(
            ("note", note)
            for note in (*found.notes, *(f.text for f in findings if f.check in TOLD and f.level == NOTE))
        ),
    ]
    return LabelReport(
        _table(rows, problems, warnings), problems, warnings, tuple(findings), measured, tuple(rows)
    )


def _gaps(frames: Sequence[Frame], allow_missing: bool) -> list[Finding]:
    allowed = allow_missing and any(f.energy is not None or f.forces is not None for f in frames)
    return [replace(g, level=WARNING) if allowed else g for g in checks.missing(frames)]


def _labels(frames: Sequence[Frame], found: Found, keys: Keys) -> Iterator[Finding]:
    """Labels that are no numbers, in mixed units, zero, or too large."""
    for check in (checks.not_finite, checks.zero_volume, units.mixed_units, zeros.zero_energies):
        yield from check(frames)
    yield from zeros.zero_forces(frames)
    yield from zeros.zero_stress(frames)
    if found.stress is None or not is_virial(found.stress):  # the unit of a virial is that of the energies
        yield from zeros.large_stress(frames, keys.stress_unit_used)


def _physics(frames: Sequence[Frame], found: Found, keys: Keys, measured: Measured) -> Iterator[Finding]:
    """What laws and experience say about signs, units and order of the labels."""
    virial = found.stress is not None and is_virial(found.stress)
    stress_unit = f"{keys.energy_unit}/{keys.length_unit}^3" if virial else keys.stress_unit_used
    yield from magnitude.impossible_energies(frames, keys.energy_unit)
    yield from magnitude.bond_lengths(frames, measured.geometry, keys.length_unit)
    yield from magnitude.force_scale(magnitude.stiffness(frames), keys.forces_unit_used)
    strained = list(strain.stress_from_strain(measured.strain, stress_unit))
    yield from strained
    for one in agreement.judge(measured.consistency, (keys.energy_unit, keys.forces_unit_used, stress_unit)):
        if one.check != "stress" or not strained:  # pairs of strained frames are the sharper test
            yield one


def _lonely(frames: Sequence[Frame], found: Geometry, cutoff: float | None) -> Iterator[Finding]:
    """Frames in which nobody is within the cutoff."""
    if cutoff is None or cutoff > geometry.REACH:
        return
    apart = [
        f
        for f, d in zip(frames, found.shortest, strict=True)
        if d > cutoff and len(f.atoms) > 1 and geometry.has_distances(f)
    ]
    if apart:
        yield warning(
            "no neighbors",
            f"{apart[0].name}: no two atoms are within the cutoff of {cutoff} Å, as in {len(apart)} frames; the "
            "model cannot tell them from isolated atoms: choose a larger cutoff or check the length unit",
            apart,
        )


def _outliers(odd: Sequence[tuple[float, str, Frame]]) -> Iterator[Finding]:
    if odd:
        shown = "; ".join(text for _, text, _ in odd[:3])
        rows = list({id(f): f for _, _, f in odd}.values())
        listed = f" ({numbered(rows)})" if len(odd) > 3 else ""
        text = f"{len(odd)} outliers: {shown}{listed}; look at these structures before trusting them"
        yield warning("outliers", text, rows)


def _duplicates(
    same: Sequence[tuple[Frame, Frame]], different: Sequence[tuple[Frame, Frame]]
) -> Iterator[Finding]:
    if same:
        a, b = same[0]
        later = [later for _, later in same]
        yield warning(
            "duplicates",
            f"{b.name}: the same structure as {a.name}; {len(same)} duplicates in all ({numbered(later)}): remove "
            "them, or training and validation may share structures",
            later,
        )
    if different:
        a, b = different[0]
        later = [later for _, later in different]
        yield warning(
            "contradictions",
            f"{b.name}: the same structure as {a.name} with different labels; {len(different)} such pairs "
            f"({numbered(later)}): at most one of each can be right (they may differ in charge or spin, which no "
            "potential sees)",
            later,
        )


def _structure_rows(frames: Sequence[Frame], distance: float) -> list[tuple[str, str]]:
    elements: Counter[str] = Counter()
    for f in frames:
        elements.update(f.atoms.symbols)
    sizes = np.array([len(f.atoms) for f in frames])
    periodic = Counter("".join("T" if p else "F" for p in f.atoms.pbc) for f in frames)
    isolated = Counter(f.atoms.symbols[0] for f in frames if f.is_isolated_atom)
    sources = Counter(f.source for f in frames)
    return [
        ("file", ", ".join(f"{name} ({n})" for name, n in sources.items())),
        ("frames", f"{len(frames)}"),
        ("elements", ", ".join(f"{s} {n}" for s, n in sorted(elements.items())) + " atoms"),
        ("atoms per frame", f"min {sizes.min()}, median {np.median(sizes):g}, max {sizes.max()}"),
        ("periodicity", ", ".join(f"{pbc} {n}" for pbc, n in periodic.items())),
        ("isolated atoms", ", ".join(f"{s} {n}" for s, n in sorted(isolated.items())) or "none"),
        ("closest distance", f"{distance:.3f} Å" if np.isfinite(distance) else f"> {geometry.REACH:g} Å"),
    ]


def _label_rows(frames: Sequence[Frame], found: Found, keys: Keys) -> list[tuple[str, str]]:
    taken = {"energy": keys.energy_unit, "forces": keys.forces_unit_used, "stress": keys.stress_unit_used}
    rows = []
    for label, unit in taken.items():
        have = sum(getattr(f, label) is not None for f in frames)
        name = getattr(found, label)
        sign = ", positive: the cell wants to shrink" if label == "stress" else ""
        if label == "stress" and name and is_virial(name):
            unit, sign = keys.energy_unit, ", a virial: -stress * volume, positive: the cell wants to expand"
        text = (
            f"{have}/{len(frames)} under '{name}', taken as {unit}{sign}"
            if name
            else f"0/{len(frames)}, not found"
        )
        rows.append((label, text))
    return [*rows, ("length", f"taken as {keys.length_unit}")]


def _value_rows(frames: Sequence[Frame]) -> list[tuple[str, str]]:
    per_atom = [f.energy / len(f.atoms) for f in frames if f.energy is not None and not f.is_isolated_atom]
    forces = [f.forces for f in frames if f.forces is not None and len(f.forces)]
    stress = [f.stress for f in frames if f.stress is not None]
    rows = []
    if per_atom:
        rows.append(("energy per atom", f"{min(per_atom):.4f} to {max(per_atom):.4f} eV"))
    if forces:
        flat = np.concatenate([x.reshape(-1) for x in forces])
        largest = max(float(np.linalg.norm(x.reshape(-1, 3), axis=1).max()) for x in forces)
        net = max(float(np.linalg.norm(x.reshape(-1, 3).sum(axis=0))) for x in forces)
        rms = float(np.sqrt(np.mean(flat**2)))
        rows.append(("forces", f"RMS {rms:.4f}, largest {largest:.3f}, largest net {net:.4f} eV/Å"))
    if stress:
        rows.append(("stress", f"RMS {float(np.sqrt(np.mean(np.square(stress)))):.5f} eV/Å^3"))
    return rows


def _table(rows: Sequence[tuple[str, str]], problems: Sequence[str], warnings: Sequence[str]) -> str:
    width = max(len(name) for name, _ in rows)
    lines = ["Label report", *(f"  {name:<{width}}  {text}" for name, text in rows)]
    for title, sentences in (("warning", warnings), ("PROBLEM", problems)):
        lines += [f"  {title}: {s}" for s in sentences[:SHOWN]]
        if len(sentences) > SHOWN:
            lines.append(f"  ... and {len(sentences) - SHOWN} more")
    return "\n".join(lines)
