"""Who fits a contestant: name -> function. A fitter that is no network is one function here and one name in
`contestants.OTHERS`.

A fitter gets a study and a job, leaves whatever it wants in `study.run_directory(job)` (where a killed one goes on),
and returns a `Fit`. It raises where it cannot. torch is loaded by those who need it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from train.columns import symbols
from train.config import Data
from train.curve.frames import Sums, beside_zero, sums
from train.curve.study import Job, Study
from train.data.dataset import Frame
from train.data.keys import keys
from train.sets import read_files
from train.statistics import fit_e0
from train.target import Target, title

if TYPE_CHECKING:
    from potential.model import Potential


@dataclass(frozen=True)
class Fit:
    """A finished fit: its errors frame by frame, and what is said of it in results.jsonl."""

    tests: dict[str, Sums]
    facts: dict[str, Any]  # steps, seconds, cpu_seconds, ended, parameters, us_per_atom


def read_frames(path: Path, targets: Mapping[str, Target] | None = None) -> list[Frame]:
    """The frames of a file of a study, with these labels beside energy, forces and stress."""
    return list(read_files([str(path)], keys(Data(), targets))[0])


def network(study: Study, job: Job) -> Fit:
    """Any of `potential.networks`, by potential-train."""
    from train.curve.network import fit_network

    return _tested(study, *fit_network(study, job))


def linear(study: Study, job: Job) -> Fit:
    """Those of them that are linear, by least squares."""
    from train.curve.linear import fit

    return _tested(study, *fit(study, job))


def _tested(study: Study, potential: Potential, facts: dict[str, Any]) -> Fit:
    from train.curve.network import microseconds_per_atom, predicted

    tests = {}
    for name, path in study.tests.items():
        p = predicted(potential, path, study.targets)
        others = {title(k, one): p.targets[k] for k, one in study.targets.items()}
        tests[name] = sums(p.n_atoms, p.energy, p.forces, p.stress, others)
    first = next(iter(study.tests.values()))
    facts["us_per_atom"] = microseconds_per_atom(potential, first, study.targets)
    return Fit(tests, facts)


def baseline(study: Study, job: Job) -> Fit:
    """What is known without a model: E0 of each element by least squares, and no forces."""
    begun = time.process_time()
    frames = read_frames(study.subset(job))
    isolated = read_frames(study.isolated) if study.isolated else []
    e0 = fit_e0(frames, sorted(symbols(frames)), isolated).e0
    tests = {name: _of_sums_of_e0(read_frames(path), e0) for name, path in study.tests.items()}
    seconds = time.process_time() - begun
    facts = {"parameters": len(e0), "steps": 0, "seconds": seconds, "cpu_seconds": seconds, "ended": "solved"}
    return Fit(tests, facts)


def snap(study: Study, job: Job) -> Fit:
    """SNAP or qSNAP, by least squares."""
    from train.curve.snap import fitted, predicted

    begun, cpu = time.perf_counter(), time.process_time()
    frames = read_frames(study.subset(job))
    isolated = read_frames(study.isolated) if study.isolated else []
    found = fitted(study, job, frames, isolated)
    facts = {"parameters": found.descriptor.n_coefficients, "steps": 0, "ended": "solved"}
    facts |= {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - cpu}
    tests = {}
    for name, path in study.tests.items():
        tests[name], facts["us_per_atom"] = predicted(found, read_frames(path))
    return Fit(tests, facts)


def _of_sums_of_e0(frames: Sequence[Frame], e0: dict[str, float]) -> Sums:
    unknown = sorted(symbols(frames) - e0.keys())
    if unknown:
        raise ValueError(
            f"tests hold {', '.join(unknown)}, of which no training frame knows; take larger subsets"
        )

    energy, forces, stress = beside_zero(frames)
    energy[:, 1] = [sum(e0[s] for s in f.atoms.symbols) for f in frames]
    return sums(np.array([len(f.atoms) for f in frames]), energy, forces, stress)


FITTERS: dict[str, Callable[[Study, Job], Fit]] = {
    "network": network,
    "linear": linear,
    "snap": snap,
    "baseline": baseline,
}
