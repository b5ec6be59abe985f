"""Rows of a linear problem, taken in as they come: whatever their number, one triangle of them is kept.

The QR decomposition of rows [features | label] leaves all that least squares needs, without squaring the condition
as normal equations do; the triangles of parts of the rows make up that of all (G. H. Golub and C. F. Van Loan, Matrix
Computations, 4th ed., section 6.5.3).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dgeqrf

Array = NDArray[np.float64]
K = TypeVar("K", bound=Hashable)

SIX = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])  # independent components of a symmetric matrix
PENDING = (
    2.0  # rows kept until they are reduced, in units of columns: work wasted on the triangle against memory
)


@dataclass(frozen=True)
class Triangle:
    """Of n rows [x | y] with F features: for every c, |matrix @ (c, -1)|^2 = sum over the rows of (x c - y)^2."""

    matrix: Array  # (at most F + 1, F + 1)
    n_rows: int

    @property
    def n_features(self) -> int:
        return int(self.matrix.shape[1]) - 1

    def squares(self, coefficients: Array) -> Array:
        """Sum of the squared errors of coefficients (F,) or (F, many)."""
        found: Array = np.square(self.matrix[:, :-1] @ coefficients - self._labels(coefficients)).sum(0)
        return found

    def _labels(self, coefficients: Array) -> Array:
        return self.matrix[:, -1].reshape(-1, *[1] * (coefficients.ndim - 1))


def accumulate(pieces: Iterable[tuple[K, Array, Array]]) -> dict[K, Triangle]:
    """The triangle of all rows of each kind, from pieces of (kind, features (n, F), labels (n,)).

    Kinds are whatever is to be weighed or left out apart: ("forces", fold) for example. At most `PENDING` F rows of a
    kind wait in memory.

    Raises:
        ValueError: numbers that are not finite, or another number of features than before.
    """
    pending: dict[K, list[Array]] = {}
    done: dict[K, Triangle] = {}
    width = 0
    for kind, features, labels in pieces:
        block = np.concatenate([features, labels[:, None]], axis=1, dtype=np.float64)
        width = width or block.shape[1]
        if block.shape[1] != width:
            raise ValueError(
                f"{kind}: {block.shape[1] - 1} features, those before had {width - 1}; give equal ones"
            )
        if not np.isfinite(block).all():
            what = "features" if not np.isfinite(features).all() else "labels"
            raise ValueError(f"{kind}: {what} that are not finite; leave such rows out")
        of_kind = pending.setdefault(kind, [])
        of_kind.append(block)
        if sum(map(len, of_kind)) > PENDING * width:
            done[kind] = _reduced(done.get(kind), of_kind)
            of_kind.clear()
    return {kind: _reduced(done.pop(kind, None), pending.pop(kind)) for kind in list(pending)}


def _reduced(before: Triangle | None, blocks: Sequence[Array]) -> Triangle:
    n = (before.n_rows if before else 0) + sum(map(len, blocks))
    matrices = [before.matrix, *blocks] if before else list(blocks)
    return Triangle(_triangle(matrices), n)


def _triangle(matrices: Sequence[Array]) -> Array:
    """Of the rows of all, in their order; rows as they are where they are no more than columns."""
    n, width = sum(map(len, matrices)), matrices[0].shape[1]
    rows = np.empty((n, width), order="F")  # as LAPACK has it, which then needs no copy
    np.concatenate(matrices, out=rows)
    if n <= width:
        return rows
    found, _, _, info = dgeqrf(rows, overwrite_a=1)
    if info:
        raise RuntimeError(f"dgeqrf of LAPACK returned {info}")
    return np.asarray(np.triu(found[:width]), dtype=np.float64)


def merged(parts: Mapping[K, Triangle], weights: Mapping[K, float] | None = None) -> Triangle:
    """One triangle of all rows, squared errors of each kind times its weight (1 where none is given).

    Raises:
        ValueError: no rows with a weight, or a weight that is negative or not finite.
    """
    factors = {kind: 1.0 if weights is None else weights.get(kind, 1.0) for kind in parts}
    wrong = [kind for kind, w in factors.items() if not (np.isfinite(w) and w >= 0)]
    if wrong:
        raise ValueError(f"weight of {wrong[0]} is {factors[wrong[0]]}; it must be finite and not negative")
    used = {kind: part for kind, part in parts.items() if factors[kind] > 0 and part.n_rows}
    if not used:
        raise ValueError("no rows with a weight; there is nothing to fit to")
    waiting: list[Array] = []
    for kind, part in used.items():
        waiting.append(np.sqrt(factors[kind]) * part.matrix)
        if sum(map(len, waiting)) > PENDING * part.matrix.shape[1]:  # a few at a time, as memory is short
            waiting = [_triangle(waiting)]
    return Triangle(_triangle(waiting), sum(part.n_rows for part in used.values()))
