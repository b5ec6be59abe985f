"""SNAP and qSNAP as contestants: settings from the pool, a fit on the subset of a job, predictions of a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from potential.linear.lammps_library import open_library
from potential.linear.snap import Snap
from potential.linear.snap_calculator import Prediction, cpu_seconds, opened, predict
from potential.linear.snap_files import write_snap
from train.config import Config, Fit
from train.curve.frames import Sums, beside_zero, sums
from train.curve.study import Job, Study
from train.data.dataset import Frame
from train.data.labels import LABELS
from train.data.weights import weigh
from train.linear.snap import choose_descriptor, dials_of, fit_snap
from train.plan import elements
from train.statistics import fit_e0
from train.toml import update

TIMED = 600  # atoms, as for networks


def snap_settings(
    asked: Mapping[str, Any], config: Config, pool: Sequence[Frame]
) -> tuple[dict[str, Any], int, list[str]]:
    """All dials of a contestant, chosen from the pool where they are not given; coefficients; why.

    Raises:
        ValueError: a dial that SNAP does not have.
        ImportError: LAMMPS is not installed.
    """
    open_library().close()
    others = sorted(key for key in asked if not key.startswith("model."))
    if others:
        raise ValueError(f"snap: {others[0]} is for networks; SNAP is solved, not trained: leave it out")
    given = {key.removeprefix("model."): value for key, value in asked.items()}
    if "cutoff" in config.model:
        given = {"cutoff": config.model["cutoff"], **given}
    descriptor, why = choose_descriptor(pool, dials_of(given))
    settings = {
        "cutoff": descriptor.rcutfac,
        "twojmax": descriptor.twojmax,
        "quadratic": bool(descriptor.quadraticflag),
    }
    return {f"model.{key}": value for key, value in settings.items()}, descriptor.n_coefficients, why


def fitted(study: Study, job: Job, frames: Sequence[Frame], isolated: Sequence[Frame]) -> Snap:
    """The SNAP of a job; also left in its directory as files of LAMMPS.

    Weights of [fit] that are not the default ones are used, and left-out labels (0) left out; else weights are found.

    Raises:
        ValueError: labels that are nowhere, and as `fit_snap`.
    """
    config = update(Config(), study.fixed["settings"])
    frames = weigh(frames, config.weights)[0]
    own = study.models[job.model]["settings"]
    descriptor, why = choose_descriptor(
        frames, dials_of({k.removeprefix("model."): v for k, v in own.items()})
    )
    e0 = fit_e0(
        frames, elements(frames), isolated, {s: v for s, v in config.e0.items() if s in descriptor.elements}
    )
    given = {kind: float(getattr(config.fit, f"{kind}_weight")) for kind in LABELS}
    usual = {kind: getattr(Fit(), f"{kind}_weight") for kind in LABELS}
    chosen = any(weight not in (0, usual[kind]) for kind, weight in given.items())
    kinds = [kind for kind in LABELS if given[kind]]
    found = fit_snap(frames, descriptor, e0, given if chosen else config.data, job.fit_seed, kinds)
    for line in (*why, e0.text, found.text):
        print(line)
    directory = study.run_directory(job)
    directory.mkdir(parents=True, exist_ok=True)
    write_snap(
        directory / "model", found.snap, [f"fitted by potential-curve to {len(frames)} frames", found.text]
    )
    return found.snap


def predicted(snap: Snap, frames: Sequence[Frame]) -> tuple[Sums, float]:
    """Errors on a test, and `evaluated`'s time.

    Raises:
        ValueError: elements that the SNAP was not fitted to.
    """
    found, microseconds = evaluated(snap, frames)
    energy, forces, stress = beside_zero(frames)
    energy[:, 1] = [p.energy for p in found]
    forces[..., 1] = np.concatenate([p.forces for p in found])
    volumes = [f.atoms.get_volume() if f.atoms.pbc.all() else np.nan for f in frames]
    stress[..., 1] = [p.virial / volume for p, volume in zip(found, volumes, strict=True)]
    return sums(np.array([len(frame.atoms) for frame in frames]), energy, forces, stress), microseconds


def evaluated(snap: Snap, frames: Sequence[Frame]) -> tuple[list[Prediction], float]:
    """Predictions, and microseconds of CPU time per atom of energy and forces in a LAMMPS that is open.

    Raises:
        ValueError: elements that the SNAP was not fitted to.
    """
    found, seconds, n_atoms = [], 0.0, 0
    with closing(opened(snap)) as library:
        for frame in frames:
            found.append(predict(snap, frame.atoms, library))
            if n_atoms < TIMED:
                seconds += min(cpu_seconds(library) for _ in range(3))
                n_atoms += len(frame.atoms)
    return found, 1e6 * seconds / n_atoms
