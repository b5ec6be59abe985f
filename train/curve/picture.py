"""The pictures of a study, for a paper or a talk: learning curves with bands, and error against time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from train.curve.frames import leading
from train.curve.fronts import TIMES, points
from train.curve.published import labels, of, side
from train.report.page import replace
from train.report.plots import INK, TESTS, VALID, log_ticks, plain, style

COLORS = (VALID, *TESTS, INK, "#8a8f98")
ROOM = 4.0  # times the measured errors: a band beyond that is not drawn, it would press the rest together


def model_colors(found: dict[str, Any]) -> dict[str, str]:
    """One color for each model, the same in every picture."""
    return {name: COLORS[k % len(COLORS)] for k, name in enumerate(found["study"]["models"])}


def measured(one: dict[str, Any]) -> list[float]:
    """All mean errors of one test and quantity."""
    return [float(error[0]) for model in one["models"].values() for error in model["errors"]]


def limits(one: dict[str, Any], published: Sequence[dict[str, Any]] = ()) -> tuple[float, float]:
    """Errors that are drawn: measured and published ones, and intervals as far as they are near."""
    values = [*measured(one), *(row["error"] for row in published)]
    known = [x for model in one["models"].values() for error in model["errors"] for x in error]
    low, high = min(values) / ROOM, max(values) * ROOM
    inside = [x for x in (*values, *known) if low <= x <= high]
    return min(inside) / 1.2, max(inside) * 1.2


def draw(found: dict[str, Any], directory: Path) -> list[str]:
    """Write curves and fronts as PNG and SVG; their names."""
    pictures = {"curves": draw_curves(found)}
    fronts = draw_fronts(found)
    if fronts:
        pictures["pareto"] = fronts
    names = []
    for name, figure in pictures.items():
        for kind in ("png", "svg"):
            replace(directory / f"{name}.{kind}", partial(figure.savefig, format=kind))
            names.append(f"{name}.{kind}")
    return names


def draw_curves(found: dict[str, Any]) -> Figure:
    """A panel for each test and quantity: measured means with intervals, curves with bands."""
    tests, colors = found["tests"], model_colors(found)
    columns = max(len(quantities) for quantities in tests.values())
    figure = Figure(figsize=(4.4 * columns, 3.7 * len(tests) + 0.5), dpi=150, layout="constrained")
    grid = figure.subplots(len(tests), columns, squeeze=False)
    for row, (test, quantities) in zip(grid, tests.items(), strict=True):
        for axes, (quantity, one) in zip(row, quantities.items(), strict=False):
            for name, model in one["models"].items():
                draw_curve(axes, model, name, colors[name])
            sizes = [n for model in one["models"].values() for n in model["sizes"]]
            literature = of(found, test, quantity)
            height = limits(one, literature)
            draw_published(axes, literature, height, sizes)
            axes.set_title(f"{plain(test)}: {quantity}", loc="left", fontsize=10, color=INK)
            axes.set_xlabel("reference calculations")
            axes.set_ylabel(f"{quantity} {found['measure'].upper()} ({found['units'][quantity]})")
            ends = size_range([*sizes, *(p["frames"] for p in literature)])
            log_axes(axes, ends, height, sizes)
            style(axes)
        for axes in row[len(quantities) :]:
            axes.set_axis_off()
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False, fontsize=9
    )
    return figure


def draw_published(
    axes: Axes, rows: list[dict[str, Any]], height: tuple[float, float], sizes: Sequence[int]
) -> None:
    """Stars with names."""
    where: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7, "color": INK, "va": "center"}
    for row, text in zip(rows, labels(rows, height), strict=True):
        at = (row["frames"], row["error"])
        axes.plot(*at, "*", color=INK, markersize=7)
        beside = side(row, sizes)
        away = {"left": (-6, "right"), "right": (6, "left")}[beside]
        axes.annotate(plain(text), at, (away[0], 0), ha=away[1], **where).set_in_layout(False)


def draw_curve(axes: Axes, model: dict[str, Any], name: str, color: str) -> None:
    """Points with intervals; the curve full where it was measured and dashed beyond; its band."""
    centers, low, high = np.array(model["errors"]).T
    arms = np.nan_to_num([centers - low, high - centers])
    look: dict[str, Any] = {"color": color, "markersize": 4, "linewidth": 1.2, "capsize": 2}
    axes.errorbar(model["sizes"], centers, arms, fmt="o", label=plain(name), **look)
    if "band" not in model:
        return
    sizes, (centers, low, high) = np.array(model["band"]["sizes"]), np.array(model["band"]["errors"]).T
    inside = sizes <= 1.0001 * max(model["sizes"])
    axes.plot(sizes[inside], centers[inside], color=color, linewidth=1.5)
    axes.plot(sizes, centers, color=color, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    if np.isfinite(low).all():
        axes.fill_between(
            sizes, np.maximum(low, 1e-12), np.minimum(high, 1e12), color=color, alpha=0.13, linewidth=0
        )


def size_range(sizes: Sequence[int]) -> tuple[float, float]:
    """What is drawn of the axis of sizes: a little of the forecast too."""
    return min(sizes) / 1.2, max(sizes) * 2.2


def ticks_of(ends: tuple[float, float], sizes: Sequence[int] = ()) -> list[float]:
    """Ticks of a logarithmic axis: the sizes, with room for each, or round numbers."""
    if not sizes:
        powers = range(int(np.floor(np.log10(ends[0]))), int(np.ceil(np.log10(ends[1]))) + 1)
        fine = [digit * 10.0**power for power in powers for digit in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8)]
        few, many = (
            [tick for tick in ticks if ends[0] <= tick <= ends[1]] for ticks in (log_ticks(list(ends)), fine)
        )
        return few if len(few) > 2 else many
    kept: list[float] = []
    for size in sorted(set(sizes), reverse=True):
        if not kept or kept[-1] > size * (ends[1] / ends[0]) ** 0.1:
            kept.append(size)
    return kept[::-1]


def log_axes(axes: Axes, x: tuple[float, float], y: tuple[float, float], sizes: Sequence[int] = ()) -> None:
    """Logarithmic axes of these ranges; ticks of x at `sizes`, else at round numbers."""
    axes.set(xscale="log", yscale="log", xlim=x, ylim=y)
    for ax, ends, at in ((axes.xaxis, x, sizes), (axes.yaxis, y, ())):
        ticks = ticks_of(ends, at)
        ax.set_minor_locator(NullLocator())
        ax.set_major_locator(FixedLocator(ticks))
        ax.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))


def draw_fronts(found: dict[str, Any]) -> Figure | None:
    """Error of the first test against the time of training and of use; None where no time is known."""
    test, quantity = shown(found)
    known = {time: points(found, test, quantity, time) for time in TIMES}
    panels = {time: of_time for time, of_time in known.items() if of_time}
    if not panels:
        return None
    figure = Figure(figsize=(4.4 * len(panels), 4.2), dpi=150, layout="constrained")
    for axes, (time, of_time) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for name, color in model_colors(found).items():
            own = [p for p in of_time if p.model == name]
            axes.plot(
                [p.time for p in own],
                [p.error for p in own],
                "o",
                color=color,
                label=plain(name),
                markersize=4,
            )
        for p in (p for p in of_time if p.best):  # all numbers would cover each other
            axes.annotate(
                str(p.size), (p.time, p.error), (3, 3), textcoords="offset points", fontsize=6, color=INK
            )
        best = [p for p in of_time if p.best]
        axes.step(
            [p.time for p in best], [p.error for p in best], where="post", color=INK, linewidth=0.8, zorder=1
        )
        axes.set_xlabel(TIMES[time])
        axes.set_ylabel(f"{quantity} {found['measure'].upper()} ({found['units'][quantity]})")
        axes.set_title(f"{plain(test)}; numbers on the front: frames", loc="left", fontsize=10, color=INK)
        log_axes(axes, margins([p.time for p in of_time]), margins([p.error for p in of_time]))
        style(axes)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False, fontsize=9
    )
    return figure


def margins(values: Sequence[float]) -> tuple[float, float]:
    """The range of the values with room around it."""
    return min(values) / 1.4, max(values) * 1.4


def shown(found: dict[str, Any]) -> tuple[str, str]:
    """The test and quantity that stand for all: forces, if there are any, of the first test."""
    test, quantities = next(iter(found["tests"].items()))
    return test, leading(quantities)
