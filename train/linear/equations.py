"""Labelled structures as the rows of a linear problem, and the coefficients that solve it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
import torch

from potential.model import Potential
from potential.networks.ace import ACE
from train.batches import Sample
from train.config import Fit
from train.data.labels import LABELS
from train.linear.design import features
from train.linear.rows import SIX, Array, Triangle, accumulate, merged
from train.linear.settings import Linear
from train.linear.solve import Solution, by_evidence, by_relevance, by_validation

FOLDS = 5
Kind: TypeAlias = tuple[str, str, int]  # label, set, fold


@dataclass(frozen=True)
class Equations:
    """All rows: a triangle of each kind, and the sum of the weights of each label, by which errors are averaged.

    Weights are those of the frames as they are: what a set is called, and what else is in it, does not matter.
    """

    triangles: Mapping[Kind, Triangle]
    weights: Mapping[tuple[str, str], float]  # label, set


def equations(
    potential: Potential,
    sets: Mapping[str, Sequence[Sample]],
    linear: Linear,
    labels: Sequence[str] = LABELS,
) -> Equations:
    """Rows of some labels of the structures of some sets, in units of the scale of the potential.

    Folds, blocks of each set, are kept apart only where `linear` needs them.

    Raises:
        ValueError: labels that are not finite.
    """
    weights: dict[tuple[str, str], float] = {}
    triangles: dict[Kind, Triangle] = {}
    folds = FOLDS if linear.ridge == "validation" else 1

    def pieces(name: str, fold: int, samples: Iterable[Sample]) -> Iterator[tuple[Kind, Array, Array]]:
        for sample in samples:
            for label, x, y, counts in rows(potential, sample, labels):
                weights[label, name] = weights.get((label, name), 0.0) + float(counts.sum())
                root = np.sqrt(counts)
                yield (label, name, fold), root[:, None] * x, root * y

    for name, samples in sets.items():
        for fold in range(folds):
            block = (samples[k] for k in range(len(samples)) if k * folds // len(samples) == fold)
            triangles |= accumulate(pieces(name, fold, block))  # so that rows of one block wait at a time
    return Equations(triangles, weights)


def rows(
    potential: Potential, sample: Sample, labels: Sequence[str]
) -> Iterator[tuple[str, Array, Array, Array]]:
    """For each of some labels of one structure: its name, features (n, F), what is to be explained (n,), what each row
    counts (n,): the weight of the label, twice off the diagonal of a virial, which stands for two of nine components.

    Energy and virial per atom, forces; all without E0 and in units of the scale.
    """
    graph, target, facts = sample.graph, sample.target, potential.statistics
    species = potential.species_of[graph.atomic_numbers]
    n_atoms = len(species)
    x = features(cast(ACE, potential.network), (graph.edge_vectors(), species, graph.center, graph.neighbor))
    e0 = torch.tensor(facts.e0, dtype=torch.float64)[species].sum()
    volume = torch.linalg.det(graph.cell[0]).abs()
    one, other = SIX
    found = {
        "energy": (x.energy[None] / n_atoms, (target.energy - e0) / n_atoms),
        "forces": (x.forces.flatten(0, 1), target.forces.flatten()),
        "stress": (x.virial[one, other] / n_atoms, target.stress[0][one, other] * volume / n_atoms),
    }
    for (label, (left, right)), weight in zip(found.items(), sample.weights[0].tolist(), strict=False):
        known = torch.isfinite(right)
        if label in labels and weight > 0 and bool(known.any()):
            counts = np.full(len(right), weight)
            if label == "stress":
                counts *= [1.0 if a == b else 2.0 for a, b in zip(one, other, strict=True)]
            yield label, left[known].numpy(), right[known].numpy() / facts.scale, counts[known.numpy()]


def solve(equations: Equations, network: ACE, fit: Fit, linear: Linear, sets: Sequence[str]) -> Solution:
    """Coefficients from the rows of some sets, each label with its weight in `fit`.

    Raises:
        ValueError: no rows with a weight, or in less than two folds where these are needed.
    """
    triangles = {kind: t for kind, t in equations.triangles.items() if kind[1] in sets}
    sums: dict[str, float] = {}
    for (label, name), total in equations.weights.items():
        if name in sets:
            sums[label] = sums.get(label, 0.0) + total
    of_label = {"energy": fit.energy_weight, "forces": fit.forces_weight, "stress": fit.stress_weight}
    # noise is that of forces, where there are any
    whole = next((sums[label] for label in ("forces", "energy", "stress") if sums.get(label)), 0.0)
    factors = {kind: of_label[kind[0]] * whole / sums[kind[0]] for kind in triangles}
    every = merged(triangles, factors)
    before = prior(network, every, linear.smoothness)
    if linear.ridge == "relevance":
        return by_relevance(every, before)
    if linear.ridge == "evidence":
        return by_evidence(every, before)
    weighted = [kind for kind in triangles if factors[kind] > 0]
    folds = sorted({fold for *_, fold in weighted})
    if len(folds) < 2:
        raise ValueError(
            f"linear.ridge=validation needs labels with a weight in two or more of {FOLDS} blocks of frames, there are "
            f"some in {len(folds)}; give more frames, or take linear.ridge=evidence, which keeps none out"
        )
    parts = [{kind: triangles[kind] for kind in weighted if kind[2] == fold} for fold in folds]
    return by_validation([merged(part, factors) for part in parts], before)


def prior(network: ACE, triangle: Triangle, smoothness: float) -> Array:
    """Sizes that coefficients may have: one for all functions of as many factors, less for higher degrees."""
    size = np.square(np.linalg.norm(triangle.matrix[:, :-1], axis=0)).reshape(-1, network.n_species)
    orders = np.array([len(f.factors) for f in network.functions])
    degrees = np.array([f.degree for f in network.functions])
    found = np.zeros(len(orders))
    for order in set(orders.tolist()):
        mean = float(size[orders == order].mean())
        found[orders == order] = np.sqrt(triangle.n_rows / mean) if mean > 0 else 0.0
    return np.repeat(found * degrees**-smoothness, network.n_species)
