"""Errors of every contestant on one test set, with 95 % intervals over frames, and differences of contestants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.curve.intervals import Interval, holm, interval, two_sided
from train.curve.resample import Errors, frame_weights, resample
from train.report.breakdown import NO_DIRECTION
from train.report.run_directory import Floats, Integers, PredictedSet, symbols

N = 2000  # resampled values behind an interval
UNITS = {"energy": "meV/atom", "structure": "meV", "forces": "meV/Å", "stress": "meV/Å³"}
COMPARED = ("energy", "forces", "stress")
MEASURES = {"rmse": 2, "mae": 1}
EXACT = 1e-3  # in the units of errors; what is smaller is rounding
SMALLEST = 1e-9  # the same; the error of what is exact, so that its logarithm exists


@dataclass(frozen=True)
class Deviations:
    """Differences of prediction and label of one quantity (in 1/1000 of its unit), where both are known."""

    error: Floats  # (n,)
    frame: Integers  # (n,) position of the frame in the test set
    atom: Integers  # (n,) position of the atom in the test set; -1 for none
    n_frames: int

    def only(self, kept: NDArray[np.bool_]) -> Deviations:
        """Some of them."""
        return Deviations(self.error[kept], self.frame[kept], self.atom[kept], self.n_frames)

    def sums(self, power: int, block: int) -> tuple[Floats, Floats]:
        """Of |error|^power and of labels, of each frame or block of neighboring frames."""
        starts = np.arange(0, self.n_frames, block)
        each = np.abs(self.error) ** power
        tables = (np.bincount(self.frame, w, self.n_frames) for w in (each, np.ones(len(each))))
        total, labels = (np.add.reduceat(table, starts) for table in tables)
        return np.maximum(total, SMALLEST**power * labels), labels


def deviations(one: PredictedSet, quantity: str) -> Deviations:
    """Those of energy per atom, energy of a structure, force or stress components."""
    per_atom = quantity == "forces"
    name = "energy" if quantity == "structure" else quantity
    reference, predicted = (getattr(one, f"{name}_{kind}").reshape(-1) for kind in ("reference", "predicted"))
    frames = np.arange(len(one.n_atoms))
    width = len(reference) // (len(one.atomic_numbers) if per_atom else len(frames))
    frame = np.repeat(one.system if per_atom else frames, width)
    atom = np.repeat(np.arange(len(one.atomic_numbers)), width) if per_atom else np.full(len(frame), -1)
    error = 1000 * (predicted - reference)
    if quantity == "energy":
        error = error / one.n_atoms
    known = np.isfinite(error)
    return Deviations(error[known], frame[known], atom[known], len(frames))


def known_to_all(rows: Sequence[Deviations]) -> NDArray[np.bool_]:
    """(n_frames,) Whether all have something of a frame."""
    shared: NDArray[np.bool_] = np.all(
        [np.bincount(one.frame, minlength=one.n_frames) > 0 for one in rows], axis=0
    )
    return shared


def resampled(rows: Sequence[Deviations], power: int, block: int) -> tuple[Floats, Floats] | None:
    """Log errors of contestants (n_contestants,) on the frames that all know, and resampled ones (N, n_contestants)."""
    shared = known_to_all(rows)
    if not shared.any():
        return None
    pairs = [one.only(shared[one.frame]).sums(power, block) for one in rows]
    kept = pairs[0][1] > 0
    names = np.array([str(k) for k in range(len(rows))])
    if kept.sum() < 2:  # nothing to weigh
        logs = np.array([np.log(total[kept].sum() / labels[kept].sum()) / power for total, labels in pairs])
        return logs, np.full((N, len(rows)), np.nan)
    sums, counts = np.array([total[kept] for total, _ in pairs]), pairs[0][1][kept]
    zeros = np.zeros(len(rows), dtype=np.int64)
    drawn = resample(Errors(names, zeros, zeros, zeros, sums, counts, power), N)
    logs = np.array([drawn[name].logs[0] for name in names])
    return logs, logs + np.stack([drawn[name].of_frames[:, 0] for name in names], axis=1)


def error_of(one: Deviations, measure: str, block: int) -> Interval | None:
    """One error with its interval; None where nothing is known."""
    found = resampled([one], MEASURES[measure], block)
    return None if found is None else interval(float(np.exp(found[0][0])), np.exp(found[1][:, 0]))


def errors_of(one: PredictedSet, block: int) -> dict[str, dict[str, Any]]:
    """Quantity -> rmse and mae (estimate, low, high), largest error and where it is, labels, frames."""
    table: dict[str, dict[str, Any]] = {}
    for quantity in UNITS:
        found = deviations(one, quantity)
        if not len(found.error):
            continue
        worst = int(np.argmax(np.abs(found.error)))
        row: dict[str, Any] = {measure: error_of(found, measure, block) for measure in MEASURES}
        row |= {"max": float(np.abs(found.error[worst])), "frame": int(found.frame[worst])}
        if found.atom[worst] >= 0:
            row["atom"] = int(one.atom[found.atom[worst]])
        row |= {"labels": len(found.error), "frames": len(np.unique(found.frame))}
        table[quantity] = row
    cosine = cosine_of(one, block)
    if cosine is not None:
        table["forces"]["cosine"] = cosine
    return table


def cosine_of(one: PredictedSet, block: int) -> Interval | None:
    """Mean cosine between predicted and reference force, over atoms whose force has a direction."""
    a, b = one.forces_reference, one.forces_predicted
    lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    kept = np.isfinite(a + b).all(axis=1) & (lengths[0] > NO_DIRECTION)
    if not kept.any():
        return None
    cosine = (a * b)[kept].sum(1) / np.maximum(lengths[0] * lengths[1], 1e-30)[kept]
    starts = np.arange(0, len(one.n_atoms), block)
    tables = (np.bincount(one.system[kept], w, len(one.n_atoms)) for w in (cosine, np.ones(len(cosine))))
    total, labels = (np.add.reduceat(table, starts) for table in tables)
    total, labels = total[labels > 0], labels[labels > 0]
    weights, tail = frame_weights(len(labels), N, np.random.default_rng(0))
    left = np.maximum(
        labels - total, SMALLEST * labels
    )  # 1 - cosine, whose logarithm keeps intervals below 1
    log = np.log(left.sum() / labels.sum())
    drawn = np.exp(log + (np.log((weights @ left) / (weights @ labels)) - log) * np.ravel(tail))
    return interval(float(1 - np.exp(log)), np.maximum(1 - drawn, -1.0))


def groups_of(one: PredictedSet, kinds: dict[str, NDArray[np.str_]], block: int) -> dict[str, Any]:
    """RMSE by element (forces) and by every kind of frame: kind -> value -> quantity -> interval."""
    table: dict[str, Any] = {}
    found = {quantity: deviations(one, quantity) for quantity in COMPARED}
    forces = found["forces"]
    numbers = one.atomic_numbers[forces.atom] if len(forces.atom) else np.array([], dtype=int)
    table["element"] = {
        str(symbols(z)): {"forces": error_of(forces.only(numbers == z), "rmse", block)}
        for z in np.unique(one.atomic_numbers)
    }
    for kind, of_frame in kinds.items():
        of_kind: dict[str, Any] = {
            value: {
                quantity: error_of(each.only(of_frame[each.frame] == value), "rmse", block)
                for quantity, each in found.items()
            }
            | {"frames": int((of_frame == value).sum())}
            for value in sorted(set(of_frame))
        }
        table[kind] = of_kind
    return table


def ranking_of(sets: Sequence[PredictedSet], block: int) -> dict[str, dict[str, Any]]:
    """Quantity -> RMSE of everyone who gives it, on the frames that all of these know, and the number of these."""
    table: dict[str, dict[str, Any]] = {}
    for quantity in COMPARED:
        rows = {one.name: deviations(one, quantity) for one in sets}
        rows = {name: row for name, row in rows.items() if len(row.error)}
        if not rows:
            continue
        shared = known_to_all(list(rows.values()))
        errors = {name: error_of(row.only(shared[row.frame]), "rmse", block) for name, row in rows.items()}
        table[quantity] = {"frames": int(shared.sum()), "rmse": errors if shared.any() else {}}
    return table


def pairs_of(sets: Sequence[PredictedSet], measure: str, block: int) -> list[dict[str, Any]]:
    """Every two contestants on the frames that both predicted: difference and ratio of errors, p-value, Holm's."""
    rows: list[dict[str, Any]] = []
    for quantity in COMPARED:
        found = {one.name: deviations(one, quantity) for one in sets}
        some = []
        for one, other in combinations(found, 2):
            both = resampled([found[one], found[other]], MEASURES[measure], block)
            if both is None:
                continue
            logs, drawn = both
            exact = np.exp(logs).min() < EXACT  # nothing is a multiple of rounding
            ratio = (
                None
                if exact
                else interval(float(np.exp(logs[1] - logs[0])), np.exp(drawn[:, 1] - drawn[:, 0]))
            )
            gap = interval(
                float(np.exp(logs[1]) - np.exp(logs[0])), np.exp(drawn[:, 1]) - np.exp(drawn[:, 0])
            )
            shared = np.intersect1d(found[one].frame, found[other].frame)
            row: dict[str, Any] = {
                "quantity": quantity,
                "one": one,
                "other": other,
                "difference": gap,
                "ratio": ratio,
            }
            some.append(row | {"p": two_sided(drawn[:, 1] - drawn[:, 0]), "frames": len(shared)})
        for row, p in zip(some, holm([row["p"] for row in some]), strict=True):
            rows.append(row | {"p_holm": p})
    return rows
