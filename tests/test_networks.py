"""Parts of the networks beside e3nn's own, known answers, and what each architecture is about.

Whole networks beside other packages: bench/networks/check.py, which needs these packages.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from e3nn import nn, o3
from torch import Tensor

from potential.graph import collate, from_atoms
from potential.model import Statistics, build, presets, settings
from potential.networks import NETWORKS
from potential.networks.allegro import PairProduct
from potential.networks.dials import sizes
from potential.networks.egnn import EGNN, EGNNConfig
from potential.networks.layers import radial_basis
from potential.networks.mace import MACEConfig, SymmetricProduct, monomials, symmetric_couplings
from potential.networks.schnet import SchNet, SchNetConfig
from potential.networks.tensor_product import (
    SILU_GAIN,
    TANH_GAIN,
    Convolution,
    Harmonics,
    Linear,
    Product,
    SpeciesLinear,
    both_parities,
    flat,
    gate,
    layout,
    natural,
)
from potential.radial import envelope
from train.batches import prepare
from train.config import Fit
from train.data.dataset import Frame
from train.run import load_state, save_state, start
from train.step import train_step

WITH_HIGHER = [{"network": n, "lmax_out": 2} for n in ("allegro", "mace", "nequip")]
VARIANTS = [{"network": name} for name in NETWORKS] + [*WITH_HIGHER, {"network": "l1net", "lmax_out": 1}]


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def network(config: dict[str, Any], mean_neighbors: float = 5.0) -> Any:
    kind, dials = settings({**config, "cutoff": 3.0})
    torch.manual_seed(3)
    return kind(dials, 3, mean_neighbors)


def edges(*structures: Atoms) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a network sees: vectors, species (H, C, O), center, neighbor."""
    graph = collate([from_atoms(atoms, 3.0) for atoms in structures])
    species = torch.tensor([[1, 6, 8].index(int(z)) for z in graph.atomic_numbers])
    return graph.edge_vectors(), species, graph.center, graph.neighbor


def ethanol(seed: int = 0) -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=seed)
    return atoms


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(improper: bool = False) -> Tensor:
    q = torch.linalg.qr(random(3, 3, seed=5))[0]
    return q if bool(torch.linalg.det(q) < 0) == improper else -q


def turning(irreps: o3.Irreps, q: Tensor) -> Tensor:
    """The matrix of a rotation or rotoinversion on features."""
    sign = torch.linalg.det(q).sign()
    blocks = [
        o3.Irrep(ir.l, 1).D_from_matrix((sign * q).float()).double() * (1.0 if ir.p == 1 else sign)
        for mul, ir in irreps
        for _ in range(mul)
    ]
    return torch.block_diag(*blocks)


