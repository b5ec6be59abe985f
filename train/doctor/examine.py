"""potential-doctor's work: every set read and inspected, then compared with the others; the results as data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from train.data.dataset import Array, Found, Frame
from train.data.keys import Keys
from train.data.labels import LABELS
from train.doctor import similar
from train.doctor.checks import energy_of, is_finite
from train.doctor.findings import NOTE, PROBLEM, WARNING, Finding, problem, warning
from train.doctor.inspection import LabelReport, Measured, inspect
from train.sets import read_files, seen
from train.statistics import ISOLATED, E0Fit, fit_e0

VERDICTS = ("clean", "warnings", "errors")
BINDING = (-11.0, 0.0)  # eV/atom; from tungsten and diamond (-9) with some overbinding to nothing bound
UNTYPED = "(none)"


@dataclass(frozen=True)
class Examined:
    """One set: its frames, its label report, and energies without E0."""

    name: str
    frames: Sequence[Frame]
    found: Sequence[Found]  # in each of its files
    report: LabelReport
    e0: E0Fit | None  # None where an energy is not finite
    energy: Array  # (n_frames,) eV/atom beyond E0; NaN for isolated atoms and without energy

    @property
    def measured(self) -> Measured:
        assert self.report.measured is not None  # `inspect` always leaves it
        return self.report.measured


@dataclass(frozen=True)
class Examination:
    """All sets and all findings, each with the set it is about."""

    sets: tuple[Examined, ...]
    findings: tuple[tuple[str, Finding], ...]  # the worst first

    @property
    def code(self) -> int:
        """0 clean, 1 warnings, 2 errors."""
        levels = {f.level for _, f in self.findings}
        return 2 if PROBLEM in levels else 1 if WARNING in levels else 0

    @property
    def verdict(self) -> str:
        return VERDICTS[self.code]


def examine(
    paths: Mapping[str, Sequence[str]], keys: Keys | None = None, allow_missing: bool = False
) -> Examination:
    """Read and inspect files; what cannot be read is a finding, not an error.

    Args:
        paths: name of the set ("train", "valid", ...) -> files and patterns.
        keys, allow_missing: as in `dataset.read` and `doctor.inspect`.
    """
    sets: list[Examined] = []
    unreadable: list[tuple[str, Finding]] = []
    for name, patterns in paths.items():
        try:
            frames, found = read_files(patterns, keys or Keys())
            frames, notes = seen(frames)
        except ValueError as error:
            unreadable.append((name, problem("unreadable", str(error))))
            continue
        found = [replace(found[0], notes=(*found[0].notes, *notes)), *found[1:]]
        report = inspect(frames, found, keys, allow_missing=allow_missing)
        sets.append(Examined(name, frames, found, report, *_without_e0(frames)))
    return compare(sets, unreadable)


def compare(sets: Sequence[Examined], further: Sequence[tuple[str, Finding]] = ()) -> Examination:
    """All findings of the sets and of their comparison, after `further` ones of the same level."""
    findings = list(further)
    for one in sets:
        found = (*one.report.findings, *_isolated_atoms(one), *_absent(one))
        findings += [(one.name, f) for f in found]
    if len(sets) > 1:
        signatures = {one.name: one.measured.geometry.signature for one in sets}
        shared = similar.across({one.name: one.frames for one in sets}, signatures)
        findings += [("all sets", f) for f in (*shared, *_unlike(sets))]
    order = (PROBLEM, WARNING, NOTE)
    return Examination(tuple(sets), tuple(sorted(findings, key=lambda one: order.index(one[1].level))))


def _without_e0(frames: Sequence[Frame]) -> tuple[E0Fit | None, Array]:
    rows = [k for k, f in enumerate(frames) if is_finite(f.energy)]
    energy = np.full(len(frames), np.nan)
    if not rows:
        return None, energy
    labelled = [frames[k] for k in rows]
    e0 = fit_e0(labelled, sorted({s for f in labelled for s in f.atoms.symbols}))
    for k, f in zip(rows, labelled, strict=True):
        if not f.is_isolated_atom:
            energy[k] = (energy_of(f) - sum(e0.e0[s] for s in f.atoms.symbols)) / len(f.atoms)
    return e0, energy


def _isolated_atoms(one: Examined) -> list[Finding]:
    """Isolated atoms of another method show as a binding energy that no matter has."""
    if one.e0 is None:
        return []
    known = {s for s, source in one.e0.sources.items() if source == ISOLATED}
    rows = [
        k
        for k, f in enumerate(one.frames)
        if np.isfinite(one.energy[k]) and known.issuperset(f.atoms.symbols)
    ]
    if not rows:
        return []
    binding = float(np.median(one.energy[rows]))
    if BINDING[0] < binding < BINDING[1]:
        return []
    atoms = [f for f in one.frames if f.is_isolated_atom and f.energy is not None]
    text = (
        f"{atoms[0].name} and the other isolated atoms: with their energies the structures are bound by "
        f"{-binding:.3f} eV/atom (median; {-BINDING[1]:g} to {-BINDING[0]:g} expected): they seem to come from "
        "another method, charge or unit than the frames; correct or remove them"
    )
    return [warning("isolated atoms", text, atoms)]


def _absent(one: Examined) -> list[Finding]:
    """A label that no frame has, with entries of the file that have its shape."""
    findings = []
    for file, label, unclaimed in ((f, *entry) for f in one.found for entry in f.unclaimed.items()):
        names = ", ".join(f"'{name}'" for name in unclaimed)
        text = (
            f"{file.source}: no {label} found, but {names} {'has' if len(unclaimed) == 1 else 'have'} the "
            f"shape of {label}: name the label with --{label}-key, or say --{label}-key none"
        )
        findings.append(warning("unread label", text, [f for f in one.frames if f.source == file.source]))
    return findings


def _unlike(sets: Sequence[Examined]) -> list[Finding]:
    """Elements of a later set that the first, which is trained on, does not have."""
    known = {s for f in sets[0].frames for s in f.atoms.symbols}
    findings = []
    for one in sets[1:]:
        rows = [f for f in one.frames if not known.issuperset(f.atoms.symbols)]
        if rows:
            new = sorted({s for f in rows for s in f.atoms.symbols} - known)
            text = (
                f"{rows[0].name}: {one.name} has {', '.join(new)}, which {sets[0].name} does not, in {len(rows)} "
                "frames; a potential knows only the elements it was trained on: add such structures or remove these"
            )
            findings.append(warning("new elements", text, rows))
    return findings


def to_dict(found: Examination) -> dict[str, Any]:
    """Everything as plain numbers, strings, lists and dictionaries, for JSON."""
    return {
        "format": 1,
        "verdict": found.verdict,
        "code": found.code,
        "findings": [
            {"set": name, "level": f.level, "check": f.check, "text": f.text, "frames": _by_file(f.frames)}
            for name, f in found.findings
        ],
        "sets": {one.name: _set(one) for one in found.sets},
    }


def _by_file(frames: Sequence[Frame]) -> dict[str, list[int]]:
    files: dict[str, list[int]] = {}
    for f in frames:
        files.setdefault(f.source, []).append(f.index)
    return files


def coverage(one: Examined) -> dict[str, dict[str, int]]:
    """Config type -> number of frames, atoms, and frames with each label; the whole set under "all"."""
    rows: dict[str, Counter[str]] = {"all": Counter()}
    for f in one.frames:
        for row in (rows["all"], rows.setdefault(f.config_type or UNTYPED, Counter())):
            row.update(frames=1, atoms=len(f.atoms))
            row.update(label for label in LABELS if getattr(f, label) is not None)
            row.update(name for name, value in f.targets.items() if np.isfinite(value).any())
    columns = ("frames", "atoms", *LABELS, *one.frames[0].targets)
    return {name: {c: row[c] for c in columns} for name, row in rows.items()}


def _set(one: Examined) -> dict[str, Any]:
    geometry, balance = one.measured.geometry, one.measured.balance
    strain, labels = one.measured.strain, one.measured.consistency
    isolated = Counter(f.atoms.symbols[0] for f in one.frames if f.is_isolated_atom)
    return {
        "frames": len(one.frames),
        "files": {
            f.source: {**{label: getattr(f, label) for label in LABELS}, **f.targets} for f in one.found
        },
        "coverage": coverage(one),
        "isolated_atoms": dict(isolated),
        "shortest_distances": {
            f"{a}-{b}": {"angstrom": d, **where(one.frames[k])} for (a, b), (d, k) in geometry.pairs.items()
        },
        "neighbors": {
            f"{cutoff:g}": {
                "mean": mean, "min": low, "max": high,
                "frames_with_lonely_atoms": _by_file([one.frames[int(k)] for k in geometry.lonely[cutoff]]),
            }
            for cutoff, (mean, low, high) in geometry.neighbors.items()
        },
        "e0": None if one.e0 is None else {
            "energies": one.e0.e0, "sources": one.e0.sources, "rank": one.e0.rank, "condition": one.e0.condition
        },
        "net_force": largest(balance.net_force, one.frames),
        "net_torque": largest(balance.net_torque, one.frames),
        "largest_force": largest(balance.largest, one.frames),
        "energy_and_forces": None if labels is None else {
            "frames": len(labels.frames), "ratio": labels.ratio, "correlation": labels.correlation
        },
        "strain_pairs": {"pairs": len(strain.frames), "ratio": strain.ratio, "correlation": strain.correlation}
        if strain.frames else None,
    }  # fmt: skip


def where(frame: Frame) -> dict[str, Any]:
    return {"file": frame.source, "frame": frame.index}


def largest(values: Array, frames: Sequence[Frame]) -> dict[str, Any] | None:
    """Median and largest value, and the frame that has it; None where nothing was measured."""
    if not np.isfinite(values).any():
        return None
    top = int(np.nanargmax(values))
    return {"median": float(np.nanmedian(values)), "max": float(values[top]), **where(frames[top])}
