"""The interactive plots of a comparison, as plain plotly dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from train.compare.panels import Line, Panel
from train.curve.charts import log_axis
from train.curve.picture import margins
from train.report.charts import Chart, axis, element_chart, escaped, layout, magnitude_chart, rounded
from train.report.run_directory import PredictedSet, Run
from train.report.spread import angle_chart, cumulative_charts, type_charts

FEW = 25  # points of a line that are shown as such


def panel_chart(panel: Panel, colors: dict[str, str]) -> Chart:
    """One panel; the lines of one contestant come and go together."""
    data: list[Chart] = []
    seen: set[str] = set()
    for line in panel.lines:
        data.append(trace(line, panel, colors[line.name]) | {"showlegend": line.name not in seen})
        seen.add(line.name)
    x, y = axis(panel.x), axis(panel.y)
    if panel.log:
        x, y = (
            log_axis(getattr(panel, key), margins([v for line in panel.lines for v in getattr(line, key)]))
            for key in "xy"
        )
    if panel.ticks:
        x |= {"tickvals": list(panel.ticks[0]), "ticktext": list(panel.ticks[1])}
    if panel.span:
        y |= {"range": list(panel.span)}
    return {"data": data, "layout": layout(x, y)}


def trace(line: Line, panel: Panel, color: str) -> Chart:
    name = escaped(line.name)
    look: dict[str, Any] = {"type": "scatter", "mode": mode(line, panel), "name": name}
    look |= {"x": rounded(np.asarray(line.x)), "y": rounded(np.asarray(line.y)), "legendgroup": name}
    look |= {
        "line": {"color": color, "width": 1.8},
        "marker": {"color": color, "size": 11 if panel.log else 5},
    }
    return look | {"hovertemplate": f"{name}<br>%{{x:.4g}}, %{{y:.4g}}<extra></extra>"}


def mode(line: Line, panel: Panel) -> str:
    return "markers" if panel.log else "lines+markers" if len(line.x) <= FEW else "lines"


def where_charts(run: Run, sets: Sequence[PredictedSet]) -> dict[str, Chart]:
    """Caption -> where the errors are: by element, size and direction of the force, kind of frame; how large."""
    drawn = {"Forces by element": element_chart(run), "Forces against their length": magnitude_chart(run)}
    drawn |= {"Direction of the forces": angle_chart(run), **type_charts(run), **cumulative_charts(run)}
    if len({int(z) for one in sets for z in one.atomic_numbers}) < 2:
        drawn["Forces by element"] = None
    return {caption: chart for caption, chart in drawn.items() if chart is not None}
