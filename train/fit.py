"""From files to a run directory: read, check, choose, train, evaluate, report."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from potential import __version__
from potential.checkpoint import save
from potential.model import Potential
from train.batches import Sample, normalized, prepare
from train.budget import budget_text, costs
from train.config import Config, check
from train.data.files import expand
from train.data.weights import weights_record
from train.display import Display, duration
from train.evaluate import errors, evaluate, write_predictions
from train.find_lr import FILES, range_test, write_range_test
from train.loop import Task, continue_run, run_epochs
from train.plan import choose_fit, choose_model, elements, make_potential, measure, seconds_per_step
from train.report.breakdown import breakdown, breakdown_text
from train.report.page import draw
from train.report.run_directory import read_predictions
from train.report.worst import write_worst
from train.resources import resources
from train.run import Run, start
from train.schedule import make_plan
from train.sets import Sets, read_sets, split_record
from train.statistics import GIVEN, ISOLATED, E0Fit, fit_e0
from train.toml import to_toml


@dataclass(frozen=True)
class Job:
    """A run made ready: every choice made, nothing trained or written yet."""

    config: Config
    directory: Path
    sets: Sets
    samples: Mapping[str, list[Sample]]
    potential: Potential
    e0: E0Fit
    task: Task
    display: Display
    why: tuple[str, ...]


def prepare_job(config: Config, directory: Path) -> Job:
    """Read, check and choose.

    Raises:
        ValueError: anything wrong with files, labels or settings.
    """
    check(config)
    sets = read_sets(config)
    train = sets.frames["train"]
    model, why_model = choose_model(config, train)
    settings, why_fit = choose_fit(config.fit, train)
    samples = {name: prepare(frames, float(model["cutoff"])) for name, frames in sets.frames.items()}
    symbols = elements(train)
    isolated = [f for f in sets.isolated if f.atoms.symbols[0] in symbols]
    e0 = fit_e0([*train, *isolated], symbols, sets.isolated_given, config.e0)
    potential = make_potential(model, measure(train, samples["train"], e0), settings)
    for name, frames in sets.frames.items():
        for frame, sample in zip(frames, samples[name], strict=True):
            try:
                potential.check(sample.graph.atomic_numbers.to(settings.device))
            except ValueError as error:
                raise ValueError(f"{frame.name}: {error}") from error
    plan = make_plan(settings, -(-len(train) // settings.batch_size))
    display = Display(plan)
    display.atoms_per_step = sum(len(f.atoms) for f in train) / plan.n_batches
    names = [f"{f.source} frame {f.index}" for f in train]
    task = Task(
        normalized(samples["train"]),
        samples["valid"],
        names,
        settings,
        plan,
        directory,
        display.tell,
        display.say,
    )
    config = replace(config, model=model, fit=settings)
    why = (*sets.why, *why_model, *why_fit, e0.text, _estimate(potential, task))
    return Job(config, directory, sets, samples, potential, e0, task, display, why)


def _estimate(potential: Potential, task: Task) -> str:
    try:
        seconds = seconds_per_step(potential, task)
    except ValueError as error:
        raise ValueError(f"trial steps failed: {error}") from error
    plan = task.plan
    steps = plan.total_steps or plan.seconds / seconds
    length = steps * seconds if plan.epochs else plan.seconds
    n = sum(p.numel() for p in potential.parameters())
    return (
        f"{n:,} parameters; {1e3 * seconds:.0f} ms a step measured; {round(steps):,} steps "
        f"({steps / plan.n_batches:.0f} epochs of {plan.n_batches} batches) in about {duration(length)}"
    )


def fit(config: Config, directory: Path, resume: bool = False, only: str = "") -> dict[str, Any]:
    """Train a potential and leave the run directory described in ARCHITECTURE.md; returns what it found.

    `only` "dry run" or "find lr" trains nothing: it says what a run costs, or which learning rate suits it.

    Raises:
        ValueError: anything wrong with files, labels, settings or the directory; nothing is half-written then.
    """
    if not only:
        _check_directory(directory, resume)
    job = prepare_job(config, directory)
    display = job.display
    run = start(job.potential, job.config.fit, identity(job))
    said = continue_run(run, job.task) if resume and not only else ""
    if not only:
        directory.mkdir(parents=True, exist_ok=True)
        display.log = directory / "log.txt"
        _write(directory / "config.toml", to_toml(_from_anywhere(job.config)))
        _write(directory / "split.json", json.dumps(split_record(job.sets, job.config)))
    display.say("\n".join([job.sets.labels, "", *job.why, ""]))
    if only == "dry run":
        size = [sum(len(part.graph.positions) for part in samples) for samples in job.samples.values()]
        frames = sum(len(samples) for samples in job.samples.values())
        found = costs(job.potential, job.config.model, job.task)
        display.say(budget_text(found, str(job.config.model["preset"]), job.task, (frames, sum(size))))
    if only == "find lr":
        rate = job.config.fit.learning_rate
        display.say(write_range_test(range_test(job.potential, job.task), directory, rate))
    if only:
        return {"why": list(job.why)}
    if resume:
        display.say(said)
    with display:
        outcome = run_epochs(run, job.task)
    if outcome == "stopped":
        display.say(f"stopped and saved; continue with: potential-train --resume --output {directory}")
        return {"outcome": outcome}
    if outcome == "early":
        display.say(f"stopped early: no better validation error for {job.config.fit.patience} epochs")
    return finish(run, job)


def _check_directory(directory: Path, resume: bool) -> None:
    """Refuse, before anything is read, a directory that is taken or that cannot be written."""
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file; give the name of a directory with --output")
    if not resume and directory.exists() and {path.name for path in directory.iterdir()} - set(FILES):
        raise ValueError(
            f"{directory} exists and is not empty; continue it with --resume, or give another --output"
        )
    nearest = next(p for p in (directory, *directory.absolute().parents) if p.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise ValueError(
            f"{directory} cannot be made: {nearest} is not a directory that can be written; give another"
        )


def _from_anywhere(config: Config) -> Config:
    """The configuration with absolute paths, so that a run can be resumed from another directory.

    Patterns become the files they matched, but for those of test, whose frames go by the name of their pattern.
    """
    data = config.data
    found = {name: expand(getattr(data, name)) for name in ("train", "valid", "isolated_atoms")}
    absolute = {
        name: tuple(str(Path(p).absolute()) for p in paths)
        for name, paths in (*found.items(), ("test", data.test))
    }
    return replace(config, data=replace(data, **absolute))  # type: ignore[arg-type]


def identity(job: Job) -> dict[str, Any]:
    """What a resumed run must share with its beginning: labelled frames and their weights, E0 that was given or
    read, network and settings, not the length."""
    digest, weights = hashlib.sha256(), hashlib.sha256()
    for sample in job.samples["train"]:
        weights.update(sample.weights.numpy().tobytes())
    for name in ("train", "valid"):
        digest.update(f"{name} {len(job.samples[name])}".encode())
        for sample in job.samples[name]:
            for part in (sample.graph, sample.target):
                for f in fields(part):
                    digest.update(np.ascontiguousarray(getattr(part, f.name).numpy()).tobytes())
    free = ("epochs", "minutes", "patience", "device", "max_skipped", "on_oom")
    return {
        "training and validation frames": digest.hexdigest(),
        "weights": weights.hexdigest() if weights_record(job.sets.frames["train"]) else None,
        "E0": {
            s: e for s, e in job.e0.e0.items() if job.e0.sources.get(s) in (GIVEN, ISOLATED)
        },  # not fitted
        "model settings": {k: v for k, v in job.config.model.items() if k != "preset"},
        "fit settings": {
            k: list(v) if isinstance(v, tuple) else v  # as JSON gives it back
            for k, v in asdict(job.config.fit).items()
            if k not in free
        },
    }


def finish(run: Run, job: Job) -> dict[str, Any]:
    """Save the best model, its predictions and errors on every set, plots and report; print the table."""
    potential, fit = job.potential, job.config.fit
    potential.load_state_dict(run.best_weights)
    predictions = {name: evaluate(potential, samples, fit.device) for name, samples in job.samples.items()}
    table = {name: errors(p) for name, p in predictions.items()}
    save(potential, job.directory / "model.safetensors", notes={"errors": table, "epoch": run.best_epoch})
    kept = {name: (p, job.sets.frames[name]) for name, p in predictions.items()}
    write_predictions(job.directory / "predictions.h5", kept)
    sets = sorted(
        read_predictions(job.directory / "predictions.h5"), key=lambda one: list(table).index(one.name)
    )
    write_worst(job.directory / "worst.xyz", sets, lambda name, row: kept[name][1][row].atoms)
    parts = breakdown(sets)
    summary = {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "version": __version__,
        "seed": fit.seed,
        "preset": job.config.model["preset"],
        "parameters": sum(p.numel() for p in potential.parameters()),
        "seconds": round(run.seconds, 1),
        "why": list(job.why),
        "labels": job.sets.labels,
        "e0": job.e0.e0,
        "e0_sources": job.e0.sources,
        "split": split_record(job.sets, job.config)["how"],
        "weights": weights_record(job.sets.frames["train"]),
        "errors": table,
        **parts,
        "resources": resources(run.seconds, run.step, job.display.atoms_per_step, fit.device),
    }
    _write(job.directory / "summary.json", json.dumps(summary, indent=1))
    files = draw(job.directory)
    job.display.say("\n".join(part for part in (errors_text(table), breakdown_text(parts)) if part))
    job.display.say(f"best model: epoch {run.best_epoch}, {job.directory / 'model.safetensors'}")
    job.display.say("look at: " + ", ".join(str(path) for path in files.values()))
    return summary


def errors_text(table: Mapping[str, Mapping[str, float | int | None]]) -> str:
    """The table of errors that ends a run."""
    columns = [
        ("energy_rmse", "E RMSE meV/atom"),
        ("energy_rmse_per_structure", "meV/structure"),
        ("energy_mae", "E MAE meV/atom"),
        ("forces_rmse", "F RMSE meV/Å"),
        ("forces_mae", "F MAE meV/Å"),
        ("stress_rmse", "S RMSE meV/Å^3"),
    ]
    shown = [(key, title) for key, title in columns if any(row[key] is not None for row in table.values())]
    width = max(len("set"), *(len(name) for name in table))
    lines = ["", "  ".join([f"{'set':<{width}}", "frames", *(title for _, title in shown)])]
    for name, row in table.items():
        cells = [
            f"{row[key]:{len(title)}.2f}" if row[key] is not None else f"{'-':>{len(title)}}"
            for key, title in shown
        ]
        lines.append("  ".join([f"{name:<{width}}", f"{row['frames']:6d}", *cells]))
    return "\n".join([*lines, ""])


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
