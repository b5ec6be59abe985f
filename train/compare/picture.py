"""The pictures of a comparison, for a paper or a talk: parity plots, and the curves of the checks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from train.compare.charts import FEW
from train.compare.panels import Panel, panels
from train.curve.picture import log_axes, margins
from train.report.page import replace
from train.report.plots import INK, draw_parity, plain, set_colors, style
from train.report.run_directory import PredictedSet, Run

COLUMNS = 3


def as_run(sets: Sequence[PredictedSet]) -> Run:
    """Contestants as the sets of a run, so that whatever draws a run draws them."""
    return Run(summary={}, metrics=[], sets=list(sets), config="")


def draw(found: dict[str, Any], sets: Sequence[PredictedSet], directory: Path) -> list[str]:
    """Write PNG and SVG; their names."""
    pictures = {"parity": draw_parity(as_run(sets))}
    drawn = [panel for some in panels(found).values() for panel in some]
    if drawn:
        pictures["checks"] = draw_panels(drawn, set_colors([one.name for one in sets]))
    names = []
    for name, figure in pictures.items():
        for kind in ("png", "svg"):
            replace(directory / f"{name}.{kind}", partial(figure.savefig, format=kind))
            names.append(f"{name}.{kind}")
    return names


def draw_panels(drawn: Sequence[Panel], colors: dict[str, str]) -> Figure:
    """All panels in rows, with one legend."""
    n_rows = -(-len(drawn) // COLUMNS)
    figure = Figure(
        figsize=(4.2 * min(COLUMNS, len(drawn)), 3.4 * n_rows + 0.4), dpi=150, layout="constrained"
    )
    grid = figure.subplots(n_rows, min(COLUMNS, len(drawn)), squeeze=False).ravel()
    entries: dict[str, Any] = {}
    for axes, panel in zip(grid, drawn, strict=False):
        entries |= draw_panel(axes, panel, colors)
    for axes in grid[len(drawn) :]:
        axes.set_axis_off()
    handles, labels = list(entries.values()), [plain(name) for name in entries]
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def draw_panel(axes: Axes, panel: Panel, colors: dict[str, str]) -> dict[str, Any]:
    """One panel; a handle for each name."""
    entries: dict[str, Any] = {}
    for line in panel.lines:
        look: dict[str, Any] = {"marker": "o", "linestyle": ""} if panel.log else {"linewidth": 1.3}
        look |= {"marker": "o", "markersize": 3} if len(line.x) <= FEW and not panel.log else {}
        (entries[line.name],) = axes.plot(line.x, line.y, color=colors[line.name], **look)
    axes.set_title(panel.title, loc="left", fontsize=10, color=INK)
    axes.set(xlabel=panel.x, ylabel=panel.y)
    if panel.log:
        x, y = ([value for line in panel.lines for value in getattr(line, key)] for key in "xy")
        log_axes(axes, margins(x), margins(y))
    if panel.ticks:
        axes.set_xticks(panel.ticks[0], panel.ticks[1])
    if panel.span:
        axes.set_ylim(panel.span)
    style(axes)
    return entries
