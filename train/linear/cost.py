"""What a solution takes, before it is begun: time, and memory that may not be there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from potential.networks.ace import ACE
from train.batches import Sample
from train.columns import representatives, take
from train.data.labels import LABELS
from train.display import duration
from train.finish import Ready
from train.linear.design import features
from train.linear.equations import FOLDS
from train.linear.rows import PENDING, accumulate
from train.resources import available_memory
from train.stream import n_atoms

PROBE = 400  # columns of the problem that is timed: at 200 singular values take half as long again per F^3
SOLVED = 10.0  # squares of F numbers while one problem is solved: measured, tests/test_linear_cost.py
QR = 3.0  # of triangles in a reduction: F rows kept, and those that came, and a copy of all


@dataclass(frozen=True)
class Cost:
    """Seconds and MiB."""

    features: float
    solution: float
    memory: float

    @property
    def text(self) -> str:
        """For the log."""
        return (
            f"features of all frames in about {duration(self.features)}, the solution in about "
            f"{duration(self.solution)}; {self.memory:,.0f} MiB for rows and solution"
        )


def weighed(job: Ready) -> tuple[str, ...]:
    """Labels that have a weight."""
    return tuple(label for label in LABELS if getattr(job.config.fit, f"{label}_weight"))


def cost(job: Ready) -> Cost:
    """Measured on one frame and on a small problem.

    Raises:
        ValueError: more memory than there is.
    """
    potential, samples = job.potential, job.samples["train"]
    network = cast(ACE, potential.network)
    graph = samples[len(samples) // 2].graph
    species = potential.species_of[graph.atomic_numbers]
    edges = graph.edge_vectors(), species, graph.center, graph.neighbor
    started = time.perf_counter()
    features(network, edges)
    seconds = time.perf_counter() - started
    own = job.sets.frames["valid"] is not job.sets.frames["train"]
    sets = {name: job.samples[name] for name in (("train", "valid") if own else ("train",))}
    f, folds = network.coefficients.numel(), 1
    if job.config.linear.ridge == "validation":
        folds = FOLDS
    n = numbers(job, sets)
    found = Cost(
        seconds * sum(map(len, sets.values())),
        seconds_to_solve(f, sum(map(sum, n)), len(sets) * (1 if folds == 1 else folds + 1)),
        memory(f, n, folds) / 2**20,
    )
    there = available_memory()
    if there is not None and found.memory > there:
        fewer = int(0.8 * len(network.functions) * (there / found.memory) ** 0.5)
        raise ValueError(
            f"{f:,} coefficients need {found.memory:,.0f} MiB, {there:,.0f} MiB are available; take fewer: "
            f"--set model.functions={max(fewer, 1)}"
        )
    return found


def numbers(job: Ready, sets: Mapping[str, Sequence[Sample]]) -> list[list[int]]:
    """Rows of each label of each set, at most."""
    train = job.sets.frames["train"]
    some = take(train, representatives(train))
    labels = [label for label in weighed(job) if any(getattr(f, label) is not None for f in some)]
    per = {"energy": 1, "stress": 6}
    return [
        [len(s) * per[label] if label in per else 3 * int(n_atoms(s).sum()) for label in labels]
        for s in sets.values()
    ]


def memory(f: int, rows: Sequence[Sequence[int]], folds: int) -> float:
    """Bytes: triangles of each label, set and fold, with rows that wait or with the problem that is solved."""
    kept = folds * sum(min(n / folds, f) for of_set in rows for n in of_set)
    waiting = max(sum(min(n / folds, PENDING * f) for n in of_set) for of_set in rows)
    reduced = 2 * QR * f  # those of one label, and a copy
    solved = (SOLVED + (3 * folds if folds > 1 else 0)) * f
    return 8 * f * (kept + max(waiting + reduced, solved))


def seconds_to_solve(f: int, rows: int, times: int) -> float:
    """Of triangles and singular values of f columns, so many times, from a problem that is solved here."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(4 * PROBE, PROBE)), random.normal(size=4 * PROBE)
    started = time.perf_counter()
    accumulate([("one", x, y)])
    middle = time.perf_counter()
    np.linalg.svd(x[:PROBE])
    svd, scale = time.perf_counter() - middle, f / PROBE
    return (middle - started) * rows / len(x) * scale**2 + times * svd * scale**3
