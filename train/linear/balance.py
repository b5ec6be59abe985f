"""What energies, forces and stress weigh against each other, found by cross-validation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from train.linear.rows import Array, Triangle, merged
from train.linear.solve import TINY, by_evidence

FIRST = {"energy": 1e4, "forces": 1.0, "stress": 1e2}  # per atom in eV^2, in (eV/Å)^2
STEP, LEAST, MOST = 10.0, 1e-6, 1e10
GAIN = 0.01  # of the logarithm of the product; less is no reason for a more uneven weight
Parts = Mapping[tuple[str, int], Triangle]


def balance(parts: Parts, prior: Array | None = None) -> dict[str, float]:
    """The weight of each kind, in powers of ten, at which the product of their `left_out` errors is least, to one per
    cent.

    Any other would make one error smaller by one per cent only at the price of more than one per cent of another. That
    needs no unit in which an error of an energy could be held against that of a force. The search begins at usual
    weights.

    Raises:
        ValueError: less than two folds.
    """
    kinds = [kind for kind in FIRST if any(kind == k for k, _ in parts)]
    known: dict[tuple[float, ...], float] = {}

    def tried(weights: dict[str, float]) -> float:
        key = tuple(weights.values())
        if key not in known:
            found = left_out(parts, parts, weights, prior)
            known[key] = float(np.log(np.maximum(list(found.values()), TINY)).sum())
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
    folds = sorted({fold for _, fold in parts})
    if len(folds) < 2:
        raise ValueError(f"{len(folds)} folds; cross-validation needs two or more")
    squares, n = dict.fromkeys(weights, 0.0), dict.fromkeys(weights, 0)
    for out in folds:
        others = {key: part for key, part in parts.items() if key[1] != out}
        c = by_evidence(merged(others, {key: weights[key[0]] for key in others}), prior).coefficients
        for kind in weights:
            if (kind, out) in tests:
                squares[kind] += float(tests[kind, out].squares(c))
                n[kind] += tests[kind, out].n_rows
    return {kind: float(np.sqrt(squares[kind] / n[kind])) for kind in weights}
