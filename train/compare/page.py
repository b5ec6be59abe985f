"""A comparison as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from train.compare import words
from train.compare.charts import panel_chart, where_charts
from train.compare.checks import CHECKS
from train.compare.errors import COMPARED, UNITS
from train.compare.panels import panels
from train.compare.picture import as_run
from train.curve.words import value
from train.report.charts import Chart
from train.report.markup import bullets, number, section, table, wrapped
from train.report.page import document
from train.report.plots import set_colors
from train.report.run_directory import PredictedSet
from train.report.sections import grid, parity_section


def page(found: dict[str, Any], sets: Sequence[PredictedSet]) -> str:
    """The whole report as HTML; all that comes from files is escaped."""
    charts: dict[str, Chart] = {}
    colors = set_colors([one.name for one in sets])
    parts = [
        head(found),
        section("What to know before trusting them", bullets(words.worry_lines(found)) or nothing(found)),
        section("Errors", error_section(found, colors)),
        section("Contestant against contestant", pair_table(found)),
        section("Predicted against reference", parity_section(as_run(sets), charts)),
        section("Where the errors are", where(found, sets, charts)),
        section("Speed and memory", speed_section(found, colors, charts)),
        *(section(CHECKS[name].title, check_section(found, name, colors, charts)) for name in CHECKS),
        section("Not checked", bullets(words.skipped(found))),
        section("What failed", bullets(words.failure_lines(found))),
        section("How it was measured", bullets(words.method(found)) + who(found, colors)),
        section("How sure it is", bullets(words.statistics(found))),
        section("What cannot be concluded", bullets(words.limits(found))),
        section("The labels of the test set", f'<pre class="wrap">{escape(found.get("labels", ""))}</pre>'),
    ]
    body = f'<div style="overflow-wrap:anywhere">{"".join(parts)}</div>'  # names may be long
    return document(f"Comparison of {', '.join(found['contestants'])}", [body], charts)


def head(found: dict[str, Any]) -> str:
    """Who was compared on what, and the first findings."""
    names = ", ".join(escape(name) for name in found["contestants"])
    files = escape(", ".join(found["files"]))
    failed = sum(len(one) for one in found["failures"].values())
    text = f"{found['frames']} frames of {files}; {failed} predictions failed."
    if found["broken"]:
        text += f" Could not be made: {escape(', '.join(found['broken']))}."
    return f"<h1>Comparison of {names}</h1><p class='headline'>{text}</p>{bullets(words.findings(found))}"


def nothing(found: dict[str, Any]) -> str:
    if not any(results for results in found["checks"].values()):
        return ""
    return "<p>The checks that were made found nothing to worry about. What they are, and were not, stands below.</p>"


def cell(name: str, colors: dict[str, str]) -> str:
    return wrapped(name, colors.get(name, "#000"))


def error_section(found: dict[str, Any], colors: dict[str, str]) -> str:
    """A table for each quantity, and what was done about the zero of the energies."""
    titles = {"structure": "Energy of a structure", "energy": "Energy per atom"}
    parts = []
    for quantity, unit in UNITS.items():
        rows = [
            [cell(name, colors), *error_cells(found, quantity, errors[quantity])]
            for name, errors in found["errors"].items()
            if quantity in errors
        ]
        heading = ["", "frames", f"RMSE<small>{unit} [95 %]</small>", f"MAE<small>{unit} [95 %]</small>"]
        heading += [f"largest<small>{unit}</small>", "where"]
        heading += ["mean cosine<small>[95 %]</small>"] if quantity == "forces" else []
        if rows:
            parts.append(f"<h3>{titles.get(quantity, quantity.capitalize())}</h3>{table(heading, rows)}")
    note = "Frames (in the order of the test set) and atoms are counted from 0. Cosines are of forces above 0.05 eV/Å."
    return "".join(parts) + f'<p class="note">{note}</p>' + bullets(words.zero_lines(found))


def error_cells(found: dict[str, Any], quantity: str, one: dict[str, Any]) -> list[str]:
    """Frames, RMSE, MAE, largest error and its place; of forces the cosine."""
    cosine = value(one["cosine"]) if "cosine" in one else "–"
    place = f"frame {one['frame']}" + (f", atom {one['atom']}" if "atom" in one else "")
    cells = [
        f"{one['frames']} of {found['frames']}",
        words.told(one["rmse"]),
        words.told(one["mae"]),
        number(one["max"]),
    ]
    return [*cells, place, *([cosine] if quantity == "forces" else [])]


def pair_table(found: dict[str, Any]) -> str:
    """Every two contestants."""
    rows = []
    for row in found["pairs"]:
        ratio = value(row["ratio"], relative=True) if row["ratio"] else "–"
        cells = [
            wrapped(f"{row['other']} against {row['one']}"),
            f"{row['quantity']}, {UNITS[row['quantity']]}",
        ]
        cells += [str(row["frames"]), value(row["difference"]), ratio]
        rows.append([*cells, number(row["p"]), number(row["p_holm"])])
    difference = f"difference of {found['settings']['measure'].upper()}<small>[95 %]</small>"
    heading = ["", "", "frames of both", difference, "ratio<small>[95 %]</small>", "p", "p, Holm"]
    note = "<p>Positive: the first has the larger error. Paired over the frames that both predicted.</p>"
    return note + table(heading, rows, 2) if rows else ""


def where(found: dict[str, Any], sets: Sequence[PredictedSet], charts: dict[str, Chart]) -> str:
    """Charts, then tables with intervals by element and by kind of frame."""
    parts = [grid(where_charts(as_run(sets), sets), "where", charts)]
    kinds = dict.fromkeys(kind for groups in found["groups"].values() for kind in groups)
    for kind in kinds:
        tables = {name: groups[kind] for name, groups in found["groups"].items()}
        values = list(dict.fromkeys(group for one in tables.values() for group in one))
        if len(values) < 2:
            continue
        for quantity in COMPARED:
            rows = [
                [escape(group), *(known(one.get(group, {}).get(quantity)) for one in tables.values())]
                for group in values
            ]
            if any(text != "–" for row in rows for text in row[1:]):
                names = [f"{escape(name)}<small>RMSE {UNITS[quantity]} [95 %]</small>" for name in tables]
                title = f"{quantity.capitalize()} by {escape(kind.replace('_', ' '))}"
                parts.append(f"<h3>{title}</h3>{table(['', *names], rows)}")
    return "".join(parts)


def known(interval: Any) -> str:
    return "–" if interval is None else words.told(interval)


def speed_section(found: dict[str, Any], colors: dict[str, str], charts: dict[str, Chart]) -> str:
    """Times in turns, memory, error against time."""
    rows = words.speed_rows(found["speed"])
    if not rows:
        return ""
    first = " or ".join(dict.fromkeys(line["reference"] for line in found["speed"] if "reference" in line))
    told = (
        "<p>Energy and forces through ASE as dynamics asks for them: atoms move 0.01 Å between calls, neighbors "
        "included. CPU time on one pinned thread after a warm-up; contestants take turns, ratios (to "
        f"{escape(first)}) are taken within a turn. Medians and quartiles. Memory: the largest resident size of the "
        "process, interpreter and libraries included.</p>"
    )
    heading = ["", "", "precision", "time<small>ms</small>", "quartiles<small>ms</small>",
               "time<small>µs/atom</small>", f"times {escape(first)}<small>(quartiles)</small>",
               "peak memory<small>MiB</small>"]  # fmt: skip
    cells = [[wrapped(row[0]), cell(row[1], colors), *map(escape, row[2:])] for row in rows]
    errors = [
        f"{line['contestant']}: {line['error']}"
        for line in found["speed"]
        if "error" in line and "contestant" in line
    ]
    drawn = {panel.title: panel_chart(panel, colors) for panel in panels(found).get("speed", [])}
    return told + table(heading, cells, 3) + bullets(errors) + grid(drawn, "speed", charts)


def check_section(found: dict[str, Any], check: str, colors: dict[str, str], charts: dict[str, Chart]) -> str:
    """What is asked, the values of all contestants, their curves."""
    names, rows = words.checks_rows(found, check)
    if not rows:
        return ""
    given = any(row[-1] != "–" for row in rows)
    heading = ["", *(cell(name, colors) for name in names), *(["known"] if given else [])]
    cells = [[f"{row[0]}<small> {row[1]}</small>", *row[2 : len(row) if given else -1]] for row in rows]
    drawn = {panel.title: panel_chart(panel, colors) for panel in panels(found).get(check, [])}
    return (
        f"<p>{CHECKS[check].about}</p>{table(heading, cells)}"
        + bullets(words.notes(found, check))
        + matrices(found, check)
        + grid(drawn, check, charts)
    )


def matrices(found: dict[str, Any], check: str) -> str:
    """The 6x6 elastic constants, folded."""
    parts = []
    for name, results in found["checks"].items():
        matrix = results.get(check, {}).get("matrix")
        if matrix:
            rows = [[label, *(f"{x:.1f}" for x in row)] for label, row in zip("123456", matrix, strict=True)]
            parts.append(f"<h3>{escape(name)}</h3>{table(['GPa', *'123456'], rows)}")
    return f"<details><summary>All 36 constants</summary>{''.join(parts)}</details>" if parts else ""


def who(found: dict[str, Any], colors: dict[str, str]) -> str:
    """Calculator, Python, options and versions of every contestant, and how to repeat it."""
    rows = []
    for name, one in found["contestants"].items():
        options = ", ".join(f"{key}={x}" for key, x in one["options"].items())
        versions = ", ".join(f"{key} {x}" for key, x in one.get("versions", {}).items())
        facts = ", ".join(f"{key} {x}" for key, x in one.get("about", {}).items())
        cells = [one["calculator"], options or "–", str(one.get("dtype", "–")), facts or "–", versions or "–"]
        rows.append(
            [
                cell(name, colors),
                *(wrapped(text) for text in cells),
            ]
        )
    heading = ["", "calculator", "options", "precision", "it says", "versions"]
    told = f"{escape(found['command'])}\n{found['date']}, commit {found['commit'] or 'not known'}"
    return table(heading, rows, 6) + f'<pre class="wrap">{told}</pre>'
