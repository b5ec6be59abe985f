"""The sections of the report: what each says about a run, as HTML; all that comes from a file is escaped."""

from html import escape
from pathlib import Path

import numpy as np

from train.report.charts import (
    Chart,
    element_chart,
    force_by_element,
    force_errors,
    learning_charts,
    magnitude_chart,
    parity_charts,
)
from train.report.markup import duration, figure, number, table
from train.report.plots import set_colors
from train.report.run_directory import PredictedSet, Run

N_WORST = 10

# Column of the error table: key in summary.json, first and second line of its heading.
ERROR_COLUMNS = (
    ("energy_rmse", "energy RMSE", "meV/atom"),
    ("energy_mae", "energy MAE", "meV/atom"),
    ("energy_rmse_per_structure", "energy RMSE", "meV per structure"),
    ("forces_rmse", "forces RMSE", "meV/Å"),
    ("forces_mae", "forces MAE", "meV/Å"),
    ("stress_rmse", "stress RMSE", "meV/Å³"),
    ("stress_mae", "stress MAE", "meV/Å³"),
)


E0_FITTED = (
    "“Least squares” is a fit to the energies of the training frames, not the energy of an isolated atom; "
    "with one composition only it is the mean energy per atom. Differences of energies at fixed composition do not "
    "depend on it; atomization energies and other compositions are not reliable."
)
E0_GIVEN = "“Given” is the energy of the isolated atom as stated in the settings ([e0])."
E0_WITHOUT = "No training energies to take E0 from: it is 0 eV, and energies have no meaning."
E0_UNKNOWN = "This run does not record whether they are energies of isolated atoms or a fit."
CURVES = (
    "“train” is measured while training: the running mean over the steps since the validation before, with "
    "weights that change at each step; “valid” uses the moving average (EMA) of the weights, the one "
    "that is saved. “train” may therefore lie above “valid”."
)


def name_cell(run: Run, name: str) -> str:
    color = set_colors(run.names).get(name, "#000")
    return f'<span class="dot" style="background:{color}"></span>{escape(name)}'


def sources(run: Run) -> dict[str, str]:
    return {one.name: one.source for one in run.sets if one.source}


def held_out(run: Run) -> tuple[str, str]:
    """The set that the headline quotes (the first test, else validation) and the training data's name."""
    errors = run.rows("errors")
    tests = [name for name in errors if name not in ("train", "valid")]
    chosen = next(iter([*tests, *(name for name in ("valid", "train") if name in errors)]), "")
    trained_on = sources(run).get("train", "") or next(iter(sources(run).values()), "")
    return chosen, Path(trained_on).name or "an unnamed data set"


def headline(run: Run) -> str:
    """What was trained, on what, and how wrong it is: one or two sentences, escaped."""
    chosen, trained_on = held_out(run)
    errors, parameters = run.rows("errors"), run.summary.get("parameters")
    preset = f", preset {run.summary['preset']}" if run.summary.get("preset") else ""
    size = f" ({parameters:,} parameters{preset})" if parameters is not None else preset
    n_train = (errors.get("train") or {}).get("frames")
    elements = ", ".join(run.rows("e0"))
    frames = f"{n_train:,} frames of " if n_train is not None else ""
    text = f"A potential{size} was trained on {frames}{trained_on}{f' ({elements})' if elements else ''}."
    found = errors.get(chosen) or {}
    parts = [
        f"{number(found[key])} {unit} in the {what}"
        for key, what, unit in (
            ("energy_rmse", "energy", "meV/atom"),
            ("forces_rmse", "forces", "meV/Å"),
            ("stress_rmse", "stress", "meV/Å³"),
        )
        if value_of(found, key) is not None
    ]
    if not parts:
        return escape(text)
    kind = {"train": "the training frames", "valid": "the validation frames"}.get(
        chosen, f"the test {chosen}"
    )
    listed = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    text += f" On {kind} its errors are {listed} (RMSE)."
    if chosen == "valid":
        text += " There is no test set; the validation frames also chose the best model, so they flatter it."
    return escape(text)


def head(run: Run) -> str:
    return f'<h1>Training report: {escape(held_out(run)[1])}</h1>\n<p class="headline">{headline(run)}</p>'


def value_of(row: dict[str, float | None], key: str) -> float | None:
    """A number of the summary, or None where it is absent, null or NaN."""
    value = row.get(key)
    return None if value is None or not np.isfinite(value) else value


def error_table(run: Run) -> str:
    """The errors of every set as the summary has them; a column without any value is left out."""
    errors = run.rows("errors")
    if not errors:
        return ""
    shown = [
        one for one in ERROR_COLUMNS if any(value_of(row, one[0]) is not None for row in errors.values())
    ]
    names = [name for name in run.names if name in errors]
    heading = ["set", "frames", *(f"{label}<small>{unit}</small>" for _, label, unit in shown)]
    rows = [
        [
            name_cell(run, name),
            number(value_of(errors[name], "frames")),
            *(number(value_of(errors[name], key)) for key, _, _ in shown),
        ]
        for name in names
    ]
    found = [f"{escape(name)}: {escape(source)}" for name, source in sources(run).items()]
    note = f'<p class="note">Read from: {"; ".join(found)}.</p>' if found else ""
    return table(heading, rows) + note


def learning_section(run: Run, charts: dict[str, Chart]) -> str:
    """Learning curves; the charts join `charts` under the names of their places on the page."""
    found = learning_charts(run)
    both = any(len(chart["data"]) > 1 for chart in found.values())
    return grid(found, "learning", charts) + (f'<p class="note">{CURVES}</p>' if both else "")


