"""The interactive plots of the report, as plain plotly figures: dictionaries of data and layout."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from train.report.breakdown import by_element, force_errors
from train.report.plots import (
    GRID,
    INK,
    Curve,
    layers,
    log_ticks,
    parity_title,
    quantity_pairs,
    sample,
    series,
    set_colors,
    span,
    units,
)
from train.report.run_directory import Floats, Integers, Pairs, PredictedSet, Run, rmse, symbols

Chart = dict[str, Any]

MAX_POINTS = 2000  # of a set in a plot; more make a phone slow
DECADES = 4  # of a logarithmic axis
N_EXTREME = 100  # of these, the points with the largest errors


def rounded(values: Floats) -> list[float]:
    """Six significant digits: more would only make the page heavier."""
    return [float(f"{value:.6g}") for value in values]


def escaped(name: str) -> str:
    """A set's name is text, but plotly reads a little HTML, `$` as mathematics and `%{` as a variable."""
    return escape(name).replace("$", "&#36;").replace("%", "&#37;")


def axis(title: str, **settings: Any) -> dict[str, Any]:
    look = {"gridcolor": GRID, "zeroline": False, "linecolor": "#9aa5b1", "ticks": "outside"}
    look |= {"tickcolor": "#9aa5b1", "automargin": True, "exponentformat": "e"}
    return {"title": {"text": title, "standoff": 8}, **look, **settings}


def log_axis(title: str, values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis for the positive ones of the values, of at most `DECADES`: what is nearly zero, such as
    the error of a force that symmetry forbids, would press the rest together."""
    highest = max(values, default=0.0)
    shown = [value for value in values if value > highest * 10.0**-DECADES]
    if not shown:
        return axis(title)
    ticks = log_ticks(shown)
    low, high = np.log10(min(shown)), np.log10(highest)
    margin = 0.04 * (high - low) or 0.5
    ends = [round(float(low - margin), 4), round(float(high + margin), 4)]
    return axis(title, type="log", range=ends, tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])


def log_axes(data: list[Chart], y_title: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Step and value axes of curves."""
    steps, values = ([value for one in data for value in one[key]] for key in ("x", "y"))
    return log_axis("optimizer step", steps), log_axis(y_title, values)


def layout(x: dict[str, Any], y: dict[str, Any], **settings: Any) -> dict[str, Any]:
    look = {
        "font": {
            "family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif",
            "size": 13,
            "color": INK,
        },
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        # The top holds the buttons, which appear under the mouse, and below them the legend.
        "margin": {"l": 60, "r": 14, "t": 84 if settings.get("showlegend", True) else 36, "b": 52},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "itemsizing": "constant"},
        "hoverlabel": {"bgcolor": "white", "font": {"color": INK}},
        "showlegend": True,
    }
    return {**look, "xaxis": x, "yaxis": y, **settings}


def learning_charts(run: Run) -> dict[str, Chart]:
    """The loss, one chart per quantity that was validated, and the learning rate."""
    colors = set_colors(run.names)
    charts = {}
    steps, values = series(run.metrics, "loss")
    if steps:
        hover = "%{y:.4g}<br>step %{x:.0f}<extra></extra>"
        data = [curve((steps, values), "loss", colors["train"], hover)]
        charts["Loss"] = {"data": data, "layout": layout(*log_axes(data, "training loss"), showlegend=False)}
    for key, (title, _, unit) in units(run).items():
        data = []
        for name in ("train", "valid"):
            steps, values = series(run.metrics, f"{name}_{key}_rmse")
            hover = f"{name}: %{{y:.4g}} {unit}<br>step %{{x:.0f}}<extra></extra>"
            if steps:
                data.append(curve((steps, values), name, colors[name], hover))
        if data:
            charts[title] = {
                "data": data,
                "layout": layout(*log_axes(data, f"RMSE ({unit})")),
            }
    steps, rates = series(run.metrics, "lr")
    if steps:
        hover = "%{y:.3g}<br>step %{x:.0f}<extra></extra>"
        data = [curve((steps, rates), "learning rate", INK, hover)]
        look = layout(
            axis("optimizer step", exponentformat="none"),
            axis("learning rate", exponentformat="none", rangemode="tozero"),
            showlegend=False,
        )
        charts["Learning rate"] = {"data": data, "layout": look}
    return charts


def curve(points: Curve, name: str, color: str, hover: str) -> dict[str, Any]:
    few = len(points[0]) <= 40
    return {
        "type": "scatter",
        "mode": "lines+markers" if few else "lines",
        "x": points[0],
        "y": rounded(np.asarray(points[1])),
        "name": name,
        "line": {"color": color, "width": 2},
        "marker": {"size": 5},
        "hovertemplate": hover,
    }


def points(x: Floats, y: Floats, name: str, color: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": rounded(x),
        "y": rounded(y),
        "name": escaped(name),
        "marker": {"color": color, "size": 4, "opacity": 0.4},
    }


def telling(error: Floats) -> Integers:
    """Which points are drawn: all, or the most wrong and a random choice of the others, the same every time."""
    if len(error) <= MAX_POINTS:
        return np.arange(len(error))
    order = np.argsort(-np.abs(error), kind="stable")
    others = order[N_EXTREME:][sample(len(error) - N_EXTREME, MAX_POINTS - N_EXTREME)]
    return np.sort(np.concatenate([order[:N_EXTREME], others]))


