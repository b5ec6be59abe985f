"""Networks beside independent implementations of them, with the same weights, in float64.

    python -m bench.networks.check schnet painn        # with the Python of an environment that holds the peer

Each line of docs/results/networks.jsonl: network, peer and its version, the largest difference of the features and of
the gradient of a random projection of them by the edge vectors, both relative to the largest value. README.md says
which environment which network needs.
"""

import argparse
import importlib.metadata
import io
import json
import lzma
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from ase.io import read
from torch import Tensor

from bench.provenance import ROOT, provenance

# network -> module of this folder with a function of that name, distribution that it compares with
PEERS = {
    "schnet": ("schnetpack_peers", "schnetpack"),
    "painn": ("schnetpack_peers", "schnetpack"),
    "nequip": ("nequip_peers", "nequip"),
    "allegro": ("nequip_peers", "nequip-allegro"),
    "l1net": ("nequip_peers", "e3nn"),
    "mace": ("mace_peers", "mace-torch"),
    "egnn": ("egnn_peers", "egnn-pytorch"),
}
CUTOFF = 4.0


@dataclass(frozen=True)
class Problem:
    """Atoms and edges of a few molecules, float64."""

    vectors: Tensor  # (n_edges, 3) Å, requires a gradient
    species: Tensor  # (n_atoms,) 0, 1, 2 for H, C, O
    center: Tensor
    neighbor: Tensor
    cutoff: float = CUTOFF


# A network's own features and the peer's, as functions of the problem's vectors.
Pair = tuple[Tensor, Tensor]
Compare = Callable[[Problem], Pair]


def problem() -> Problem:
    """Three frames of acetylacetone."""
    from potential.graph import collate, from_atoms

    text = lzma.decompress((ROOT / "data/acac/train_300K.xyz.xz").read_bytes()).decode()
    frames = read(io.StringIO(text), "::200", format="extxyz")
    graph = collate([from_atoms(atoms, CUTOFF) for atoms in frames])
    species = torch.tensor([{1: 0, 6: 1, 8: 2}[int(z)] for z in graph.atomic_numbers])
    return Problem(graph.edge_vectors().requires_grad_(), species, graph.center, graph.neighbor)


def relative(got: Tensor, expected: Tensor) -> float:
    return float(((got - expected).abs().max() / expected.abs().max()).detach())


def differences(problem: Problem, compare: Compare) -> dict[str, float]:
    """Of features, and of the gradient of a random projection of them."""
    ours, theirs = compare(problem)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    slopes = [
        torch.autograd.grad((x * weights).sum(), problem.vectors, retain_graph=True)[0]
        for x in (ours, theirs)
    ]
    return {"features": relative(ours, theirs), "gradient": relative(*slopes)}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("networks", nargs="+", choices=PEERS)
    args = p.parse_args()
    modules: dict[str, Any] = {}
    for name in args.networks:  # peers first: some patch what they import
        modules[name] = import_module(f"bench.networks.{PEERS[name][0]}")
    for name in args.networks:
        torch.manual_seed(0)
        found = differences(problem(), getattr(modules[name], name))
        peer = PEERS[name][1]
        line = {"network": name, "peer": peer, "version": importlib.metadata.version(peer), **found}
        print(json.dumps(line))
        with (ROOT / "docs/results/networks.jsonl").open("a", encoding="utf-8") as f:
            f.write(json.dumps({**provenance(), **line}) + "\n")


if __name__ == "__main__":
    main()
