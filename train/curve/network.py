"""A network as a contestant: potential-train on the subset of a job, and what it costs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potential.checkpoint import load
from potential.model import Potential
from train.batches import Sample
from train.buckets import epoch_batches
from train.columns import sizes
from train.config import Config, Data
from train.curve.contestants import Contestant
from train.curve.protocol import ended, length
from train.curve.study import Job, Study
from train.data.keys import keys
from train.evaluate import EVALUATION_ATOMS, Predictions, evaluate
from train.fit import fit, prepare_job
from train.parallel import Ranks
from train.plan import choose_fit, trial
from train.sets import read_files, read_sets
from train.stream import make_samples, n_atoms
from train.target import Target
from train.toml import update

WIDTHS = ("channels", "functions")  # ends of the names of dials that make a network larger
TIMED = 20  # steps: two renewals of the bases of SOAP


def clock(device: str) -> float:
    """CPU seconds of this process; on an accelerator, which it waits for, seconds."""
    if torch.device(device).type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def settings(study: Study, model: str) -> Config:
    """The configuration of a model's fits, without data and length."""
    own = Contestant(model, "network", study.models[model]["settings"])
    return update(update(Config(), study.fixed["settings"]), own.sections())


def configuration(study: Study, job: Job) -> tuple[Config, int]:
    """The configuration of a fit, and its batches in an epoch."""
    config = settings(study, job.model)
    data = replace(
        config.data,
        train=(str(study.subset(job)),),
        isolated_atoms=(str(study.isolated),) if study.isolated else (),
        allow_missing=True,  # what is missing has been looked at in the whole pool
    )
    config = replace(config, data=data, fit=replace(config.fit, seed=job.fit_seed))
    sets = read_sets(config)
    train = sets.frames["train"]
    n_batches = len(epoch_batches(sizes(train), choose_fit(config.fit, train, config.targets)[0], 0))
    model = study.models[job.model]
    seconds = model["step_seconds"], model["frame_seconds"] * len(sets.frames["valid"])
    lasting = length(study.fixed["protocol"], study.fixed["budget"], n_batches, seconds)
    return update(config, {"fit": lasting}), n_batches


@lru_cache(maxsize=4)
def samples_of(path: Path, cutoff: float, targets: tuple[tuple[str, Target], ...]) -> Sequence[Sample]:
    """The frames of a test with their neighbors: read once by a worker, not once for each fit."""
    return make_samples(read_files([str(path)], keys(Data(), dict(targets)))[0], cutoff)


def predicted(potential: Potential, path: Path, targets: Mapping[str, Target]) -> Predictions:
    """Predictions of a test with these labels beside energy, forces and stress.

    Raises:
        ValueError: elements that the potential was not fitted to.
    """
    samples = samples_of(path, potential.cutoff, tuple(targets.items()))
    device = next(potential.parameters()).device
    for sample in samples:
        potential.check(sample.graph.atomic_numbers.to(device))
    return evaluate(potential, samples, str(device))


def fit_network(study: Study, job: Job) -> tuple[Potential, dict[str, Any]]:
    """Train, or go on where a killed fit was saved; the best model and facts.

    Raises:
        KeyboardInterrupt: it was asked to stop, and has saved its state.
    """
    directory = study.run_directory(job)
    config, n_batches = configuration(study, job)
    begun = (directory / "config.toml").is_file()
    if directory.exists() and not begun:  # killed before it had begun
        shutil.rmtree(directory)
    summary = fit(config, directory, resume=begun)
    if summary.get("outcome") == "stopped":
        raise KeyboardInterrupt
    used = summary["resources"]
    facts = {
        "parameters": summary["parameters"],
        "steps": used["steps"],
        "seconds": summary["seconds"],
        "cpu_seconds": summary["seconds"] * used["cpu_share"],  # the share of the last session stands for all
        "ended": ended(study.fixed["protocol"], used["steps"], vars(config.fit), n_batches),
        "machine": used["machine"],
        "threads": used["threads"],
    }
    return load(directory / "model.safetensors").to(config.fit.device), facts


def measure(config: Config, directory: Path, train: Sequence[Path]) -> dict[str, Any]:
    """Parameters of a network, and seconds of a training step and of the validation of a frame, measured here."""
    data = Data(train=tuple(str(path) for path in train), allow_missing=True)
    config = replace(config, data=data, fit=replace(config.fit, epochs=1, minutes=0.0))
    job = prepare_job(config, directory, Ranks())
    device = job.task.fit.device
    return {
        "parameters": sum(p.numel() for p in job.potential.parameters()),
        "step_seconds": trial(job.potential, job.task, TIMED, clock=lambda: clock(device))[1],
        "frame_seconds": frame_seconds(job.potential, job.samples["valid"], device),
    }


def frame_seconds(potential: Potential, samples: Sequence[Sample], device: str) -> float:
    """Seconds of energy and forces of a frame, least of three."""
    times = []
    for _ in range(3):
        begun = clock(device)
        evaluate(potential, samples, device)
        times.append(clock(device) - begun)
    return min(times) / len(samples)


def microseconds_per_atom(potential: Potential, path: Path, targets: Mapping[str, Target]) -> float:
    """Microseconds per atom of energy and forces, on as many frames of a test as are predicted at once."""
    samples = samples_of(path, potential.cutoff, tuple(targets.items()))
    atoms = np.cumsum(n_atoms(samples))
    many = min(len(samples), int(np.searchsorted(atoms, EVALUATION_ATOMS)) + 1)
    device = next(potential.parameters()).device
    return 1e6 * frame_seconds(potential, samples[:many], str(device)) * many / float(atoms[many - 1])


def widths(model: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """The dials with every number of channels, or of functions, times a factor."""
    return {
        name: max(1, round(value * factor)) if name.endswith(WIDTHS) and type(value) is int else value
        for name, value in model.items()
    }
