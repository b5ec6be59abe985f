"""Is the stress the derivative of the energy? Asked of pairs of frames that differ by a strain of the cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from train.data.dataset import Array, Frame
from train.data.keys import STRESS_UNITS
from train.doctor.checks import is_finite
from train.doctor.findings import NOTE, Finding, warning
from train.doctor.geometry import has_distances

MOVED = 0.02  # Å; how far atoms of a pair may be from following the strain
SMALLEST, LARGEST = 1e-3, 0.12  # strain of a pair
COMPARED = 40  # frames of one composition that are compared with each other
MOST = 3000  # pairs
FEWEST = 3
FELT = 1e-4  # eV/atom; energies of pairs must differ by more to say anything
AGREE = (0.6, 1.6)  # ratio of energy difference to work; the trapezoid rule leaves less
USUAL = ("GPa", "kbar", "eV/Ang^3", "Ha/Bohr^3", "Ry/Bohr^3")  # looked at first
TRUSTED = 0.8  # correlation


@dataclass(frozen=True)
class StrainPairs:
    """Pairs of frames (first, second) with the work of the labels along the strain between them."""

    frames: tuple[tuple[Frame, Frame], ...]
    work: Array  # (n_pairs,) eV/atom, from stress (and forces, where atoms moved a little)
    energy: Array  # (n_pairs,) eV/atom, difference of the labelled energies

    @property
    def ratio(self) -> float:
        """Least-squares slope of energy on work: 1 where the labels agree."""
        return float(self.work @ self.energy / max(float(self.work @ self.work), 1e-30))

    @property
    def correlation(self) -> float:
        norm = np.sqrt((self.work @ self.work) * (self.energy @ self.energy))
        return float(self.work @ self.energy / max(float(norm), 1e-30))


def strain_pairs(frames: Sequence[Frame]) -> StrainPairs:
    """All pairs with the same atoms in the same places of a strained cell.

    The work is 0.5 (V_a s_a + V_b s_b) : log(strain) per atom minus that of the forces, right to second order.
    """
    groups: dict[bytes, list[Frame]] = {}
    for f in frames:
        if f.atoms.pbc.all() and is_finite(f.energy) and is_finite(f.stress) and has_distances(f):
            groups.setdefault(f.atoms.numbers.astype(np.int64).tobytes(), []).append(f)
    pairs: list[tuple[Frame, Frame]] = []
    work: list[float] = []
    for group in groups.values():
        if len(group) < 2 or len(pairs) >= MOST:
            continue
        # The most strained of a large group: others tell less about the stress.
        volumes = np.array([_volume(f) for f in group])
        order = np.argsort(-np.abs(volumes - np.median(volumes)), kind="stable")[: 3 * COMPARED]
        for first, second in _alike([group[int(k)] for k in np.sort(order)]):
            found = _work(first, second)
            if found is not None:
                pairs.append((first, second))
                work.append(found)
    energy = np.array([(b.energy - a.energy) / len(a.atoms) for a, b in pairs])  # type: ignore[operator]
    return StrainPairs(tuple(pairs), np.array(work), energy)


def _volume(frame: Frame) -> float:
    return abs(float(np.linalg.det(frame.atoms.cell.array)))


def _alike(group: Sequence[Frame]) -> Iterator[tuple[Frame, Frame]]:
    """Pairs with equal fractional coordinates; each frame is compared with the `COMPARED` after it."""
    cells = np.stack([f.atoms.cell.array for f in group])
    places = np.stack([f.atoms.positions @ np.linalg.inv(f.atoms.cell.array) for f in group])
    size = float(np.linalg.norm(cells, axis=2).max())
    for k in range(len(group) - 1):
        rest = slice(k + 1, k + 1 + COMPARED)
        apart = places[rest] - places[k]
        apart -= np.round(apart)
        apart -= apart.mean(axis=1, keepdims=True)
        for m in np.flatnonzero(np.abs(apart).max(axis=(1, 2)) * size < 2 * MOVED):
            yield group[k], group[k + 1 + int(m)]


def _work(a: Frame, b: Frame) -> float | None:
    """Work per atom (eV) from a to b; None where it is no small strain."""
    one, other = a.atoms.cell.array, b.atoms.cell.array
    deformation = np.linalg.inv(one) @ other  # rows: r' = r @ deformation
    apart = b.atoms.positions @ np.linalg.inv(other) - a.atoms.positions @ np.linalg.inv(one)
    apart -= np.round(apart)
    moved = (apart - apart.mean(axis=0)) @ (0.5 * (one + other))
    # The stress of each frame meets the strain in that frame's orientation.
    left, right = _logarithm(deformation @ deformation.T), _logarithm(deformation.T @ deformation)
    if np.abs(moved).max() > MOVED or not SMALLEST < np.abs(left).max() < LARGEST:
        return None
    assert a.stress is not None
    assert b.stress is not None
    work = 0.5 * (_volume(a) * np.sum(a.stress * left) + _volume(b) * np.sum(b.stress * right))
    if is_finite(a.forces) and is_finite(b.forces):
        work -= 0.5 * np.sum((a.forces + b.forces) * moved)  # type: ignore[operator]
    return float(work) / len(a.atoms)


def _logarithm(squared: Array) -> Array:
    values, vectors = np.linalg.eigh(squared)
    half: Array = (vectors * (0.5 * np.log(np.maximum(values, 1e-12)))) @ vectors.T
    return half


def stress_from_strain(pairs: StrainPairs, unit: str) -> Iterator[Finding]:
    """Sign and unit of the stress against the energies of strained pairs; says so where they agree."""
    told = np.abs(pairs.energy) > FELT
    n = int(told.sum())
    if n < FEWEST:
        return
    kept = StrainPairs(
        tuple(p for p, use in zip(pairs.frames, told, strict=True) if use),
        pairs.work[told],
        pairs.energy[told],
    )
    ratio, correlation = kept.ratio, kept.correlation
    worst = int(np.abs(kept.energy - kept.work).argmax())
    a, b = kept.frames[worst]
    frames = list({id(f): f for pair in kept.frames for f in pair}.values())
    if correlation > TRUSTED and AGREE[0] < ratio < AGREE[1]:
        text = f"stress and energy agree in {n} strained pairs of frames: ratio {ratio:.3f}, expected 1"
        yield Finding("stress", text, (), NOTE)
        return
    text = (
        f"{a.source}, frames {a.index} and {b.index} differ by a strain of the cell only; their energies differ by "
        f"{kept.energy[worst]:+.4g} eV/atom, the stress says {kept.work[worst]:+.4g} (in {n} such pairs: ratio "
        f"{ratio:.3g}, correlation {correlation:.2f}, both expected near 1): {explain(ratio, correlation, unit)}"
    )
    yield warning("stress", text, frames)


def explain(ratio: float, correlation: float, unit: str) -> str:
    """What a ratio of energy to the work of the stress means for sign and unit."""
    if abs(correlation) < TRUSTED:
        return "the stress does not belong to these energies; check order of components, cell and volume"
    size = abs(ratio)
    sign = "its sign is flipped (positive must mean that the cell wants to shrink)" if ratio < 0 else ""
    if AGREE[0] < size < AGREE[1]:
        return sign
    wanted = size * STRESS_UNITS[unit]
    fitting = [
        name
        for name in (*USUAL, *STRESS_UNITS)
        if abs(np.log(STRESS_UNITS[name] / wanted)) < np.log(AGREE[1]) and name != unit
    ]
    fit = (
        f"it fits {fitting[0]}: --set data.stress_unit={fitting[0]}"
        if fitting
        else "it is in no unit known here: check cell and volume"
    )
    return f"taken as {unit}, {fit}" + (f", and {sign}" if sign else "")
