"""What energies, forces and stress weigh against each other, found by cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from train.linear.rows import Array, Triangle, merged
from train.linear.solve import TINY, by_evidence

FIRST = {"energy": 1e4, "forces": 1.0, "stress": 1e2}  # per atom in eV^2, in (eV/Å)^2
STEP, LEAST, MOST = 10.0, 1e-6, 1e10
GAIN = 0.01  # of the logarithm of the product; less is no reason for a more uneven weight
Parts = Mapping[tuple[str, int], Triangle]


def balance(parts: Parts, prior: Array | None = None) -> tuple[dict[str, float], dict[str, float]]:
    """The weight of each kind, and its error when predicted from the other folds: the geometric mean of the root mean
    square of each fold, so that a fold with a structure unlike all others does not decide.

    The weights, in powers of ten, are those at which the product of these errors is least, to one per cent: any other
    would make one smaller by one per cent only at the price of more than one per cent of another. That needs no unit
    in which an error of an energy could be held against that of a force. The search begins at usual weights.

    Raises:
        ValueError: less than two folds.
    """
    kinds = [kind for kind in FIRST if any(kind == k for k, _ in parts)]
    folds = sorted({fold for _, fold in parts})
    if len(folds) < 2:
        raise ValueError(f"{len(folds)} folds; cross-validation needs two or more")
    rest = {
        (kind, out): merged({key: part for key, part in parts.items() if key[0] == kind and key[1] != out})
        for kind in kinds
        for out in folds
        if any(key[0] == kind and key[1] != out for key in parts)
    }
    known: dict[tuple[float, ...], dict[str, float]] = {}

    def tried(weights: dict[str, float]) -> float:
        key = tuple(weights.values())
        if key not in known:
            known[key] = _errors(parts, rest, weights, (folds, prior))
        return float(np.log(list(known[key].values())).sum())

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
    tried(weights)
    return weights, known[tuple(weights.values())]


def _errors(
    parts: Parts, rest: Parts, weights: Mapping[str, float], how: tuple[Sequence[int], Array | None]
) -> dict[str, float]:
    folds, prior = how
    logs: dict[str, list[float]] = {kind: [] for kind in weights}
    for out in folds:
        others = {kind: rest[kind, out] for kind in weights if (kind, out) in rest}
        c = by_evidence(merged(others, weights), prior).coefficients
        for kind in weights:
            if (kind, out) in parts:
                part = parts[kind, out]
                logs[kind].append(float(np.log(max(float(part.squares(c)) / part.n_rows, TINY))) / 2)
    return {kind: float(np.exp(np.mean(logs[kind]))) for kind in weights}
