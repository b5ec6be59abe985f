"""What was measured, as a table to read, JSON lines to compute with, and a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potential.analysis.speed import Line, best

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {
    "forces": "forces through ASE, with the neighbor list",
    "evaluation": "energy and forces, neighbors known",
    "training": "training step",
}
COLUMNS = (
    "system",
    "atoms",
    "edges",
    "contestant",
    "ms",
    "quartiles",
    "µs/atom",
    "peak MiB",
    "ratio",
    "quartiles",
)
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def number(value: float | None) -> str:
    """Three digits: 0.123, 1.23, 12.3, 123, 1230."""
    if value is None:
        return ""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose columns line up; Markdown."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    ruler = ["-" * width for width in widths]
    lines = [
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in (header, ruler, *rows)
    ]
    return "\n".join(f"| {line} |" for line in lines)


def table(lines: Sequence[Line]) -> str:
    """Everything measured: one table per precision, number of threads and task, then the split of the time."""
    groups: dict[tuple[str, int, str], list[Line]] = {}
    for line in lines:
        groups.setdefault((line["task"], line["threads"], line["asked_dtype"]), []).append(line)
    blocks = []
    for (task, threads, dtype), group in groups.items():
        clock = "CPU time on one pinned thread" if threads == 1 else f"wall time on {threads} threads"
        blocks.append(f"{TITLES[task]}: {dtype}, {clock}\n\n{grid(COLUMNS, [_row(line) for line in group])}")
    parts = [line for line in lines if "split" in line]
    if parts:
        blocks.append(_split_table(parts))
    if any("error" in line for line in lines):
        blocks.append(
            "\n".join(
                f"{line['system']}, {line['task']}: {line['error']}" for line in lines if "error" in line
            )
        )
    return "\n\n".join(blocks)


def _row(line: Line) -> list[str]:
    name = line["contestant"] + (" (own precision)" if line["dtype"] == "own" else "")
    start = [line["system"], str(line["atoms"]), str(line.get("edges") or ""), name]
    if "error" in line:
        return [*start, "failed", "", "", "", "", ""]
    kind = best(line)
    shown = [
        number(line[f"{kind}_ms"]),
        _interval(line[f"{kind}_quartiles"]),
        number(1e3 * line[f"{kind}_ms"] / line["atoms"]),
        number(line["peak_mib"]),
    ]
    if "reference" not in line:
        return [*start, *shown, "1", ""]
    return [*start, *shown, number(line[f"{kind}_ratio"]), _interval(line[f"{kind}_ratio_quartiles"])]


def _interval(ends: Sequence[float]) -> str:
    return f"{number(ends[0])} to {number(ends[1])}"


def _split_table(lines: Sequence[Line]) -> str:
    names = list(lines[0]["split"])
    rows = []
    for line in lines:
        parts = line["split"]
        total = sum(parts.values())
        rows.append(
            [line["system"], line["contestant"], line["dtype"], str(line["threads"]), number(total)]
            + [f"{100 * parts[name] / total:.0f} %" for name in names]
        )
    title = "where the time of energy and forces goes (under the profiler, which adds to every operation)"
    return f"{title}\n\n{grid(['system', 'contestant', 'precision', 'threads', 'ms', *names], rows)}"


def append_line(path: Path, line: Line) -> None:
    """One JSON line at the end of a file; five digits, since times have no more."""
    with path.open("a", encoding="utf-8") as f:
        f.write(json.dumps(_rounded(line), ensure_ascii=False) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def draw(lines: Sequence[Line], path: Path) -> None:
    """µs per atom against atoms, one panel per task, as PNG."""
    from matplotlib.figure import Figure

    good = [line for line in lines if "error" not in line]
    tasks = [task for task in TITLES if any(line["task"] == task for line in good)]
    if not tasks:
        return
    figure = Figure(figsize=(5.2 * len(tasks), 4.4), layout="constrained")
    for k, task in enumerate(tasks):
        _panel(
            figure.add_subplot(1, len(tasks), k + 1), [line for line in good if line["task"] == task], lines
        )
    figure.savefig(path, dpi=150)


def _panel(axes: Axes, lines: Sequence[Line], everything: Sequence[Line]) -> None:
    names = list(dict.fromkeys(line["contestant"] for line in everything))
    curves: dict[tuple[str, str, int], list[Line]] = {}
    for line in lines:
        curves.setdefault((line["contestant"], line["dtype"], line["threads"]), []).append(line)
    for (name, dtype, threads), curve in curves.items():
        points = sorted((line["atoms"], 1e3 * line[f"{best(line)}_ms"] / line["atoms"]) for line in curve)
        style: dict[str, Any] = {"linestyle": "-" if threads == 1 else "--"}
        style["marker"] = "s" if dtype == "float64" else "o"
        cores = "1 thread" if threads == 1 else f"{threads} threads"
        label = f"{name}, {cores}" + ("" if dtype == "own" else f", {dtype}")
        color = COLORS[names.index(name) % len(COLORS)]
        axes.plot(
            *zip(*points, strict=True), color=color, label=label.replace("$", r"\$"), markersize=4, **style
        )
    axes.set(xscale="log", yscale="log", xlabel="atoms", ylabel="µs per atom")
    axes.set_title(TITLES[lines[0]["task"]], fontsize=10)
    axes.grid(True, which="both", color="#e6e6e6", linewidth=0.6)
    axes.legend(fontsize=8, frameon=False)
