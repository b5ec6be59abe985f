"""Layers of nequip and nequip-allegro with the weights of ours, and layers of e3nn's own modules for l1net."""

from __future__ import annotations

import math
from typing import Any

import torch
from allegro.nn import Allegro_Module
from e3nn import o3
from nequip.data import AtomicDataDict as Keys
from nequip.nn import ConvNetLayer
from nequip.utils.dtype import torch_default_dtype
from torch import Tensor

from bench.networks.check import Problem
from potential.networks.allegro import Allegro, AllegroConfig
from potential.networks.l1net import L1Net, L1NetConfig
from potential.networks.layers import radial_basis
from potential.networks.nequip import NequIP, NequIPConfig
from potential.networks.tensor_product import SILU_GAIN, TANH_GAIN, both_parities, layout

NAMES = ["H", "C", "O"]


def set_mlp(theirs: Any, ours: Any) -> None:
    """Their MLP has a factor for each map and no gain of SiLU."""
    maps = [m for m in theirs.mlp if m.__class__.__name__ == "ScalarLinearLayer"]
    for k, (a, b) in enumerate(zip(maps, ours.weights, strict=True)):
        a.weight.data = b.detach() * (SILU_GAIN if k else 1.0) / a.alpha


def by_irrep(module: Any, irreps_in: o3.Irreps, irreps_out: o3.Irreps, ours: dict[o3.Irrep, Tensor]) -> None:
    """Weights of an o3.Linear from matrices (n_in, n_out) of whole irreps."""
    begin = {ir: 0 for _, ir in irreps_in}
    for _, instruction, view in module.weight_views(yield_instruction=True):
        mul, ir = irreps_in[instruction.i_in]
        rows = ours[ir][begin[ir] : begin[ir] + mul]
        assert irreps_out[instruction.i_out] == (rows.shape[1], ir)
        view.data[:] = rows / instruction.path_weight
        begin[ir] += mul


def nequip(problem: Problem) -> tuple[Tensor, Tensor]:
    """Ours and theirs: features of the last of three layers, both parities, l up to 1 of 2."""
    config = NequIPConfig(channels=6, lmax=2, lmax_out=1, n_layers=3, cutoff=problem.cutoff)
    ours = NequIP(config, 3, mean_neighbors=1.0)
    lengths = problem.vectors.norm(dim=1, keepdim=True)
    c = config.channels
    with torch_default_dtype(torch.float64):
        data = {
            Keys.EDGE_INDEX_KEY: torch.stack([problem.center, problem.neighbor]),
            Keys.EDGE_ATTRS_KEY: o3.spherical_harmonics(
                list(range(config.lmax + 1)), problem.vectors, normalize=True, normalization="component"
            ),
            Keys.EDGE_EMBEDDING_KEY: radial_basis(lengths.squeeze(1), config.n_radial, config.cutoff),
            Keys.NODE_ATTRS_KEY: torch.nn.functional.one_hot(problem.species, 3).double(),
            Keys.NODE_FEATURES_KEY: ours.embedding[problem.species],
            Keys.ATOM_TYPE_KEY: problem.species,
            Keys.POSITIONS_KEY: torch.zeros(len(problem.species), 3),
        }
        irreps: dict[str, Any] = {
            Keys.EDGE_ATTRS_KEY: o3.Irreps.spherical_harmonics(config.lmax),
            Keys.EDGE_EMBEDDING_KEY: o3.Irreps([(config.n_radial, (0, 1))]),
            Keys.NODE_ATTRS_KEY: o3.Irreps("3x0e"),
            Keys.NODE_FEATURES_KEY: o3.Irreps([(c, (0, 1))]),
        }
        for mine in ours.layers:
            mlp = {"radial_mlp_depth": 2, "radial_mlp_width": config.radial_width}
            layer = ConvNetLayer(
                irreps,
                layout(mine.irreps_out, c),
                convolution_kwargs={**mlp, "type_names": NAMES, "avg_num_neighbors": 1.0},
            )
            into, conv = [ir for _, ir in irreps[Keys.NODE_FEATURES_KEY]], layer.conv
            out = conv.linear_2.irreps_out
            set_mlp(conv.edge_mlp, mine.radial)
            own = dict(zip(into, mine.send.weights, strict=True))
            by_irrep(conv.linear_1, conv.linear_1.irreps_in, conv.linear_1.irreps_out, own)
            update = dict(zip(mine.irreps_out, mine.update.weights, strict=True))
            by_irrep(conv.linear_2, conv.linear_2.irreps_in, out, update)
            for view, (i, _) in zip(conv.sc.weight_views(), mine.kept, strict=True):
                w = mine.skip.weights[[k for k, _ in mine.kept].index(i)]
                view.data[:] = w.detach().permute(1, 0, 2) * math.sqrt(3 * c)
            for activation in (layer.equivariant_nonlin.act_scalars, layer.equivariant_nonlin.act_gates):
                for act in activation.acts:  # their gains are estimated from samples
                    act.cst = TANH_GAIN if abs(act.cst - TANH_GAIN) < 0.01 else SILU_GAIN
            data, irreps = layer(data), layer.irreps_out
    return ours(problem.vectors, problem.species, problem.center, problem.neighbor), data[
        Keys.NODE_FEATURES_KEY
    ]