# --- all networks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", VARIANTS, ids=lambda c: " ".join(map(str, c.values())))
@pytest.mark.parametrize("improper", [False, True])
def test_features_turn_as_their_irreps_say(config: dict[str, Any], improper: bool) -> None:
    net, q = network(config), rotation(improper)
    vectors, *rest = edges(ethanol())
    one, two = net(vectors, *rest), net(vectors @ q.T, *rest)
    assert one.shape == (9, net.irreps_out.dim)
    assert one.std() > 1e-3
    torch.testing.assert_close(
        two, one @ turning(net.irreps_out, q).T, rtol=0, atol=2e-5 * float(one.abs().max())
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_features_and_their_slopes_vanish_at_the_cutoff(name: str) -> None:
    """What an atom at the cutoff adds goes to nothing at least as the cube of the distance to it."""
    net = network({"network": name})
    alone = net(*edges(Atoms("OHO", [(0, 0, 0), (0.9, 0, 0), (9, 9, 9)])))[0]
    added = []
    for d in (0.04, 0.02, 0.01):
        pair = Atoms("OHO", [(0, 0, 0), (0.9, 0, 0), (-(3.0 - d), 0, 0)])
        added.append(float((net(*edges(pair))[0] - alone).abs().max()))
    assert 0 < added[2] < added[1] / 7 < added[0] / 49


@pytest.mark.parametrize("name", NETWORKS)
def test_no_atoms_and_no_edges_are_a_graph_too(name: str) -> None:
    net = network({"network": name})
    nothing = torch.zeros(0, dtype=torch.int64)
    assert net(torch.zeros(0, 3).double(), torch.tensor([0, 2]), nothing, nothing).shape == (
        2,
        net.irreps_out.dim,
    )


def test_reach() -> None:
    """Allegro and linear ACE stay within one cutoff, message passing goes beyond it."""
    chain = Atoms("OCO", [(0, 0, 0), (2.5, 0, 0), (5.0, 0, 0)])
    bent = chain.copy()
    bent.positions[2] += (-0.3, 0.3, 0.1)  # sees the second atom only, before and after
    for name in NETWORKS:
        net = network({"network": name})
        one, two = (net(*edges(atoms)) for atoms in (chain, bent))
        assert torch.equal(one[0], two[0]) == (name in ("allegro", "ace"))
        assert not torch.equal(one[1], two[1])


def test_one_layer_of_schnet_sees_distances_only_and_one_of_painn_angles() -> None:
    straight = Atoms("OHH", [(0, 0, 0), (1, 0, 0), (-2.4, 0, 0)])
    bent = Atoms("OHH", [(0, 0, 0), (1, 0, 0), (0, 2.4, 0)])
    for name in ("schnet", "painn"):
        net = network({"network": name, "n_layers": 1})
        one, two = (net(*edges(atoms))[0, :32] for atoms in (straight, bent))
        assert torch.allclose(one, two, atol=1e-12) == (name == "schnet")


# Numbers of weights with three elements: counted by hand from the equations, for the preset small.
KNOWN = {
    "schnet": 64 * 3 + 3 * ((20 * 64 + 64) + (64 * 64 + 64) + 64 * 64 + 2 * (64 * 64 + 64)),
    "painn": 32 * 3
    + 3 * ((32 * 32 + 32) + (96 * 32 + 96) + (96 * 20 + 96) + 64 * 32 + (64 * 32 + 32) + (96 * 32 + 96)),
    "egnn": 32 * 3
    + 4 * ((73 * 32 + 32) + (32 * 32 + 32) + (64 * 32 + 32) + (32 * 32 + 32))
    + 3 * ((32 * 32 + 32) + 32),
    "l1net": 32 * 3
    + 2 * ((8 * 32 + 32 * 32 + 32 * 128) + (64 * 64 + 64 * 32) + 3 * (32 * 64 + 32 * 32))
    + ((8 * 32 + 32 * 32 + 32 * 64) + 64 * 32 + 3 * 32 * 32),
}


@pytest.mark.parametrize("name", KNOWN)
def test_number_of_weights(name: str) -> None:
    assert sum(w.numel() for w in network({"network": name}).parameters()) == KNOWN[name]


def test_sizes_are_named() -> None:
    assert sizes(channels=(1, 2, 3, 4), lmax=(1, 1, 2, 2))["large"] == {"channels": 4, "lmax": 2}


# --- parts beside e3nn's --------------------------------------------------------------------------------------


def single(*tensors: Tensor) -> list[Tensor]:
    """e3nn's modules are in single precision."""
    return [t.float() for t in tensors]


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours.float(), theirs, rtol=0, atol=2e-6 * float(theirs.abs().max()))


def features(irreps: list[o3.Irrep], n: int, channels: int) -> list[Tensor]:
    return [random(n, ir.dim, channels, seed=k) for k, ir in enumerate(irreps)]


@pytest.mark.parametrize("lmax", [0, 1, 2, 3])
def test_convolution_is_that_of_e3nn(lmax: int) -> None:
    into, wanted, c = both_parities(min(lmax, 2)), both_parities(2), 3
    ours = Convolution(into, lmax, wanted)
    paths = ours.product.paths
    middle = o3.Irreps([(c, ir) for _, _, ir in paths])
    instructions = [(i, j, k, "uvu", True) for k, (i, j, _) in enumerate(paths)]
    theirs = o3.TensorProduct(
        layout(into, c), o3.Irreps.spherical_harmonics(lmax), middle, instructions,
        shared_weights=False, internal_weights=False,
    )  # fmt: skip
    center, neighbor = torch.tensor([0, 0, 1, 2]), torch.tensor([1, 2, 0, 0])
    x, vectors, weights = features(into, 3, c), random(4, 3), random(4, len(paths) * c, seed=9)
    harmonics = Harmonics(lmax)(vectors, vectors.norm(dim=1, keepdim=True))
    close(harmonics, o3.spherical_harmonics(list(range(lmax + 1)), vectors.float(), True, "component"))
    message = theirs(*single(flat(x)[neighbor], harmonics, weights))
    columns = torch.zeros(3, middle.dim).index_add(0, center, message)
    blocks = [columns[:, s].unflatten(1, (c, -1)) for s in middle.slices()]
    expected = [
        torch.cat([b for b, (_, _, out) in zip(blocks, paths, strict=True) if out == ir], dim=1).flatten(1)
        for ir in ours.product.irreps_out
    ]
    close(flat(ours(x, harmonics, weights, center, neighbor)), torch.cat(expected, dim=1))


