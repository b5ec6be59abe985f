"""The label report: what a data set holds, what is impossible in it (stops) and what is odd (warnings)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from train import checks, units, zeros
from train.dataset import Found, Frame, is_virial
from train.keys import Keys

SHOWN = 10
REACH = 3.0  # Å; the search radius for the closest pair


@dataclass(frozen=True)
class LabelReport:
    """A printable table, reasons to stop and warnings; each names file, frame and remedy."""

    text: str
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


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
        cutoff: Å; with it, atoms without any neighbor are reported as well.
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
    gaps, stress_gaps = checks.missing(frames)
    problems = [] if allow_missing and _any_label(frames) else list(gaps)
    warnings = [g for g in gaps if g not in problems] + stress_gaps
    for check in (checks.not_finite, checks.zero_volume, units.mixed_units, zeros.zero_energies):
        problems += check(frames)
    for found_problems, found_warnings in (zeros.zero_forces(frames), zeros.zero_stress(frames)):
        problems += found_problems
        warnings += found_warnings
    for one in files:
        if not (one.stress and is_virial(one.stress)):  # its unit is that of the energies
            of_file = [f for f in frames if one.source in ("", f.source)]
            warnings += zeros.large_stress(of_file, _keys(one).stress_unit_used)
    distance, found_overlaps, lonely = _geometry(frames, cutoff)
    problems += found_overlaps
    warnings += [*units.mixed_force_units(frames), *lonely]
    odd = checks.outliers(frames)
    if odd:
        shown = "; ".join(text for _, text in odd[:3])
        warnings.append(f"{len(odd)} outliers: {shown}; look at these structures before trusting them")
    same, different = checks.duplicates(frames)
    warnings += _duplicate_warnings(same, different)
    rows = [
        *_structure_rows(frames, distance),
        *_label_rows(frames, files),
        *_value_rows(frames),
        ("outliers", f"{len(odd)}"),
        ("duplicates", f"{len(same)} with equal labels, {len(different)} with different labels"),
        *(("note", note) for note in _notes(files)),
    ]
    return LabelReport(_table(rows, problems, warnings), tuple(problems), tuple(warnings))


def _any_label(frames: Sequence[Frame]) -> bool:
    return any(f.energy is not None or f.forces is not None for f in frames)


def _geometry(frames: Sequence[Frame], cutoff: float | None) -> tuple[float, list[str], list[str]]:
    """The shortest distance of all, overlapping atoms, and atoms that have nobody within the cutoff."""
    shortest, overlaps, lonely = float("inf"), [], []
    for f in frames:
        if (
            checks.is_flat(f)
            or not np.isfinite(f.atoms.positions).all()
            or not np.isfinite(f.atoms.cell.array).all()
        ):
            continue
        distance, i, j = checks.closest(f, max(REACH, cutoff or 0.0))
        shortest = min(shortest, distance)
        problem = checks.overlap(f, distance, i, j)
        if problem:
            overlaps.append(problem)
        if cutoff and len(f.atoms) > 1 and distance > cutoff:
            lonely.append(f.name)
    if lonely:
        lonely = [
            f"{lonely[0]}: no two atoms are within the cutoff of {cutoff} Å, as in {len(lonely)} frames; the "
            "model cannot tell them from isolated atoms: choose a larger cutoff or check the length unit"
        ]
    return shortest, overlaps, lonely


def _duplicate_warnings(
    same: Sequence[tuple[Frame, Frame]], different: Sequence[tuple[Frame, Frame]]
) -> list[str]:
    warnings = []
    if same:
        a, b = same[0]
        warnings.append(
            f"{b.name}: the same structure as {a.name}; {len(same)} duplicates in all: remove them, or "
            "training and validation may share structures"
        )
    if different:
        a, b = different[0]
        warnings.append(
            f"{b.name}: the same structure as {a.name} with different labels; {len(different)} such pairs: "
            "at most one of each can be right (they may differ in charge or spin, which no potential sees)"
        )
    return warnings


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
        ("closest distance", f"{distance:.3f} Å" if np.isfinite(distance) else f"> {REACH:g} Å"),
    ]


def _keys(found: Found) -> Keys:
    assert found.keys is not None  # filled in by inspect
    return found.keys


def _notes(files: Sequence[Found]) -> list[str]:
    """Remarks, each once, with the file where there are several."""
    several = len(files) > 1
    notes = [f"{f.source}: {note}" if several else note for f in files for note in f.notes]
    return list(dict.fromkeys(notes))


def _label_rows(frames: Sequence[Frame], files: Sequence[Found]) -> list[tuple[str, str]]:
    rows = []
    for label in ("energy", "forces", "stress"):
        have = sum(getattr(f, label) is not None for f in frames)
        where = _of_files({f.source: _taken(f, label) for f in files})
        comma = "" if where.startswith("under") else ","
        rows.append((label, f"{have}/{len(frames)}{comma} {where}"))
    rows.append(("length", _of_files({f.source: f"taken as {_keys(f).length_unit_used}" for f in files})))
    told = _of_files({f.source: f.units for f in files})
    return [*rows, ("units", told)] if told else rows


def _of_files(texts: Mapping[str, str]) -> str:
    """The text of all files; where they differ, each with its files."""
    files: dict[str, list[str]] = {}
    for source, text in texts.items():
        files.setdefault(text, []).append(source)
    if len(files) == 1:
        return next(iter(files))
    more = {text: f" and {len(names) - 1} more" if len(names) > 1 else "" for text, names in files.items()}
    return "; ".join(f"{names[0]}{more[text]}: {text}" for text, names in files.items())


def _taken(found: Found, label: str) -> str:
    """Where a label was found, its unit and sign."""
    keys, name = _keys(found), getattr(found, label)
    if not name:
        return "not found"
    taken = {
        "energy": keys.energy_unit_used,
        "forces": keys.forces_unit_used,
        "stress": f"{keys.stress_unit_used}, positive: the cell wants to shrink",
    }
    unit = taken[label]
    if label == "stress" and is_virial(name):
        unit = f"{keys.energy_unit_used}, a virial: -stress * volume, positive: the cell wants to expand"
    return f"under '{name}', taken as {unit}"


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
