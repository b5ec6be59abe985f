"""The batches of an epoch: a number of structures in random order, or as many of similar size as their atoms and edges
allow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from train.batches import shuffled
from train.config import Fit

Integers = NDArray[np.int64]
Bound: TypeAlias = tuple[
    Integers, int
]  # (n,) atoms or edges of each structure, and the most of them in a batch
MIXED = 8  # batches at least among which structures are exchanged from epoch to epoch


def epoch_batches(sizes: Integers, fit: Fit, epoch: int, edges: Integers | None = None) -> list[Any]:
    """Positions of the structures of each batch; every structure is in one of them. A function of sizes, settings,
    seed and epoch alone, and their number does not depend on the epoch.

    Args:
        sizes: (n,) atoms of each structure.
        edges: (n,) of each; needed where `fit.batch_edges` bounds them.
    """
    bounds = bounded(sizes, fit, edges)
    if not bounds:
        return shuffled(len(sizes), fit.batch_size, fit.seed, epoch)
    return bucketed(bounds, fit.batch_size or len(sizes), fit.seed, epoch)


def bounded(sizes: Integers, fit: Fit, edges: Integers | None = None) -> list[Bound]:
    """What is bounded: atoms, edges, both or nothing.

    Raises:
        ValueError: edges are, and their numbers are not given.
    """
    found = [(sizes, fit.batch_atoms)] if fit.batch_atoms else []
    if fit.batch_edges:
        if edges is None:
            raise ValueError(
                "[fit] batch_edges: edges are not counted here; bound the atoms instead, by batch_atoms"
            )
        found.append((edges, fit.batch_edges))
    return found


def beyond(bounds: Sequence[Bound]) -> Any:
    """(n,) whether a structure alone is more than a batch may hold."""
    return np.any([counts > limit for counts, limit in bounds], axis=0)


def bucketed(bounds: Sequence[Bound], most: int, seed: int, epoch: int) -> list[Any]:
    """Batches within all bounds and of `most` structures, or of one structure that is beyond a bound.

    Structures sorted by size are cut into buckets once and for all; in each bucket every epoch has an order of its
    own, and as many structures form a batch as the largest of the bucket allows.
    """
    rng = np.random.default_rng([seed, epoch])
    key = bounds[0][0] if len(bounds) == 1 else np.max([counts / limit for counts, limit in bounds], axis=0)
    order = np.argsort(key, kind="stable")
    single = beyond(bounds)[order]
    alone, order = order[single], order[~single]
    batches = []
    for begin, end, many in _buckets(key[order], [(counts[order], limit) for counts, limit in bounds], most):
        mixed = rng.permutation(order[begin:end])
        batches += [mixed[k : k + many] for k in range(0, len(mixed), many)]
    batches += [alone[k : k + 1] for k in range(len(alone))]
    return [batches[k] for k in rng.permutation(len(batches))]


def _buckets(key: Any, bounds: Sequence[Bound], most: int) -> list[tuple[int, int, int]]:
    """Begin, end and structures per batch of each bucket of structures sorted by `key`.

    A bucket ends between two keys, when it fills `MIXED` batches. The last one, of the largest, may be smaller.
    """
    if not len(key):
        return []
    ends = np.flatnonzero(np.diff(key, append=key[-1] + 1)) + 1  # where a key ends
    found = []
    begin = seen = 0
    largest = [1] * len(bounds)
    for end in ends.tolist():
        largest = [
            max(n, int(counts[seen:end].max())) for n, (counts, _) in zip(largest, bounds, strict=True)
        ]
        many = min(most, *(limit // n for n, (_, limit) in zip(largest, bounds, strict=True)))
        seen = end
        if end - begin >= MIXED * many or end == len(key):
            found.append((begin, end, many))
            begin, largest = end, [1] * len(bounds)
    return found


def filled(bounds: Sequence[Bound], batches: Sequence[Any]) -> float:
    """Part of what the batches could hold that they do, of what is bounded and fullest; in those within the bounds."""
    full = [max(int(counts[index].sum()) / limit for counts, limit in bounds) for index in batches]
    return float(np.mean(np.minimum(full, 1.0)))
