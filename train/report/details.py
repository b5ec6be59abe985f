"""The sections of the report that say where the errors are, as HTML; all that comes from a file is escaped."""

from collections.abc import Sequence
from html import escape

from train.report.breakdown import (
    ANGLES,
    NO_DIRECTION,
    by_config_type,
    by_direction,
    by_element,
)
from train.report.charts import Chart, element_chart, magnitude_chart
from train.report.markup import number
from train.report.markup import table as table_of
from train.report.run_directory import Run
from train.report.sections import ERROR_COLUMNS, grid, name_cell, value_of
from train.report.spread import angle_chart, cumulative_charts, type_charts
from train.report.worst import Scene, frame_errors, worst

VIEW_NOTE = (
    "Drag to turn, pinch or scroll to zoom; point at an atom for its number and error. Forces are drawn to one "
    "scale within a frame; bonds across the faces of a cell are left out."
)


def where_section(run: Run, charts: dict[str, Chart]) -> str:
    """Errors by element, config type, size and direction of the force."""
    drawn = {"Forces by element": element_chart(run), "Forces against their length": magnitude_chart(run)}
    drawn |= {"Direction of the forces": angle_chart(run), **type_charts(run)}
    found = {caption: chart for caption, chart in drawn.items() if chart is not None}
    if not found:
        return ""
    note = "Lines: root mean square of the error, and mean of the angle, over equal shares of the atoms."
    parts = [grid(found, "where", charts), f'<p class="note">{note}</p>']
    parts += [element_table(run), type_table(run)]
    parts.append(direction_table(run))
    return "\n".join(parts)


def element_table(run: Run) -> str:
    """Force RMSE and MAE of each element, in a column for each set."""
    tables = by_element(run.sets)
    elements = list(dict.fromkeys(symbol for table in tables.values() for symbol in table))
    heading = ["element", *(f"{name_cell(run, name)}<small>RMSE (MAE) meV/Å</small>" for name in tables)]
    rows = [
        [
            symbol,
            *(
                f"{number(value_of(row, 'forces_rmse'))} ({number(value_of(row, 'forces_mae'))})"
                if row
                else "–"
                for row in (table.get(symbol) for table in tables.values())
            ),
        ]
        for symbol in elements
    ]
    return f"<h3>Forces by element</h3>{table_of(heading, rows)}" if rows else ""


def type_table(run: Run) -> str:
    """Errors of each config type in each set, where there are several; a column without any value is left out."""
    tables = by_config_type(run.sets)
    rows = [(kind, name, table[kind]) for name, table in tables.items() for kind in table]
    if len({kind for kind, *_ in rows}) < 2:
        return ""
    shown = [c for c in ERROR_COLUMNS if any(value_of(row, c[0]) is not None for *_, row in rows)]
    heading = ["config type", "set", "frames", *(f"{label}<small>{unit}</small>" for _, label, unit in shown)]
    cells = [
        [
            escape(kind),
            name_cell(run, name),
            f"{row['frames']:,}",
            *(number(value_of(row, c[0])) for c in shown),
        ]
        for kind, name, row in sorted(rows, key=lambda row: row[0])
    ]
    return f"<h3>By config type</h3>{table_of(heading, cells, 2)}"


def direction_table(run: Run) -> str:
    """How well the predicted forces point where they should."""
    tables = by_direction(run.sets)
    if not tables:
        return ""
    heading = ["set", f"atoms<small>force above {NO_DIRECTION:g} eV/Å</small>", "mean cosine"]
    heading += [f"within {angle:g}°<small>% of the atoms</small>" for angle in ANGLES]
    rows = []
    for name, found in tables.items():
        row = found["all"]
        shares = [f"{100 * (value_of(row, f'{angle:g}') or 0.0):.1f}" for angle in ANGLES]
        rows.append([name_cell(run, name), f"{row['atoms']:,}", f"{row['cosine']:.5f}", *shares])
    return f"<h3>Direction of the forces</h3>{table_of(heading, rows)}"


def cumulative_section(run: Run, charts: dict[str, Chart]) -> str:
    """How large a part of the errors is below any value."""
    return grid(cumulative_charts(run), "cumulative", charts)


def worst_section(run: Run, scenes: Sequence[Scene]) -> str:
    """The frames a reader should look at first: a bad label or a gap in the training data shows here."""
    errors = [frame_errors(one) for one in run.sets]
    text = [view(scenes)]
    heading = [
        "set",
        "frame",
        "atoms",
        "energy error<small>meV/atom</small>",
        "force RMSE<small>meV/Å</small>",
        "largest force error<small>meV/Å</small>",
    ]
    for title, places in worst(run.sets).items():
        rows = [
            [name_cell(run, row[0]), f"{row[1]}", f"{row[2]:,}", *(number(value) for value in row[3:])]
            for row in (errors[k][position] for k, position in places)
        ]
        if rows:
            text.append(f"<h3>{title}</h3>{table_of(heading, rows)}")
    return "\n".join(text)


def view(scenes: Sequence[Scene]) -> str:
    """The place of the three-dimensional view, and the choice of its frame."""
    if not scenes:
        return ""
    options = "".join(f'<option value="{k}">{escape(s["label"])}</option>' for k, s in enumerate(scenes))
    choice = f'<select id="view-choice" aria-label="frame">{options}</select>'
    return f'{choice}<div id="view" class="view"></div><p class="note">{VIEW_NOTE}</p>'
