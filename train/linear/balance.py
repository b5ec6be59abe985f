"""What energies, forces and stress weigh against each other, found by cross-validation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from train.linear.rows import Array, Triangle, merged
from train.linear.solve import TINY, by_evidence

FIRST = {"energy": 1e4, "forces": 1.0, "stress": 1e2}  # per atom in eV^2, in (eV/Å)^2
STEP, LEAST, MOST = 10.0, 1e-6, 1e10
GAIN = 0.01  # of the logarithm of the product; less is no reason for a more uneven weight
EXACT = 1e-3  # of the error of all folds; less is none
Parts = Mapping[tuple[str, int], Triangle]


def balance(parts: Parts, prior: Array | None = None) -> dict[str, float]:
    """The weight of each kind, in powers of ten, at which the product of their errors on left-out folds is least, to
    one per cent; the error of a kind is here the geometric mean over the folds, so that one with a structure unlike all
    others does not decide.

    Any other would make one error smaller by one per cent only at the price of more than one per cent of another. That
    needs no unit in which an error of an energy could be held against that of a force. The search begins at usual
    weights.

    Raises:
        ValueError: less than two folds.
    """
    kinds = [kind for kind in FIRST if any(kind == k for k, _ in parts)]
    known: dict[tuple[float, ...], float] = {}
    others = _others(parts)

    def tried(weights: dict[str, float]) -> float:
        key = tuple(weights.values())
        if key not in known:
            known[key] = sum(map(log_error, _squares(others, parts, weights, prior).values()))
        return known[key]

    weights = {kind: FIRST[kind] for kind in kinds}
    free = [kind for kind in kinds if kind != ("forces" if "forces" in kinds else kinds[0])]
    before: dict[str, float] = {}
    while before != weights:
        before = weights
        for kind in free:
            for factor in (STEP, 1 / STEP):
                while LEAST < (other := {**weights, kind: weights[kind] * factor})[kind] < MOST and (
                    tried(other) < tried(weights) - GAIN
                ):
                    weights = other
    return weights


def left_out(
    parts: Parts, tests: Parts, weights: Mapping[str, float], prior: Array | None = None
) -> dict[str, float]:
    """Root mean square error of each kind over all rows of `tests`, each fold predicted from the others in `parts`.

    Raises:
        ValueError: less than two folds.
    """
    found = _squares(_others(parts), tests, weights, prior)
    return {kind: float(np.sqrt(table[:, 0].sum() / table[:, 1].sum())) for kind, table in found.items()}


def _others(parts: Parts) -> Parts:
    """Of each kind all folds but one, named by that one."""
    folds = sorted({fold for _, fold in parts})
    if len(folds) < 2:
        raise ValueError(f"{len(folds)} folds; cross-validation needs two or more")
    return {
        (kind, out): merged({key: part for key, part in parts.items() if key[0] == kind and key[1] != out})
        for kind in FIRST
        for out in folds
        if any(key[0] == kind and key[1] != out for key in parts)
    }


def _squares(
    others: Parts, tests: Parts, weights: Mapping[str, float], prior: Array | None
) -> dict[str, Array]:
    """Kind -> squared errors and rows of each fold that has some, (n, 2)."""
    tables: dict[str, list[tuple[float, int]]] = {kind: [] for kind in weights}
    for out in sorted({fold for _, fold in others}):
        rest = {kind: others[kind, out] for kind in weights if (kind, out) in others}
        c = by_evidence(merged(rest, weights), prior).coefficients
        for kind in weights:
            if (kind, out) in tests:
                part = tests[kind, out]
                tables[kind].append((float(part.squares(c)), part.n_rows))
    return {kind: np.array(table) for kind, table in tables.items()}


def log_error(table: Array) -> float:
    """A fold whose labels vanish by symmetry has errors of rounding only, which must not decide either."""
    squares, n = table.T
    pooled = max(squares.sum() / n.sum(), TINY)
    return float(np.log(np.maximum(squares / n, EXACT**2 * pooled)).mean()) / 2
