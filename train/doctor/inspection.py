"""The label report: what a data set holds, what is impossible in it (stops) and what is odd (warnings)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from train.data.dataset import Array, Found, Frame, is_virial
from train.data.keys import Keys
from train.doctor import (
    agreement,
    cells,
    checks,
    consistency,
    geometry,
    magnitude,
    mechanics,
    similar,
    strain,
    targets,
    units,
    zeros,
)
from train.doctor.consistency import Consistency
from train.doctor.findings import NOTE, PROBLEM, WARNING, Finding, numbered, texts, warning
from train.doctor.geometry import Geometry
from train.doctor.label_table import SHOWN, keys_of, label_rows, notes, structure_rows, table, value_rows
from train.doctor.mechanics import Mechanics
from train.doctor.strain import StrainPairs
from train.target import Target

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

    @property
    def signature(self) -> Array:
        """Of each frame (`geometry.Geometry`)."""
        assert self.measured is not None  # `inspect` always leaves it
        return self.measured.geometry.signature


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
    found: Found | Sequence[Found],
    keys: Keys | None = None,
    cutoff: float | None = None,
    allow_missing: bool = False,
) -> LabelReport:
    """Look at all labels of a data set.

    Args:
        frames, found: from `dataset.read`; of several files, all frames and what was found in each.
        keys: as given to `read`, where `found` does not hold those that were used; its units are stated.
        cutoff: Å, at most 6; with it, frames in which no two atoms are that close are reported as well.
        allow_missing: labels absent in some frames are a warning instead of a problem.

    Raises:
        ValueError: no frames.
    """
    if not frames:
        raise ValueError("no frames to inspect; give at least one")
    files = [
        replace(one, keys=one.keys or keys or Keys())
        for one in ([found] if isinstance(found, Found) else found)
    ]
    measured = _measure(frames, targets_of(files[0]))
    findings = [
        *_gaps(frames, allow_missing),
        *_labels(frames, files),
        *geometry.overlaps(frames, measured.geometry),
        *units.mixed_force_units(frames),
        *_lonely(frames, measured.geometry, cutoff),
        *_outliers(measured.outliers),
        *_duplicates(*measured.duplicates),
        *targets.odd_targets(frames, targets_of(files[0])),
        *mechanics.unbalanced(frames, measured.balance),
        *_physics(frames, files, measured),
        *cells.odd_cells(frames),
        *similar.within(frames, similar.near_pairs(frames, measured.geometry.signature)),
    ]
    problems, warnings = (texts(findings, level) for level in (PROBLEM, WARNING))
    rows = [
        *structure_rows(frames, float(measured.geometry.shortest.min())),
        *label_rows(frames, files),
        *value_rows(frames),
        ("outliers", f"{len(measured.outliers)}"),
        (
            "duplicates",
            "{} with equal labels, {} with different labels".format(*map(len, measured.duplicates)),
        ),
        *(
            ("note", note)
            for note in (*notes(files), *(f.text for f in findings if f.check in TOLD and f.level == NOTE))
        ),
    ]
    return LabelReport(
        table(rows, problems, warnings), problems, warnings, tuple(findings), measured, tuple(rows)
    )


def targets_of(found: Found) -> Mapping[str, Target]:
    """The targets that were looked for in a file."""
    return {name: target for name, target in keys_of(found).targets.items() if name in found.targets}


def _measure(frames: Sequence[Frame], described: Mapping[str, Target]) -> Measured:
    survey = geometry.survey(frames)
    apart = [f for f, d in zip(frames, survey.shortest, strict=True) if d > geometry.OVERLAP]
    return Measured(
        geometry=survey,
        balance=mechanics.balance(frames),
        strain=strain.strain_pairs(frames),
        consistency=consistency.compare(apart),
        outliers=tuple(
            sorted(
                [*checks.outliers(frames), *targets.outliers(frames, described)],
                key=lambda one: one[:2],
                reverse=True,
            )
        ),
        duplicates=checks.duplicates(frames),
    )


def _gaps(frames: Sequence[Frame], allow_missing: bool) -> list[Finding]:
    some = any(f.energy is not None or f.forces is not None or f.targets for f in frames)
    allowed = allow_missing and some
    return [replace(g, level=WARNING) if allowed else g for g in checks.missing(frames)]


def _labels(frames: Sequence[Frame], files: Sequence[Found]) -> Iterator[Finding]:
    """Labels that are no numbers, in mixed units, zero, or too large."""
    for check in (checks.not_finite, checks.zero_volume, units.mixed_units, zeros.zero_energies):
        yield from check(frames)
    yield from zeros.zero_forces(frames)
    yield from zeros.zero_stress(frames)
    for one in files:
        if one.stress is None or not is_virial(one.stress):  # the unit of a virial is that of the energies
            of_file = [f for f in frames if one.source in ("", f.source)]
            yield from zeros.large_stress(of_file, keys_of(one).stress_unit_used)


def _units(found: Found) -> tuple[str, str, str, str]:
    """Units of energy, length, forces and stress as they were taken."""
    keys = keys_of(found)
    virial = found.stress is not None and is_virial(found.stress)
    per_volume = f"{keys.energy_unit_used}/{keys.length_unit_used}^3"
    stress = per_volume if virial else keys.stress_unit_used
    return keys.energy_unit_used, keys.length_unit_used, keys.forces_unit_used, stress


def _physics(frames: Sequence[Frame], files: Sequence[Found], measured: Measured) -> Iterator[Finding]:
    """What laws and experience say about signs, units and order of the labels.

    Of files in different units, those of the first are named in the remedies.
    """
    energy, length, forces, stress = _units(files[0])
    yield from magnitude.impossible_energies(frames, energy)
    yield from magnitude.bond_lengths(frames, measured.geometry, length)
    yield from magnitude.force_scale(magnitude.stiffness(frames), forces)
    strained = list(strain.stress_from_strain(measured.strain, stress))
    yield from strained
    for one in agreement.judge(measured.consistency, (energy, forces, stress)):
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