def test_linear_maps_are_those_of_e3nn() -> None:
    irreps, n_in, n_out = both_parities(1), 3, 5
    x, species = features(irreps, 4, n_in), torch.tensor([0, 1, 1, 2])
    own, of_species = Linear([n_in] * 4, [n_out] * 4), SpeciesLinear(3, [n_in] * 4, [n_out] * 4)
    linear = o3.Linear(layout(irreps, n_in), layout(irreps, n_out))
    skip = o3.FullyConnectedTensorProduct(layout(irreps, n_in), "3x0e", layout(irreps, n_out))
    with torch.no_grad():
        for view, w in zip(linear.weight_views(), own.weights, strict=True):
            view[:] = w * math.sqrt(n_in)
        for view, w in zip(skip.weight_views(), of_species.weights, strict=True):
            view[:] = w.permute(1, 0, 2) * math.sqrt(3 * n_in)
    close(flat(own(x)), linear(*single(flat(x))))
    close(
        flat(of_species(x, species)), skip(flat(x).float(), torch.nn.functional.one_hot(species, 3).float())
    )


def test_gate_is_that_of_e3nn() -> None:
    irreps, c = both_parities(1), 3
    x = features(irreps, 4, c)
    x[0] = random(4, 1, 3 * c, seed=7)
    silu, tanh = torch.nn.functional.silu, torch.tanh
    theirs = nn.Gate("3x0e + 3x0o", [silu, tanh], "6x0e", [silu], "3x1o + 3x1e")
    for activation in (theirs.act_scalars, theirs.act_gates):
        for act in activation.acts:  # their gains are estimated from samples, to three digits
            known = TANH_GAIN if abs(act.cst - TANH_GAIN) < 0.01 else SILU_GAIN
            assert act.cst == pytest.approx(known, rel=2e-3)
            act.cst = known
    assert theirs.irreps_in.simplify() == o3.Irreps("3x0o + 9x0e + 3x1o + 3x1e")
    close(flat(gate(x, irreps, c)), theirs(*single(flat([x[1], x[0], *x[2:]]))))


def test_gains_give_unit_second_moments() -> None:
    x = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    weight = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi) * (x[1] - x[0])
    for gain, f in ((SILU_GAIN, torch.nn.functional.silu), (TANH_GAIN, torch.tanh)):
        assert float(((gain * f(x)).square() * weight).sum()) == pytest.approx(1.0, abs=1e-6)


def test_products_of_pairs_are_those_of_e3nn() -> None:
    first, out, c, lmax = both_parities(2), both_parities(1), 3, 2
    ours = PairProduct(c, first, lmax, out)
    known = [(i, j, k) for i, a in enumerate(first) for j, b in enumerate(natural(lmax))
             for k, ir in enumerate(out) if ir in a * b]  # fmt: skip
    assert len(known) == len(ours.paths)
    theirs = o3.TensorProduct(
        layout(first, c), layout(natural(lmax), c), layout(out, c), [(*p, "uuu", True) for p in known]
    )
    with torch.no_grad():
        for view, w in zip(theirs.weight_views(), ours.paths, strict=True):
            view[:] = w
    x, y = features(first, 1, c), features(natural(lmax), 1, c)
    got = ours(torch.cat(x, dim=1).transpose(1, 2).unsqueeze(2), torch.cat(y, dim=1).permute(2, 0, 1))
    parts = torch.split(got.squeeze(2), [ir.dim for ir in out], dim=2)
    close(torch.cat([p.flatten(1) for p in parts], dim=1), theirs(*single(flat(x), flat(y))))


