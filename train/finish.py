"""The end of a run: the model, its predictions and errors on every set, plots and report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potential import __version__
from potential.checkpoint import save
from potential.model import Potential
from train.batches import Sample
from train.columns import kinds, take
from train.config import Config
from train.data.weights import weights_record
from train.directory import write_text
from train.display import Display
from train.evaluate import errors_text, write_predictions
from train.finetune import errors_before
from train.origin import command, now, sessions
from train.parallel import Ranks, predict_all
from train.report.breakdown import breakdown, breakdown_text
from train.report.page import draw
from train.report.run_directory import read_predictions
from train.report.worst import write_worst
from train.sets import Sets, split_record
from train.statistics import E0Fit


@dataclass(frozen=True)
class Ready:
    """Data and choices of a fit."""

    config: Config
    directory: Path
    sets: Sets
    samples: Mapping[str, Sequence[Sample]]
    original: Mapping[str, Sequence[Sample]]  # the same with the energies that were read
    potential: Potential  # not fitted yet
    e0: E0Fit
    display: Display
    why: tuple[str, ...]
    before: Potential | None  # the potential it starts from


@dataclass(frozen=True)
class Outcome:
    """What a fit came to."""

    potential: Potential
    seconds: float
    resources: Mapping[str, Any]
    epoch: int  # of the best model; 0 where there are none
    without_valid: Potential | None = None  # where the validation frames serve too: the same fit without them


def leave(job: Ready, outcome: Outcome, ranks: Ranks) -> dict[str, Any]:
    """Save the model, its predictions and errors on every set, plots and report; print the table."""
    potential, fit = outcome.potential, job.config.fit
    samples = {n: s for n, s in job.samples.items() if n != "valid" or not outcome.without_valid}
    table, predictions, told = predict_all(ranks, potential, samples, fit.device)
    if outcome.without_valid:
        honest = predict_all(ranks, outcome.without_valid, {"valid": job.samples["valid"]}, fit.device)
        table = {name: {**table, **honest[0]}[name] for name in job.samples}
        predictions = {name: {**predictions, **honest[1]}[name] for name in job.samples}
    earlier, unknown = (
        errors_before(job.before, job.sets.frames, job.original, ranks) if job.before else ({}, "")
    )
    if not ranks.first:
        return {"errors": table}
    save(potential, job.directory / "model.safetensors", notes={"errors": table, "epoch": outcome.epoch})
    kept = {name: (p, take(job.sets.frames[name], rows)) for name, (p, rows) in predictions.items()}
    facts = potential.statistics.targets
    write_predictions(job.directory / "predictions.h5", kept, facts)
    sets = sorted(
        read_predictions(job.directory / "predictions.h5"), key=lambda one: list(table).index(one.name)
    )
    write_worst(job.directory / "worst.xyz", sets, lambda name, row: kept[name][1][row].atoms)
    parts = breakdown(sets)
    summary = {
        "command": command(),
        "date": now(),
        "version": __version__,
        "seed": fit.seed,
        "preset": job.config.model.get("preset"),
        "parameters": sum(p.numel() for p in potential.parameters()),
        "seconds": outcome.seconds,
        "why": [*job.why, *told],
        "labels": job.sets.labels,
        "e0": job.e0.e0,
        "e0_sources": job.e0.sources,
        "split": split_record(job.sets, job.config)["how"],
        "weights": weights_record(kinds(job.sets.frames["train"])),
        "errors": table,
        "targets": [{k: getattr(one, k) for k in ("name", "irreps", "per", "unit")} for one in facts],
        "errors_before": earlier,
        "no_errors_before": unknown,
        "sessions": sessions(job.directory),
        **parts,
        "resources": dict(outcome.resources),
    }
    write_text(job.directory / "summary.json", json.dumps(summary, indent=1))
    files = draw(job.directory)
    if job.before:
        tables = [errors_text(earlier, facts)] * bool(earlier) + [f"\n{unknown}\n"] * bool(unknown)
        job.display.say(f"\nbefore, with {job.config.fit.start}:{''.join(tables)}after:")
    job.display.say("\n".join(part for part in (errors_text(table, facts), breakdown_text(parts)) if part))
    if outcome.without_valid:
        job.display.say(
            "valid: errors of the same fit without these frames; the model that is saved has seen them\n"
        )
    of_epoch = f"epoch {outcome.epoch}, " if outcome.epoch else ""
    job.display.say(f"best model: {of_epoch}{job.directory / 'model.safetensors'}")
    job.display.say("look at: " + ", ".join(str(path) for path in files.values()))
    return summary
