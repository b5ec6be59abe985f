"""Where the errors are: by element, by config type, by direction; numbers only, from predictions as they were read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from train.report.run_directory import (
    Floats,
    Integers,
    PredictedSet,
    energy_pairs,
    force_pairs,
    rmse,
    stress_pairs,
    symbols,
)

UNTYPED = "(none)"  # frames without a config type, where others have one
ANGLES = (5.0, 10.0, 30.0)  # degrees
NO_DIRECTION = 0.05  # eV/Å; the direction of a shorter force is left out

Errors = dict[str, float | int | None]
Tables = dict[str, dict[str, Errors]]  # set -> element or config type -> errors


def force_errors(one: PredictedSet) -> tuple[Integers, Floats, Floats]:
    """Atoms with complete labels, their reference forces [n, 3] and the errors of these [n, 3], eV/Å."""
    error = one.forces_predicted - one.forces_reference
    kept = np.nonzero(np.isfinite(error).all(axis=1))[0]
    return kept, one.forces_reference[kept], error[kept]


def by_element(sets: Sequence[PredictedSet]) -> Tables:
    """Labelled atoms, RMSE and MAE of the components of the forces (meV/Å) of each element, in order of Z."""
    tables: Tables = {}
    for one in sets:
        kept, _, error = force_errors(one)
        numbers = one.atomic_numbers[kept]
        for number in np.unique(numbers):
            row = {"atoms": int((numbers == number).sum()), **_sizes("forces", error[numbers == number])}
            tables.setdefault(one.name, {})[str(symbols(number))] = row
    return tables


def by_config_type(sets: Sequence[PredictedSet]) -> Tables:
    """The same errors as those of a whole set, for each config type; nothing where no frame has one."""
    tables: Tables = {}
    for one in sets:
        if not (one.config_type != "").any():
            continue
        for kind in sorted(set(one.config_type)):
            some = one.only(one.config_type == kind)
            energy = energy_pairs(some, np.zeros(len(some.n_atoms))).error
            row: Errors = {"frames": len(some.n_atoms), **_sizes("energy", energy)}
            row |= _sizes("forces", force_pairs(some).error) | _sizes("stress", stress_pairs(some).error)
            tables.setdefault(one.name, {})[kind or UNTYPED] = row
    return tables


def _sizes(name: str, error: Floats) -> Errors:
    """RMSE and MAE of errors in eV, in meV."""
    known = error.size > 0
    mean = 1000 * float(np.mean(np.abs(error))) if known else None
    return {f"{name}_rmse": 1000 * rmse(error) if known else None, f"{name}_mae": mean}


def angles(one: PredictedSet) -> tuple[Floats, Floats]:
    """Length of the reference force (eV/Å) and its angle with the predicted one (degrees), where it has a direction."""
    _, reference, error = force_errors(one)
    length = np.linalg.norm(reference, axis=1)
    kept = length > NO_DIRECTION
    a, b = reference[kept], (reference + error)[kept]
    cross, dot = np.linalg.norm(np.cross(a, b), axis=1), (a * b).sum(axis=1)
    return length[kept], np.degrees(np.arctan2(cross, dot))  # exact for small angles, where arccos is not


def by_direction(sets: Sequence[PredictedSet]) -> Tables:
    """Mean cosine between predicted and reference force, and the share of atoms within a few degrees."""
    tables: Tables = {}
    for one in sets:
        _, angle = angles(one)
        if len(angle):
            row: Errors = {"atoms": len(angle), "cosine": float(np.mean(np.cos(np.radians(angle))))}
            tables[one.name] = {"all": row | {f"{a:g}": float(np.mean(angle <= a)) for a in ANGLES}}
    return tables


def breakdown(sets: Sequence[PredictedSet]) -> dict[str, Tables]:
    """The tables that `summary.json` holds."""
    return {"errors_by_element": by_element(sets), "errors_by_config_type": by_config_type(sets)}


def breakdown_text(tables: Mapping[str, Tables]) -> str:
    """The tables as text, where there are several elements or types to tell apart; "" where there are not."""
    parts = []
    columns = {
        "errors_by_element": {"atoms": "atoms", "forces_rmse": "F RMSE meV/Å", "forces_mae": "F MAE meV/Å"},
        "errors_by_config_type": {
            "frames": "frames",
            "energy_rmse": "E RMSE meV/atom",
            "forces_rmse": "F RMSE meV/Å",
            "stress_rmse": "S RMSE meV/Å^3",
        },
    }
    for key, named in columns.items():
        rows = [(name, kind, row) for name, table in tables[key].items() for kind, row in table.items()]
        if len({kind for _, kind, _ in rows}) < 2:
            continue
        shown = {k: title for k, title in named.items() if any(row[k] is not None for *_, row in rows)}
        what = "element" if key == "errors_by_element" else "config type"
        lines = [["set", what, *shown.values()]]
        lines += [[name, kind, *(_cell(row[k]) for k in shown)] for name, kind, row in rows]
        parts.append(_aligned(lines))
    return "".join(f"{part}\n\n" for part in parts)


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:d}" if isinstance(value, int) else f"{value:.2f}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, the first two to the left."""
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    texts = []
    for line in lines:
        pairs = zip(line, widths, strict=True)
        texts.append("  ".join(f"{c:<{w}}" if k < 2 else f"{c:>{w}}" for k, (c, w) in enumerate(pairs)))
    return "\n".join(text.rstrip() for text in texts)
