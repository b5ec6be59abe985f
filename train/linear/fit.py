"""From files to a run directory with a linear model: read, check, choose, solve, evaluate, report."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from potential.model import Potential, recast
from potential.networks.ace import ACE
from train.choice import choose_model
from train.columns import representatives, take
from train.config import Config, Data, Fit, check
from train.data.dataset import Frame
from train.directory import check_directory, from_anywhere, write_text
from train.display import Display, duration
from train.finish import Outcome, Ready, leave
from train.linear.cost import cost, weighed
from train.linear.equations import Equations, equations, solve
from train.linear.offset import leveled
from train.origin import session
from train.parallel import joined
from train.plan import check_elements, elements, make_potential, measure, require_labels
from train.resources import machine, peak_memory
from train.sets import read_sets, split_record
from train.statistics import fit_e0
from train.stream import make_samples
from train.toml import to_toml

MOST = 6000  # coefficients, unless `functions` is given
TRAINED = ("loss", "optimizer", "optimizer_options", "stage_two", "freeze", "lora_rank", "drop_targets")
UNUSED = (
    "fitted by least squares, in float64: of [fit], only the weights of energy, forces and stress, and the seed of the "
    "split, are used"
)


def refuse(config: Config, resume: bool, only: str) -> None:
    """What has no meaning for a model that is solved at once.

    Raises:
        ValueError: naming it, and what to do.
    """
    network, fit = config.model["network"], config.fit
    wrong = {
        "--resume": (resume, "nothing is left of one that was stopped; fit again, in another --output"),
        "--find-lr": (only == "find lr", "there is no learning rate; leave it out"),
        "--from": (bool(fit.start), "fit a new one to old and new frames together"),
        "--minutes and --epochs": (bool(fit.minutes or fit.epochs), "it has no length; leave them out"),
        "--replay": (bool(config.data.replay), "give old frames among those to fit to"),
        "--replay-weight": (
            config.data.replay_weight != Data.replay_weight,
            "give old frames a weight by [weights.<config_type>]",
        ),
        "--targets": (bool(config.targets), "only energy, forces and stress are; take another network"),
        "--log": (bool(config.log.to), "there are no metrics on the way; leave it out"),
        "fit.denoise_weight": (bool(fit.denoise_weight), "leave it out"),
        **{f"fit.{name}": (getattr(fit, name) != getattr(Fit, name), "leave it out") for name in TRAINED},
        f"dtype {fit.dtype}": (fit.dtype == "mixed", "leave it out; float64 is what is solved in"),
        f"device {fit.device}": (torch.device(fit.device).type != "cpu", "fit on cpu, and use it anywhere"),
    }
    for name, (given, remedy) in wrong.items():
        if given:
            raise ValueError(f"{name} with network {network}, which is fitted by least squares: {remedy}")


def choose(config: Config, frames: Sequence[Frame]) -> tuple[dict[str, Any], list[str]]:
    """The network's settings as for others, with fewer functions where many elements would make them too many."""
    model, why = choose_model(config, frames)
    fewer = MOST // len(elements(frames))
    if "functions" not in config.model and model["functions"] > fewer:
        model["functions"] = fewer
        why.append(f"functions {fewer}: with {len(elements(frames))} elements at most {MOST:,} coefficients")
    return model, why


def prepare_linear(config: Config, directory: Path) -> Ready:
    """Read, check and choose.

    Raises:
        ValueError: anything wrong with files, labels or settings.
    """
    check(config)
    sets = read_sets(config)
    train = sets.frames["train"]
    model, why = choose(config, train)
    require_labels(config.fit, "training", train)
    settings = replace(config.fit, dtype="float64")
    samples = {name: make_samples(frames, float(model["cutoff"])) for name, frames in sets.frames.items()}
    rows = representatives(train)
    symbols, some = elements(train), take(train, rows)
    isolated = [f for f in sets.isolated if f.atoms.symbols[0] in symbols]
    e0 = fit_e0([*some, *isolated], symbols, sets.isolated_given, config.e0)
    statistics = measure(some, (samples["train"][int(k)] for k in rows), e0)
    potential = make_potential(model, statistics, settings)
    check_elements(potential, sets.frames)
    network = cast(ACE, potential.network)
    degree = max(f.degree for f in network.functions)
    size = (
        f"{len(network.functions):,} functions, all up to degree {degree:g}, for each of {len(symbols)} elements: "
        f"{network.coefficients.numel():,} coefficients"
    )
    return Ready(
        replace(config, model=model, fit=settings),
        directory,
        sets,
        samples,
        samples,
        potential,
        e0,
        Display(),
        (*sets.why, *why, UNUSED, e0.text, size),
        None,
    )


