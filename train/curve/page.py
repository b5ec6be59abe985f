"""The report of a study as one self-contained page."""

from __future__ import annotations

from html import escape
from typing import Any

from train.curve import words
from train.curve.charts import curve_chart, front_charts
from train.curve.limits import limits
from train.curve.picture import model_colors, shown
from train.report.charts import Chart
from train.report.markup import bullets, duration, figure, number, section, table, wrapped
from train.report.page import document


def page(found: dict[str, Any]) -> str:
    """The whole report as HTML; all that comes from files is escaped."""
    charts: dict[str, Chart] = {}
    pool = ", ".join(name for name, _ in found["study"]["fixed"]["files"]["pool"])
    parts = [
        head(found),
        section("How the error falls", curves(found, charts)),
        section("What the next calculations bring", forecasts(found)),
        section("Model against model", pairs(found)),
        section("Error against time", fronts(found, charts)),
        section("How it was done", bullets(words.method(found))),
        section("How sure it is", bullets(words.statistics(found))),
        section("What cannot be concluded", bullets(limits(found))),
        section("From the literature", literature(found)),
        section("Every fit", fits(found)),
        section(
            "Fits that failed", bullets([f"{k}: {v.splitlines()[0]}" for k, v in found["failed"].items()])
        ),
    ]
    body = f'<div style="overflow-wrap:anywhere">{"".join(parts)}</div>'  # names of models may be long
    return document(f"Learning curves: {pool}", [body], charts)


def head(found: dict[str, Any]) -> str:
    """What was compared, and the first findings."""
    test, quantity = shown(found)
    models = found["study"]["models"]
    title = f"Learning curves of {', '.join(escape(name) for name in models)}"
    lines = words.findings(found["tests"][test][quantity], found["units"][quantity])[:3]
    return (
        f"<h1>{title}</h1><p class='headline'>{found['done']} of {found['of']} fits, "
        f"{escape(found['study']['fixed']['protocol'])}, tested on {escape(', '.join(found['tests']))}.</p>"
        + bullets([f"{test}: {line}" for line in lines])
    )


def name_cell(found: dict[str, Any], name: str) -> str:
    return wrapped(name, model_colors(found)[name])


def curves(found: dict[str, Any], charts: dict[str, Chart]) -> str:
    """A chart and a table of parameters for each test and quantity."""
    measure = found["measure"].upper()
    parts = [
        "<p>Points: means over subsets and seeds, with 95 % intervals. Curves: error = a N<sup>-b</sup> + c, with the "
        "band of their intervals, dashed beyond what was measured. N counts validation frames too.</p>"
    ]
    for test, quantities in found["tests"].items():
        for quantity, one in quantities.items():
            identity = f"curve-{len(charts)}"
            charts[identity] = curve_chart(found, test, quantity)
            unit = found["units"][quantity]
            parts.append(figure(identity, f"{test}: {quantity} {measure}, {words.frames_text(found, one)}"))
            parts.append(parameters(found, one, unit))
    return "\n".join(parts)


def parameters(found: dict[str, Any], one: dict[str, Any], unit: str) -> str:
    """Slope, intercept, floor and the error at the largest size whose interval is known."""
    rows = []
    for name, model in one["models"].items():
        known = [k for k, error in enumerate(model["errors"]) if words.not_nan(error[1])] or [-1]
        at = f" at {model['sizes'][known[-1]]}"
        cells = [name_cell(found, name), f"{words.value(model['errors'][known[-1]])}{at}"]
        if "b" in model:
            floor = words.value(model["c"]) if model["floor_fitted"] else "not fitted"
            cells += [
                words.value(model["b"]),
                words.value(model["a"]),
                floor,
                f"{words.short(100 * model['misfit'])} %",
            ]
        else:
            cells += ["–"] * 4
        rows.append(cells)
    head = ["model", f"error [95 %]<small>{unit}</small>", "slope b", f"a<small>{unit}</small>",
            f"floor c<small>{unit}</small>", "largest misfit"]  # fmt: skip
    return table(head, rows)


def forecasts(found: dict[str, Any]) -> str:
    """Frames needed for errors, and how forecasts of hidden sizes did."""
    parts = []
    for test, quantities in found["tests"].items():
        for quantity, one in quantities.items():
            unit = found["units"][quantity]
            lines = [*words.findings(one, unit), words.checks(one)]
            parts.append(
                f"<h3>{escape(test)}, {quantity}</h3>{bullets(lines)}{ratios(one, unit)}{hidden(found, one, unit)}"
            )
    return "\n".join(parts)


