"""Do energies, forces and stress belong to each other? Verdicts on what `consistency` compares."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from train.data.dataset import Array, Frame
from train.data.keys import ENERGY_UNITS, FORCES_UNITS
from train.doctor.checks import is_finite
from train.doctor.consistency import Consistency
from train.doctor.findings import NOTE, Finding, numbered, warning
from train.doctor.geometry import Integers
from train.doctor.strain import explain

CHECK = "energy and forces"
USABLE = 0.7  # median alignment of labelled and modelled forces below which nothing is said
GOOD = 0.88  # ... above which forces and structures surely belong together
EXPLAINED = 0.7  # alignment that all but a seventh of the frames must reach before single frames are blamed
LINKED = 0.3  # correlation of energies from which their ratio is judged
RATIO = 6.0  # a model as rough as this is mostly right to a factor of 3; units differ by 13 and more
SCALE = 6.0  # the same for the forces of single frames
SURE = 5.0  # standard deviations
FAR = 12.0  # robust standard deviations of an energy from what the forces say


def judge(found: Consistency | None, units: tuple[str, str, str]) -> Iterator[Finding]:
    """All that energies, forces and stress say about each other.

    Args:
        found: from `compare`.
        units: in which energy, forces and stress were taken to be.
    """
    if found is None or np.median(np.abs(found.alignment)) < USABLE:
        yield Finding(CHECK, _untested(found), (), NOTE)
        return
    odd = list(misplaced(found))
    if np.quantile(np.abs(found.alignment), 1 / 7) > EXPLAINED:
        odd += [*flipped(found), *rescaled(found, units[1])]
    yield from odd
    few = len({id(f) for one in odd for f in one.frames}) < 0.2 * len(found.frames)
    if few:
        yield from energies(found, units)
        yield from stresses(found, units[2])


def _untested(found: Consistency | None) -> str:
    if found is None:
        return (
            "whether energies and forces agree was not tested: too few frames have both, or too many elements"
        )
    return (
        f"whether energies and forces agree could not be tested: the quick model describes the forces of "
        f"{len(found.frames)} frames too roughly (median alignment {np.median(found.alignment):.2f})"
    )


def flipped(found: Consistency) -> Iterator[Finding]:
    """Frames whose forces point the opposite way."""
    against = np.flatnonzero((found.alignment < -USABLE) & _strong(found))
    if not 0 < len(against) < len(found.frames):
        return
    rows = [found.frames[int(k)] for k in against]
    yield warning(
        "force sign",
        f"{rows[0].name}: the forces point the opposite way from those of most frames, so in {len(rows)} of "
        f"{len(found.frames)} frames looked at ({numbered(rows)}); energy gradients among forces? Change their sign",
        rows,
    )


def _strong(found: Consistency) -> NDArray[np.bool_]:
    """Frames far enough from equilibrium: of small forces the quick model knows neither sign nor size."""
    sizes = [
        np.array([np.sqrt(np.mean(np.square(a))) for a in forces])
        for forces in ([np.asarray(f.forces) for f in found.frames], found.guess.forces)
    ]
    strong: NDArray[np.bool_] = np.maximum(*(one / max(float(np.median(one)), 1e-30) for one in sizes)) > 0.3
    return strong


def rescaled(found: Consistency, unit: str) -> Iterator[Finding]:
    """Frames whose forces have the right direction and a wrong size."""
    sure = (np.abs(found.alignment) > USABLE) & _strong(found)
    middle = float(np.median(np.abs(found.size[sure]))) if sure.any() else 1.0
    ratio = np.abs(found.size) / max(middle, 1e-30)
    away = np.flatnonzero(sure & ((ratio > SCALE) | (ratio < 1 / SCALE)))
    if not len(away) or not sure.any():
        return
    rows = [found.frames[int(k)] for k in away]
    factor = float(np.median(ratio[away]))
    yield warning(
        "mixed units",
        f"{rows[0].name}: the forces have the direction that the structure asks for, but {factor:.3g} times the "
        f"size of those of other frames, so in {len(rows)} of {len(found.frames)} frames looked at "
        f"({numbered(rows)}): forces in two units? All were taken as {unit}",
        rows,
    )


def misplaced(found: Consistency) -> Iterator[Finding]:
    """Frames whose forces fit another structure."""
    rms = np.array([np.sqrt(np.mean(np.square(f.forces))) for f in found.frames])  # type: ignore[arg-type]
    rows, owners = [], []
    for g in np.unique(found.group):
        here = np.flatnonzero(found.group == g)
        aligned = found.alignment[here]
        if len(here) < 10 or np.quantile(aligned, 0.3) < 0.8:
            continue
        for k in here[(np.abs(aligned) < 0.3) & (rms[here] > 0.3 * np.median(rms[here]))]:
            owner = _owner(found, int(k), here)
            if owner is not None:
                rows.append(found.frames[int(k)])
                owners.append(owner)
    if rows:
        yield warning(
            "misplaced forces",
            f"{rows[0].name}: the forces do not fit the structure, but that of frame {owners[0].index}; so in "
            f"{len(rows)} of {len(found.frames)} frames looked at ({numbered(rows)}): the labels are in another "
            "order than the structures",
            rows,
        )


def _owner(found: Consistency, k: int, group: Integers) -> Frame | None:
    """The frame of the group whose structure the forces of frame k fit."""
    mine = np.asarray(found.frames[k].forces).reshape(-1)
    modelled = np.stack([found.guess.forces[int(g)].reshape(-1) for g in group])
    fit = modelled @ mine / np.maximum(np.linalg.norm(modelled, axis=1) * np.linalg.norm(mine), 1e-30)
    best = int(fit.argmax())
    return found.frames[int(group[best])] if fit[best] > USABLE else None


def energies(found: Consistency, units: tuple[str, str, str]) -> Iterator[Finding]:
    """Sign and unit of energies against forces; energies that do not follow the forces at all."""
    n = int(np.isfinite(found.energy).sum())
    correlation, ratio = found.correlation, found.ratio
    # Fisher's z: standard deviations from no correlation
    strength = float(np.arctanh(min(abs(correlation), 0.9999))) * np.sqrt(max(n - 3, 0))
    told = f"over {n} frames (correlation {correlation:.2f})"
    source = found.frames[0].source
    if abs(correlation) > LINKED and strength > SURE:
        if 1 / RATIO < ratio < RATIO:
            text = f"energies and forces agree {told}: ratio {ratio:.2f}, expected 1 within a factor of {RATIO:g}"
            yield Finding(CHECK, text, (), NOTE)
            yield from _far(found)
            return
        if ratio < 0:
            text = f"{source}: energies fall where the forces say that they rise, {told}: {SIGN}"
            yield warning("force sign", text, found.frames)
        if not 1 / RATIO < abs(ratio) < RATIO:
            text = (
                f"{source}: energy differences are {abs(ratio):.3g} times what the forces say, {told}; taken as "
                f"{units[0]} and {units[1]}{_units(abs(ratio), units)}"
            )
            yield warning("energy and force units", text, found.frames)
    elif found.grouped and n >= 100 and strength < 2.5 and np.median(found.alignment) > GOOD:
        text = (
            f"{source}: the energies do not follow the forces at all {told}, while the forces fit the structures "
            f"(median alignment {np.median(found.alignment):.2f}); the energies may be in another order than the frames"
        )
        yield warning("shuffled energies", text, found.frames)
    else:
        text = f"whether energies and forces agree could not be decided: their link is weak {told}"
        yield Finding(CHECK, text, (), NOTE)


SIGN = "the forces may be energy gradients, or the energies negated: change the sign of one of them"


def _units(ratio: float, units: tuple[str, str, str]) -> str:
    """Units of energy or of forces that would explain the ratio."""
    energy, forces = ENERGY_UNITS[units[0]], FORCES_UNITS[units[1]]
    options = [(f"energies in {name}", energy / value) for name, value in ENERGY_UNITS.items()]
    options += [(f"forces in {name}", value / forces) for name, value in FORCES_UNITS.items()]
    off = {name: abs(np.log(ratio / factor)) for name, factor in options if factor != 1.0}
    near = [name for name in sorted(off, key=lambda one: off[one]) if off[name] < np.log(3.0)][:4]
    return f": {' or '.join(near)} would explain it" if near else ": one of them is in another unit"


def _far(found: Consistency) -> Iterator[Finding]:
    """Energies far from what the forces say."""
    rest = found.energy - found.ratio * abs(found.correlation) * found.guessed
    spread = 1.4826 * float(np.nanmedian(np.abs(rest - np.nanmedian(rest)))) + 1e-4
    z = np.abs(rest - np.nanmedian(rest)) / spread
    same = np.bincount(found.group)[found.group] >= 20
    for k in np.flatnonzero((z > FAR) & same):
        yield warning(
            "energy outlier",
            f"{found.frames[k].name}: the energy is {rest[k]:+.3f} eV/atom from what its forces and the other frames "
            f"say ({z[k]:.0f} robust deviations); look at this calculation",
            [found.frames[k]],
        )


def stresses(found: Consistency, unit: str) -> Iterator[Finding]:
    """Sign and unit of the shear part of the stress, which the forces determine."""
    rows = [k for k, f in enumerate(found.frames) if is_finite(f.stress)]
    if not rows:
        return
    volume = [abs(float(np.linalg.det(found.frames[k].atoms.cell.array))) for k in rows]
    theirs = np.array(
        [_shear(v * np.asarray(found.frames[k].stress)) for k, v in zip(rows, volume, strict=True)]
    )
    ours = np.array([_shear(found.guess.virial[k]) for k in rows])
    n_atoms = np.array([len(found.frames[k].atoms) for k in rows])[:, None]
    a, b = theirs / n_atoms, ours / n_atoms
    norm = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
    correlation = float(np.sum(a * b)) / max(norm, 1e-30)
    ratio = float(np.sign(correlation) * np.sqrt(np.sum(b * b) / max(np.sum(a * a), 1e-30)))
    told = f"over {len(rows)} frames (shear part, correlation {correlation:.2f})"
    if abs(correlation) < 0.7 or len(rows) < 10:
        yield Finding("stress", f"the stress could not be tested against the forces {told}", (), NOTE)
    elif 1 / RATIO < ratio < RATIO:
        yield Finding("stress", f"stress and forces agree {told}: ratio {1 / ratio:.2f}", (), NOTE)
    else:
        text = f"{found.frames[rows[0]].source}: the stress is {1 / ratio:.3g} times what the forces say {told}: "
        # `explain` is made for exact ratios: a rough one that is near 1 is one.
        exact = np.sign(ratio) if 1 / RATIO < abs(ratio) < RATIO else ratio
        yield warning("stress", text + explain(float(exact), 1.0, unit), [found.frames[k] for k in rows])


def _shear(tensor: Array) -> Array:
    part: Array = (tensor - np.trace(tensor) / 3.0 * np.eye(3)).reshape(9)
    return part