def fit_linear(config: Config, directory: Path, resume: bool = False, only: str = "") -> dict[str, Any]:
    """Fit a linear potential and leave the run directory described in ARCHITECTURE.md; returns what it found.

    The model is fitted to training and validation frames together; the errors on the latter are those of the same
    fit without them. Nothing is written before the solution is there.

    Raises:
        ValueError: anything wrong with files, labels, settings or the directory.
    """
    refuse(config, resume, only)
    with joined(config.fit.device) as ranks:
        if ranks.size > 1:
            raise ValueError(
                f"network {config.model['network']} is fitted by one process; do not use torchrun"
            )
        if not only:
            check_directory(directory, resume)
        job = prepare_linear(config, directory)
        say = job.display.say
        say("\n".join([job.sets.labels, "", *job.why, cost(job).text, ""]))
        if only:
            return {"why": list(job.why)}
        outcome, found = solved(job)
        used = {
            "steps": 0,
            "peak_memory_mib": peak_memory(),
            "machine": machine(),
            "threads": torch.get_num_threads(),
        }
        outcome = replace(outcome, resources={**used, **outcome.resources})
        directory.mkdir(parents=True, exist_ok=True)
        job.display.log = directory / "log.txt"
        write_text(job.display.log, "\n".join([job.sets.labels, "", *job.why, ""]))
        write_text(directory / "config.toml", to_toml(from_anywhere(job.config)))
        write_text(directory / "split.json", json.dumps(split_record(job.sets, job.config)))
        write_text(directory / "sessions.json", json.dumps([session(job.config, 1)], indent=1))
        say("\n".join(found))
        facts = outcome.potential.statistics
        e0 = replace(job.e0, e0=dict(zip(facts.elements, facts.e0, strict=True)))
        return leave(replace(job, e0=e0, why=(*job.why, *found)), outcome, ranks)


def solved(job: Ready) -> tuple[Outcome, list[str]]:
    """The potential with the time that it took, and sentences on the solution."""
    sets = {"train": job.samples["train"]}
    if job.sets.frames["valid"] is not job.sets.frames["train"]:
        sets["valid"] = job.samples["valid"]
    started, cpu = time.perf_counter(), time.process_time()
    rows = equations(job.potential, sets, job.config.linear, weighed(job))
    told = [f"features of {sum(map(len, sets.values()))} frames in {duration(time.perf_counter() - started)}"]
    potential, text = with_solution(job, rows, list(sets))
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    told.append(text)
    without = None
    if len(sets) > 1:
        without, text = with_solution(job, rows, ["train"])
        told.append(f"errors of valid are those of the same fit without them: {text}")
    return Outcome(potential, seconds, {"cpu_share": cpu / seconds}, 0, without), told


def with_solution(job: Ready, rows: Equations, sets: list[str]) -> tuple[Potential, str]:
    """The potential fitted to some sets, and a sentence on the solution."""
    potential, linear = recast(job.potential, torch.float64), job.config.linear
    network = cast(ACE, potential.network)
    found = solve(rows, network, job.config.fit, linear, sets)
    with torch.no_grad():
        network.coefficients.copy_(torch.from_numpy(found.coefficients).view_as(network.coefficients))
    told = [found.text]
    if found.doubt:
        remedy = "look at the labels, give more frames"
        if linear.ridge != "validation":
            remedy = "take linear.ridge=validation"
        told.append(f"WARNING: {found.doubt}; {remedy}")
    if not job.config.fit.energy_weight:
        samples = [sample for name in sets for sample in job.samples[name]]
        potential, text = leveled(potential, samples, job.e0)
        told += [text] * bool(text)
    return potential, "\n".join(told)
