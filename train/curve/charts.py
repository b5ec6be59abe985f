"""The interactive plots of a study, as plain plotly dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from train.curve.fronts import TIMES, points
from train.curve.picture import limits, margins, model_colors, shown, size_range, ticks_of
from train.curve.published import labels, of, side
from train.report.charts import Chart, axis, escaped, layout, rounded
from train.report.plots import INK


def log_axis(title: str, ends: tuple[float, float], sizes: Sequence[int] = ()) -> dict[str, Any]:
    """A logarithmic axis of this range, ticks at `sizes`, else at round numbers."""
    ticks = ticks_of(ends, sizes)
    span = [round(float(np.log10(end)), 4) for end in ends]
    return axis(title, type="log", range=span, tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])


def curve_chart(found: dict[str, Any], test: str, quantity: str) -> Chart:
    """Measured means with intervals, curves with bands, of one test and quantity."""
    one, colors, unit = found["tests"][test][quantity], model_colors(found), found["units"][quantity]
    literature = of(found, test, quantity)
    ends = limits(one, literature)
    data: list[Chart] = []
    for name, model in one["models"].items():
        data += [*band(model, name, colors[name], ends), *means(model, name, colors[name], unit)]
    sizes = [n for model in one["models"].values() for n in model["sizes"]]
    data += [stars(literature, unit, ends, sizes)] if literature else []
    reach = size_range([*sizes, *(p["frames"] for p in literature)])
    x = log_axis("reference calculations", reach, sizes)
    return {"data": data, "layout": layout(x, log_axis(f"{found['measure'].upper()} ({unit})", ends))}


def means(model: dict[str, Any], name: str, color: str, unit: str) -> list[Chart]:
    """Points with error bars, and the number of fits behind each."""
    centers, low, high = np.array(model["errors"]).T
    bars = {"type": "data", "symmetric": False, "color": color, "thickness": 1.2, "width": 3}
    bars |= {
        "array": rounded(np.nan_to_num(high - centers)),
        "arrayminus": rounded(np.nan_to_num(centers - low)),
    }
    hover = f"{escaped(name)}, %{{x}} frames: %{{y:.4g}} {unit}<br>95 %: %{{customdata[0]}} to %{{customdata[1]}}, "
    text = [[f"{a:.4g}", f"{b:.4g}", n] for a, b, n in zip(low, high, model["fits"], strict=True)]
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": model["sizes"],
            "y": rounded(centers),
            "name": escaped(name),
            "legendgroup": escaped(name),
            "marker": {"color": color, "size": 7},
            "error_y": bars,
            "customdata": text,
            "hovertemplate": hover + "%{customdata[2]} fits<extra></extra>",
        }
    ]


def stars(
    published: list[dict[str, Any]], unit: str, ends: tuple[float, float], sizes: Sequence[int]
) -> Chart:
    """Errors from the literature."""
    return {
        "type": "scatter",
        "mode": "markers+text",
        "x": [p["frames"] for p in published],
        "y": [p["error"] for p in published],
        "text": [escaped(text) for text in labels(published, ends)],
        "textposition": [f"middle {side(p, sizes)}" for p in published],
        "textfont": {"size": 10},
        "name": "published",
        "marker": {"color": INK, "size": 9, "symbol": "star"},
        "customdata": [[escaped(p["label"]), escaped(p["source"])] for p in published],
        "hovertemplate": f"%{{customdata[0]}}, %{{x}} frames: %{{y:.4g}} {unit}<br>%{{customdata[1]}}<extra></extra>",
    }


def band(model: dict[str, Any], name: str, color: str, ends: tuple[float, float]) -> list[Chart]:
    """The curve, full where it was measured and dashed beyond, and its interval."""
    if "band" not in model:
        return []
    sizes, (centers, low, high) = np.array(model["band"]["sizes"]), np.array(model["band"]["errors"]).T
    look: Chart = {"type": "scatter", "mode": "lines", "legendgroup": escaped(name), "showlegend": False}
    look |= {"hoverinfo": "skip", "name": escaped(name)}
    drawn: list[Chart] = []
    if np.isfinite(low).all():
        edge = np.concatenate(
            [np.clip(high, ends[0] / 10, ends[1] * 10), np.clip(low, ends[0] / 10, None)[::-1]]
        )
        around = rounded(np.concatenate([sizes, sizes[::-1]]))
        fill = {"fill": "toself", "fillcolor": f"{color}22", "line": {"width": 0}}
        drawn.append(look | fill | {"x": around, "y": rounded(edge)})
    inside = sizes <= 1.0001 * max(model["sizes"])
    parts = ((inside, "solid", 2.0), (sizes >= max(model["sizes"]) / 1.0001, "dash", 1.2))
    for rows, dash, width in parts:
        line = {"line": {"color": color, "width": width, "dash": dash}}
        drawn.append(look | line | {"x": rounded(sizes[rows]), "y": rounded(centers[rows])})
    return drawn


def front_charts(found: dict[str, Any]) -> dict[str, Chart]:
    """Title -> error against time, with the front that nothing beats."""
    test, quantity = shown(found)
    charts = {}
    for time, title in TIMES.items():
        known = points(found, test, quantity, time)
        if not known:
            continue
        data: list[Chart] = []
        for name, color in model_colors(found).items():
            own = [p for p in known if p.model == name]
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers+text",
                    "x": rounded(np.array([p.time for p in own])),
                    "y": rounded(np.array([p.error for p in own])),
                    "text": [str(p.size) if p.best else "" for p in own],  # all would cover each other
                    "customdata": [p.size for p in own],
                    "textposition": "top right",
                    "textfont": {"size": 10},
                    "name": escaped(name),
                    "marker": {"color": color, "size": 8},
                    "hovertemplate": f"{escaped(name)}, %{{customdata}} frames"
                    "<br>%{x:.4g}, %{y:.4g}<extra></extra>",
                }
            )
        data.append(front_line([p for p in known if p.best]))
        x = log_axis(title, margins([p.time for p in known]))
        y = log_axis(f"{quantity} ({found['units'][quantity]})", margins([p.error for p in known]))
        charts[title] = {"data": data, "layout": layout(x, y)}
    return charts


def front_line(best: Sequence[Any]) -> Chart:
    """The staircase through what nothing beats."""
    line = {"color": INK, "width": 1, "shape": "hv"}
    x, y = ([getattr(p, key) for p in best] for key in ("time", "error"))
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "line": line,
        "showlegend": False,
        "hoverinfo": "skip",
    }
