"""A study's results as text, tables (JSON, CSV), pictures and one page."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.columns import sizes
from train.curve import words
from train.curve.analysis import analyze
from train.curve.fitters import read_frames
from train.curve.frames import collect, leading, units_of
from train.curve.ledger import Ledger
from train.curve.limits import limits
from train.curve.published import read_published
from train.curve.study import Study, read_study
from train.directory import write_text
from train.report.page import to_json

COLUMNS = ("model", "size", "draw", "seed", "test", "quantity", "unit", "rmse", "mae", "steps", "ended", "seconds",
           "cpu_seconds", "us_per_atom", "parameters")  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What is asked of the finished fits."""

    goals: Sequence[float] = ()  # errors of the forces, or of the first quantity: how many frames they take
    measure: str = "rmse"  # or mae
    energy_per: str = "atom"  # or structure
    block: int = 1  # neighboring test frames that are resampled together
    published: str | None = None  # a file of errors from the literature


def report(directory: Path, asked: Asked = Asked()) -> list[str]:  # frozen
    """Write what the finished fits of a study say; the lines to print.

    Raises:
        ValueError: no study, nothing done yet, or a file of published errors that cannot be used.
    """
    from train.curve.page import page
    from train.curve.picture import draw

    study = read_study(directory)
    found, published, measure = gather(study, asked), asked.published, asked.measure
    found["published"], other = (
        read_published(Path(published), study.tests, measure, found["units"]) if published else ([], 0)
    )
    write_text(directory / "analysis.json", to_json(found))
    write_text(directory / "errors.csv", errors_csv(found["fits"], units_of(study.targets)))
    write_text(directory / "curves.csv", curves_csv(found))
    pictures = draw(found, directory)
    write_text(directory / "report.html", page(found))
    files = ["report.html", *pictures, "errors.csv", "curves.csv", "analysis.json"]
    told = (
        [f"{published}: {other} rows of another measure than {measure} left out (--measure)"] if other else []
    )
    return [*summary(found), *told, "look at: " + ", ".join(str(directory / name) for name in files)]


def gather(study: Study, asked: Asked) -> dict[str, Any]:
    """Everything that the report is made of, as plain numbers and text.

    Raises:
        ValueError: no fit is done.
    """
    results = Ledger(study.directory).results()
    jobs = [job for job in study.jobs if job.name in results]
    if not jobs:
        reasons = Ledger(study.directory).reasons()
        why = f"; the last one failed: {list(reasons.values())[-1].splitlines()[0]}" if reasons else ""
        raise ValueError(f"{study.directory}: no fit is done yet, nothing to report{why}")
    units = units_of(study.targets, asked.energy_per)
    known: dict[str, dict[str, Any]] = {}
    for test, path in study.tests.items():
        n_atoms = sizes(read_frames(path, study.targets)) if asked.energy_per == "structure" else None
        for quantity in units:
            scaled = n_atoms if quantity == "energy" else None
            errors = collect(study, jobs, test, (quantity, asked.measure), asked.block, scaled)
            if errors is not None:
                known.setdefault(test, {})[quantity] = errors
    analyses = {
        test: {
            quantity: analyze(
                errors, asked.goals if quantity == leading(of) else (), pool=study.fixed["pool"]
            )
            | {"frames": len(errors.counts)}
            for quantity, errors in of.items()
        }
        for test, of in known.items()
    }
    return {
        "study": {k: getattr(study, k) for k in ("sizes", "draws", "seeds", "models", "fixed", "facts")},
        "units": units,
        "measure": asked.measure,
        "block": asked.block,
        "done": len(jobs),
        "of": len(study.jobs),
        "failed": {k: v for k, v in Ledger(study.directory).reasons().items() if k not in results},
        "fits": [results[job.name] for job in jobs],
        "tests": analyses,
    }


def summary(found: dict[str, Any]) -> list[str]:
    """What is printed."""
    lines = ["", *words.method(found), ""]
    for test, quantities in found["tests"].items():
        for quantity, one in quantities.items():
            unit = found["units"][quantity]
            lines.append(
                f"{test}, {quantity} {found['measure'].upper()} ({unit}), {words.frames_text(found, one)}"
            )
            for name, model in one["models"].items():
                cells = [
                    f"{n}: {words.value(e)}" for n, e in zip(model["sizes"], model["errors"], strict=True)
                ]
                slope = f"   slope {words.value(model['b'])}" if "b" in model else ""
                lines.append(f"  {name}  {'  '.join(cells)}{slope}")
            lines += [f"  {line}" for line in (*words.findings(one, unit), words.checks(one))]
    return [*lines, "", *words.statistics(found), "", *limits(found), ""]


def table(rows: Sequence[Sequence[Any]]) -> str:
    """CSV text; nothing for what is absent."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["" if v is None else v for v in row] for row in rows])
    return text.getvalue()


def errors_csv(fits: Sequence[dict[str, Any]], units: Mapping[str, str]) -> str:
    """One row for each fit, test and quantity; energies per atom."""
    rows: list[list[Any]] = [list(COLUMNS)]
    for fit in fits:
        for test, quantities in fit["errors"].items():
            for quantity, errors in quantities.items():
                facts = fit | {"test": test, "quantity": quantity, "unit": units[quantity]} | errors
                rows.append([facts.get(column) for column in COLUMNS])
    return table(rows)


def curves_csv(found: dict[str, Any]) -> str:
    """One row for each model, size, test and quantity, then the parameters of the curves."""
    rows: list[list[Any]] = [["test", "quantity", "model", "what", "value", "low", "high"]]
    for test, quantities in found["tests"].items():
        for quantity, one in quantities.items():
            for model, curve in one["models"].items():
                values = [(f"error at {n}", e) for n, e in zip(curve["sizes"], curve["errors"], strict=True)]
                values += [(key, curve[key]) for key in "abc" if key in curve]
                rows += [[test, quantity, model, what, *value] for what, value in values]
    return table(rows)