@pytest.mark.parametrize(
    ("lmax", "both", "n_paths"), [(0, False, 1), (1, False, 4), (2, False, 11), (1, True, 10), (2, True, 30)]
)
def test_paths(lmax: int, both: bool, n_paths: int) -> None:
    """Numbers of triples (l1, l2, l3) that the triangle allows; with both parities, those of the first as well."""
    of = both_parities(lmax) if both else natural(lmax)
    assert len(Product(of, natural(lmax), of).paths) == n_paths


# --- MACE's symmetric product ---------------------------------------------------------------------------------


def multiplicity(lmax: int, l_out: int, degree: int) -> int:
    """How often l_out, with its natural parity, is in the symmetric power of 0e + 1o + ... : by characters.

    The character of a symmetric power follows from Newton's identity; parity by the inversion, under which natural
    l and parity of a product go together.
    """
    angle = (np.arange(2000) + 0.5) * np.pi / 2000
    measure = (1 - np.cos(angle)) / 2000

    def character(ls: Any, turns: int, sign: int) -> Any:
        return sum(sign ** (l * turns) * sum(np.cos(m * turns * angle) for m in range(-l, l + 1)) for l in ls)

    total = 0.0
    for sign in (1, -1):  # rotations, and rotations with inversion
        powers: list[Any] = [np.ones_like(angle)]
        for k in range(1, degree + 1):
            terms = [character(range(lmax + 1), j, sign) * powers[k - j] for j in range(1, k + 1)]
            powers.append(sum(terms) / k)
        total += float((powers[degree] * character([l_out], 1, sign) * measure).sum()) / 2
    return round(total)


@pytest.mark.parametrize(
    ("lmax", "degree"),
    [(lmax, degree) for lmax, degree in product((1, 2, 3), (1, 2, 3, 4)) if lmax * degree < 10],
)
def test_all_symmetric_couplings_are_there(lmax: int, degree: int) -> None:
    for l in range(min(lmax, 2) + 1):
        found = symmetric_couplings(lmax, l, degree)
        assert len(found) == multiplicity(lmax, l, degree)
        assert found.shape[2] == len(monomials((lmax + 1) ** 2, degree))
        if len(found):
            assert torch.linalg.matrix_rank(found.flatten(1)) == len(found)


def test_known_numbers_of_couplings() -> None:
    """Invariants of 0e + 1o + 2e + 3o: 0; then 00, 11, 22, 33; then 000, 011, 022, 033, 112, 123, 222, 233."""
    assert [len(symmetric_couplings(3, 0, degree)) for degree in (1, 2, 3)] == [1, 4, 8]


def test_symmetric_product_turns_and_is_a_polynomial() -> None:
    config = MACEConfig(channels=2, lmax=2, correlation=3)
    torch.manual_seed(1)
    ours, species, q = SymmetricProduct(config, 2, 2), torch.tensor([0, 1]), rotation(improper=True)
    a = random(9, 2, 2)
    turn = turning(layout(natural(2), 1), q)
    out, turned = ours(a, species), ours(torch.einsum("ij,jnc->inc", turn, a), species)
    for l in range(3):
        d = turning(layout([natural(2)[l]], 1), q)
        torch.testing.assert_close(turned[l], torch.einsum("ij,jnc->inc", d, out[l]), rtol=0, atol=1e-4)
    # degree 3 at most and nothing constant: fourth differences along a line through 0 vanish
    line = torch.stack([ours(t * a, species)[0] for t in (-2.0, -1.0, 0.0, 1.0, 2.0)])
    assert not line[2].any()
    weights = torch.tensor([1.0, -4.0, 6.0, -4.0, 1.0]).double()
    assert (weights @ line.flatten(1)).abs().max() < 1e-10 * line.abs().max()


# --- EGNN, SchNet, step by step -------------------------------------------------------------------------------


