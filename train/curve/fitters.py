"""Who fits a contestant: name -> function. A fitter that is no network is one function here and one name in
`contestants.OTHERS`.

A fitter gets a study and a job, leaves whatever it wants in `study.run_directory(job)` (where a killed one goes on),
and returns a `Fit`. It raises where it cannot. torch is loaded by those who need it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from train.columns import symbols
from train.config import Data
from train.curve.frames import Sums, sums
from train.curve.study import Job, Study
from train.data.dataset import Frame
from train.report.run_directory import PredictedSet
from train.sets import keys, read_files
from train.statistics import fit_e0


@dataclass(frozen=True)
class Fit:
    """A finished fit: its errors frame by frame, and what is said of it in results.jsonl."""

    tests: dict[str, Sums]
    facts: dict[str, Any]  # steps, seconds, cpu_seconds, ended, parameters, us_per_atom


def read_frames(path: Path) -> list[Frame]:
    """The frames of a file of a study."""
    return list(read_files([str(path)], keys(Data()))[0])


def network(study: Study, job: Job) -> Fit:
    """Any of `potential.networks`, by potential-train."""
    from train.curve.network import fit_network, inference_seconds

    predicted, facts, potential = fit_network(study, job)
    first = read_frames(next(iter(study.tests.values())))
    facts["us_per_atom"] = inference_seconds(potential, first)
    return Fit({one.name: sums(one) for one in predicted}, facts)


def baseline(study: Study, job: Job) -> Fit:
    """What is known without a model: E0 of each element by least squares, and no forces."""
    begun = time.process_time()
    frames = read_frames(study.subset(job))
    isolated = read_frames(study.isolated) if study.isolated else []
    e0 = fit_e0(frames, sorted(symbols(frames)), isolated).e0
    tests = {name: sums(_constant(name, read_frames(path), e0)) for name, path in study.tests.items()}
    seconds = time.process_time() - begun
    facts = {"parameters": len(e0), "steps": 0, "seconds": seconds, "cpu_seconds": seconds, "ended": "solved"}
    return Fit(tests, facts)


def _constant(name: str, frames: Sequence[Frame], e0: dict[str, float]) -> PredictedSet:
    def column(values: list[Any], shape: tuple[int, ...]) -> np.ndarray:
        rows = [
            np.full(shape, np.nan) if v is None else np.asarray(v, dtype=float).reshape(shape) for v in values
        ]
        return np.array(rows)

    forces = [np.full((len(f.atoms), 3), np.nan) if f.forces is None else f.forces for f in frames]
    stress = column([f.stress for f in frames], (9,))
    unknown = sorted({s for f in frames for s in f.atoms.symbols} - e0.keys())
    if unknown:
        raise ValueError(
            f"{name} has {', '.join(unknown)}, of which no training frame knows; take larger subsets"
        )
    return PredictedSet(
        name=name,
        source="",
        n_atoms=np.array([len(f.atoms) for f in frames]),
        frame=np.arange(len(frames)),
        energy_reference=column([f.energy for f in frames], ()),
        energy_predicted=np.array([sum(e0[s] for s in f.atoms.symbols) for f in frames]),
        stress_reference=stress,
        stress_predicted=np.zeros_like(stress),
        atomic_numbers=np.concatenate([f.atoms.numbers for f in frames]),
        forces_reference=np.concatenate(forces),
        forces_predicted=np.zeros((sum(len(f.atoms) for f in frames), 3)),
        config_type=np.array([""] * len(frames)),
    )


FITTERS: dict[str, Callable[[Study, Job], Fit]] = {"network": network, "baseline": baseline}
