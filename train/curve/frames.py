"""Errors of a fit, frame by frame: what the bootstrap over test frames needs, a few kilobytes for each fit."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from train.curve.resample import Errors
from train.curve.study import Job, Study
from train.data.dataset import Frame
from train.data.targets import unit_text, unit_used
from train.target import Target, title

QUANTITIES = {"energy": "meV/atom", "forces": "meV/Å", "stress": "meV/Å³"}
MEASURES = {"rmse": 2, "mae": 1}
Sums = dict[
    str, np.ndarray
]  # "quantity/2" and "quantity/1": sums of |error|^2 and |error|, "quantity/n": labels


def units_of(targets: Mapping[str, Target], energy_per: str = "atom") -> dict[str, str]:
    """Quantity -> unit of its errors, those of targets in 1/1000 of theirs."""
    units = {name: unit_text(unit_used(name) or t.unit) for name, t in targets.items()}
    others = {title(name, t): f"10⁻³ {units[name]}".strip() for name, t in targets.items()}
    return {**QUANTITIES, **({"energy": "meV"} if energy_per == "structure" else {}), **others}


def beside_zero(frames: Sequence[Frame]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energy, forces and stress as `sums` takes them, the predictions 0."""

    def labels(name: str, shape: tuple[int, ...]) -> np.ndarray:
        shapes = ((len(f.atoms), 3) if name == "forces" else shape for f in frames)
        values = [
            np.full(s, np.nan) if (v := getattr(f, name)) is None else v
            for f, s in zip(frames, shapes, strict=True)
        ]
        reference = np.concatenate(values) if name == "forces" else np.array(values)
        return np.stack([reference, np.zeros_like(reference)], -1)

    return labels("energy", ()), labels("forces", (3,)), labels("stress", (3, 3))


def sums(
    n_atoms: np.ndarray,
    energy: np.ndarray,
    forces: np.ndarray,
    stress: np.ndarray,
    others: Mapping[str, np.ndarray] | None = None,
) -> Sums:
    """Per frame (n_frames,): energies per atom in meV, force components in meV/Å, stress components in meV/Å³.

    Takes reference and prediction along the last axis, in eV and Å, as `train.evaluate.Predictions` has them: `energy`
    (n_frames, 2), `forces` (n, 3, 2), `stress` (n_frames, 3, 3, 2), `others` by quantity, (n_frames, dim, 2) or, of
    atoms, (n, dim, 2), in their units and counted in 1/1000 of these; NaN where a label is absent.

    Raises:
        ValueError: a prediction that is not finite where there is a label.
    """
    n = len(n_atoms)
    found: Sums = {}
    tables = {
        "energy": (energy, np.arange(n)),
        "forces": (forces, np.repeat(np.arange(n), n_atoms)),
        "stress": (stress, np.arange(n)),
    }
    for name, both in (others or {}).items():
        tables[name] = both, np.arange(n) if len(both) == n else np.repeat(np.arange(n), n_atoms)
    for name, (both, frame) in tables.items():
        reference, prediction = np.moveaxis(both.reshape(len(both), -1, 2), -1, 0)
        known = np.isfinite(reference)
        if name == "stress":  # a structure that is not periodic in all directions has none
            known &= ~np.isnan(prediction).all(1, keepdims=True)
        if not known.any():
            continue
        wrong = np.flatnonzero((known & ~np.isfinite(prediction)).any(1))
        if len(wrong):
            raise ValueError(
                f"{name} of test frame {frame[wrong[0]]} is predicted as {prediction[wrong[0]].tolist()}: the fit has "
                "diverged or its model cannot calculate it; leave the frame out of the test, or change the model's "
                "settings (a lower fit.learning_rate)"
            )
        error = 1e3 * np.where(known, prediction - reference, 0.0)
        if name == "energy":
            error = error / n_atoms[:, None]
        for power in (2, 1):
            each = np.where(known, np.abs(error) ** power, 0.0).sum(1)
            found[f"{name}/{power}"] = np.bincount(frame, each, n)
        found[f"{name}/n"] = np.bincount(frame, known.sum(1), n)
    return found


def leading(quantities: Collection[str]) -> str:
    """The quantity that stands for all: forces, if there are any."""
    return "forces" if "forces" in quantities else next(iter(quantities))


def errors_of(found: Sums) -> dict[str, dict[str, float]]:
    """Quantity -> its rmse and mae over all frames."""
    return {
        name: {
            measure: float((found[f"{name}/{power}"].sum() / found[f"{name}/n"].sum()) ** (1 / power))
            for measure, power in MEASURES.items()
        }
        for name in (key.removesuffix("/n") for key in found if key.endswith("/n"))
    }


def write_sums(path: Path, tests: Mapping[str, Sums]) -> None:
    """Completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        arrays: dict[str, Any] = {f"{test}/{key}": x for test, of in tests.items() for key, x in of.items()}
        np.savez_compressed(file, **arrays)
    partial.replace(path)


def sums_path(study: Study, job: Job) -> Path:
    return study.directory / "frames" / f"{job.name}.npz"


def collect(
    study: Study,
    jobs: Sequence[Job],
    test: str,
    what: tuple[str, str],
    block: int = 1,
    n_atoms: np.ndarray | None = None,
) -> Errors | None:
    """Errors of finished jobs on one test, `what` = (quantity, measure); None where the test has no such label.

    `n_atoms` (n_frames,): errors are times these, as those of energies of structures. `block`: so many neighboring
    frames count as one, for tests that are trajectories.
    """
    quantity, measure = what
    power, rows, counts = MEASURES[measure], [], None
    for job in jobs:
        with np.load(sums_path(study, job)) as file:
            if f"{test}/{quantity}/n" not in file:
                return None
            rows.append(file[f"{test}/{quantity}/{power}"] * (1 if n_atoms is None else n_atoms**power))
            counts = file[f"{test}/{quantity}/n"]
    if counts is None:
        return None
    starts = np.arange(0, len(counts), block)
    table, labels = np.add.reduceat(np.array(rows), starts, axis=1), np.add.reduceat(counts, starts)
    model, size, draw, seed = (
        np.array([getattr(job, name) for job in jobs]) for name in ("model", "size", "draw", "seed")
    )
    return Errors(model, size, draw, seed, table[:, labels > 0], labels[labels > 0].astype(float), power)
