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
    "dynamics": "a step of molecular dynamics through ASE",
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
        used = dict.fromkeys(line.get("device", "cpu") for line in group)
        clock = (
            "CPU time on one pinned thread" if best(group[0]) == "cpu" else f"wall time on {threads} threads"
        )
        clock += "" if set(used) == {"cpu"} else f" and {', '.join(used)}; peak of the GPU's memory"
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
        number(line.get("gpu_mib", line["peak_mib"])),
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


def latest(path: Path) -> list[Line]:
    """The last measurement of each kind that a file of JSON lines holds."""
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    keys = ("contestant", "task", "system", "dtype", "threads", "device")
    return list(
        {tuple(line.get(key) for key in keys): line for line in lines if "error" not in line}.values()
    )


def draw(lines: Sequence[Line], path: Path) -> None:
    """µs per atom against atoms, one panel per task, as PNG; crystals of one element are joined by a line."""
    from matplotlib.figure import Figure

    tasks = [task for task in TITLES if any(line["task"] == task for line in lines)]
    if not tasks:
        return
    figure = Figure(figsize=(4.4 * len(tasks), 4.6), layout="constrained")
    panels = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    names = list(dict.fromkeys(line["contestant"] for line in lines))
    entries: dict[str, Any] = {}
    for axes, task in zip(panels, tasks, strict=True):
        some = [line for line in lines if line["task"] == task]
        entries = _panel(axes, some, names) | entries
        axes.set_title(TITLES[task], fontsize=10)
    panels[0].set_ylabel("µs per atom")
    figure.legend(
        entries.values(), entries, loc="outside lower center", ncols=len(tasks) + 1, fontsize=8, frameon=False
    )
    figure.savefig(path, dpi=120)


def _panel(axes: Axes, lines: Sequence[Line], names: Sequence[str]) -> dict[str, Any]:
    """One task's curves; returns what the legend shows of them."""
    curves: dict[tuple[str, str, int, str], list[Line]] = {}
    for line in lines:
        series = line["system"].rstrip("0123456789")
        curves.setdefault((line["contestant"], line["dtype"], line["threads"], series), []).append(line)
    entries = {}
    for (name, dtype, threads, series), curve in curves.items():
        points = sorted((line["atoms"], 1e3 * line[f"{best(line)}_ms"] / line["atoms"]) for line in curve)
        color = COLORS[names.index(name) % len(COLORS)]
        style: dict[str, Any] = {"color": color, "linestyle": "-" if threads == 1 else "--", "markersize": 5}
        style["markerfacecolor"] = "white" if dtype == "float64" else color
        style["marker"] = "o" if series != curve[0]["system"] else "^"  # crystals are named after their size
        label = f"{name}, {'1 thread' if threads == 1 else f'{threads} threads'}"
        label += ("" if dtype == "own" else f", {dtype}") + (f", {series}" if style["marker"] == "^" else "")
        (entries[label.replace("$", r"\$")],) = axes.plot(*zip(*points, strict=True), **style)
    sizes = sorted({line["atoms"] for line in lines})
    axes.set(xscale="log", yscale="log", xlabel="atoms")
    axes.set_xticks(sizes, [str(size) for size in sizes], fontsize=8)
    axes.set_xticks([], minor=True)
    axes.grid(True, which="both", color="#e6e6e6", linewidth=0.6)
    return entries