def allegro(problem: Problem) -> tuple[Tensor, Tensor]:
    """Ours and theirs: scalars of all pairs after each of three layers, both parities, summed at the center."""
    config = AllegroConfig(channels=10, tensor_channels=4, lmax=2, n_layers=3, cutoff=problem.cutoff)
    ours = Allegro(config, 3, mean_neighbors=1.0)
    lengths = problem.vectors.norm(dim=1, keepdim=True)
    basis = radial_basis(lengths.squeeze(1), config.n_radial, config.cutoff)
    elements = [
        ours.embedding[0][problem.species[problem.center]],
        ours.embedding[1][problem.species[problem.neighbor]],
    ]
    z = ours.pair(torch.cat(elements, dim=1) * ours.radial(basis))
    t = config.tensor_channels
    with torch_default_dtype(torch.float64):
        degrees = list(range(config.lmax + 1))
        harmonics = o3.spherical_harmonics(
            degrees, problem.vectors, normalize=True, normalization="component"
        )
        harmonic_irreps = o3.Irreps.spherical_harmonics(config.lmax)
        theirs = Allegro_Module(
            config.n_layers, config.channels, t,
            o3.Irreps([(1, ir) for ir in both_parities(config.lmax)]),
            avg_num_neighbors=1.0, type_names=NAMES,
            latent_kwargs={"hidden_layers_depth": 1, "hidden_layers_width": config.channels},
            irreps_in={
                Keys.EDGE_ATTRS_KEY: harmonic_irreps,
                Keys.EDGE_FEATURES_KEY: harmonic_irreps,
                Keys.EDGE_EMBEDDING_KEY: o3.Irreps([(config.channels, (0, 1))]),
            },
        )  # fmt: skip
        set_mlp(theirs.first_layer_env_embed_projection, ours.start)
        for a, b in zip(theirs.latents, ours.latents, strict=True):
            set_mlp(a, b)
        for a, b in zip(theirs.tps, ours.products, strict=True):
            a.weights.data = path_weights(a, b).reshape(a.weights.shape)
        data = {
            Keys.EDGE_INDEX_KEY: torch.stack([problem.center, problem.neighbor]),
            Keys.POSITIONS_KEY: torch.zeros(len(problem.species), 3),
            Keys.ATOM_TYPE_KEY: problem.species,
            Keys.EDGE_ATTRS_KEY: harmonics,
            Keys.EDGE_FEATURES_KEY: ours.weighted(harmonics.unsqueeze(0), ours.weigh(z).unsqueeze(0)).squeeze(
                0
            ),
            Keys.EDGE_EMBEDDING_KEY: z,
        }
        scalars = theirs(data)[Keys.EDGE_FEATURES_KEY]
        summed = torch.zeros(len(problem.species), scalars.shape[1]).index_add(0, problem.center, scalars)
    return ours(problem.vectors, problem.species, problem.center, problem.neighbor), summed


