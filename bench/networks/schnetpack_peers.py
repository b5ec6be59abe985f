"""SchNet and PaiNN of schnetpack with the weights of ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.utils.data.dataloader
from torch import Tensor, nn

torch.utils.data.dataloader.T_co = TypeVar("T_co", covariant=True)  # 2.1.1 imports it; torch dropped it

import schnetpack as spk  # noqa: E402

from bench.networks.check import Problem  # noqa: E402
from potential.networks.painn import SMALLEST, PaiNN, PaiNNConfig  # noqa: E402
from potential.networks.schnet import SchNet, SchNetConfig  # noqa: E402
from potential.radial import envelope  # noqa: E402

CHANNELS, LAYERS, RADIAL = 24, 3, 12


class Fade(nn.Module):
    """Our envelope in place of the cosine."""

    def __init__(self, cutoff: float):
        super().__init__()
        self.cutoff = cutoff

    def forward(self, lengths: Tensor) -> Tensor:
        return envelope(lengths, self.cutoff)


def copy(pairs: Sequence[tuple[Any, Any]]) -> None:
    """Weights and biases of layers, theirs from ours; a random bias first, as ours begin at 0."""
    for theirs, ours in pairs:
        with torch.no_grad():
            if ours.bias is not None:
                nn.init.normal_(ours.bias)
                theirs.bias.copy_(ours.bias)
            theirs.weight.copy_(ours.weight)


def inputs(problem: Problem) -> dict[str, Tensor]:
    names = spk.properties
    return {
        names.Z: problem.species,
        names.Rij: problem.vectors,
        names.idx_i: problem.center,
        names.idx_j: problem.neighbor,
    }


def schnet(problem: Problem) -> tuple[Tensor, Tensor]:
    """Ours and theirs: scalars of the last layer."""
    config = SchNetConfig(channels=CHANNELS, n_layers=LAYERS, n_radial=RADIAL, cutoff=problem.cutoff)
    ours = SchNet(config, 3, mean_neighbors=1.0)
    basis = spk.nn.GaussianRBF(n_rbf=RADIAL, cutoff=problem.cutoff)
    theirs = spk.representation.SchNet(CHANNELS, LAYERS, basis, Fade(problem.cutoff)).double()
    basis.offsets, basis.widths = ours.centers, ours.centers[1:2]  # not those that float32 has rounded
    theirs.embedding.weight.data[:3] = ours.embedding
    for a, b in zip(theirs.interactions, ours.layers, strict=True):
        copy([(a.in2f, b.send), *zip(a.f2out, b.update), *zip(a.filter_network, b.filters)])  # noqa: B905
    arguments = (problem.vectors, problem.species, problem.center, problem.neighbor)
    return ours(*arguments), theirs(inputs(problem))["scalar_representation"]


def painn(problem: Problem) -> tuple[Tensor, Tensor]:
    """Ours and theirs: scalars and vectors of the last layer."""
    config = PaiNNConfig(channels=CHANNELS, n_layers=LAYERS, n_radial=RADIAL, cutoff=problem.cutoff)
    ours = PaiNN(config, 3, mean_neighbors=1.0)
    basis = spk.nn.BesselRBF(n_rbf=RADIAL, cutoff=problem.cutoff)
    theirs = spk.representation.PaiNN(
        CHANNELS, LAYERS, basis, Fade(problem.cutoff), epsilon=SMALLEST
    ).double()
    basis.freqs = torch.arange(1, RADIAL + 1).double() * math.pi / problem.cutoff
    theirs.embedding.weight.data[:3] = ours.embedding
    filters = []
    for a, mixing, b in zip(theirs.interactions, theirs.mixing, ours.layers, strict=True):
        copy([*zip(a.interatomic_context_net, b.context)])  # noqa: B905
        copy([*zip(mixing.intraatomic_context_net, b.update), (mixing.mu_channel_mix, b.mix)])  # noqa: B905
        nn.init.normal_(b.filters.bias)
        filters.append(b.filters)
    scale = math.sqrt(2.0 / problem.cutoff)  # of our Bessel functions
    theirs.filter_net.weight.data = torch.cat([scale * f.weight for f in filters])
    theirs.filter_net.bias.data = torch.cat([f.bias for f in filters])
    out = theirs(inputs(problem))
    vectors = out["vector_representation"].transpose(1, 2).flatten(1)
    arguments = (problem.vectors, problem.species, problem.center, problem.neighbor)
    return ours(*arguments), torch.cat([out["scalar_representation"], vectors], dim=1)
