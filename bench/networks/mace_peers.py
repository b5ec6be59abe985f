"""Layers of mace-torch with the weights of ours, the coefficients of the symmetric product in their basis."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import torch
from mace.modules.blocks import (
    EquivariantProductBasisBlock,
    RealAgnosticResidualInteractionBlock,
)  # before e3nn

from e3nn import o3  # isort: skip
from torch import Tensor

from bench.networks.check import Problem
from potential.networks.layers import radial_basis
from potential.networks.mace import MACE, Layer, MACEConfig, monomials, symmetric_couplings
from potential.networks.tensor_product import SILU_GAIN, layout, natural


def mace(problem: Problem) -> tuple[Tensor, Tensor]:
    """Ours and theirs: invariants of both layers, vectors of the last; lmax 3, correlation 3, hidden_lmax 2."""
    config = MACEConfig(
        channels=5, lmax=3, hidden_lmax=2, lmax_out=1, correlation=3, n_layers=2, cutoff=problem.cutoff
    )
    ours = MACE(config, 3, mean_neighbors=1.0)
    c, lengths = config.channels, problem.vectors.norm(dim=1, keepdim=True)
    torch.set_default_dtype(torch.float64)  # their constants are made in it
    degrees = list(range(config.lmax + 1))
    harmonics = o3.spherical_harmonics(degrees, problem.vectors, normalize=True, normalization="component")
    basis = radial_basis(lengths.squeeze(1), config.n_radial, config.cutoff)
    elements = torch.nn.functional.one_hot(problem.species, 3).double()
    edges = torch.stack([problem.neighbor, problem.center])
    h, irreps, invariants = ours.embedding[problem.species], layout(natural(0), c), []
    for mine, top in zip(ours.layers, (config.hidden_lmax, config.lmax_out), strict=True):
        out = layout(natural(top), c)
        interaction = RealAgnosticResidualInteractionBlock(
            node_attrs_irreps=o3.Irreps("3x0e"),
            node_feats_irreps=irreps,
            edge_attrs_irreps=o3.Irreps.spherical_harmonics(config.lmax),
            edge_feats_irreps=o3.Irreps([(config.n_radial, (0, 1))]),
            target_irreps=layout(natural(config.lmax), c),
            hidden_irreps=out,
            avg_num_neighbors=1.0,
            radial_MLP=[config.radial_width] * 3,
        )
        block = EquivariantProductBasisBlock(
            layout(natural(config.lmax), c), out, config.correlation, True, 3
        )
        set_interaction(interaction, mine, c)
        for l, contraction in enumerate(block.symmetric_contractions.contractions):
            set_contraction(contraction, mine, l, config)
        set_linear(block.linear, mine.update.weights)
        message, sc = interaction(elements, h, harmonics, basis, edges)
        h, irreps = block(message, sc, elements), out
        invariants.append(h[:, :c])
    theirs = torch.cat([*invariants, h[:, c:]], dim=1)
    return ours(problem.vectors, problem.species, problem.center, problem.neighbor), theirs


def set_linear(theirs: Any, ours: Any) -> None:
    """Weights of an o3.Linear of whole irreps from matrices (n_in, n_out)."""
    begin = [0] * len(ours)
    for _, instruction, view in theirs.weight_views(yield_instruction=True):
        rows = ours[instruction.i_out][begin[instruction.i_out] :][: len(view)]
        begin[instruction.i_out] += len(view)
        view.data[:] = rows.detach() / instruction.path_weight


def set_interaction(theirs: Any, ours: Layer, c: int) -> None:
    set_linear(theirs.linear_up, ours.send.weights)
    paths = ours.convolution.product.paths
    order = sorted(range(len(paths)), key=lambda k: paths[k][2].l)  # theirs are sorted by their outcome
    maps = [m for _, m in theirs.conv_tp_weights.named_children()]
    for k, (a, b) in enumerate(zip(maps, ours.radial.weights, strict=True)):
        w = b.detach() * (SILU_GAIN if k else 1.0)
        if k == len(maps) - 1:
            w = w.view(len(w), len(paths), c)[:, order].flatten(1)
        # their map: x @ weight / sqrt(h_in * var_in / var_out), then SiLU times a gain estimated from samples
        gain = maps[k - 1].act.cst if k else 1.0
        a.weight.data = w * math.sqrt(a.h_in) / gain
    set_linear(theirs.linear, ours.gather.weights)
    for view, w in zip(theirs.skip_tp.weight_views(), ours.skip.weights, strict=True):
        view.data[:] = w.detach().permute(1, 0, 2) * math.sqrt(3 * c)


def set_contraction(theirs: Any, ours: Layer, l: int, config: MACEConfig) -> None:
    """Their weights for our polynomial: ours in their basis, which spans the same space."""
    of_ours = iter(ours.product.weights)
    for degree, counts in zip(ours.product.degrees, ours.product.counts, strict=True):
        for k in range(len(counts)):
            weight = next(of_ours).detach()
            if k != l:
                continue
            target = (
                theirs.weights_max
                if degree == config.correlation
                else theirs.weights[config.correlation - 1 - degree]
            )
            u = theirs.U_tensors(degree)
            u = u if l else u.unsqueeze(0)  # (2l+1, dim, ..., dim, n_params)
            index = [sorted(set(permutations(m))) for m in monomials((config.lmax + 1) ** 2, degree)]
            columns = [sum(u[(slice(None), *m)] for m in same) for same in index]
            basis = torch.stack(columns, dim=1).flatten(0, 1)  # ((2l+1) * n_monomials, n_params)
            own = symmetric_couplings(config.lmax, l, degree)
            assert torch.linalg.matrix_rank(basis) == len(own), "their couplings span another space"
            change = torch.linalg.lstsq(
                basis, own.flatten(1).T, driver="gelsd"
            ).solution  # (n_params, n_couplings)
            assert (basis @ change - own.flatten(1).T).abs().max() < 1e-10
            target.data = torch.einsum("pk,skc->spc", change, weight)
