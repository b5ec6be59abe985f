"""The table of the label report: what the files hold, row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from train.data.dataset import Found, Frame, is_virial
from train.data.keys import Keys
from train.data.targets import unit_of, unit_used
from train.doctor.geometry import REACH

SHOWN = 10


def keys_of(found: Found) -> Keys:
    assert found.keys is not None  # filled in by inspect
    return found.keys


def notes(files: Sequence[Found]) -> list[str]:
    """Remarks, each once, with the file where there are several."""
    several = len(files) > 1
    remarks = [f"{f.source}: {note}" if several else note for f in files for note in f.notes]
    return list(dict.fromkeys(remarks))


def label_rows(frames: Sequence[Frame], files: Sequence[Found]) -> list[tuple[str, str]]:
    rows = []
    for label in ("energy", "forces", "stress"):
        have = sum(getattr(f, label) is not None for f in frames)
        where = of_files({f.source: taken_as(f, label) for f in files})
        comma = "" if where.startswith("under") else ","
        rows.append((label, f"{have}/{len(frames)}{comma} {where}"))
    for name in {name: None for f in files for name in f.targets}:
        have = sum(bool(np.isfinite(f.targets[name]).any()) for f in frames)
        where = of_files({f.source: target_as(f, name) for f in files})
        comma = "" if where.startswith("under") else ","
        rows.append((name, f"{have}/{len(frames)}{comma} {where}"))
    rows.append(("length", of_files({f.source: f"taken as {keys_of(f).length_unit_used}" for f in files})))
    told = of_files({f.source: f.units for f in files})
    return [*rows, ("units", told)] if told else rows


def of_files(texts: Mapping[str, str]) -> str:
    """The text of all files; where they differ, each with its files."""
    files: dict[str, list[str]] = {}
    for source, text in texts.items():
        files.setdefault(text, []).append(source)
    if len(files) == 1:
        return next(iter(files))
    more = {text: f" and {len(names) - 1} more" if len(names) > 1 else "" for text, names in files.items()}
    return "; ".join(f"{names[0]}{more[text]}: {text}" for text, names in files.items())


def taken_as(found: Found, label: str) -> str:
    """Where a label was found, its unit and sign."""
    keys, name = keys_of(found), getattr(found, label)
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


def target_as(found: Found, name: str) -> str:
    """Where a target beside the energy was found, its unit and irreps."""
    keys, key = keys_of(found), found.targets.get(name)
    if not key:
        return "not found"
    target = keys.targets[name]
    unit = unit_of(name, target, keys.length_unit_used) or "given, without a unit"
    return f"under '{key}', taken as {unit}, {target.irreps} of each {target.per.replace('mean', 'structure (a mean)')}"


def structure_rows(frames: Sequence[Frame], distance: float) -> list[tuple[str, str]]:
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


def value_rows(frames: Sequence[Frame]) -> list[tuple[str, str]]:
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
    for name in frames[0].targets:
        labels = np.concatenate([f.targets[name] for f in frames])
        values = labels[np.isfinite(labels)]
        if len(values):
            rms, largest = float(np.sqrt(np.mean(values**2))), float(np.abs(values).max())
            of = " of a component" if labels.shape[1] > 1 else ""
            rows.append((name, f"RMS{of} {rms:.4g}, largest {largest:.4g} {unit_used(name)}".rstrip()))
    return rows


def table(rows: Sequence[tuple[str, str]], problems: Sequence[str], warnings: Sequence[str]) -> str:
    width = max(len(name) for name, _ in rows)
    lines = ["Label report", *(f"  {name:<{width}}  {text}" for name, text in rows)]
    for title, sentences in (("warning", warnings), ("PROBLEM", problems)):
        lines += [f"  {title}: {s}" for s in sentences[:SHOWN]]
        if len(sentences) > SHOWN:
            lines.append(f"  ... and {len(sentences) - SHOWN} more")
    return "\n".join(lines)
