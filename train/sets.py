"""The sets of a run: training, validation and test frames, read and inspected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from train.columns import element_sets, kinds, labelled, places, prints, sizes, suspicious, take
from train.config import Config, Data
from train.data.dataset import Found, Frame, read
from train.data.files import expand
from train.data.keys import Keys, keys
from train.data.labels import LABELS, NONE
from train.data.splits import check_split, groups, validation
from train.data.targets import require_targets
from train.data.weights import check_weights, refuse_all_zero, weigh, weight_notes, weights_record
from train.doctor.inspection import inspect, require_clean
from train.leaks import OLD, Reports, nearly_shared, shared
from train.names import set_names
from train.prepared.found import found_in, require_same
from train.prepared.read import Prepared, is_prepared, open_prepared
from train.replay import mix
from train.target import weights


@dataclass(frozen=True)
class Sets:
    """Frames of every set by name (train, valid, and one per entry of test), and what was said about them."""

    frames: dict[str, Sequence[Frame]]  # a list, or a prepared set whose frames are read when they are used
    labels: str
    why: tuple[str, ...]
    isolated: list[Frame]  # isolated atoms among the training frames
    isolated_given: list[Frame]  # those of files of their own

    @property
    def alone(self) -> list[Frame]:
        """All isolated atoms that say what the model gives one."""
        return [*self.isolated, *self.isolated_given]


def read_sets(config: Config) -> Sets:
    """Read and inspect every file; split validation frames off the training frames if no file of them is given.

    Raises:
        ValueError: unreadable files, unexplained gaps and impossible labels, with file, frame and remedy.
    """
    data, given = config.data, keys(config.data, config.targets)
    check_split(data)
    expand([*data.train, *data.valid, *data.test, *data.isolated_atoms, *data.replay])  # no file in two sets
    reports: Reports = {}
    files = read_files(data.train, given)
    require_targets(given, files[1])
    old_files = read_files(data.replay, given) if data.replay else ([], [])
    both = (files[0], old_files[0])
    check_weights(config.weights, (kind for frames in both for kind, _ in kinds(frames)))
    everything = _inspected(files, config, reports, "train")
    isolated, rest = _apart(everything)
    if not rest:
        raise ValueError(
            f"{', '.join(data.train)}: only isolated atoms; give structures with neighbors to train on"
        )
    sets: dict[str, Sequence[Frame]] = {}
    why = []
    if data.valid:
        sets["train"], sets["valid"] = (
            rest,
            _inspected(read_files(data.valid, given), config, reports, "valid"),
        )
    elif len(rest) == 1:
        sets["train"] = sets["valid"] = rest
        why.append(
            "one frame only: it serves for training and validation, and the errors say nothing about new frames"
        )
    else:
        sets["train"], sets["valid"], reason = _split(rest, data, config.fit.seed)
        why.append(reason)
    if data.replay:
        old = _inspected(old_files, config, reports, OLD)
        why.append(mix(sets, _apart(old)[1], config))
    _require_judge(sets, config)
    for name, pattern in set_names(data.test, sets).items():
        sets[name] = _inspected(read_files([pattern], given), config, reports, name)
    atoms, told = _isolated_given(data, given)
    texts = "\n\n".join(report.text for _, report in reports.values())
    return Sets(sets, texts, (*why, *told, *shared(sets), *nearly_shared(reports)), isolated, atoms)


def _apart(frames: Sequence[Frame]) -> tuple[list[Frame], Sequence[Frame]]:
    """Isolated atoms, and all other frames."""
    single = [int(k) for k in np.flatnonzero(sizes(frames) == 1) if frames[int(k)].is_isolated_atom]
    rest = take(frames, np.delete(np.arange(len(frames)), single)) if single else frames
    return [frames[k] for k in single], rest


def _require_judge(sets: dict[str, Sequence[Frame]], config: Config) -> None:
    if not config.targets or labelled(sets["train"]).intersection(LABELS):
        return
    have = labelled(sets["valid"])
    for stage in (1, 2)[: 1 + (config.fit.stage_two > 0)]:
        wanted = [name for name, weight in weights(config.targets, stage).items() if weight]
        if wanted and not have.intersection(wanted):
            raise ValueError(
                f"no validation frame has {' or '.join(wanted)}, and no training frame has energy, forces or stress: "
                "nothing to choose the best model by; give validation frames that have what is trained"
            )


def read_files(patterns: Sequence[str], given: Keys) -> tuple[Sequence[Frame], list[Found]]:
    """The frames of all files, and what was found in each; an explicit key must be in one of them.

    A prepared set stays unread, and has to be alone.

    Raises:
        ValueError: see `dataset.read` and `files.expand`.
    """
    frames: list[Frame] = []
    found: list[Found] = []
    paths = expand(patterns)
    prepared = [path for path in paths if is_prepared(path)]
    if prepared:
        return _prepared(prepared[0], paths, given)
    for path in paths:
        of_file, keys_found = read(path, given, optional=True)
        frames += of_file
        found.append(keys_found)
    for label in LABELS:
        if getattr(given, label) not in (None, NONE) and not any(getattr(f, label) for f in found):
            read(paths[0], given)  # refuses, and says what is there
    return frames, found


def _prepared(path: str, paths: Sequence[str], given: Keys) -> tuple[Sequence[Frame], list[Found]]:
    if len(paths) > 1:
        raise ValueError(
            f"{path}: a prepared set is the only file of its set, but {len(paths)} files are given; prepare "
            "all of them: potential-prepare FILES --output set.h5"
        )
    for label in LABELS:
        key = getattr(given, label)
        if key not in (None, NONE, label):
            raise ValueError(
                f"{path}: its labels are named energy, forces and stress, but --{label}-key is '{key}'; choose keys "
                "when the set is prepared"
            )
    frames = open_prepared(path)
    require_same(path, frames.store.targets, given.targets)
    unread = tuple(label for label in LABELS if getattr(given, label) == NONE)
    frames = replace(frames, unread=unread, targets=given.targets)
    return frames, [found_in(frames)]


def _inspected(
    files: tuple[Sequence[Frame], list[Found]], config: Config, reports: Reports, name: str
) -> Sequence[Frame]:
    """The frames with their weights, inspected together; the label report joins the others.

    Frames of tests keep every label: there a weight of 0 only explains why one is missing.
    """
    frames, found = files
    frames, notes = _weighed(frames, config, name not in ("train", "valid", OLD))
    looked_at, sampled = seen(frames)
    found = [replace(found[0], notes=(*found[0].notes, *notes, *sampled)), *found[1:]]
    report = inspect(looked_at, found, allow_missing=config.data.allow_missing)
    require_clean(report)
    reports[name] = looked_at, report
    return frames


def _weighed(frames: Sequence[Frame], config: Config, keep: bool) -> tuple[Sequence[Frame], list[str]]:
    if not isinstance(frames, Prepared):
        return weigh(frames, config.weights, keep=keep)
    path, factors = frames.store.path, np.array([one[1] for one in frames.store.tables["kinds"]])[frames.kind]
    weighed = replace(frames, weights=config.weights, keep=keep)
    used = [keep or any(asdict(weights).values()) for weights in weighed.of_kind]
    has = np.any([weighed.has_target(name) for name in weighed.targets], axis=0) & (factors > 0)
    kept = weighed.take(np.flatnonzero(np.array(used)[weighed.kind] | has))
    if not len(kept):
        refuse_all_zero(path)
    types: Counter[str | None] = Counter()
    for (kind, _), n in kinds(kept).items():
        types[kind] += n
    return kept, weight_notes(factors[factors != 1].tolist(), len(frames) - len(kept), types, config.weights)


def seen(frames: Sequence[Frame]) -> tuple[list[Frame], list[str]]:
    """The frames that are inspected: all, or of a large prepared set a sample, with a sentence that says so."""
    if not isinstance(frames, Prepared):
        return list(frames), []
    rows = suspicious(frames)
    if len(rows) == len(frames):
        return list(frames), []
    marks = prints(frames)
    text = (
        f"the report is on {len(rows)} of {len(frames)} frames: evenly spaced ones, and the first with each element, "
        f"each combination of labels and each repeated structure; {len(marks) - len(np.unique(marks))} of all repeat "
        "an earlier structure"
    )
    return [frames[int(k)] for k in rows], [text]


def _isolated_given(data: Data, given: Keys) -> tuple[list[Frame], list[str]]:
    """Isolated atoms of files of their own, of which energies and targets are read, and where they come from."""
    frames: list[Frame] = []
    told = []
    for path in expand(data.isolated_atoms):
        of_file, (found,) = read_files([path], replace(given, forces=NONE, stress=NONE))
        bare = next((f for f in of_file if f.energy is None), None)
        if bare:
            raise ValueError(f"{bare.name}: an isolated atom without an energy; complete or remove it")
        frames += of_file
        told.append(
            f"isolated atoms: {len(of_file)} of {path}, energies under '{found.energy}', {found.units}"
        )
    return frames, told


def _split(frames: Sequence[Frame], data: Data, seed: int) -> tuple[Sequence[Frame], Sequence[Frame], str]:
    """Training and validation frames and a sentence; every element is among the training frames.

    Where the choice takes all frames of an element, the first frame that holds it always trains. Folds cannot
    give way like this.
    """
    rows, elements = element_sets(frames)
    always: dict[int, set[str]] = {}
    while True:
        valid = validation(frames, data, seed, list(always))
        train = np.setdiff1d(np.arange(len(frames)), valid)
        lost = set().union(*elements) - set().union(*(elements[k] for k in np.unique(rows[train])))
        if lost and data.folds:
            raise ValueError(
                f"fold {data.fold} of {data.folds} takes every frame with {', '.join(sorted(lost))} away from "
                "training; give more frames with it, another seed, or a validation fraction instead of folds"
            )
        if not lost:
            break
        for symbol in lost:
            first = next(i for i, k in enumerate(rows.tolist()) if symbol in elements[k])
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
    return take(frames, train), take(frames, valid), text


def _how(frames: Sequence[Frame], data: Data) -> str:
    way = "blocks of each trajectory, " if data.split == "blocks" else ""
    if data.group_key:
        way = f"whole groups of {len(set(groups(frames, data.group_key)))} by {data.group_key}, "
    return f"{way}fold {data.fold} of {data.folds}, made" if data.folds else f"{way}chosen"


def split_record(sets: Sets, config: Config) -> dict[str, Any]:
    """Which frame of which file went where, how they were chosen and what they count, for split.json."""
    data = config.data
    record: dict[str, Any] = {name: places(frames) for name, frames in sets.frames.items()}
    how: dict[str, Any] = {"split": data.split}
    how |= {"folds": data.folds, "fold": data.fold} if data.folds else {"valid_fraction": data.valid_fraction}
    if data.group_key:
        sides = {name: sorted(set(groups(sets.frames[name], data.group_key))) for name in ("train", "valid")}
        how |= {"group_key": data.group_key, "groups": sides}
    if data.valid:
        how = {"split": "files"}
    return {
        **record,
        "seed": config.fit.seed,
        "how": how,
        "weights": weights_record(kinds(sets.frames["train"])),
    }
