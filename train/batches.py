"""Labelled frames as graphs with targets, in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from potential.graph import Graph, collate, from_atoms
from train.data.dataset import Frame
from train.data.labels import LABELS
from train.data.weights import config_weight
from train.loss import Targets, collate_targets, targets


def _one() -> Tensor:
    return torch.ones(1, len(LABELS), dtype=torch.float64)


@dataclass(frozen=True)
class Sample:
    """One structure, or several as one: graph, labels, and what these count."""

    graph: Graph
    target: Targets
    weights: Tensor = field(
        default_factory=_one
    )  # (n_systems, 3) for energy, forces, stress; more for more targets


def prepare(frames: Sequence[Frame], cutoff: float) -> list[Sample]:
    """Graphs of all frames; a frame without a graph is named in the error.

    Raises:
        ValueError: see `potential.graph.from_atoms`.
    """
    samples = []
    for frame in frames:
        try:
            others = [config_weight(frame)] * len(frame.targets)
            weights = torch.tensor([[*asdict(frame.weights).values(), *others]], dtype=torch.float64)
            samples.append(Sample(from_atoms(frame.atoms, cutoff), targets(frame), weights))
        except ValueError as error:
            raise ValueError(f"{frame.source}, frame {frame.index}: {error}") from error
    return samples


def batch(samples: Sequence[Sample], device: str) -> Sample:
    """Several structures as one."""
    graph = collate([s.graph for s in samples]).to(device)
    weights = torch.cat([s.weights for s in samples]).to(device)
    return Sample(graph, collate_targets([s.target for s in samples]).to(device), weights)


def normalized(samples: Sequence[Sample]) -> list[Sample]:
    """The same with weights whose mean over the labels of all samples is 1, separately for each kind of label.

    A batch can then divide by its number of labels, and a light batch stays lighter than a heavy one.
    """
    sums = torch.zeros_like(samples[0].weights[0])
    counts = torch.zeros_like(sums)
    for s in samples:
        known = torch.stack([torch.isfinite(label).sum() for label in s.target.all().values()])
        sums += s.weights[0] * known
        counts += known
    mean = torch.where(sums > 0, sums / counts.clamp(min=1), torch.ones_like(sums))
    return [replace(s, weights=s.weights / mean) for s in samples]


def shuffled(n: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of one epoch as indices: a function of seed and epoch alone, so a resumed run finds them again."""
    order = np.random.default_rng([seed, epoch]).permutation(n)
    return [order[k : k + batch_size] for k in range(0, n, batch_size)]


def in_order(samples: Iterable[Sample], max_atoms: int) -> Iterator[list[Sample]]:
    """Groups in the given order, each of at most `max_atoms` atoms or a single structure."""
    pending: list[Sample] = []
    n_atoms = 0
    for sample in samples:
        size = len(sample.graph.positions)
        if pending and n_atoms + size > max_atoms:
            yield pending
            pending, n_atoms = [], 0
        pending.append(sample)
        n_atoms += size
    if pending:
        yield pending


def measured(samples: Iterable[Sample]) -> tuple[float, float]:
    """Edges per atom, and the root mean square force component in eV/Å (NaN without forces); in one pass."""
    n_edges = n_atoms = 0
    known = [torch.zeros(0, dtype=torch.float64)]
    for s in samples:
        n_edges, n_atoms = n_edges + len(s.graph.center), n_atoms + len(s.graph.positions)
        known.append(s.target.forces[torch.isfinite(s.target.forces)])
    values = torch.cat(known)
    return n_edges / n_atoms, float(values.square().mean().sqrt()) if len(values) else float("nan")
