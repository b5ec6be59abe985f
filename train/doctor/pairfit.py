"""A quick model by linear least squares, good enough to ask whether labels belong to each other.

Energy = sum over pairs of a function of the distance + sum over atoms of squared densities, both linear in their
coefficients, as in embedded-atom models (M. S. Daw and M. I. Baskes, Phys. Rev. B 29, 6443 (1984)). It is fitted to
forces only and takes a second or two; what it says of energies and stresses then comes from the forces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.sparse import csr_matrix

from train.data.dataset import Array, Frame
from train.doctor.geometry import Edges, Integers, all_edges

CUTOFF = 5.0  # Å
N_RADIAL, N_DENSITY = 12, 3
RIDGE = 1e-5
FOLDS = 3
ROWS = 15_000_000  # numbers in the matrix of force features
MAX_ATOMS = 15_000  # of molecules; crystals, with more neighbors, count double
MAX_ELEMENTS = 8
ALIGNED, ROUNDS = 0.7, 8  # for forces of both signs
MANY = 20_000  # edges at a time


@dataclass(frozen=True)
class Guess:
    """Labels of the chosen frames as the quick model has them; each third is fitted on the other two."""

    frames: tuple[Frame, ...]
    fold: Integers  # (n_frames,) energies are comparable within a fold only
    energy: Array  # (n_frames,) eV, up to a constant per element
    forces: tuple[Array, ...]  # (n_atoms, 3) eV/Å each
    virial: Array  # (n_frames, 3, 3) eV: sum of r (x) dE/dr, stress times volume


@dataclass(frozen=True)
class Features:
    """What the coefficients multiply; K of them."""

    first: Integers  # (n_frames + 1,) the atoms of frame k are first[k]:first[k + 1]
    energy: Array  # (n_frames, K)
    forces: Array  # (n_atoms, 3, K)
    virial: Array  # (n_frames, 3, 3, K)


def guess(frames: Sequence[Frame], seed: int = 0) -> Guess | None:
    """Fit to the forces of a choice of frames; None where these are too few or have too many elements.

    Args:
        frames: with finite energy and forces, more than one atom, and distances (`geometry.has_distances`).
    """
    elements = np.array(sorted({int(z) for f in frames for z in f.atoms.numbers}), dtype=np.int64)
    n_features = n_columns(len(elements))
    chosen = _choice(frames, min(MAX_ATOMS, ROWS // (3 * n_features)) if n_features else 0, seed)
    n_numbers = 3 * sum(len(f.atoms) for f in chosen)
    if not 0 < len(elements) <= MAX_ELEMENTS or len(chosen) < 12 or n_numbers < 2 * n_features:
        return None
    features = measure(chosen, elements)
    fold = np.random.default_rng(seed).permutation(len(chosen)) % FOLDS
    forces = [np.asarray(f.forces, dtype=np.float64) for f in chosen]
    equations = _equations(features, forces, fold)
    found = _solve(equations, features, chosen, np.ones(len(chosen)))
    if np.median(_alignment(forces, found)) < ALIGNED:
        # Forces of both signs cancel in the fit: start from one frame and give each the sign that fits the others.
        sign = np.eye(len(chosen))[0]
        for _ in range(ROUNDS):
            other = _solve(equations, features, chosen, sign)
            sign = np.where(_alignment(forces, other) < 0, -1.0, 1.0)
        if np.median(np.abs(_alignment(forces, other))) > ALIGNED:
            return other
    return found


def _alignment(forces: Sequence[Array], found: Guess) -> Array:
    """Cosine of given and modelled forces of each frame."""
    norm = [float(np.linalg.norm(a) * np.linalg.norm(b)) for a, b in zip(forces, found.forces, strict=True)]
    dots = [float(np.sum(a * b)) for a, b in zip(forces, found.forces, strict=True)]
    return np.array(dots) / np.maximum(norm, 1e-30)


def n_columns(n_elements: int) -> int:
    """Number of coefficients."""
    return n_elements * (n_elements + 1) // 2 * N_RADIAL + n_elements**2 * N_DENSITY


def _choice(frames: Sequence[Frame], max_atoms: int, seed: int) -> list[Frame]:
    """Frames in random order up to so many atoms, back in the order of the file."""
    order = np.random.default_rng(seed).permutation(len(frames))
    total = np.cumsum([len(frames[k].atoms) * (2 if frames[k].atoms.pbc.any() else 1) for k in order])
    return [frames[k] for k in np.sort(order[total <= max_atoms])]


@dataclass(frozen=True)
class Equations:
    """Least squares on scaled features: one matrix for each fold, one right side for each frame."""

    fold: Integers  # (n_frames,)
    gram: tuple[Array, ...]  # FOLDS of (K, K)
    right: Array  # (n_frames, K)
    scale: Array  # (K,)


def _equations(features: Features, forces: Sequence[Array], fold: Integers) -> Equations:
    k = features.energy.shape[1]
    scale = np.sqrt(np.mean(np.square(features.forces), axis=(0, 1))) + 1e-12
    size = np.array([np.sqrt(np.mean(np.square(f))) for f in forces])
    # Every frame has the same weight, but those near equilibrium would only add noise.
    size = np.maximum(size, 0.3 * np.median(size)) + 1e-12
    gram, right = np.zeros((FOLDS, k, k)), np.zeros((len(forces), k))
    for i, f in enumerate(forces):
        a = features.forces[features.first[i] : features.first[i + 1]].reshape(-1, k) / scale
        weight = 1.0 / (size[i] ** 2 * len(a))
        gram[fold[i]] += weight * (a.T @ a)
        right[i] = weight * (a.T @ f.reshape(-1))
    return Equations(fold, tuple(gram), right, scale)


def _solve(equations: Equations, features: Features, frames: Sequence[Frame], sign: Array) -> Guess:
    """Fit on two folds, predict the third; the forces of each frame are multiplied by its `sign`."""
    fold, n_features = equations.fold, len(equations.scale)
    energy, virial = np.zeros(len(frames)), np.zeros((len(frames), 3, 3))
    forces = np.zeros((len(features.forces), 3))
    of_atom = np.repeat(fold, np.diff(features.first))
    for part in range(FOLDS):
        gram = sum((g for k, g in enumerate(equations.gram) if k != part), np.zeros((n_features, n_features)))
        right = (equations.right * sign[:, None])[fold != part].sum(axis=0)
        ridge = RIDGE * float(np.trace(gram)) / n_features + 1e-30
        c = np.linalg.solve(gram + ridge * np.eye(n_features), right) / equations.scale
        forces[of_atom == part] = features.forces[of_atom == part] @ c
        energy[fold == part], virial[fold == part] = (
            features.energy[fold == part] @ c,
            features.virial[fold == part] @ c,
        )
    split = tuple(np.split(forces, features.first[1:-1]))
    return Guess(tuple(frames), fold, energy, split, virial)


def measure(frames: Sequence[Frame], elements: Integers) -> Features:
    """The features of all frames, in a few passes over their edges."""
    first = np.concatenate([[0], np.cumsum([len(f.atoms) for f in frames])])
    k = n_columns(len(elements))
    energy, virial = np.zeros((len(frames), k)), np.zeros((len(frames), 3, 3, k))
    out = Features(first, energy, np.zeros((int(first[-1]), 3, k)), virial)
    for edges in all_edges(frames):
        # Which of all atoms each atom of these edges is, and its frame.
        frame = np.repeat(edges.frames, edges.n_atoms)
        start = np.repeat(np.cumsum(edges.n_atoms) - edges.n_atoms, edges.n_atoms)
        atom = first[frame] + np.arange(len(frame)) - start
        kind = np.searchsorted(elements, edges.numbers)
        density = _densities(edges, kind, len(elements))
        for a, b in product(range(len(elements)), repeat=2):
            here = (kind[edges.center] == a) & (kind[edges.neighbor] == b) & (edges.length < CUTOFF)
            chosen = np.flatnonzero(here)
            for begin in range(0, len(chosen), MANY):
                part = chosen[begin : begin + MANY]
                _add_pairs(out, edges, part, (atom, frame), _pair_columns(a, b, len(elements)))
                steps = 2.0 * density[edges.center[part], b] * radial(edges.length[part], N_DENSITY)[1]
                columns = _density_columns(a, b, len(elements))
                _add_forces(out, edges, part, (atom, frame), (steps, columns, -1.0))
            squared = np.square(density[:, b]) * (kind == a)[:, None]
            np.add.at(energy[:, _density_columns(a, b, len(elements))], frame, squared)
    return out


def radial(r: Array, n: int) -> tuple[Array, Array]:
    """Gaussians of the distance that end smoothly at the cutoff, and their derivatives, shape (n_edges, n)."""
    centers, t = np.linspace(0.7, CUTOFF, n), r[:, None] / CUTOFF
    width = centers[1] - centers[0]
    envelope, slope = (1 - t) ** 2 * (1 + 2 * t), -6 * t * (1 - t) / CUTOFF
    x = (r[:, None] - centers) / width
    gauss = np.exp(-0.5 * x**2)
    return gauss * envelope, gauss * (slope - x / width * envelope)


def _densities(edges: Edges, kind: Integers, n_kinds: int) -> Array:
    """Sums of radial functions over the neighbors of each element, shape (n_atoms, n_kinds, N_DENSITY)."""
    near = edges.length < CUTOFF
    values = radial(edges.length[near], N_DENSITY)[0]
    place = edges.center[near] * n_kinds + kind[edges.neighbor[near]]
    n = len(edges.numbers) * n_kinds
    sums = [np.bincount(place, weights=column, minlength=n) for column in values.T]
    out: Array = np.stack(sums, axis=1).astype(np.float64).reshape(len(edges.numbers), n_kinds, N_DENSITY)
    return out


def _pair_columns(a: int, b: int, n_kinds: int) -> slice:
    low, high = min(a, b), max(a, b)
    k = low * n_kinds - low * (low - 1) // 2 + high - low
    return slice(k * N_RADIAL, (k + 1) * N_RADIAL)


def _density_columns(a: int, b: int, n_kinds: int) -> slice:
    begin = n_kinds * (n_kinds + 1) // 2 * N_RADIAL + (a * n_kinds + b) * N_DENSITY
    return slice(begin, begin + N_DENSITY)


def _add_pairs(
    out: Features, edges: Edges, part: Integers, place: tuple[Integers, Integers], columns: slice
) -> None:
    """Pair functions of some edges; each pair comes twice, so an edge has half of the energy."""
    values, slopes = radial(edges.length[part], N_RADIAL)
    np.add.at(out.energy[:, columns], place[1][edges.center[part]], 0.5 * values)
    _add_forces(out, edges, part, place, (0.5 * slopes, columns, 0.0))


def _add_forces(
    out: Features,
    edges: Edges,
    part: Integers,
    place: tuple[Integers, Integers],
    terms: tuple[Array, slice, float],
) -> None:
    """Forces and virial of dE/dr = `steps` on some edges.

    `back` is the force on the neighbor in units of that on the center, with the opposite sign: 0 where the other
    half comes with the reverse edge, whose center the neighbor is; the force on the center is doubled then.
    """
    steps, columns, back = terms
    atom, frame = place
    center, neighbor, vector = edges.center[part], edges.neighbor[part], edges.vector[part]
    unit = vector / edges.length[part, None]
    push = (unit[:, :, None] * steps[:, None, :]).reshape(len(part), -1)
    shape = (len(edges.numbers), 3, -1)
    total = _scatter(center, len(edges.numbers)) @ push * (1.0 if back else 2.0)
    if back:
        total = total + back * (_scatter(neighbor, len(edges.numbers)) @ push)
    out.forces[atom, :, columns] += total.reshape(shape)
    pull = np.einsum("ea,eb,ek->eabk", vector, unit, steps).reshape(len(part), -1)
    sums = _scatter(frame[center], len(out.energy)) @ pull
    out.virial[..., columns] += sums.reshape(len(out.energy), 3, 3, -1)


def _scatter(index: Integers, n: int) -> csr_matrix:
    """The matrix that sums rows of equal index."""
    ones = np.ones(len(index))
    return csr_matrix((ones, (index, np.arange(len(index)))), shape=(n, len(index)))
