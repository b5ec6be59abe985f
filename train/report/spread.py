"""Plots of how errors are spread: by kind of frame, by direction of the force, and cumulatively."""

from __future__ import annotations

from typing import Any

import numpy as np

from train.report.breakdown import angles, by_config_type, force_errors
from train.report.charts import Chart, axis, curve, escaped, layout, log_axis, rounded
from train.report.plots import UNITS, set_colors
from train.report.run_directory import Floats, PredictedSet, Run, energy_pairs, stress_pairs

N_POINTS = 150  # of a cumulative curve
LABEL = 16  # characters of the name of a config type beside its bars
N_SHARES = 12  # of the atoms, by the length of their force


def type_charts(run: Run) -> dict[str, Chart]:
    """RMSE of each config type in each set, as bars to the right; empty where there are fewer than two types."""
    tables, colors = by_config_type(run.sets), set_colors(run.names)
    kinds = sorted({kind for table in tables.values() for kind in table}, reverse=True)
    labels = [escaped(kind if len(kind) <= LABEL else f"{kind[: LABEL - 1]}…") for kind in kinds]
    charts: dict[str, Chart] = {}
    for key, (title, _, unit) in UNITS.items():
        data = []
        for name, table in tables.items():
            found = {kind: table[kind][f"{key}_rmse"] for kind in kinds if kind in table}
            found = {kind: value for kind, value in found.items() if value is not None}
            hover = f"{escaped(name)}, %{{text}}: %{{x:.4g}} {unit}<extra></extra>"
            bar: dict[str, Any] = {
                "type": "bar",
                "orientation": "h",
                "name": escaped(name),
                "hovertemplate": hover,
            }
            bar |= {"x": list(found.values()), "y": [kinds.index(kind) for kind in found]}
            bar |= {"text": [escaped(kind) for kind in found], "textposition": "none"}
            if found:
                data.append(bar | {"marker": {"color": colors[name]}})
        if data and len(kinds) > 1:
            x, y = axis(f"RMSE ({unit})", rangemode="tozero"), axis("")
            y |= {"tickvals": list(range(len(kinds))), "ticktext": labels}
            charts[f"{title} by config type"] = {"data": data, "layout": layout(x, y, bargap=0.3)}
    return charts


def angle_chart(run: Run) -> Chart | None:
    """Mean angle between predicted and reference force, over equal shares of the atoms by length of the force."""
    colors = set_colors(run.names)
    data = []
    for one in run.sets:
        length, angle = angles(one)
        if not len(length):
            continue
        shares = np.array_split(np.argsort(length), min(N_SHARES, len(length)))
        x = [float(np.mean(length[share])) for share in shares]
        y = [float(np.mean(angle[share])) for share in shares]
        name = escaped(one.name)
        hover = f"{name}, near %{{x:.3g}} eV/Å: %{{y:.3g}}° on average<extra></extra>"
        data.append(curve((x, y), name, colors[one.name], hover))
    if not data:
        return None
    heights = [value for one in data for value in one["y"]]
    return {
        "data": data,
        "layout": layout(axis("length of the force (eV/Å)"), log_axis("mean angle (°)", heights)),
    }


def cumulative_charts(run: Run) -> dict[str, Chart]:
    """Share of the labels whose error is below a value, for every quantity."""
    colors = set_colors(run.names)
    what = {
        "Energy": ("energy error (meV/atom)", "frames", _energy_sizes),
        "Forces": ("force error (meV/Å)", "atoms", _force_sizes),
        "Stress": ("stress error (meV/Å³)", "components", _stress_sizes),
    }
    charts = {}
    for title, (label, counted, sizes) in what.items():
        data = []
        for one in run.sets:
            size = np.sort(sizes(one))
            rank = np.unique(np.linspace(0.01 * len(size), len(size) - 1, N_POINTS).astype(int))
            rank = rank[size[rank] > 0] if len(size) else rank[:0]  # the axis is logarithmic
            if len(rank):
                share = 100 * (rank + 1) / len(size)
                hover = f"{escaped(one.name)}: %{{y:.3g}} % of the {counted} below %{{x:.4g}}<extra></extra>"
                line = curve(
                    (rounded(size[rank]), share.tolist()), escaped(one.name), colors[one.name], hover
                )
                data.append(line | {"mode": "lines"})
        if data:
            values = [value for line in data for value in line["x"]]
            y = axis(f"% of the {counted}", range=[0, 101])
            charts[title] = {"data": data, "layout": layout(log_axis(label, values), y)}
    return charts


def _energy_sizes(one: PredictedSet) -> Floats:
    return 1000 * np.abs(energy_pairs(one, np.zeros(len(one.n_atoms))).error)


def _force_sizes(one: PredictedSet) -> Floats:
    size: Floats = 1000 * np.linalg.norm(force_errors(one)[2], axis=1)
    return size


def _stress_sizes(one: PredictedSet) -> Floats:
    return 1000 * np.abs(stress_pairs(one).error)
