"""A study's results as text, tables (JSON, CSV), pictures and one page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from train.curve.analysis import analyze
from train.curve.frames import QUANTITIES, collect
from train.curve.ledger import Ledger
from train.curve.published import read_published
from train.curve.study import Study, read_study
from train.curve.words import summary
from train.directory import write_text
from train.report.page import to_json

COLUMNS = ("model", "size", "draw", "seed", "test", "quantity", "unit", "rmse", "mae", "steps", "ended", "seconds",
           "cpu_seconds", "us_per_atom", "parameters")  # fmt: skip


def report(
    directory: Path,
    targets: Sequence[float] = (),
    measure: str = "rmse",
    block: int = 1,
    published: str | None = None,
) -> list[str]:
    """Write what the finished fits of a study say; the lines to print.

    `targets` are force errors in meV/Å. `measure`: rmse or mae. `published`: a file of errors from the literature.

    Raises:
        ValueError: no study, nothing done yet, or a file of published errors that cannot be used.
    """
    from train.curve.page import page
    from train.curve.picture import draw

    study = read_study(directory)
    found = gather(study, targets, measure, block)
    found["published"], other = (
        read_published(Path(published), study.tests, measure) if published else ([], 0)
    )
    write_text(directory / "analysis.json", to_json(found))
    write_text(directory / "errors.csv", errors_csv(found["fits"]))
    write_text(directory / "curves.csv", curves_csv(found))
    pictures = draw(found, directory)
    write_text(directory / "report.html", page(found))
    files = ["report.html", *pictures, "errors.csv", "curves.csv", "analysis.json"]
    told = (
        [f"{published}: {other} rows of another measure than {measure} left out (--measure)"] if other else []
    )
    return [*summary(found), *told, "look at: " + ", ".join(str(directory / name) for name in files)]


def gather(study: Study, targets: Sequence[float], measure: str, block: int) -> dict[str, Any]:
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
    analyses: dict[str, dict[str, Any]] = {}
    for test in study.tests:
        for quantity in QUANTITIES:
            errors = collect(study, jobs, test, (quantity, measure), block)
            if errors is not None:
                goals = targets if quantity == "forces" else ()
                analyses.setdefault(test, {})[quantity] = analyze(errors, goals, pool=study.fixed["pool"]) | {
                    "frames": len(errors.counts)
                }
    return {
        "study": {k: getattr(study, k) for k in ("sizes", "draws", "seeds", "models", "fixed", "facts")},
        "measure": measure,
        "block": block,
        "done": len(jobs),
        "of": len(study.jobs),
        "failed": {k: v for k, v in Ledger(study.directory).reasons().items() if k not in results},
        "fits": [results[job.name] for job in jobs],
        "tests": analyses,
    }


def table(rows: Sequence[Sequence[Any]]) -> str:
    """CSV text; nothing for what is absent."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["" if v is None else v for v in row] for row in rows])
    return text.getvalue()


def errors_csv(fits: Sequence[dict[str, Any]]) -> str:
    """One row for each fit, test and quantity."""
    rows: list[list[Any]] = [list(COLUMNS)]
    for fit in fits:
        for test, quantities in fit["errors"].items():
            for quantity, errors in quantities.items():
                facts = fit | {"test": test, "quantity": quantity, "unit": QUANTITIES[quantity]} | errors
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