def grid(found: dict[str, Chart], prefix: str, charts: dict[str, Chart], shape: str = "") -> str:
    figures = []
    for index, (caption, chart) in enumerate(found.items()):
        identity = f"{prefix}-{index}"
        charts[identity] = chart
        figures.append(figure(identity, caption, shape))
    return f'<div class="grid">{"".join(figures)}</div>' if figures else ""


def parity_section(run: Run, charts: dict[str, Chart]) -> str:
    found, notes = parity_charts(run)
    if not found:
        return ""
    told = f'<p class="note">{"<br>".join(escape(note) for note in notes)}</p>' if notes else ""
    tip = "Point at a dot for its set and frame and, for forces, its atom (counted from 0) and element."
    hint = f'<p class="note">{tip}</p>'
    return grid(found, "parity", charts, "square") + hint + told


def force_section(run: Run, charts: dict[str, Chart]) -> str:
    """Force errors by element and by the size of the force."""
    by_element, by_size = element_chart(run), magnitude_chart(run)
    if by_element is None or by_size is None:
        return ""
    names = [one.name for one in run.sets if any(one.name in row for row in force_by_element(run).values())]
    heading = ["element"]
    heading += [f"{name_cell(run, name)}<small>RMSE meV/Å (atoms)</small>" for name in names]
    rows = []
    for element, row in force_by_element(run).items():
        cells = [f"{number(row[name][1])} ({row[name][0]:,})" if name in row else "–" for name in names]
        rows.append([element, *cells])
    drawn = {"By element": by_element, "Against the length of the force": by_size}
    note = '<p class="note">Lines: root mean square of the error over equal shares of the atoms.</p>'
    return grid(drawn, "force", charts) + note + table(heading, rows)


def worst_section(run: Run) -> str:
    """The frames a reader should look at first: a bad label or a gap in the training data shows here."""
    frames = [row for one in run.sets for row in frame_errors(one)]
    text = []
    for title, column in (("By forces", 4), ("By energy", 3)):
        size = np.abs(np.array([row[column] for row in frames], dtype=np.float64))
        size[np.isnan(size)] = -1.0
        worst = [frames[index] for index in np.argsort(size)[::-1][:N_WORST] if size[index] >= 0]
        heading = [
            "set",
            "frame",
            "atoms",
            "energy error<small>meV/atom</small>",
            "force RMSE<small>meV/Å</small>",
            "largest force error<small>meV/Å</small>",
        ]
        rows = [
            [name_cell(run, row[0]), f"{row[1]}", f"{row[2]:,}", *(number(value) for value in row[3:])]
            for row in worst
        ]
        if rows:
            text.append(f"<h3>{title}</h3>{table(heading, rows)}")
    return "\n".join(text)


def frame_errors(one: PredictedSet) -> list[tuple[str, int, int, float, float, float]]:
    """Per frame: set, frame, atoms, energy error (meV/atom), RMS and largest force error (meV/Å)."""
    kept, _, error = force_errors(one)
    n_frames, system = len(one.n_atoms), one.system[kept]
    squared = np.square(error).sum(axis=1)
    count = np.bincount(system, minlength=n_frames)
    mean = np.bincount(system, weights=squared, minlength=n_frames) / np.maximum(3 * count, 1)
    largest = np.zeros(n_frames)
    np.maximum.at(largest, system, squared)
    energy = 1000 * (one.energy_predicted - one.energy_reference) / np.maximum(one.n_atoms, 1)
    forces = [np.where(count > 0, 1000 * np.sqrt(values), np.nan).tolist() for values in (mean, largest)]
    name = [one.name] * n_frames
    return list(zip(name, one.frame.tolist(), one.n_atoms.tolist(), energy.tolist(), *forces, strict=True))


def e0_title(run: Run) -> str:
    """Isolated atoms are named only where they are the source."""
    return (
        f"{'Energies of isolated atoms' if run.e0_is_isolated else 'Reference energy of each element'} (E0)"
    )


def e0_table(run: Run) -> str:
    """E0 to 0.1 meV, as total energies are large and their differences small, and where each comes from."""
    found = {element: value_of(run.rows("e0"), element) for element in run.rows("e0")}
    if not found:
        return ""
    sources = run.rows("e0_sources")
    rows = [
        [
            escape(element),
            "–" if value is None else f"{value:,.4f}",
            *([escape(str(sources.get(element) or "not recorded"))] if sources else []),
        ]
        for element, value in found.items()
    ]
    listed = table(["element", "E0<small>eV</small>", *(["from"] if sources else [])], rows)
    if run.e0_is_isolated:
        return listed
    if {*sources} == {*found} and {*sources.values()} <= {"given", "isolated atoms"}:
        return f'<p class="note">{E0_GIVEN}</p>{listed}'
    if "least squares" in sources.values():
        text = E0_FITTED
    else:
        text = E0_WITHOUT if "no energies" in sources.values() else E0_UNKNOWN
    return f'<p class="note">{text}</p>{listed}'


def label_text(run: Run) -> str:
    text = str(run.summary.get("labels") or "")
    return f'<pre class="wrap">{escape(text)}</pre>' if text else ""


def provenance(run: Run) -> str:
    """Command, version, date, seed, time and the resolved settings."""
    said = {key: run.summary.get(key) for key in ("command", "version", "date", "preset", "seed")}
    found = {key: str(value) for key, value in said.items() if value is not None}
    if run.summary.get("seconds") is not None:
        found["time"] = duration(run.summary["seconds"])
    rows = "".join(f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in found.items())
    listed = f"<dl>{rows}</dl>" if rows else ""
    if run.config:
        listed += (
            f"<details><summary>Settings (config.toml)</summary><pre>{escape(run.config)}</pre></details>"
        )
    return listed
