"""What a contestant says of every test frame: arrays, and the frames on which it failed with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase.stress import voigt_6_to_full_3x3_stress

from train.compare.remote import Remote
from train.data.dataset import Frame
from train.report.run_directory import Floats, PredictedSet

Failure = dict[str, Any]  # frame: position in the test set; name; reason; property, where only that failed


def predict_frames(
    remote: Remote, frames: Sequence[Frame], kinds: Sequence[str]
) -> tuple[PredictedSet, list[Failure], list[Failure]]:
    """Labels and predictions of all frames; NaN where a label is absent, or where the contestant failed.

    Then the frames on which it failed, and those on which it failed to give a property.
    """
    n_atoms = np.array([len(frame.atoms) for frame in frames])
    total = int(n_atoms.sum())
    energy, stress, forces = (
        np.full(len(frames), np.nan),
        np.full((len(frames), 9), np.nan),
        np.full((total, 3), np.nan),
    )
    failures: list[Failure] = []
    gaps: list[Failure] = []
    ends = np.cumsum(n_atoms)
    for k, frame in enumerate(frames):
        try:
            remote.calculate(frame.atoms)
        except ValueError as error:
            failures.append({"frame": k, "name": frame.name, "reason": str(error)})
            continue
        gaps += [
            {"frame": k, "name": frame.name, "property": name, "reason": reason}
            for name, reason in remote.reasons.items()
        ]
        energy[k] = remote.results.get("energy", np.nan)
        forces[ends[k] - n_atoms[k] : ends[k]] = remote.results.get("forces", np.nan)
        if "stress" in remote.results:
            stress[k] = voigt_6_to_full_3x3_stress(remote.results["stress"]).reshape(9)
    files = list(dict.fromkeys(frame.source for frame in frames))
    predicted = PredictedSet(
        name=remote.contestant.name,
        source=", ".join(files),
        n_atoms=n_atoms,
        frame=np.array([frame.index for frame in frames]) if len(files) == 1 else np.arange(len(frames)),
        energy_reference=np.array([np.nan if f.energy is None else f.energy for f in frames]),
        energy_predicted=energy,
        stress_reference=np.array([unknown(9) if f.stress is None else f.stress.reshape(9) for f in frames]),
        stress_predicted=stress,
        atomic_numbers=np.concatenate([frame.atoms.numbers for frame in frames]),
        forces_reference=np.concatenate(
            [unknown(len(f.atoms), 3) if f.forces is None else f.forces for f in frames]
        ),
        forces_predicted=forces,
        config_type=np.array(kinds, dtype=str),
    )
    return predicted, failures, gaps


def unknown(*shape: int) -> Floats:
    return np.full(shape, np.nan)


def read_frames(patterns: Sequence[str], settings: dict[str, Any]) -> tuple[list[Frame], str]:
    """The labelled frames of all files, and the label report.

    `settings`: of [data]: names and units of the labels.

    Raises:
        ValueError: files that cannot be read, no labels, unexplained gaps and impossible labels.
    """
    from train.config import Config
    from train.data.keys import keys
    from train.doctor.inspection import inspect, require_clean
    from train.sets import read_files
    from train.toml import update

    data = update(Config(), {"data": {key: x for key, x in settings.items() if key != "train"}}).data
    frames, found = read_files(patterns, keys(data))
    if not isinstance(frames, list):
        raise ValueError(f"{patterns[0]}: a prepared set is made for training; give the files it was made of")
    report = inspect(frames, found, allow_missing=data.allow_missing)
    require_clean(report)
    return frames, report.text
