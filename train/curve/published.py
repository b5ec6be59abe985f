"""Errors from the literature, drawn beside a study's own: a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from train.curve.frames import MEASURES, QUANTITIES
from train.option import suggest

NEAR = 0.06  # of the height of an axis: a line of text
BESIDE = 1.5  # times the frames: names would cover each other
COLUMNS = ("label", "test", "quantity", "measure", "frames", "error", "source")


def read_published(
    path: Path, tests: Collection[str], measure: str, quantities: Collection[str] = tuple(QUANTITIES)
) -> tuple[list[dict[str, Any]], int]:
    """Rows of `path` for the tests and the measure (rmse, mae) of a report, and how many of another measure it has.

    The columns are label, test, quantity (one of `quantities`), measure, frames (validation included), error (in the
    unit of the report: meV/atom, meV/Å, meV/Å³, of targets 1/1000 of theirs) and source.

    Raises:
        ValueError: a column is missing, a test or quantity unknown, or a number is none; with the line.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        rows = [(reader.line_num, row) for row in reader]
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]}; its first line must be {','.join(COLUMNS)}")
    found = []
    for line, row in rows:
        for key, known in (("test", tests), ("quantity", quantities), ("measure", MEASURES)):
            if row[key] not in known:
                hint = suggest(str(row[key]), known)
                raise ValueError(f"{path}:{line}: {key} {row[key]!r} is none of {', '.join(known)}{hint}")
        try:
            frames, error = int(row["frames"]), float(row["error"])
        except (TypeError, ValueError) as bad:
            raise ValueError(f"{path}:{line}: {bad}; frames and error are numbers") from None
        if not (frames > 0 and 0 < error < float("inf")):
            raise ValueError(f"{path}:{line}: {frames} frames, error {error}; both must be positive")
        if row["measure"] == measure:
            found.append({key: row[key] for key in COLUMNS} | {"frames": frames, "error": error})
    return found, len(rows) - len(found)


def of(found: dict[str, Any], test: str, quantity: str) -> list[dict[str, Any]]:
    """The published errors of one test and quantity."""
    return [row for row in found["published"] if (row["test"], row["quantity"]) == (test, quantity)]


def labels(rows: list[dict[str, Any]], ends: tuple[float, float]) -> list[str]:
    """What is written at each point on a logarithmic axis between these ends: of points too close for a line each, the
    highest has all names."""
    room = (ends[1] / ends[0]) ** NEAR
    texts = [""] * len(rows)
    named: list[int] = []
    for k in sorted(range(len(rows)), key=lambda k: -float(rows[k]["error"])):
        beside = [j for j in named if 1 / BESIDE < rows[j]["frames"] / rows[k]["frames"] < BESIDE]
        if beside and rows[beside[-1]]["error"] < room * rows[k]["error"]:
            texts[beside[-1]] += f", {rows[k]['label']}"
        else:
            named.append(k)
            texts[k] = rows[k]["label"]
    return texts


def side(row: dict[str, Any], sizes: Sequence[int]) -> str:
    """Where the names of a point stand: left of it beyond what was measured, where the axis ends."""
    return "left" if row["frames"] > max(sizes) else "right"
