"""Denoising of perturbed positions as an auxiliary objective ("noisy nodes"), for any network.

Atoms are moved by Gaussian noise, x = x0 + sigma e, and the network is asked for e. An energy model gives no vectors,
so a second head reads a scalar S(x) from the same features, and its slope is the prediction: e' = sigma dS/dx, the
gradient of sum |x - x0|^2 / (2 sigma^2) at its best. It turns and mirrors with the structure for every network of the
table, without features of l = 1. The energy has no part in it: the physical forces at x are not the noise. Only the
weights of the network are shared, and the head is not part of the model.

A common drift of all atoms of a structure cannot be seen, so it is taken out of the noise. The edges are those of the
structure at rest: what comes within the cutoff by the noise is left out, where the envelope is nearly zero.

Sources: Godwin et al., Simple GNN regularisation for 3D molecular property prediction, ICLR 2022 (noisy nodes);
Zaidi et al., Pre-training via denoising for molecular property prediction, ICLR 2023 (noise as the slope of an energy).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from potential.graph import Graph
from potential.heads import EnergyHead
from potential.model import Potential
from potential.physics import AtomTargets, predict
from train.batches import Sample


def make_head(potential: Potential, seed: int) -> nn.Module:
    """The second head, on the device and in the precision of the potential."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        head = EnergyHead(potential.network.irreps_out)
    return head.to(next(potential.parameters()))


@dataclass(frozen=True)
class Slope:
    """S of each atom, as `potential.physics` takes the energy of each atom."""

    potential: Potential
    head: nn.Module

    @property
    def dtype(self) -> torch.dtype:
        return self.potential.dtype

    def __call__(
        self, vectors: Tensor, atomic_numbers: Tensor, center: Tensor, neighbor: Tensor
    ) -> tuple[Tensor, AtomTargets]:
        species = self.potential.species_of[atomic_numbers]
        scalar: Tensor = self.head(self.potential.network(vectors, species, center, neighbor))
        return scalar.double(), {}


def draw_noise(samples: Sequence[Sample], seed: int, step: int) -> Tensor:
    """Noise of unit variance (n_atoms, 3), without drift. A function of seed, step and the structure alone, so it is
    the same in whatever order, parts or processes a batch is taken."""
    parts = []
    for s in samples:
        positions = s.graph.positions.numpy()
        rng = np.random.default_rng([seed, step, zlib.crc32(np.ascontiguousarray(positions).tobytes())])
        noise = rng.standard_normal(positions.shape)
        parts.append(noise - noise.mean(axis=0))
    return torch.from_numpy(np.concatenate(parts))


def predict_noise(slope: Slope, graph: Graph, noise: Tensor, sigma: float) -> Tensor:
    """What the network takes the noise (n_atoms, 3) to be, from the structures moved by `sigma` (Å) times it."""
    moved = replace(graph, positions=graph.positions + sigma * noise)
    return -sigma * predict(slope, moved, create_graph=True).forces


def labelled_atoms(sample: Sample) -> int:
    """Number of atoms, 0 where the structure has no label at all, since it then stands for nothing."""
    known = any(bool(torch.isfinite(label).any()) for label in sample.target.all().values())
    return len(sample.graph.positions) if known else 0
