"""An examination as plain text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from train.doctor.examine import Examination, Examined, coverage
from train.doctor.findings import NOTE, PROBLEM, WARNING, place

TITLES = {PROBLEM: "ERROR", WARNING: "warning", NOTE: "note"}


def text(found: Examination) -> str:
    """Facts of every set, then all findings, then one line with the verdict."""
    parts = [_set(one) for one in found.sets]
    lines = [
        f"{TITLES[f.level]} ({name}, {f.check}): {f.text}" for name, f in found.findings if f.level != NOTE
    ]
    lines += [
        f"{TITLES[NOTE]} ({name}, {f.check}): {f.text}" for name, f in found.findings if f.level == NOTE
    ]
    return "\n\n".join([*parts, *(["\n".join(lines)] if lines else []), conclusion(found)])


def conclusion(found: Examination) -> str:
    """How many errors and warnings there are, in one sentence."""
    count = {level: sum(f.level == level for _, f in found.findings) for level in (PROBLEM, WARNING)}
    if not any(count.values()):
        return "No fault found."
    said = [
        f"{n} {word}{'s' * (n != 1)}"
        for n, word in ((count[PROBLEM], "error"), (count[WARNING], "warning"))
        if n
    ]
    return " and ".join(said) + " found."


def _set(one: Examined) -> str:
    width = 18
    facts = [f"  {name:<{width}}{said}" for name, said in (*one.report.rows, *_facts(one)) if name != "note"]
    sources = list(dict.fromkeys(f.source for f in one.frames))
    more = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
    return "\n".join([f"{one.name}: {sources[0]}{more}", *facts])


def _facts(one: Examined) -> Sequence[tuple[str, str]]:
    """Rows that the label report of a training leaves out."""
    geometry, balance = one.measured.geometry, one.measured.balance
    rows = [
        (f"closest {a}-{b}", f"{d:.3f} Å, {place(one.frames[k], one.frames)}")
        for (a, b), (d, k) in geometry.pairs.items()
    ]
    for cutoff, (mean, low, high) in geometry.neighbors.items():
        alone = len(geometry.lonely[cutoff])
        some = f"; an atom without any in {alone} frames" if alone else ""
        rows.append((f"neighbors in {cutoff:g} Å", f"mean {mean:.1f}, min {low}, max {high}{some}"))
    for name, values, unit in (
        ("net force", balance.net_force, "eV/Å"),
        ("net torque", balance.net_torque, "eV"),
    ):
        if np.isfinite(values).any():
            top = int(np.nanargmax(values))
            where = place(one.frames[top], one.frames)
            said = f"median {np.nanmedian(values):.2g}, largest {values[top]:.2g} {unit}, {where}"
            rows.append((name, said))
    if one.e0:
        rows.append(("E0", ", ".join(f"{s} {e:.4f}" for s, e in one.e0.e0.items()) + f" eV, {one.e0.source}"))
        rows.append(
            ("E0 rank", f"{one.e0.rank} of {len(one.e0.e0)} elements, condition {one.e0.condition:.3g}")
        )
    types = coverage(one)
    if len(types) > 2:
        rows += [
            (
                f"type {name}"[:17],
                f"{row['frames']} frames; "
                + ", ".join(f"{label} {n}" for label, n in row.items() if label not in ("frames", "atoms")),
            )
            for name, row in types.items()
            if name != "all"
        ]
    return rows
