"""A comparison as text, tables (JSON, CSV), pictures and one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from potential.analysis.tables import grid
from train.compare import words
from train.compare.checks import CHECKS
from train.compare.errors import MEASURES, UNITS
from train.curve.report import table
from train.curve.words import value
from train.directory import write_text
from train.report.page import to_json
from train.report.run_directory import PredictedSet

PICTURES = tuple(f"{name}.{kind}" for name in ("parity", "checks") for kind in ("png", "svg"))
SPEED = ("system", "contestant", "precision", "ms", "quartiles", "µs/atom", "ratio (quartiles)", "peak MiB")


def report(found: dict[str, Any], sets: Sequence[PredictedSet], directory: Path) -> list[str]:
    """Write everything, in place of what an earlier comparison left; the lines to print."""
    from train.compare.page import page
    from train.compare.picture import draw

    for name in ("report.html", "comparison.csv", "comparison.json", *PICTURES):
        (directory / name).unlink(missing_ok=True)
    write_text(directory / "comparison.json", to_json(found))
    write_text(directory / "comparison.csv", as_csv(found))
    pictures = draw(found, sets, directory)
    write_text(directory / "report.html", page(found, sets))
    files = ["report.html", *pictures, "comparison.csv", "comparison.json"]
    return [*text(found), "look at: " + ", ".join(str(directory / name) for name in files)]


def text(found: dict[str, Any]) -> list[str]:
    """The whole comparison for a terminal."""
    blocks = [error_table(found), "\n".join(words.findings(found)), "\n".join(words.zero_lines(found))]
    if found["speed"]:
        clock = f"energy and forces through ASE, {found['settings']['speed_dtype']}, CPU time on one pinned thread"
        blocks.append(f"{clock}\n\n{grid(SPEED, words.speed_rows(found['speed']))}")
    blocks += [check_table(found, check) for check in CHECKS]
    for title, lines in (
        ("what to know before trusting them", words.worry_lines(found)),
        ("not checked", words.skipped(found)),
        ("failed", words.failure_lines(found)),
    ):
        blocks.append("\n".join([f"{title}:", *(f"  - {line}" for line in lines)]) if lines else "")
    return ["\n\n".join(block for block in blocks if block) + "\n"]


def error_table(found: dict[str, Any]) -> str:
    """RMSE of each quantity with its interval, mean cosine, frames."""
    shown = [quantity for quantity in UNITS if any(quantity in one for one in found["errors"].values())]
    head = [
        "RMSE",
        "frames",
        *(f"{quantity} {UNITS[quantity]}" for quantity in shown),
        "forces MAE",
        "cosine",
    ]
    rows = []
    for name, one in found["errors"].items():
        cells = [words.told(one[q]["rmse"]) if q in one else "-" for q in shown]
        forces = one.get("forces", {})
        mae = words.told(forces["mae"]) if forces else "-"
        cosine = value(forces["cosine"]) if "cosine" in forces else "-"
        done = found["frames"] - len(found["failures"][name])
        rows.append([name, f"{done} of {found['frames']}", *cells, mae, cosine])
    return grid(head, rows)


def check_table(found: dict[str, Any], check: str) -> str:
    """A row for each value of a check, a column for each contestant that has it."""
    names, rows = words.checks_rows(found, check)
    if not rows:
        return ""
    head = [CHECKS[check].title, "unit", *names, "known"]
    if all(row[-1] == "–" for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    return "\n".join([grid(head, rows), *(f"  {text}" for text in words.notes(found, check))])


def as_csv(found: dict[str, Any]) -> str:
    """A row for each number: contestant, what it is of, which, value, ends of its interval, unit."""
    rows: list[list[Any]] = [["contestant", "of", "which", "value", "low", "high", "unit"]]
    for name, errors in found["errors"].items():
        for quantity, one in errors.items():
            unit = UNITS[quantity]
            rows += [[name, quantity, measure, *one[measure], unit] for measure in MEASURES]
            rows.append([name, quantity, "max", one["max"], None, None, unit])
            if "cosine" in one:
                rows.append([name, quantity, "cosine", *one["cosine"], ""])
        for kind, groups in found["groups"][name].items():
            for group, by in groups.items():
                rows += [[name, f"{q}, {kind} {group}", "rmse", *by[q], UNITS[q]] for q in UNITS if by.get(q)]
        for check, result in found["checks"][name].items():
            for key, number in result.get("values", {}).items():
                rows.append([name, check, key, number, None, None, CHECKS[check].values[key][1]])
    for row in found["pairs"]:
        who = f"{row['other']} against {row['one']}"
        measure = found["settings"]["measure"]
        rows.append(
            [who, row["quantity"], f"{measure} difference", *row["difference"], UNITS[row["quantity"]]]
        )
        if row["ratio"]:
            rows.append([who, row["quantity"], f"{measure} ratio", *row["ratio"], ""])
    for line in found["speed"]:
        if "cpu_ms" in line:
            rows.append(
                [line["contestant"], line["system"], "time", line["cpu_ms"], *line["cpu_quartiles"], "ms"]
            )
            rows.append(
                [line["contestant"], line["system"], "peak memory", line["peak_mib"], None, None, "MiB"]
            )
    return table(rows)
