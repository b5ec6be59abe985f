"""From files to a run directory: read, check, choose, train, evaluate, report."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from potential.model import Potential
from potential.networks import LINEAR
from train.buckets import epoch_batches
from train.budget import OWN, budget_text, costs
from train.choice import choose_model
from train.columns import Names, kinds, representatives, sizes, take
from train.config import Config, Log, check
from train.data.weights import weights_record
from train.directory import check_directory, from_anywhere, write_text
from train.display import Display, duration
from train.find_lr import range_test, write_range_test
from train.finetune import adopt, begin, read_start, trainable, with_energies
from train.finish import Outcome, Ready, leave
from train.linear.fit import fit_linear
from train.loop import Task, continue_run, run_epochs
from train.lowrank import ordinary
from train.optimizers import require_optimizer
from train.origin import session, sessions, sha256
from train.parallel import Ranks, joined
from train.plan import (
    check_elements,
    choose_fit,
    elements,
    fewer_threads,
    make_potential,
    measure,
    require_labels,
    seconds_per_step,
)
from train.prepared.found import completed
from train.resources import resources
from train.run import Run, fit_settings, start
from train.schedule import make_plan
from train.sets import read_sets, split_record
from train.statistics import GIVEN, ISOLATED, fit_e0
from train.stream import choose_workers, feed_digest, make_samples, n_atoms, with_edges, with_unit_weights
from train.target_facts import told_of_isolated
from train.toml import to_toml
from train.tracking import require, tracking


@dataclass(frozen=True)
class Job(Ready):
    """A run made ready: every choice made, nothing trained or written yet."""

    task: Task


def prepare_job(config: Config, directory: Path, ranks: Ranks) -> Job:
    """Read, check and choose; every rank does all of it.

    Raises:
        ValueError: anything wrong with files, labels or settings.
    """
    check(config)
    require_optimizer(config.fit)
    config = replace(config, targets=completed(config.targets, config.data.train))
    before = read_start(config)
    sets = read_sets(config)
    as_read, train = sets.frames, sets.frames["train"]
    model, why_model = adopt(config, before) if before else choose_model(config, train)
    for name, kind in (("train", "training"), ("valid", "validation")):
        require_labels(config.fit, kind, as_read[name], config.targets)
    original = {name: make_samples(frames, float(model["cutoff"])) for name, frames in as_read.items()}
    settings, why_workers = choose_workers(config.fit, train, ranks.size)
    original["train"], edges, why_edges = with_edges(original["train"], settings)
    settings, why_fit = choose_fit(settings, train, config.targets, edges)
    if before:
        potential, e0, sets = begin(before, sets, config)
        train = sets.frames["train"]
    samples = {
        name: of_set if as_read[name] is sets.frames[name] else with_energies(of_set, sets.frames[name])
        for name, of_set in original.items()
    }
    rows = representatives(train)
    if not before:
        symbols, some = elements(train), take(train, rows)
        isolated = [f for f in sets.isolated if f.atoms.symbols[0] in symbols]
        e0 = fit_e0([*some, *isolated], symbols, sets.isolated_given, config.e0)
        potential = make_potential(
            model,
            measure(some, (samples["train"][int(k)] for k in rows), e0, config.targets, sets.alone),
            settings,
        )
    check_elements(potential, sets.frames)
    why_model += told_of_isolated(sets.alone, potential.statistics, before.statistics if before else None)
    potential, why_trains = trainable(potential, settings, before)
    plan = make_plan(settings, len(epoch_batches(sizes(train), settings, 0, edges)))
    display = Display(plan, silent=not ranks.first)
    display.atoms_per_step = int(sizes(train).sum()) / plan.n_batches
    task = Task(
        with_unit_weights(samples["train"]),
        samples["valid"],
        Names(train),
        settings,
        plan,
        directory,
        display.tell,
        display.say,
        config.targets,
    )
    config = replace(config, model=model, fit=settings)
    sampled = (f"E0, scale and neighbors measured on {len(rows)} of {len(train)} training frames",)
    text = (*sampled * (len(rows) < len(train)), _estimate(potential, task, ranks.size))
    why = (*sets.why, *why_model, *why_workers, *why_edges, *why_fit, *why_trains, e0.text, *text)
    return Job(config, directory, sets, samples, original, potential, e0, display, why, before, task)


def _estimate(potential: Potential, task: Task, size: int) -> str:
    share = replace(
        task.fit,
        **{n: -(-getattr(task.fit, n) // size) for n in ("batch_size", "batch_atoms", "batch_edges")},
    )
    try:
        seconds = seconds_per_step(potential, replace(task, fit=share))
        threads = fewer_threads(potential, replace(task, fit=share), seconds)
    except ValueError as error:
        raise ValueError(f"trial steps failed: {error}") from error
    plan = task.plan
    steps = plan.total_steps or plan.seconds / seconds
    length = steps * seconds if plan.epochs else plan.seconds
    n = sum(p.numel() for p in potential.parameters())
    return (
        f"{n:,} parameters; {1e3 * seconds:.0f} ms a step measured; {round(steps):,} steps "
        f"({steps / plan.n_batches:.0f} epochs of {plan.n_batches} batches) in about {duration(length)}"
        + (f" on {size} ranks, without their exchange" if size > 1 else "")
        + threads
    )


def fit(config: Config, directory: Path, resume: bool = False, only: str = "") -> dict[str, Any]:
    """Train a potential and leave the run directory described in ARCHITECTURE.md; returns what it found.

    `only` "dry run" or "find lr" trains nothing: it says what a run costs, or which learning rate suits it.

    Raises:
        ValueError: anything wrong with files, labels, settings or the directory; nothing is half-written then.
    """
    require(config.log)
    if config.model.get("network") in LINEAR:
        return fit_linear(config, directory, resume, only)
    with joined(config.fit.device) as ranks:
        with ranks.together():
            if ranks.first and not only:
                check_directory(directory, resume)
            job = prepare_job(config, directory, ranks)
        return _train(job, ranks, resume, only)


def _train(job: Job, ranks: Ranks, resume: bool, only: str) -> dict[str, Any]:
    display, directory = job.display, job.directory
    run = start(job.potential, job.config.fit, identity(job), ranks, job.config.targets)
    said = ""
    ranks.require_same(json.dumps(run.identity), "frames, network or settings")
    ranks.follow(run.potential.state_dict().values())
    for turn in (ranks.first, not ranks.first):  # the first rank tidies up before the others look
        with ranks.together():
            if turn and resume and not only:
                said = continue_run(run, job.task)
    if not only and ranks.first:
        directory.mkdir(parents=True, exist_ok=True)
        display.log = directory / "log.txt"
        write_text(directory / "config.toml", to_toml(from_anywhere(job.config)))
        write_text(directory / "split.json", json.dumps(split_record(job.sets, job.config)))
        write_text(
            directory / "sessions.json",
            json.dumps([*sessions(directory), session(job.config, ranks.size)], indent=1),
        )
    display.say("\n".join([job.sets.labels, "", *job.why, ""]))
    if only == "dry run":
        size = [int(n_atoms(samples).sum()) for samples in job.samples.values()]
        frames = sum(len(samples) for samples in job.samples.values())
        found = costs(job.potential, job.config.model, job.task)
        display.say(
            budget_text(found, str(job.config.model.get("preset") or OWN), job.task, (frames, sum(size)))
        )
    if only == "find lr":
        rate = job.config.fit.learning_rate
        found_rate = range_test(job.potential, job.task)
        if ranks.first:
            display.say(write_range_test(found_rate, directory, rate))
    if only:
        return {"why": list(job.why)}
    if resume:
        display.say(said)
    log = job.config.log if ranks.first else Log()
    record = tracking(log, directory, asdict(job.config), run.step)
    with display, record as display.record:
        outcome = run_epochs(run, job.task)
    if outcome == "stopped":
        display.say(f"stopped and saved; continue with: potential-train --resume --output {directory}")
        return {"outcome": outcome}
    if outcome == "early":
        display.say(f"stopped early: no better validation error for {job.config.fit.patience} epochs")
    return finish(run, job)


def identity(job: Job) -> dict[str, Any]:
    """What a resumed run must share with its beginning: labelled frames and their weights, E0 that was given or
    read, network and settings, not the length."""
    digest, weights = hashlib.sha256(), hashlib.sha256()
    for name in ("train", "valid"):
        digest.update(f"{name} {len(job.samples[name])}".encode())
        feed_digest(job.original[name], digest, weights if name == "train" else hashlib.sha256())
    if job.before and job.sets.isolated:  # E0 moves by them
        digest.update(repr([(f.atoms.symbols[0], f.energy) for f in job.sets.isolated]).encode())
    own = [(f.atoms.symbols[0], n, x.tolist()) for f in job.sets.alone for n, x in f.targets.items()]
    if own:  # the offsets of their elements
        digest.update(repr(own).encode())
    return {
        "starting model": sha256(Path(job.config.fit.start)) if job.before else None,
        "training and validation frames": digest.hexdigest(),
        "weights": weights.hexdigest() if weights_record(kinds(job.sets.frames["train"])) else None,
        "E0": {
            s: e for s, e in job.e0.e0.items() if job.e0.sources.get(s) in (GIVEN, ISOLATED)
        },  # not fitted
        "model settings": {k: v for k, v in job.config.model.items() if k != "preset"},
        "fit settings": fit_settings(job.config.fit),
        "targets": {k: asdict(t) for k, t in job.config.targets.items()} or None,
    }


def finish(run: Run, job: Job) -> dict[str, Any]:
    """The best model, and what it leaves; see `train.finish`."""
    job.potential.load_state_dict(run.best_weights)
    used = resources(run, job.display.atoms_per_step, job.config.fit.device)
    outcome = Outcome(ordinary(job.potential), run.seconds, used, run.best_epoch)
    return leave(job, outcome, run.ranks)
