"""The batches of an epoch: a number of structures in random order, or as many of similar size as their atoms allow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.batches import shuffled
from train.config import Fit

Integers = NDArray[np.int64]
MIXED = 8  # batches at least among which structures are exchanged from epoch to epoch


def epoch_batches(sizes: Integers, fit: Fit, epoch: int) -> list[Any]:
    """Positions of the structures of each batch; every structure is in one of them. A function of sizes, settings,
    seed and epoch alone, and their number does not depend on the epoch.

    Args:
        sizes: (n,) atoms of each structure.
    """
    if not fit.batch_atoms:
        return shuffled(len(sizes), fit.batch_size, fit.seed, epoch)
    return bucketed(sizes, (fit.batch_atoms, fit.batch_size or len(sizes)), fit.seed, epoch)


def bucketed(sizes: Integers, limits: tuple[int, int], seed: int, epoch: int) -> list[Any]:
    """Batches of at most `limits` = (atoms, structures), or of one structure that is larger.

    Structures sorted by size are cut into buckets once and for all; in each bucket every epoch has an order of its
    own, and as many structures form a batch as the largest of the bucket allows.
    """
    rng = np.random.default_rng([seed, epoch])
    order = np.argsort(sizes, kind="stable")
    batches = []
    for begin, end, many in _buckets(sizes[order], limits):
        mixed = rng.permutation(order[begin:end])
        batches += [mixed[k : k + many] for k in range(0, len(mixed), many)]
    return [batches[k] for k in rng.permutation(len(batches))]


def _buckets(sizes: Integers, limits: tuple[int, int]) -> list[tuple[int, int, int]]:
    """Begin, end and structures per batch of each bucket of the sorted sizes.

    A bucket ends between two sizes, when it fills `MIXED` batches. The last one, of the largest, may be smaller.
    """
    if not len(sizes):
        return []
    ends = np.flatnonzero(np.diff(sizes, append=sizes[-1] + 1)) + 1  # where a size ends
    found = []
    begin = 0
    for end in ends.tolist():
        many = max(1, min(limits[0] // int(sizes[end - 1]), limits[1]))
        if end - begin >= MIXED * many or end == len(sizes):
            found.append((begin, end, many))
            begin = end
    return found


def filled(sizes: Integers, batches: Sequence[Any], limit: int) -> float:
    """Atoms of all batches over what they could hold."""
    return float(sizes.sum()) / (limit * len(batches))
