"""A run directory -> two pictures and one self-contained page that opens without a network."""

import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from train.report import details, sections
from train.report.charts import Chart
from train.report.markup import bullets, section
from train.report.plots import draw_learning_curve, draw_parity
from train.report.run_directory import Run, read
from train.report.worst import Scene, scene


def draw(directory: Path) -> dict[str, Path]:
    """Draw what a run directory holds, into that directory.

    Returns:
        name -> path of the files `learning_curve.png` (where metrics were recorded), `parity.png` and `report.html`.

    Raises:
        ValueError: the directory has no `summary.json`, or a file in it cannot be read as its contract says.
    """
    directory = Path(directory)
    run = read(directory)
    writers: dict[str, Callable[[Path], object]] = {
        "learning_curve.png": partial(draw_learning_curve(run).savefig, format="png"),
        "parity.png": partial(draw_parity(run).savefig, format="png"),
        "report.html": partial(Path.write_text, data=page(run), encoding="utf-8"),
    }
    if not (directory / "metrics.jsonl").is_file():
        del writers["learning_curve.png"]  # solved at once
    return {name: replace(directory / name, write) for name, write in writers.items()}


def replace(path: Path, write: Callable[[Path], object]) -> Path:
    """Write beside the file and rename, so that a reader never meets half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def page(run: Run) -> str:
    """The whole report as one HTML document."""
    charts: dict[str, Chart] = {}
    scenes = [scene(atoms) for atoms in run.worst]
    parts = [
        sections.head(run),
        section("Errors", sections.error_table(run)),
        section("Learning curves", sections.learning_section(run, charts)),
        section("Predicted against reference", sections.parity_section(run, charts)),
        section("Where the errors are", details.where_section(run, charts)),
        section("How large the errors are", details.cumulative_section(run, charts)),
        section("Worst frames", details.worst_section(run, scenes)),
        section(sections.e0_title(run), sections.e0_table(run)),
        section("Labels", sections.label_text(run)),
        section("Why these settings", bullets(run.summary.get("why") or [])),
        section("What it took", sections.resources(run)),
        section("How to repeat it", sections.provenance(run)),
    ]
    return document(f"Training report: {sections.held_out(run)[1]}", parts, charts, scenes)


def document(title: str, parts: Sequence[str], charts: dict[str, Chart], scenes: Sequence[Scene] = ()) -> str:
    """Sections (HTML), the charts for the places in them and the scenes of the view, as one page that needs
    nothing else."""
    from plotly.offline import get_plotlyjs

    template = files("train.report").joinpath("report.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=escape(title),
        body="\n".join(part for part in parts if part),
        plotly=get_plotlyjs(),
        charts=to_json(charts),
        scenes=to_json(list(scenes)),
    )


def to_json(charts: Any) -> str:
    """JSON that may stand inside a script element: no `<` can close it, NaN becomes null."""
    text = json.dumps(finite(charts), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
