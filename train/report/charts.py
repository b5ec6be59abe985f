"""The interactive plots of the report, as plain plotly figures: dictionaries of data and layout."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from train.report.plots import (
    GRID,
    INK,
    SEED,
    UNITS,
    Curve,
    layers,
    log_ticks,
    parity_axis,
    parity_title,
    quantity_pairs,
    sample,
    series,
    set_colors,
    span,
)
from train.report.run_directory import Floats, Integers, Pairs, PredictedSet, Run, rmse, symbols

Chart = dict[str, Any]

MAX_POINTS = 5000


def rounded(values: Floats) -> list[float]:
    """Six significant digits: more would only make the page heavier."""
    return [float(f"{value:.6g}") for value in values]


def escaped(name: str) -> str:
    """A set's name is text, but plotly reads a little HTML, `$` as mathematics and `%{` as a variable."""
    return escape(name).replace("$", "&#36;").replace("%", "&#37;")


def axis(title: str, **settings: Any) -> dict[str, Any]:
    look = {"gridcolor": GRID, "zeroline": False, "linecolor": "#9aa5b1", "ticks": "outside"}
    look |= {"tickcolor": "#9aa5b1", "automargin": True}
    return {"title": {"text": title, "standoff": 8}, **look, **settings}


def log_axis(title: str, values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis for the positive ones of the values."""
    positive = [value for value in values if value > 0]
    if not positive:
        return axis(title)
    ticks = log_ticks(positive)
    return axis(title, type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])


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
        "margin": {"l": 60, "r": 14, "t": 84, "b": 52},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "itemsizing": "constant"},
        "hoverlabel": {"bgcolor": "white", "font": {"color": INK}},
        "showlegend": True,
    }
    return {**look, "xaxis": x, "yaxis": y, **settings}


def learning_charts(run: Run) -> dict[str, Chart]:
    """One chart per quantity that was validated, and the learning rate."""
    colors = set_colors(run.names)
    charts = {}
    for key, (title, _, unit) in UNITS.items():
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
        look = layout(*log_axes(data, "learning rate"), showlegend=False)
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


def parity_charts(run: Run) -> tuple[dict[str, Chart], list[str]]:
    """Predicted against reference, and a sentence for every set of which not all points are drawn."""
    charts, notes = {}, []
    colors = set_colors(run.names)
    for key, sets in quantity_pairs(run).items():
        title, _, unit = UNITS[key]
        (low, high), layer = span(sets), layers(sets)
        data = []
        for name, pair in sets.items():
            data.append(parity_points(pair, name, unit, colors[name]) | {"zorder": 1 + layer[name]})
            if len(pair.reference) > MAX_POINTS:
                notes.append(
                    f"{title}, {name}: {MAX_POINTS:,} of {len(pair.reference):,} points are drawn, chosen "
                    f"at random with seed {SEED}; every error in the tables counts all of them."
                )
        diagonal = {"type": "line", "x0": low, "y0": low, "x1": high, "y1": high, "layer": "below"}
        diagonal["line"] = {"color": "#52606d", "width": 1}
        x = axis(f"reference {parity_axis(key, run)}", range=[low, high])
        y = axis(f"predicted {parity_axis(key, run)}", range=[low, high])
        charts[parity_title(key, run)] = {"data": data, "layout": layout(x, y, shapes=[diagonal])}
    return charts, notes


def parity_points(pair: Pairs, name: str, error_unit: str, color: str) -> dict[str, Any]:
    """One set, with what hovering over a point tells: set, frame, atom, element and error."""
    chosen = sample(len(pair.reference), MAX_POINTS)
    found: list[list[Any]] = [rounded(1000 * pair.error[chosen]), pair.frame[chosen].tolist()]
    where = "frame %{customdata[1]}"
    if len(chosen) and pair.atom[chosen[0]] >= 0:
        found += [pair.atom[chosen].tolist(), pair.element[chosen].tolist()]
        where += ", atom %{customdata[2]} (%{customdata[3]})"
    hover = f"{escaped(name)}, {where}<br>reference %{{x:.5g}}, predicted %{{y:.5g}}"
    hover += f"<br>error %{{customdata[0]:.4g}} {error_unit}<extra></extra>"
    drawn = points(pair.reference[chosen], pair.predicted[chosen], name, color)
    return drawn | {"customdata": [list(row) for row in zip(*found, strict=True)], "hovertemplate": hover}


def force_errors(one: PredictedSet) -> tuple[Integers, Floats, Floats]:
    """Atoms with complete labels, their reference forces [n, 3] and the errors of these [n, 3], eV/Å."""
    error = one.forces_predicted - one.forces_reference
    kept = np.nonzero(np.isfinite(error).all(axis=1))[0]
    return kept, one.forces_reference[kept], error[kept]


def force_by_element(run: Run) -> dict[str, dict[str, tuple[int, float]]]:
    """Element -> set -> number of labelled atoms and force RMSE in meV/Å."""
    table: dict[int, dict[str, tuple[int, float]]] = {}
    for one in run.sets:
        kept, _, error = force_errors(one)
        numbers = one.atomic_numbers[kept]
        for number in np.unique(numbers):
            chosen = error[numbers == number]
            table.setdefault(int(number), {})[one.name] = (len(chosen), 1000 * rmse(chosen))
    return {str(symbols(np.array([number]))[0]): table[number] for number in sorted(table)}


def element_chart(run: Run) -> Chart | None:
    """Force error of each element in each set."""
    table = force_by_element(run)
    if not table:
        return None
    colors = set_colors(run.names)
    data = []
    for one in run.sets:
        found = {element: row[one.name] for element, row in table.items() if one.name in row}
        if found:
            hover = f"{escaped(one.name)}, %{{x}}: %{{y:.4g}} meV/Å<extra></extra>"
            bar: dict[str, Any] = {
                "type": "bar",
                "x": list(found),
                "y": [value for _, value in found.values()],
            }
            bar |= {"name": escaped(one.name), "marker": {"color": colors[one.name]}, "hovertemplate": hover}
            data.append(bar)
    x = axis("element", type="category", categoryorder="array", categoryarray=list(table))
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
    chosen = sample(len(kept), MAX_POINTS)
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
