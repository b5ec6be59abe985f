"""The sets of a run: training, validation and test frames, read and inspected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from train.config import Config, Data, set_names
from train.data.dataset import Found, Frame, read
from train.data.files import expand
from train.data.keys import Keys
from train.data.labels import LABELS, NONE
from train.data.splits import check_split, groups, validation
from train.data.weights import check_weights, weigh, weights_record
from train.doctor.checks import fingerprint
from train.doctor.inspection import inspect, require_clean

SHOWN = 5  # frame numbers in a warning


@dataclass(frozen=True)
class Sets:
    """Frames of every set by name (train, valid, and one per entry of test), and what was said about them."""

    frames: dict[str, list[Frame]]
    labels: str
    why: tuple[str, ...]
    isolated: list[Frame]  # isolated atoms among the training frames
    isolated_given: list[Frame]  # those of files of their own


def keys(data: Data) -> Keys:
    """Where labels are and in which units; an empty setting means: find it, or follow from the others."""
    return Keys(
        energy=data.energy_key or None,
        forces=data.forces_key or None,
        stress=data.stress_key or None,
        energy_unit=data.energy_unit or None,
        length_unit=data.length_unit or None,
        forces_unit=data.forces_unit or None,
        stress_unit=data.stress_unit or None,
    )


def read_sets(config: Config) -> Sets:
    """Read and inspect every file; split validation frames off the training frames if no file of them is given.

    Raises:
        ValueError: unreadable files, unexplained gaps and impossible labels, with file, frame and remedy.
    """
    data = config.data
    check_split(data)
    expand([*data.train, *data.valid, *data.test, *data.isolated_atoms, *data.replay])  # no file in two sets
    texts: list[str] = []
    files = read_files(data.train, keys(data))
    check_weights(config.weights, files[0])
    everything = _inspected(files, config, texts)
    isolated = [f for f in everything if f.is_isolated_atom]
    rest = [f for f in everything if not f.is_isolated_atom]
    if not rest:
        raise ValueError(
            f"{', '.join(data.train)}: only isolated atoms; give structures with neighbors to train on"
        )
    sets: dict[str, list[Frame]] = {}
    why = []
    if data.valid:
        sets["train"], sets["valid"] = rest, _inspected(read_files(data.valid, keys(data)), config, texts)
    elif len(rest) == 1:
        sets["train"] = sets["valid"] = rest
        why.append(
            "one frame only: it serves for training and validation, and the errors say nothing about new frames"
        )
    else:
        sets["train"], sets["valid"], reason = _split(rest, data, config.fit.seed)
        why.append(reason)
    if data.replay:
        old = _inspected(read_files(data.replay, keys(data)), config, texts)
        why.append(_mix(sets, [f for f in old if not f.is_isolated_atom], config))
    for name, pattern in set_names(data.test, sets).items():
        sets[name] = _inspected(read_files([pattern], keys(data)), config, texts, measured=True)
    given, told = _isolated_given(data)
    return Sets(sets, "\n\n".join(texts), (*why, *told, *_shared(sets)), isolated, given)


def read_files(patterns: Sequence[str], given: Keys) -> tuple[list[Frame], list[Found]]:
    """The frames of all files, and what was found in each; an explicit key must be in one of them.

    Raises:
        ValueError: see `dataset.read` and `files.expand`.
    """
    frames: list[Frame] = []
    found: list[Found] = []
    paths = expand(patterns)
    for path in paths:
        of_file, keys_found = read(path, given, optional=True)
        frames += of_file
        found.append(keys_found)
    for label in LABELS:
        if getattr(given, label) not in (None, NONE) and not any(getattr(f, label) for f in found):
            read(paths[0], given)  # refuses, and says what is there
    return frames, found


def _inspected(
    files: tuple[list[Frame], list[Found]], config: Config, texts: list[str], measured: bool = False
) -> list[Frame]:
    """The frames with their weights, inspected together; the label report joins `texts`.

    Frames to be `measured` on keep every label: there a weight of 0 only explains why one is missing.
    """
    frames, found = files
    frames, notes = weigh(frames, config.weights, keep=measured)
    found = [replace(found[0], notes=(*found[0].notes, *notes)), *found[1:]]
    report = inspect(frames, found, allow_missing=config.data.allow_missing)
    require_clean(report)
    texts.append(report.text)
    return frames


def _isolated_given(data: Data) -> tuple[list[Frame], list[str]]:
    """Isolated atoms of files of their own, of which only the energies are read, and where they come from."""
    frames, told = [], []
    for path in expand(data.isolated_atoms):
        of_file, found = read(path, replace(keys(data), forces="none", stress="none"))
        bare = next((f for f in of_file if f.energy is None), None)
        if bare:
            raise ValueError(f"{bare.name}: an isolated atom without an energy; complete or remove it")
        frames += of_file
        told.append(
            f"isolated atoms: {len(of_file)} of {path}, energies under '{found.energy}', {found.units}"
        )
    return frames, told


def _split(frames: list[Frame], data: Data, seed: int) -> tuple[list[Frame], list[Frame], str]:
    """Training and validation frames and a sentence; every element is among the training frames.

    Where the choice takes all frames of an element, the first frame that holds it always trains. Folds cannot
    give way like this.
    """
    elements = [set(f.atoms.symbols) for f in frames]
    always: dict[int, set[str]] = {}
    while True:
        valid = validation(frames, data, seed, list(always))
        train = sorted(set(range(len(frames))) - set(valid.tolist()))
        lost = set().union(*elements) - set().union(*(elements[i] for i in train))
        if lost and data.folds:
            raise ValueError(
                f"fold {data.fold} of {data.folds} takes every frame with {', '.join(sorted(lost))} away from "
                "training; give more frames with it, another seed, or a validation fraction instead of folds"
            )
        if not lost:
            break
        for symbol in lost:
            first = next(i for i, found in enumerate(elements) if symbol in found)
            always.setdefault(first, set()).add(symbol)
    if not len(valid):
        return (
            frames,
            frames,
            f"no frame can be spared, as each is needed for its elements: all {len(frames)} serve for training "
            "and validation, and the errors say nothing about new frames",
        )
    text = f"{len(valid)} of {len(frames)} frames kept for validation, {_how(frames, data)} with seed {seed}"
    if always:
        held = (f"frame {frames[i].index} for {', '.join(sorted(found))}" for i, found in always.items())
        text += f"; always trained on, as too few frames hold these elements: {'; '.join(held)}"
    return [frames[i] for i in train], [frames[i] for i in valid], text


def _mix(sets: dict[str, list[Frame]], old: list[Frame], config: Config) -> str:
    """Old frames join those for training and validation; says how many."""
    n_new = len(sets["train"]) + len(sets["valid"])
    n = min(len(old), max(1, round(config.data.replay_ratio * n_new)))
    order = np.random.default_rng([config.fit.seed, n_new]).permutation(len(old))[:n]
    n_valid = min(round(config.data.valid_fraction * n), n - 1)
    sets["valid"] = [*sets["valid"], *(old[i] for i in sorted(order[:n_valid]))]
    sets["train"] = [*sets["train"], *(old[i] for i in sorted(order[n_valid:]))]
    return f"{n} of {len(old)} old frames mixed in with {n_new} new ones, {n_valid} of them for validation"


def _how(frames: Sequence[Frame], data: Data) -> str:
    way = "blocks of each trajectory, " if data.split == "blocks" else ""
    if data.group_key:
        way = f"whole groups of {len(set(groups(frames, data.group_key)))} by {data.group_key}, "
    return f"{way}fold {data.fold} of {data.folds}, made" if data.folds else f"{way}chosen"


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


def split_record(sets: Sets, config: Config) -> dict[str, Any]:
    """Which frame of which file went where, how they were chosen and what they count, for split.json."""
    data = config.data
    record: dict[str, Any] = {name: _places(frames) for name, frames in sets.frames.items()}
    how: dict[str, Any] = {"split": data.split}
    how |= {"folds": data.folds, "fold": data.fold} if data.folds else {"valid_fraction": data.valid_fraction}
    if data.group_key:
        sides = {name: sorted(set(groups(sets.frames[name], data.group_key))) for name in ("train", "valid")}
        how |= {"group_key": data.group_key, "groups": sides}
    if data.valid:
        how = {"split": "files"}
    return {**record, "seed": config.fit.seed, "how": how, "weights": weights_record(sets.frames["train"])}


def _places(frames: Sequence[Frame]) -> dict[str, Any]:
    """Files, and for each frame the number of its file and its own number there."""
    files = list(dict.fromkeys(f.source for f in frames))
    return {
        "files": files,
        "file": [files.index(f.source) for f in frames],
        "frames": [f.index for f in frames],
    }
