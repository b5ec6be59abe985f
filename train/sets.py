"""The sets of a run: training, validation and test frames, read and inspected."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from train.checks import fingerprint
from train.config import Config, Data
from train.dataset import Frame, Keys, read, split
from train.doctor import inspect, require_clean

SHOWN = 5  # frame numbers in a warning


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
        sets["train"], sets["valid"], reason = _split(rest, data.valid_fraction, config.fit.seed)
        why.append(reason)
    for path in data.test:
        name = Path(path).name.split(".")[0]
        name = name if name not in sets else f"{name} ({len(sets)})"
        sets[name] = _other(path, config, texts)
    return Sets(sets, "\n\n".join(texts), (*why, *_shared(sets)), isolated)


def _split(frames: list[Frame], fraction: float, seed: int) -> tuple[list[Frame], list[Frame], str]:
    """Training and validation frames and a sentence; every element is among the training frames.

    Where the random choice takes all frames of an element, the first frame that holds it always trains.
    """
    elements = [set(f.atoms.symbols) for f in frames]
    always: dict[int, set[str]] = {}
    while True:
        train, valid = split(len(frames), fraction, seed, list(always))
        lost = set().union(*elements) - set().union(*(elements[i] for i in train))
        if not lost:
            break
        for symbol in lost:
            first = next(i for i, found in enumerate(elements) if symbol in found)
            always.setdefault(first, set()).add(symbol)
    if fraction > 0 and not len(valid):
        return (
            frames,
            frames,
            f"no frame can be spared, as each is needed for its elements: all {len(frames)} serve for training "
            "and validation, and the errors say nothing about new frames",
        )
    text = f"{len(valid)} of {len(frames)} frames kept for validation, chosen with seed {seed}"
    if always:
        held = (f"frame {frames[i].index} for {', '.join(sorted(found))}" for i, found in always.items())
        text += f"; always trained on, as too few frames hold these elements: {'; '.join(held)}"
    return [frames[i] for i in train], [frames[i] for i in valid], text


def _shared(sets: dict[str, list[Frame]]) -> list[str]:
    """A warning for any two sets that hold the same structures; later sets are blamed."""
    prints = {name: {fingerprint(f): f for f in reversed(frames)} for name, frames in sets.items()}
    warnings = []
    for one, other in combinations(sets, 2):
        if sets[one] is sets[other]:
            continue
        both = [f for f in sets[other] if fingerprint(f) in prints[one]]
        if not both:
            continue
        first = prints[one][fingerprint(both[0])]
        listed = ", ".join(str(f.index) for f in both[:SHOWN]) + (", ..." if len(both) > SHOWN else "")
        warnings.append(
            f"WARNING: {len(both)} of {len(sets[other])} {other} structures are also {one} structures: "
            f"{both[0].source}, frame{'s' * (len(both) > 1)} {listed} (the first is frame {first.index} of "
            f"{first.source}); errors on them say nothing about new structures, remove them from one of the sets"
        )
    return warnings


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
