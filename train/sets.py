"""The sets of a run: training, validation and test frames, read and inspected."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.config import Config, Data
from train.dataset import Frame, Keys, read, split
from train.doctor import inspect, require_clean


@dataclass(frozen=True)
class Sets:
    """Frames of every set by name (train, valid, and one per test file), and what was said about their labels."""

    frames: dict[str, list[Frame]]
    labels: str
    why: tuple[str, ...]
    isolated: list[Frame]


def keys(data: Data) -> Keys:
    """Where labels are and in which units; an empty setting means: find it, or follow from the others."""
    return Keys(
        energy=data.energy_key or None,
        forces=data.forces_key or None,
        stress=data.stress_key or None,
        energy_unit=data.energy_unit,
        length_unit=data.length_unit,
        forces_unit=data.forces_unit or None,
        stress_unit=data.stress_unit or None,
    )


def read_sets(config: Config) -> Sets:
    """Read and inspect every file; split validation frames off the training file if no file of them is given.

    Raises:
        ValueError: unreadable files, unexplained gaps and impossible labels, with file, frame and remedy.
    """
    data = config.data
    everything, found = read(data.train, keys(data))
    report = inspect(everything, found, keys(data), allow_missing=data.allow_missing)
    require_clean(report)
    texts, why = [report.text], []
    isolated = [f for f in everything if f.is_isolated_atom]
    rest = [f for f in everything if not f.is_isolated_atom]
    if not rest:
        raise ValueError(
            f"{data.train}: holds only isolated atoms; give structures with neighbors to train on"
        )
    sets: dict[str, list[Frame]] = {}
    if data.valid:
        sets["train"], sets["valid"] = rest, _other(data.valid, config, texts)
    elif len(rest) == 1:
        sets["train"] = sets["valid"] = rest
        why.append(
            "one frame only: it serves for training and validation, and the errors say nothing about new frames"
        )
    else:
        train, valid = split(len(rest), data.valid_fraction, config.fit.seed)
        sets["train"], sets["valid"] = [rest[i] for i in train], [rest[i] for i in valid]
        why.append(
            f"{len(valid)} of {len(rest)} frames kept for validation, chosen with seed {config.fit.seed}"
        )
    for path in data.test:
        name = Path(path).name.split(".")[0]
        name = name if name not in sets else f"{name} ({len(sets)})"
        sets[name] = _other(path, config, texts)
    return Sets(sets, "\n\n".join(texts), tuple(why), isolated)


def _other(path: str, config: Config, texts: list[str]) -> list[Frame]:
    frames, found = read(path, keys(config.data))
    report = inspect(frames, found, keys(config.data), allow_missing=config.data.allow_missing)
    require_clean(report)
    texts.append(report.text)
    return frames


def split_record(sets: Sets, seed: int) -> dict[str, Any]:
    """Which frame of which file went where, for split.json."""
    chosen = {
        name: {"source": f[0].source, "frames": [x.index for x in f]} for name, f in sets.frames.items()
    }
    return {"seed": seed, **chosen}