def path_weights(theirs: Any, ours: Any) -> Tensor:
    """(channels, paths) in their order: output, first, harmonics; ours: first, harmonics, output."""
    first, second, out = (list(x) for x in (theirs.irreps_in1, theirs.irreps_in2, theirs.irreps_out))
    known = [(i, j, k) for i, (_, a) in enumerate(first) for j, (_, b) in enumerate(second)
             for k, (_, c) in enumerate(out) if c in a * b]  # fmt: skip
    share = [math.sqrt(sum(k == other for *_, other in known)) for *_, k in known]
    columns = [known.index(instruction) for instruction in instructions(first, second, out)]
    return torch.stack([ours.paths.detach()[p] / share[p] for p in columns], dim=1)


def instructions(first: list[Any], second: list[Any], out: list[Any]) -> list[tuple[int, int, int]]:
    """As allegro's Contracter makes them."""
    return [(i, j, k) for k, (_, c) in enumerate(out) for i, (_, a) in enumerate(first)
            for j, (_, b) in enumerate(second) if c in a * b]  # fmt: skip


def l1net(problem: Problem) -> tuple[Tensor, Tensor]:
    """Ours, and its convolutions by e3nn's TensorProduct: scalars and vectors after three layers."""
    config = L1NetConfig(channels=7, lmax_out=1, cutoff=problem.cutoff)
    ours = L1Net(config, 3, mean_neighbors=1.0)
    c, lengths = config.channels, problem.vectors.norm(dim=1, keepdim=True)
    basis = radial_basis(lengths.squeeze(1), config.n_radial, config.cutoff)
    with torch_default_dtype(torch.float64):
        harmonics = o3.spherical_harmonics([0, 1], problem.vectors, normalize=True, normalization="component")
        features, out = o3.Irreps(f"{c}x0e + {c}x1o"), o3.Irreps(f"{c}x0e + {c}x0e + {c}x1o + {c}x1o")
        paths = [
            (0, 0, 0, "uvu", True),
            (1, 1, 1, "uvu", True),
            (0, 1, 2, "uvu", True),
            (1, 0, 3, "uvu", True),
        ]
        product = o3.TensorProduct(
            features, "0e + 1o", out, paths, shared_weights=False, internal_weights=False
        )
        s, v = ours.embedding[problem.species], torch.zeros(len(problem.species), 3, c)
        for layer in ours.layers:
            weights = layer.radial(basis).unflatten(1, (4, c))
            weights = weights / torch.tensor([1.0, 1.0, math.sqrt(3.0), 1.0])[:, None]  # Y_1 = sqrt(3) u
            x = torch.cat([s, v.transpose(1, 2).flatten(1)], dim=1)
            message = product(x[problem.neighbor], harmonics, weights.flatten(1))
            message = torch.zeros(len(s), message.shape[1]).index_add(0, problem.center, message)
            p, q = message[:, : 2 * c], message[:, 2 * c :].unflatten(1, (2 * c, 3)).transpose(1, 2)
            own = layer.skip([s.unsqueeze(1), v], problem.species)
            act = SILU_GAIN * torch.nn.functional.silu(p @ layer.mix[0] + own[0].squeeze(1))
            s, v = act[:, :c], (q @ layer.mix[1] + own[1]) * act[:, c:].unsqueeze(1)
    theirs = torch.cat([s, v.transpose(1, 2).flatten(1)], dim=1)
    return ours(problem.vectors, problem.species, problem.center, problem.neighbor), theirs
