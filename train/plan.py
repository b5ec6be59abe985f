"""Choices made from the data, each with its reason: elements, batch size, length of the run; trial steps."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers

from potential.checkpoint import check_device
from potential.model import Potential, Statistics, build
from train.batches import Sample, measured
from train.buckets import Bound, beyond, bounded, epoch_batches, filled
from train.columns import Integers, Names, element_sets, labelled, sizes, symbols
from train.config import Fit
from train.data.dataset import Frame
from train.data.labels import LABELS
from train.loop import Task
from train.run import Run, start
from train.statistics import E0Fit
from train.step import Failed, NotFinite, OutOfMemory, recover, train_step
from train.target import Target, resolved
from train.target_facts import target_facts, weighed
from train.threads import threads

STEPS = 15000  # updates of a run whose length is not given
CLEARLY = 0.8  # of the time of a step by all threads: one thread that takes less is worth a word


def elements(frames: Sequence[Frame]) -> tuple[str, ...]:
    """Symbols in order of Z."""
    return tuple(sorted(symbols(frames), key=lambda s: int(atomic_numbers[s])))


def choose_fit(
    fit: Fit,
    frames: Sequence[Frame],
    targets: Mapping[str, Target] | None = None,
    edges: Integers | None = None,
) -> tuple[Fit, list[str]]:
    """Batch size and length of the run where they are not given, and why.

    Args:
        edges: (n_frames,) of each; needed where `fit.batch_edges` bounds them.

    Raises:
        ValueError: no frame has a label whose weight is not 0.
    """
    require_labels(fit, "training", frames, targets)
    why = []
    if fit.dtype == "mixed":
        fit = replace(fit, dtype="float32")
        why.append("dtype mixed: another name of float32, whose geometry and sums are float64")
    if fit.tf32 and not (fit.device.startswith("cuda") and fit.dtype == "float32"):
        why.append(f"tf32 changes nothing on {fit.device} in {fit.dtype}")
    of_frames = sizes(frames)
    if not fit.batch_size and not fit.batch_atoms and not fit.batch_edges:
        mean_atoms = int(of_frames.sum()) / len(frames)
        size = max(1, min(16, round(75 / mean_atoms), len(frames) // 4))
        fit = replace(fit, batch_size=size)
        why.append(f"batch size {size}: structures of {mean_atoms:.0f} atoms on average")
    if not fit.epochs and not fit.minutes:
        n_batches = len(epoch_batches(of_frames, fit, 0, edges))
        fit = replace(fit, epochs=max(10, math.ceil(STEPS / n_batches)))
        why.append(f"{fit.epochs} epochs: about {STEPS:,} updates of {n_batches} batches an epoch")
    if bounds := bounded(of_frames, fit, edges):
        batches = epoch_batches(of_frames, fit, 0, edges)
        limits = [f"{n} {what}" for n, what in ((fit.batch_atoms, "atoms"), (fit.batch_edges, "edges")) if n]
        part = 100 * filled(bounds, batches)
        why.append(f"batches of at most {' and '.join(limits)}: {len(batches)} an epoch, {part:.0f} % full")
        why += _beyond(frames, bounds)
    return fit, why


def _beyond(frames: Sequence[Frame], bounds: Sequence[Bound]) -> list[str]:
    """Which structures alone are more than a batch may hold."""
    rows = np.flatnonzero(beyond(bounds))
    if not len(rows):
        return []
    largest = max(rows.tolist(), key=lambda k: max(int(counts[k]) / limit for counts, limit in bounds))
    size = " and ".join(f"{counts[largest]} (of {limit})" for counts, limit in bounds)
    return [
        f"structures that are more than that by themselves: {len(rows)}, each a batch of its own; the largest is "
        f"{Names(frames)[largest]}: {size}"
    ]


def require_labels(
    fit: Fit, kind: str, frames: Sequence[Frame], targets: Mapping[str, Target] | None = None
) -> None:
    """Each stage has something to learn from, or to choose the best model by.

    Raises:
        ValueError: no frame has a label whose weight is not 0, or the weight of a target is 0 throughout.
    """
    have = labelled(frames)
    for name, one in (targets or {}).items():
        if not one.weight and not (fit.stage_two and one.stage_two_weight):
            raise ValueError(
                f"[targets.{name}] its weight is 0 throughout, so that nothing would learn it; raise --set "
                f"targets.{name}.weight, or leave the target out"
            )
    why = "nothing to learn" if kind == "training" else "nothing to choose the best model by"
    for stage in ("", "stage_two_")[: 1 + (fit.stage_two > 0)]:
        wanted = [label for label in LABELS if getattr(fit, f"{stage}{label}_weight")]
        wanted += [name for name, one in (targets or {}).items() if getattr(one, f"{stage}weight")]
        if not have.intersection(wanted):
            raise ValueError(
                f"no {kind} frame has {' or '.join(wanted)}, and the weights of all else are 0: {why}; raise --set "
                f"fit.{stage}energy_weight, fit.{stage}forces_weight or fit.{stage}stress_weight"
            )


def measure(
    frames: Sequence[Frame],
    samples: Iterable[Sample],
    e0: E0Fit,
    targets: Mapping[str, Target] | None = None,
    isolated: Sequence[Frame] = (),
) -> Statistics:
    """The facts a potential carries: elements, E0, the force RMS as energy scale, mean neighbors, those of targets."""
    names = elements(frames)
    neighbors, scale = measured(samples)
    facts = target_facts(frames, names, resolved(targets or {}), isolated)
    if not labelled(frames).intersection(LABELS):
        e0s = tuple(e0.e0[s] for s in names)
        return Statistics(names, e0s, 1.0, max(neighbors, 1.0), facts, has_energy=False)
    if not scale > 0:  # no forces: the spread of the energies per atom
        rest = [
            (f.energy - sum(e0.e0[s] for s in f.atoms.get_chemical_symbols())) / len(f.atoms)
            for f in frames
            if f.energy is not None
        ]
        if not rest:
            raise ValueError(
                "every force is zero and there are no energies: nothing to learn; give other labels"
            )
        mean = sum(rest) / len(rest)
        scale = math.sqrt(sum((x - mean) ** 2 for x in rest) / len(rest)) or 1.0
    return Statistics(names, tuple(e0.e0[s] for s in names), scale, max(neighbors, 1.0), facts)


def make_potential(model: Mapping[str, Any], statistics: Statistics, fit: Fit) -> Potential:
    """The untrained potential of a run.

    Raises:
        ValueError: a device that torch does not know or this machine does not have, or unknown settings.
    """
    check_device(fit.device)
    dials = {k: v for k, v in model.items() if k != "preset"}
    dtype = torch.float64 if fit.dtype == "float64" else torch.float32
    if statistics.targets and not weighed(fit) and not fit.denoise_weight:  # an energy would stay untrained
        statistics = replace(statistics, has_energy=False)
    return build(dials, statistics, fit.seed, dtype).to(fit.device)


def check_elements(potential: Potential, sets: Mapping[str, Sequence[Frame]]) -> None:
    """Every element of every set is known.

    Raises:
        ValueError: naming a frame with another one.
    """
    device = next(potential.parameters()).device
    for frames in sets.values():
        rows, known = element_sets(frames)
        for k in np.unique(rows):
            numbers = torch.tensor(sorted(atomic_numbers[s] for s in known[k]), device=device)
            try:
                potential.check(numbers)
            except ValueError as error:
                raise ValueError(f"{frames[int(np.argmax(rows == k))].name}: {error}") from error


def seconds_per_step(potential: Potential, task: Task) -> float:
    """Mean over ten steps of a copy of the potential, after three to warm up.

    Raises:
        ValueError: see `trial`.
    """
    return trial(potential, task, 10)[1]


def fewer_threads(potential: Potential, task: Task, seconds: float) -> str:
    """What is said where one thread takes clearly less than the `seconds` of a step: batches are too small for so many
    cores, or the machine is busy and threads wait for each other. Their number stays: results depend on it by rounding.
    """
    given = torch.get_num_threads()
    if given == 1 or task.fit.device != "cpu":
        return ""
    with threads(1):
        alone = trial(potential, task, 5, seconds)[1]
    if alone > CLEARLY * seconds:
        return ""
    return (
        f"; one thread takes {1e3 * alone:.0f} ms a step instead of the {1e3 * seconds:.0f} of {given}: start it with "
        "OMP_NUM_THREADS=1 in the environment (small batches, or other programs on these cores)"
    )


def trial(
    potential: Potential,
    task: Task,
    n_steps: int,
    most: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Run, float]:
    """A run of a copy of the potential after some steps, and the mean seconds of `n_steps` of them after three to warm
    up; of fewer, but three, where all take longer than `most` seconds.

    Raises:
        ValueError: a step that is not finite, or does not fit into memory; names the frames.
    """
    run = start(copy.deepcopy(potential), task.fit, targets=task.targets)
    batches = task.batches(0)
    times: list[float] = []
    recorded: list[bool] = []
    strict = replace(task.fit, max_skipped=1)
    while len(times) < n_steps + 3 and (len(times) < 6 or sum(times) < most):
        chosen = batches[len(times) % len(batches)]
        samples = [task.train[k] for k in chosen]
        known, begun = set(run.recordings.known), clock()
        try:
            train_step(run, samples, task.fit, 1e-6)
            times.append(clock() - begun)
            recorded.append(not known >= set(run.recordings.known))
        except (NotFinite, OutOfMemory) as error:
            recover(run, Failed(samples, [task.names[k] for k in chosen], error), strict, lambda _: None)
    # a recording is made once and serves many steps
    usual = [t for t, new in zip(times[3:], recorded[3:], strict=True) if not new] or times[3:]
    return run, sum(usual) / len(usual)