def ratios(one: dict[str, Any], unit: str) -> str:
    """How many times the frames of another each model needs, for all pairs of three models or more, folded."""
    rows = [
        [f"{escape(ratio['other'])} against {escape(ratio['one'])}", f"{words.short(target['error'])}",
         words.value(ratio["ratio"], relative=True), "yes" if ratio["measured"] else "no"]
        for target in one["targets"]
        for ratio in words.told_ratios(target)
    ]  # fmt: skip
    if len(one["models"]) < 3 or not rows:
        return ""
    head = ["models", f"error<small>{unit}</small>", "times the frames [95 %]", "within what was measured"]
    return f"<details><summary>Frames of all pairs</summary>{table(head, rows)}</details>"


def hidden(found: dict[str, Any], one: dict[str, Any], unit: str) -> str:
    """What was predicted of hidden sizes and what was found, folded."""
    rows = [
        [name_cell(found, p["model"]), f"{p['from']}", f"{p['size']}", words.value(p["predicted"]),
         number(p["measured"]), "yes" if p["inside"] else "no"]
        for p in one["hidden"]["points"]
    ]  # fmt: skip
    if not rows:
        return ""
    head = [
        "model",
        "from sizes up to",
        "hidden size",
        f"predicted<small>{unit}</small>",
        "measured",
        "inside",
    ]
    return f"<details><summary>Hidden sizes</summary>{table(head, rows)}</details>"


def pairs(found: dict[str, Any]) -> str:
    """Every two models: ratio of errors, difference of slopes, p-values."""
    parts = []
    for test, quantities in found["tests"].items():
        for quantity, one in quantities.items():
            rows = []
            for row in one["pairs"]:
                what = f"error ratio at {row['size']}" if row["what"] == "errors" else "difference of b"
                cells = [
                    f"{escape(row['other'])} against {escape(row['one'])}",
                    what,
                    words.value(row["value"]),
                ]
                rows.append([*cells, number(row["p"]), number(row["p_holm"])])
            if rows:
                head = ["models", "what", "value [95 %]", "p", f"p, Holm<small>of {len(rows)}</small>"]
                parts.append(f"<h3>{escape(test)}, {quantity}</h3>{table(head, rows, 2)}")
    return "\n".join(parts)


def fronts(found: dict[str, Any], charts: dict[str, Chart]) -> str:
    """Error against the time of training and of use."""
    test, quantity = shown(found)
    drawn = front_charts(found)
    parts = []
    for title, chart in drawn.items():
        identity = f"front-{len(charts)}"
        charts[identity] = chart
        parts.append(figure(identity, f"{test}, {quantity}: {title}"))
    if not parts:
        return ""
    told = "<p>The line joins what nothing beats in both. Numbers on it are frames; times are medians of the fits.</p>"
    return told + f'<div class="grid">{"".join(parts)}</div>'


def literature(found: dict[str, Any]) -> str:
    """Published errors, with their sources."""
    rows = [
        [escape(p["label"]), escape(p["test"]), escape(p["quantity"]), f"{p['frames']}",
         f"{number(p['error'])} {found['units'][p['quantity']]}", escape(p["source"])]
        for p in found["published"]
    ]  # fmt: skip
    if not rows:
        return ""
    told = "<p>As published: other trainers, other budgets and other validation frames; no intervals are known.</p>"
    return told + table(["model", "test", "quantity", "N", f"{found['measure'].upper()}", "source"], rows)


def fits(found: dict[str, Any]) -> str:
    """All fits, folded."""
    test, quantity = shown(found)
    unit, measure = found["units"][quantity], found["measure"]
    rows = []
    for fit in found["fits"]:
        error = fit["errors"].get(test, {}).get(quantity, {}).get(measure)
        cells = [
            name_cell(found, fit["model"]),
            *(str(fit[key]) for key in ("size", "draw", "seed")),
            number(error),
        ]
        cells += [str(fit.get("steps", "–")), escape(str(fit.get("ended", "–")))]
        rows.append([*cells, duration(fit.get("cpu_seconds")), escape(str(fit.get("host", "–")))])
    head = [
        "model",
        "N",
        "draw",
        "seed",
        f"{quantity}<small>{unit}</small>",
        "steps",
        "ended",
        "CPU time",
        "host",
    ]
    return f"<details><summary>{len(rows)} fits, {escape(test)}</summary>{table(head, rows)}</details>"