def parity_charts(run: Run) -> tuple[dict[str, Chart], list[str]]:
    """Predicted against reference, and a sentence for every quantity of which not all points are drawn."""
    charts, notes = {}, []
    colors = set_colors(run.names)
    for key, sets in quantity_pairs(run).items():
        title, unit_of_values, unit = units(run)[key]
        (low, high), layer = span(sets), layers(sets)
        data = []
        for name, pair in sets.items():
            data.append(parity_points(pair, name, unit, colors[name]) | {"zorder": 1 + layer[name]})
        many = [f"{name} ({len(p.reference):,})" for name, p in sets.items() if len(p.reference) > MAX_POINTS]
        if many:
            notes.append(
                f"{title}: of {', '.join(many)} {MAX_POINTS:,} points each are drawn, the {N_EXTREME} most wrong and "
                "others at random; every error in the tables counts all of them."
            )
        diagonal = {"type": "line", "x0": low, "y0": low, "x1": high, "y1": high, "layer": "below"}
        diagonal["line"] = {"color": "#52606d", "width": 1}
        x, y = (axis(f"{side} ({unit_of_values})", range=[low, high]) for side in ("reference", "predicted"))
        charts[parity_title(key, run)] = {"data": data, "layout": layout(x, y, shapes=[diagonal])}
    return charts, notes


def parity_points(pair: Pairs, name: str, error_unit: str, color: str) -> dict[str, Any]:
    """One set, with what hovering over a point tells: set, frame, atom, element and error."""
    chosen = telling(pair.error)
    found: list[list[Any]] = [rounded(1000 * pair.error[chosen]), pair.frame[chosen].tolist()]
    where = "frame %{customdata[1]}"
    if len(chosen) and pair.atom[chosen[0]] >= 0:
        found += [pair.atom[chosen].tolist(), pair.element[chosen].tolist()]
        where += ", atom %{customdata[2]} (%{customdata[3]})"
    hover = f"{escaped(name)}, {where}<br>reference %{{x:.5g}}, predicted %{{y:.5g}}"
    hover += f"<br>error %{{customdata[0]:.4g}} {error_unit}<extra></extra>"
    drawn = points(pair.reference[chosen], pair.predicted[chosen], name, color)
    return drawn | {"customdata": [list(row) for row in zip(*found, strict=True)], "hovertemplate": hover}


def element_chart(run: Run) -> Chart | None:
    """Force error of each element in each set."""
    tables, colors = by_element(run.sets), set_colors(run.names)
    if not tables:
        return None
    data = []
    for name, table in tables.items():
        hover = f"{escaped(name)}, %{{x}}: %{{y:.4g}} meV/Å<extra></extra>"
        bar: dict[str, Any] = {"type": "bar", "x": list(table), "name": escaped(name), "hovertemplate": hover}
        data.append(
            bar | {"y": [row["forces_rmse"] for row in table.values()], "marker": {"color": colors[name]}}
        )
    numbers = sorted({int(z) for one in run.sets for z in one.atomic_numbers})
    x = axis(
        "element", type="category", categoryorder="array", categoryarray=symbols(np.array(numbers)).tolist()
    )
    return {"data": data, "layout": layout(x, axis("force RMSE (meV/Å)", rangemode="tozero"), bargap=0.3)}


def magnitude_chart(run: Run) -> Chart | None:
    """Length of the error against the length of the force, with its RMS in equal shares of the atoms."""
    colors = set_colors(run.names)
    known = [one for one in run.sets if len(force_errors(one)[0])]
    if not known:
        return None
    data = [magnitude_points(one, colors[one.name]) for one in known]
    data += [magnitude_line(one, colors[one.name]) for one in known]
    lengths = [value for one in data for value in one["y"]]
    x, y = axis("length of the force (eV/Å)"), log_axis("length of its error (meV/Å)", lengths)
    return {"data": data, "layout": layout(x, y)}


def magnitude_points(one: PredictedSet, color: str) -> dict[str, Any]:
    """A point per atom, with the atom it stands for."""
    kept, reference, error = force_errors(one)
    chosen = telling(np.linalg.norm(error, axis=1))
    atoms = kept[chosen]
    size = np.linalg.norm(reference[chosen], axis=1)
    length = 1000 * np.linalg.norm(error[chosen], axis=1)
    where = (one.frame[one.system[atoms]], one.atom[atoms], symbols(one.atomic_numbers[atoms]))
    hover = f"{escaped(one.name)}, frame %{{customdata[0]}}, atom %{{customdata[1]}} (%{{customdata[2]}})"
    hover += "<br>force %{x:.4g} eV/Å, error %{y:.4g} meV/Å<extra></extra>"
    rows = [list(row) for row in zip(*(part.tolist() for part in where), strict=True)]
    look = {"customdata": rows, "hovertemplate": hover, "legendgroup": escaped(one.name)}
    return points(size, length, one.name, color) | look


def magnitude_line(one: PredictedSet, color: str) -> dict[str, Any]:
    """RMS length of the error over up to twelve equal shares of the atoms, from small forces to large."""
    kept, reference, error = force_errors(one)
    size, length = np.linalg.norm(reference, axis=1), 1000 * np.linalg.norm(error, axis=1)
    shares = np.array_split(np.argsort(size), min(12, len(kept)))
    middle = [float(np.mean(size[share])) for share in shares]
    name = escaped(one.name)
    hover = f"{name}, RMS near %{{x:.3g}} eV/Å: %{{y:.4g}} meV/Å<extra></extra>"
    line = curve((middle, [rmse(length[share]) for share in shares]), name, color, hover)
    look = {"line": {"color": INK, "width": 1.5}, "zorder": 2, "mode": "lines+markers"}
    look |= {"marker": {"color": color, "size": 9, "line": {"color": "white", "width": 1.5}}}
    return line | look | {"showlegend": False, "legendgroup": name}
