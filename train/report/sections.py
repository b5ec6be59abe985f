"""The sections of the report: what each says about a run, as HTML; all that comes from a file is escaped."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from train.report.charts import Chart, learning_charts, parity_charts
from train.report.markup import duration, figure, number, table
from train.report.plots import UNITS, in_words, set_colors, units
from train.report.run_directory import Run

# Columns of the error tables: key in summary.json, first and second line of the heading.
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
    """The name of a set with the dot of its color."""
    color = set_colors(run.names).get(name, "#000")
    return f'<span class="dot" style="background:{color}"></span>{escape(name)}'


def sources(run: Run) -> dict[str, str]:
    return {one.name: one.source for one in run.sets if one.source}


def held_out(run: Run) -> tuple[str, str]:
    """The set that the headline quotes (the first test, else validation) and the training data's name."""
    errors = run.rows("errors")
    tests = [name for name in errors if name not in ("train", "valid", "replay")]
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
    others = [
        (f"{key}_rmse", in_words(run, key), unit)
        for key, (_, _, unit) in list(units(run).items())[len(UNITS) :]
    ]
    parts = [
        f"{number(found[key])} {unit} in the {what}"
        for key, what, unit in (
            ("energy_rmse", "energy", "meV/atom"),
            ("forces_rmse", "forces", "meV/Å"),
            ("stress_rmse", "stress", "meV/Å³"),
            *others,
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


def value_of(row: Mapping[str, float | None], key: str) -> float | None:
    """A number of the summary, or None where it is absent, null or NaN."""
    value = row.get(key)
    return None if value is None or not np.isfinite(value) else value


def relative(row: Mapping[str, float | None], key: str) -> float | None:
    """The RMSE of a target in percent of the standard deviation of its labels."""
    error, deviation = value_of(row, f"{key}_rmse"), value_of(row, f"{key}_deviation")
    return None if error is None or not deviation else 100 * error / deviation


def error_table(run: Run) -> str:
    """The errors of every set as the summary has them, and those of the model that the run started from."""
    if not run.rows("errors"):
        return ""
    found = [f"{escape(name)}: {escape(source)}" for name, source in sources(run).items()]
    note = f'<p class="note">Read from: {"; ".join(found)}.</p>' if found else ""
    earlier = errors_of(run, run.rows("errors_before"))
    unknown = escape(str(run.summary.get("no_errors_before") or ""))
    earlier += f'<p class="note">{unknown[:1].upper()}{unknown[1:]}.</p>' if unknown else ""
    before = f"<h3>Before, with the model that it started from</h3>{earlier}" if earlier else ""
    return errors_of(run, run.rows("errors")) + note + before


def errors_of(run: Run, errors: Mapping[str, Any]) -> str:
    """A table of errors; a column without any value is left out, and the table where there is none."""
    columns = list(ERROR_COLUMNS)
    for key, (_, _, unit) in list(units(run).items())[len(UNITS) :]:
        what = in_words(run, key)
        columns += [(f"{key}_rmse", f"{what} RMSE", unit), (f"{key}_mae", f"{what} MAE", unit)]
        columns.append((f"{key}_relative", f"{what} RMSE", "% of the labels’ standard deviation"))
        errors = {name: {**row, f"{key}_relative": relative(row, key)} for name, row in errors.items()}
    shown = [one for one in columns if any(value_of(row, one[0]) is not None for row in errors.values())]
    heading = ["set", "frames", *(f"{label}<small>{unit}</small>" for _, label, unit in shown)]
    rows = [
        [
            name_cell(run, name),
            number(value_of(errors[name], "frames")),
            *(number(value_of(errors[name], key)) for key, _, _ in shown),
        ]
        for name in run.names
        if name in errors
    ]
    return table(heading, rows) if rows else ""


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
    said = f"<summary>Label report of every set</summary><pre>{escape(text)}</pre>"
    return f"<details>{said}</details>" if text else ""


def resources(run: Run) -> str:
    """Time, throughput, memory and machine, as the summary and the last session have them."""
    took, session = run.rows("resources"), (run.summary.get("sessions") or [{}])[-1]
    said = {
        "training": duration(run.summary["seconds"]) if run.summary.get("seconds") is not None else None,
        "steps": f"{took['steps']:,}" if took.get("steps") is not None else None,
        "throughput": " · ".join(
            f"{number(took[key])} {unit}"
            for key, unit in (("steps_per_second", "steps/s"), ("atoms_per_second", "atoms/s"))
            if took.get(key)
        ),
        "peak memory": " · ".join(
            f"{number(took[key] / 1024)} GiB{where}"
            for key, where in (("peak_memory_mib", ""), ("device_memory_mib", " on the device"))
            if took.get(key)
        ),
        "machine": took.get("machine") or session.get("machine"),
        "threads": str(took["threads"]) if took.get("threads") else None,
        "versions": ", ".join(f"{name} {one}" for name, one in (session.get("versions") or {}).items()),
        "commit": session.get("commit"),
    }
    rows = "".join(f"<dt>{key}</dt><dd>{escape(str(value))}</dd>" for key, value in said.items() if value)
    return f"<dl>{rows}</dl>" if rows else ""


def provenance(run: Run) -> str:
    """Command, version, date, seed and the resolved settings."""
    said = {key: run.summary.get(key) for key in ("command", "version", "date", "preset", "seed")}
    found = {key: str(value) for key, value in said.items() if value is not None}
    rows = "".join(f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in found.items())
    listed = f"<dl>{rows}</dl>" if rows else ""
    if run.config:
        listed += (
            f"<details><summary>Settings (config.toml)</summary><pre>{escape(run.config)}</pre></details>"
        )
    return listed
