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
from train.data.keys import keys
from train.sets import read_files
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
    from train.curve.network import fit_network, microseconds_per_atom, predicted

    potential, facts = fit_network(study, job)
    tests = {}
    for name, path in study.tests.items():
        p = predicted(potential, path)
        tests[name] = sums(p.n_atoms, p.energy, p.forces, p.stress)
    facts["us_per_atom"] = microseconds_per_atom(potential, next(iter(study.tests.values())))
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


def _of_sums_of_e0(frames: Sequence[Frame], e0: dict[str, float]) -> Sums:
    unknown = sorted(symbols(frames) - e0.keys())
    if unknown:
        raise ValueError(
            f"tests hold {', '.join(unknown)}, of which no training frame knows; take larger subsets"
        )

    def with_zero(label: str, shape: tuple[int, ...]) -> np.ndarray:
        """A label of all frames beside a prediction of 0."""
        shapes = ((len(f.atoms), 3) if label == "forces" else shape for f in frames)
        values = [
            np.full(s, np.nan) if (v := getattr(f, label)) is None else v
            for f, s in zip(frames, shapes, strict=True)
        ]
        reference = np.concatenate(values) if label == "forces" else np.array(values)
        return np.stack([reference, np.zeros_like(reference)], -1)

    energy = with_zero("energy", ())
    energy[:, 1] = [sum(e0[s] for s in f.atoms.symbols) for f in frames]
    n_atoms = np.array([len(f.atoms) for f in frames])
    return sums(n_atoms, energy, with_zero("forces", ()), with_zero("stress", (3, 3)))


FITTERS: dict[str, Callable[[Study, Job], Fit]] = {"network": network, "baseline": baseline}
