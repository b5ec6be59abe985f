"""Which frames validate: at random, in blocks of time, or by group; one part, or one of several folds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from train.columns import infos, trajectories
from train.config import Data
from train.data.dataset import Frame
from train.option import check_values, suggest

Indices = NDArray[np.int64]


def check_split(data: Data) -> None:
    """Refuse settings that cannot work together.

    Raises:
        ValueError: naming the setting, what it was and what it may be.
    """
    check_values("data", data)
    if data.split == "blocks" and data.group_key:
        raise ValueError(
            f"split = 'blocks' and group_key = {data.group_key!r} are both given; give one, since frames are kept "
            "together either by time or by group"
        )
    if data.folds == 1:
        raise ValueError(f"[data] folds is {data.folds}; at least 2 are needed, or 0 for none")
    if not 0 <= data.fold < max(data.folds, 1):
        known = f"folds is {data.folds}: choose 0 to {data.folds - 1}" if data.folds else "give folds too"
        raise ValueError(f"[data] fold is {data.fold}, but {known}")
    if data.valid and (data.folds or data.group_key or data.split != "random"):
        raise ValueError(
            "validation files are given, so that nothing is split: leave out valid, or folds, split and group_key"
        )


def groups(frames: Sequence[Frame], key: str) -> list[str]:
    """The group of each frame.

    Raises:
        ValueError: a frame without the key.
    """
    names = []
    for k, info in enumerate(infos(frames)):
        if key not in info:
            known = sorted(str(name) for name in info)
            raise ValueError(
                f"{frames[k].name}: no '{key}' in its info, by which frames are grouped{suggest(key, known)}; it "
                f"holds {', '.join(known) or 'nothing'}; complete it, or choose another group_key"
            )
        names.append(str(info[key]))
    return names


def validation(frames: Sequence[Frame], data: Data, seed: int, keep: Iterable[int] = ()) -> Indices:
    """Sorted positions of the frames that validate; a function of the frames' order, the settings and the seed.

    Those in `keep` train, and so does their whole group.
    """
    if data.folds:
        return np.flatnonzero(folds(frames, data, seed) == data.fold)
    kept = list(keep)
    if data.group_key:
        names = groups(frames, data.group_key)
        if len(set(names)) == 1:
            raise ValueError(
                f"every frame has {data.group_key} = {names[0]}: one group cannot be split; give validation files, or "
                "another group_key"
            )
        return _some_groups(_positions(names), data.valid_fraction, seed, {names[i] for i in kept})
    if data.split == "blocks":
        return np.setdiff1d(_one_block_each(_trajectories(frames), data.valid_fraction, seed), kept)
    return split(len(frames), data.valid_fraction, seed, kept)[1]


def folds(frames: Sequence[Frame], data: Data, seed: int) -> Indices:
    """The number of the fold in which each frame validates.

    Folds differ by at most one frame, but for groups, which are put whole where fewest frames are, largest first.

    Raises:
        ValueError: fewer frames or groups than folds.
    """
    rng = np.random.default_rng(seed)
    n, fold = data.folds, np.full(len(frames), -1, dtype=np.int64)
    parts = _positions(groups(frames, data.group_key)) if data.group_key else None
    many = len(frames) if parts is None else len(parts)
    if many < n:
        what = "groups" if parts else "frames"
        raise ValueError(f"{many} {what} cannot make {n} folds; give at most folds = {many}")
    if parts is not None:
        size = np.zeros(n, dtype=np.int64)
        members = [parts[name] for name in rng.permutation(sorted(parts))]
        for group in sorted(members, key=len, reverse=True):
            smallest = int(size.argmin())
            fold[group] = smallest
            size[smallest] += len(group)
    elif data.split == "blocks":
        size = np.zeros(n, dtype=np.int64)
        for trajectory in _trajectories(frames):
            order = rng.permutation(n)  # of the folds along the trajectory
            longer = sorted(order, key=lambda f: size[f])[: len(trajectory) % n]
            lengths = [len(trajectory) // n + (f in longer) for f in order]
            fold[trajectory] = np.repeat(order, lengths)
            size[order] += lengths
    else:
        for number, part in enumerate(np.array_split(rng.permutation(len(frames)), n)):
            fold[part] = number
    return fold


def _positions(names: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        found.setdefault(name, []).append(position)
    return found


def _trajectories(frames: Sequence[Frame]) -> list[list[int]]:
    """Frames of one file and config_type, in the order of the file."""
    return list(_positions([repr(one) for one in trajectories(frames)]).values())


def _some_groups(parts: dict[str, list[int]], fraction: float, seed: int, keep: set[str]) -> Indices:
    """Whole groups in random order, each if it brings the number of frames nearer to the fraction; one at least."""
    names = np.random.default_rng(seed).permutation(sorted(set(parts) - keep))
    free = [parts[name] for name in names]
    free = free if keep else free[1:]  # one trains
    wanted = fraction * sum(len(group) for group in parts.values())
    chosen: list[int] = []
    for group in free:
        if abs(len(chosen) + len(group) - wanted) < abs(len(chosen) - wanted):
            chosen += group
    if free and not chosen:
        chosen = min(free, key=len)
    return np.array(sorted(chosen), dtype=np.int64)


def _one_block_each(trajectories: Sequence[Sequence[int]], fraction: float, seed: int) -> Indices:
    """A stretch of each trajectory that begins anywhere; lengths add up to the fraction of all frames."""
    rng = np.random.default_rng(seed)
    total = sum(map(len, trajectories))
    wanted = min(max(1, round(fraction * total)), total - 1)
    valid: list[int] = []
    seen = 0
    for number in rng.permutation(len(trajectories)):
        trajectory = trajectories[number]
        seen += len(trajectory)
        length = round(wanted * seen / total) - len(valid)
        begin = int(rng.integers(len(trajectory) - length + 1))
        valid += trajectory[begin : begin + length]
    return np.array(sorted(valid), dtype=np.int64)


def split(
    n_frames: int, fraction: float, seed: int, always_train: Sequence[int] = ()
) -> tuple[Indices, Indices]:
    """Indices for training and for validation, each sorted; the same seed gives the same split.

    `always_train` (isolated atoms) never validate. With a fraction above 0 at least one frame validates, if
    one can be spared; the training part is never empty.
    """
    if n_frames < 1:
        raise ValueError(f"{n_frames} frames cannot be split; at least one is needed")
    if not 0.0 <= fraction < 1.0:
        raise ValueError(
            f"the validation fraction is {fraction}; it must be at least 0 and below 1, e.g. 0.1"
        )
    free = np.setdiff1d(np.arange(n_frames, dtype=np.int64), np.asarray(always_train, dtype=np.int64))
    n_valid = max(1, round(fraction * len(free))) if fraction > 0 else 0
    n_valid = min(n_valid, max(0, len(free) - 1))
    order = np.random.default_rng(seed).permutation(free)
    valid = np.sort(order[:n_valid])
    return np.setdiff1d(np.arange(n_frames, dtype=np.int64), valid), valid
