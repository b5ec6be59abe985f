"""Labelled frames as graphs with targets, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from potential.graph import Graph, collate, from_atoms
from train.dataset import Frame
from train.loss import Targets, collate_targets, targets


@dataclass(frozen=True)
class Sample:
    """One structure: its graph and its labels."""

    graph: Graph
    target: Targets


def prepare(frames: Sequence[Frame], cutoff: float) -> list[Sample]:
    """Graphs of all frames; a frame without a graph is named in the error.

    Raises:
        ValueError: see `potential.graph.from_atoms`.
    """
    samples = []
    for frame in frames:
        try:
            samples.append(Sample(from_atoms(frame.atoms, cutoff), targets(frame)))
        except ValueError as error:
            raise ValueError(f"{frame.source}, frame {frame.index}: {error}") from error
    return samples


def batch(samples: Sequence[Sample], device: str) -> Sample:
    """Several structures as one."""
    graph = collate([s.graph for s in samples]).to(device)
    return Sample(graph, collate_targets([s.target for s in samples]).to(device))


def shuffled(n: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of one epoch as indices: a function of seed and epoch alone, so a resumed run finds them again."""
    order = np.random.default_rng([seed, epoch]).permutation(n)
    return [order[k : k + batch_size] for k in range(0, n, batch_size)]


def in_order(samples: Sequence[Sample], max_atoms: int, device: str) -> Iterator[Sample]:
    """Batches in the given order, each of at most `max_atoms` atoms or a single structure."""
    pending: list[Sample] = []
    n_atoms = 0
    for sample in samples:
        size = len(sample.graph.positions)
        if pending and n_atoms + size > max_atoms:
            yield batch(pending, device)
            pending, n_atoms = [], 0
        pending.append(sample)
        n_atoms += size
    if pending:
        yield batch(pending, device)


def mean_neighbors(samples: Sequence[Sample]) -> float:
    """Edges per atom."""
    return sum(len(s.graph.center) for s in samples) / sum(len(s.graph.positions) for s in samples)


def force_rms(samples: Sequence[Sample]) -> float:
    """Root mean square force component in eV/Å; NaN without forces."""
    known = [s.target.forces[torch.isfinite(s.target.forces)] for s in samples]
    values = torch.cat(known) if known else torch.zeros(0)
    return float(values.square().mean().sqrt()) if len(values) else float("nan")
