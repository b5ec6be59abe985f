"""Structures that occur twice, exactly or nearly, within a set and across sets; never all pairs are compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np

from train.data.dataset import Array, Frame
from train.doctor.checks import fingerprint
from train.doctor.findings import NOTE, Finding, numbered, warning
from train.doctor.geometry import Integers, all_edges

NEAR = 0.01  # Å; structures whose sorted distances all agree to this are nearly the same
CELL = 0.004  # Å; how far the signatures of such structures may lie apart
COMPARED = 4.0  # Å; the distances that are compared in the end
MANY = 2_000_000  # pairs of signatures compared at a time
Lengths = dict[int, Array]
NONE: Array = np.zeros(0)


def near_pairs(frames: Sequence[Frame], signature: Array) -> list[tuple[int, int]]:
    """Pairs (earlier, later) of frames that are the same up to rotation, order of atoms and about 0.01 Å.

    Signatures (`geometry.survey`) are sorted into boxes along their three directions of largest spread, and
    only frames of one composition in neighboring boxes are compared, first by signature, then by their sorted
    distances below 4 Å. Mirror images count as the same: their energies are. Exact copies are among them.
    """
    group = _compositions(frames)
    known = np.flatnonzero(np.any(signature != 0, axis=1))
    if len(known) < 2:
        return []
    values, group = signature[known], group[known]
    centered = values - _group_means(values, group)
    directions = np.linalg.eigh(centered.T @ centered)[1][:, -3:]
    boxes = np.floor(values @ directions / CELL).astype(np.int64)
    found: dict[tuple[int, int], None] = {}
    for a, b in _neighboring(boxes, group):
        close = np.linalg.norm(values[a] - values[b], axis=1) < CELL
        for i, j in zip(known[a[close]].tolist(), known[b[close]].tolist(), strict=True):
            found[min(i, j), max(i, j)] = None
    lengths: dict[int, Lengths] = {}
    return [pair for pair in sorted(found) if _same_distances(frames, pair, lengths)]


def _compositions(frames: Sequence[Frame]) -> Integers:
    """A number for each frame, the same where elements, their counts and periodicity are the same."""
    known: dict[bytes, int] = {}
    keys = (
        np.sort(f.atoms.numbers).astype(np.int64).tobytes() + np.asarray(f.atoms.pbc, dtype=bool).tobytes()
        for f in frames
    )
    return np.array([known.setdefault(key, len(known)) for key in keys], dtype=np.int64)


def _group_means(values: Array, group: Integers) -> Array:
    count = np.bincount(group)[:, None]
    sums = np.stack([np.bincount(group, weights=column) for column in values.T], axis=1)
    means: Array = (sums / np.maximum(count, 1))[group]
    return means


def _neighboring(boxes: Integers, group: Integers) -> Iterator[tuple[Integers, Integers]]:
    """Pairs of one group in the same or adjacent boxes, in portions."""
    scale = np.array([1_000_003, 1_009, 1], dtype=np.int64)  # equal keys of unlike boxes only cost time
    key = boxes @ scale + group * 1_000_000_007
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    for step in product((-1, 0, 1), repeat=3):
        if step < (0, 0, 0):
            continue
        wanted = ordered + int(np.array(step) @ scale)
        first = np.searchsorted(ordered, wanted, side="left")
        last = np.searchsorted(ordered, wanted, side="right")
        if step == (0, 0, 0):
            first = np.arange(1, len(order) + 1)
        count = np.maximum(last - first, 0)
        ends = np.cumsum(count)
        start = 0
        while start < len(order):
            done = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, done + MANY, side="right")))
            part = slice(start, stop)
            a = np.repeat(np.arange(start, min(stop, len(order))), count[part])
            offset = np.arange(len(a)) - np.repeat(ends[part] - count[part] - done, count[part])
            b = np.repeat(first[part], count[part]) + offset
            same = group[order[a]] == group[order[b]]
            yield order[a[same]], order[b[same]]
            start = stop


def _same_distances(frames: Sequence[Frame], pair: tuple[int, int], lengths: dict[int, Lengths]) -> bool:
    """Whether the distances agree for every pair of elements; `lengths` keeps those that were sorted before."""
    for k in pair:
        if k not in lengths:
            lengths[k] = _sorted_distances(frames[k])
    one, other = (lengths[k] for k in pair)
    for key in one.keys() | other.keys():
        a, b = one.get(key, NONE), other.get(key, NONE)
        # A distance at the edge may be missing in the other.
        n = max(int(np.searchsorted(x, COMPARED - NEAR)) for x in (a, b))
        if min(len(a), len(b)) < n or (np.abs(a[:n] - b[:n]) >= NEAR).any():
            return False
    return True


def _sorted_distances(frame: Frame) -> Lengths:
    """Distances below `COMPARED` for each pair of elements."""
    (edges,) = all_edges([frame])
    z = edges.numbers[edges.center], edges.numbers[edges.neighbor]
    key = np.minimum(*z) * 1000 + np.maximum(*z)
    near = edges.length < COMPARED
    return {int(k): np.sort(edges.length[near & (key == k)]) for k in np.unique(key[near])}


def within(frames: Sequence[Frame], pairs: Sequence[tuple[int, int]]) -> Iterator[Finding]:
    """Nearly equal structures of one set, exact copies left to `checks.duplicates`."""
    rows = [(frames[i], frames[j]) for i, j in pairs if fingerprint(frames[i]) != fingerprint(frames[j])]
    if rows:
        a, b = rows[0]
        later = list({id(b): b for _, b in rows}.values())
        yield Finding(
            "near-duplicates",
            f"{b.name}: nearly the same structure as {a.name} (all distances within {NEAR} Å), as are "
            f"{len(later)} of {len(frames)} frames ({numbered(later)}); a random choice of validation frames "
            "would contain what is trained on: thin them out, or give validation frames with --valid",
            tuple(later),
            NOTE,
        )


def across(sets: dict[str, Sequence[Frame]], signatures: dict[str, Array]) -> Iterator[Finding]:
    """Structures of one set that another holds as well, exactly or nearly; later sets are blamed."""
    for (one, other), both in _shared(sets, signatures).items():
        later = [b for _, b in both]
        exact = sum(fingerprint(a) == fingerprint(b) for a, b in both)
        yield warning(
            "shared structures",
            f"{len(later)} of {len(sets[other])} {other} structures are also {one} "
            f"structures, {exact} exactly and {len(later) - exact} within {NEAR} Å: {later[0].source}, "
            f"{numbered(later)} (the first is {both[0][0].name}); errors on them say nothing about new "
            "structures: remove them from one of the sets",
            later,
        )


def nearly_across(
    sets: dict[str, list[Frame]], signatures: dict[str, Array], together: Sequence[str] = ()
) -> list[str]:
    """A sentence on any two sets that share nearly, not exactly, equal structures; sets that stand `together` may."""
    told = []
    for (one, other), pairs in _shared(sets, signatures).items():
        both = [(a, b) for a, b in pairs if fingerprint(a) != fingerprint(b)]
        if both and not {one, other} <= set(together):
            later = [b for _, b in both]
            told.append(
                f"{len(later)} of {len(sets[other])} {other} structures are within {NEAR} Å of {one} structures: "
                f"{later[0].source}, {numbered(later)} (the first is {both[0][0].name}); errors on them say little "
                "about new structures, remove them from one of the sets"
            )
    return told


def _shared(
    sets: Mapping[str, Sequence[Frame]], signatures: dict[str, Array]
) -> dict[tuple[str, str], list[tuple[Frame, Frame]]]:
    """For any two sets the frames of the later one that the earlier one has as well, each after one that it is like."""
    names = list(sets)
    frames = [f for name in names for f in sets[name]]
    owner = np.repeat(np.arange(len(names)), [len(sets[name]) for name in names])
    shared: dict[tuple[str, str], dict[int, int]] = {}
    for i, j in near_pairs(frames, np.concatenate([signatures[name] for name in names])):
        if owner[i] != owner[j]:
            shared.setdefault((names[owner[i]], names[owner[j]]), {}).setdefault(j, i)
    return {key: [(frames[i], frames[j]) for j, i in both.items()] for key, both in shared.items()}
