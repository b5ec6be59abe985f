"""EGNN of egnn-pytorch with the weights of ours: on positions, all atoms neighbors of all and of themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import egnn_pytorch
import torch
from torch import Tensor

from bench.networks.check import Problem
from potential.networks import egnn as module
from potential.networks.egnn import EGNN, EGNNConfig


def wide(theirs: Any, ours: Any) -> None:
    """A map that is no wider than theirs; the rest of theirs is 0, which SiLU leaves."""
    theirs.weight.data.zero_()
    theirs.weight.data[: ours.weight.shape[0], : ours.weight.shape[1]] = ours.weight.detach()
    theirs.bias.data.zero_()
    if ours.bias is not None:
        torch.nn.init.normal_(ours.bias)
        theirs.bias.data[: len(ours.bias)] = ours.bias.detach()


def everybody(problem: Problem) -> tuple[Problem, Tensor]:
    """The first atom and its neighbors with all pairs among them, self-pairs included, and their positions."""
    edges = (problem.center == 0).nonzero().squeeze(1)
    positions = torch.cat([torch.zeros(1, 3), problem.vectors[edges]])
    n = len(positions)
    center, neighbor = torch.arange(n).repeat_interleave(n), torch.arange(n).repeat(n)
    species = problem.species[torch.cat([torch.tensor([0]), problem.neighbor[edges]])]
    vectors = positions[neighbor] - positions[center]
    return replace(problem, vectors=vectors, species=species, center=center, neighbor=neighbor), positions


def egnn(problem: Problem) -> tuple[Tensor, Tensor]:
    """Ours and theirs: scalars after four layers, three of which move the atoms; neither f nor a in it."""
    config = EGNNConfig(channels=12, n_radial=0, cutoff=problem.cutoff)
    ours = EGNN(config, 3, mean_neighbors=1.0)
    c = config.channels
    together, positions = everybody(problem)
    feats, coors = ours.embedding[together.species].unsqueeze(0), positions.unsqueeze(0)
    for k, mine in enumerate(ours.layers):
        layer = egnn_pytorch.EGNN(c, m_dim=c, update_coors=k < config.n_layers - 1).double()
        wide(layer.edge_mlp[0], mine.message[0])
        wide(layer.edge_mlp[3], mine.message[1])
        wide(layer.node_mlp[0], mine.update[0])
        wide(layer.node_mlp[3], mine.update[1])
        if layer.coors_mlp is not None:
            mine.move[1].weight.data *= 10.0  # so that moves are seen
            wide(layer.coors_mlp[0], mine.move[0])
            wide(layer.coors_mlp[3], mine.move[1])
        feats, coors = layer(feats, coors)
    with patch.object(module, "envelope", lambda lengths, cutoff: torch.ones_like(lengths)):
        own = ours(together.vectors, together.species, together.center, together.neighbor)
    return own, feats.squeeze(0)