def test_egnn_moves_positions() -> None:
    """The paper's equations on positions, atom by atom, give what ours gives on edges."""
    torch.manual_seed(2)
    config, atoms = EGNNConfig(channels=4, n_layers=3, cutoff=3.0), ethanol()
    net = EGNN(config, 3, mean_neighbors=5.0)
    vectors, species, center, neighbor = edges(atoms)
    for layer in net.layers[:-1]:
        layer.move[1].weight.data *= 1500.0
    silu, n = torch.nn.functional.silu, len(atoms)
    x, h = torch.from_numpy(atoms.positions), net.embedding[species]
    start = x.clone()
    for layer in net.layers:
        move, gathered = torch.zeros(n, 3).double(), torch.zeros(n, 4).double()
        for i, j in zip(center.tolist(), neighbor.tolist(), strict=True):
            fade = envelope((start[i] - start[j]).norm(), 3.0)
            basis = radial_basis((start[i] - start[j]).norm(), 8, 3.0)
            d2 = (x[i] - x[j]).square().sum().view(1)
            m = fade * silu(layer.message[1](silu(layer.message[0](torch.cat([h[i], h[j], d2, basis])))))
            gathered[i] += m / math.sqrt(5.0)
            if len(layer.move):
                move[i] += (x[i] - x[j]) * fade * layer.move[1](silu(layer.move[0](m))) / 5.0
        x = x + move
        h = h + layer.update[1](silu(layer.update[0](torch.cat([h, gathered], dim=1))))
    assert (x - start).norm(dim=1).max() > 0.02
    torch.testing.assert_close(net(vectors, species, center, neighbor), h, rtol=0, atol=1e-12)


def test_schnet_of_one_pair() -> None:
    """One layer, one channel, every weight 1 and bias 0: worked out by hand."""
    net = SchNet(SchNetConfig(channels=1, n_layers=1, n_radial=2, cutoff=3.0), 3, mean_neighbors=4.0)
    for w in net.parameters():
        w.data.fill_(1.0 if w.dim() == 2 else 0.0)
    r = 1.2

    def ssp(x: float) -> float:
        return math.log(0.5 * math.exp(x) + 0.5)

    basis = math.exp(-0.5 * (r / 3) ** 2) + math.exp(-0.5 * ((r - 3) / 3) ** 2)
    fade = 1 - 21 * 0.4**5 + 35 * 0.4**6 - 15 * 0.4**7
    expected = 1 + ssp(ssp(basis) * fade / 2)
    found = net(*edges(Atoms("HH", [(0, 0, 0), (0, r, 0)])))
    assert found.flatten().tolist() == pytest.approx([expected] * 2, rel=1e-12)


def test_radial_basis_is_orthogonal_and_fades() -> None:
    r = (torch.arange(20_000) + 0.5).double() / 20_000 * 3.0
    basis = radial_basis(r, 4, 3.0) / envelope(r, 3.0).unsqueeze(1)
    gram = (basis * r.square().unsqueeze(1)).T @ basis * (3.0 / 20_000)
    torch.testing.assert_close(gram, torch.eye(4).double() * 3.0**3 / 8, rtol=0, atol=1e-3)
    assert radial_basis(torch.tensor([3.0, 5.0]).double(), 4, 3.0).abs().max() == 0


# --- training -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_training_goes_on_as_if_it_had_not_stopped(name: str, tmp_path: Path) -> None:
    """Steps lower the loss and, saved and loaded between, end in the same bits."""
    frames = [Frame(ethanol(k), None, random(9, 3, seed=k).numpy() * 0.1, None, "", k) for k in range(3)]
    samples, fit = prepare(frames, 3.0), Fit(clip=1.0)
    config = {"network": name, **presets(name)["tiny"], "cutoff": 3.0}
    fresh = build(config, Statistics(("H", "C", "O"), (0.0, 0.0, 0.0), 1.0, 5.0), seed=1)
    with torch.enable_grad():
        one, other = start(copy.deepcopy(fresh), fit), start(copy.deepcopy(fresh), fit)
        losses = [train_step(one, samples, fit, 1e-3) for _ in range(12)]
        save_state(one, tmp_path / "state")
        load_state(other, tmp_path / "state")
        for run in (one, other):
            train_step(run, samples, fit, 1e-3)
    assert losses[-1] < losses[0]
    for a, b in zip(one.potential.parameters(), other.potential.parameters(), strict=True):
        assert torch.equal(a, b)
