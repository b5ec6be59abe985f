"""Energy and forces a chunk of atoms at a time: the numbers of `physics.predict` in little memory, at linear cost.

A layer acts on one atom once the messages of its neighbors are gathered, so it can be taken for some atoms at a time.
The last layer and the head give the gradient of a chunk as soon as its energy is known; every layer before them is
computed twice, first for what it sends, then for its gradient. Of a chunk only the basis of its edges is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from potential.graph import Graph, pad
from potential.model import Potential
from potential.networks.equivariant import Equivariant, Layer
from potential.physics import AtomTargets, Prediction, assemble, pooled, predict, pull_back


@dataclass(frozen=True)
class Chunk:
    """Some atoms and the edges into them."""

    atoms: slice
    edges: slice
    species: Tensor  # (n_atoms,)
    center: Tensor  # (n_edges,), counted from the first of the atoms
    neighbor: Tensor  # (n_edges,), counted over all atoms
    slots: Tensor  # (n_atoms * n_slots,): whose message stands in each slot
    basis: Tensor  # (n_atoms, n_slots, harmonics * n_radial)


def predict_in_chunks(potential: Potential, graph: Graph, size: int) -> Prediction:
    """`physics.predict`, at most `size` atoms at a time; the result has no derivatives.

    A graph of no more atoms, a potential without energies, which needs no gradient, and a network that is not made of
    such layers are taken as a whole.
    """
    whole = len(graph.positions) <= size or potential.head is None
    if whole or not isinstance(potential.network, Equivariant):
        return predict(potential, graph)
    with torch.enable_grad():  # also for a caller under no_grad
        *parts, targets = edge_gradient(potential, potential.network, graph, size)
        return replace(assemble(graph, *parts), targets=pooled(graph, targets))


def edge_gradient(
    potential: Potential, network: Equivariant, graph: Graph, size: int
) -> tuple[Tensor, Tensor, Tensor, AtomTargets]:
    """Energies per atom (n_atoms,), edge vectors and dE/dr_ij (n_edges, 3), as `physics.edge_gradient`; targets."""
    layers, last = network.layers, len(network.layers) - 1
    with torch.no_grad():
        species = potential.species_of[graph.atomic_numbers]
        vectors = graph.edge_vectors().to(potential.dtype)
        chunks = [
            make(network, graph, vectors, species, slice(k, k + size)) for k in range(0, len(species), size)
        ]
        features, messages = before_last(network, species, chunks)
    said: list[list[Tensor]] = []  # of the atoms of each chunk, by each head
    back_basis = [torch.zeros_like(chunk.basis) for chunk in chunks]
    back = [[torch.zeros_like(x) for x in orders] for orders in features]  # dE/d features
    for t in range(last, -1, -1):
        back_messages = torch.zeros_like(messages[t])
        for chunk, back_edges in zip(chunks, back_basis, strict=True):
            basis = chunk.basis.detach().requires_grad_()
            sent = messages[t].index_select(0, chunk.slots).requires_grad_()
            own = [x[:, chunk.atoms].detach().requires_grad_() for x in features[t]]
            out = apply(layers[t], chunk, basis, own, sent)
            if t == last:
                read = [x[0][0, chunk.atoms].detach().requires_grad_() for x in features[1:]]
                value, *others = potential.read(network.leaving([*read, out[0][0]], out))
                said.append([x.detach() for x in (value, *others)])
                grads = pull_back([value.sum()], [basis, sent, *own, *read])
            else:
                read = []
                grads = pull_back(out, [basis, sent, *own], [x[:, chunk.atoms] for x in back[t + 1]])
            back_edges += grads[0]
            back_messages.index_add_(0, chunk.slots, grads[1])
            for x, grad in zip(back[t], grads[2 : 2 + len(own)], strict=True):
                x[:, chunk.atoms] += grad
            for orders, grad in zip(back[1:], grads[2 + len(own) :], strict=False):
                orders[0][0, chunk.atoms] += grad
        if t > 0:
            own = [x.detach().requires_grad_() for x in features[t]]
            grads = pull_back([layers[t].messages(own)], own, [back_messages])
            for x, grad in zip(back[t], grads, strict=True):
                x += grad
    gradient = torch.cat(
        [pull_back_basis(network, vectors, *pair) for pair in zip(chunks, back_basis, strict=True)]
    )
    outputs = [(torch.cat(x), y) for x, y in zip(zip(*said, strict=True), potential.alone(), strict=True)]
    energy, targets = potential.values(outputs, species, graph.center)
    return energy, vectors, gradient * potential.statistics.scale, targets


def make(network: Equivariant, graph: Graph, vectors: Tensor, species: Tensor, atoms: slice) -> Chunk:
    """The chunk of the atoms `atoms`; edges are sorted by center, so its edges lie together."""
    species = species[atoms]
    ends = torch.tensor([atoms.start, atoms.start + len(species)], device=species.device)
    edges = slice(*torch.searchsorted(graph.center, ends).tolist())
    center, neighbor = graph.center[edges] - atoms.start, graph.neighbor[edges]
    padded, slots = pad(vectors[edges], center, neighbor, len(species), network.config.cutoff)
    return Chunk(atoms, edges, species, center, neighbor, slots, network.edge_basis(padded))


def pull_back_basis(network: Equivariant, vectors: Tensor, chunk: Chunk, cotangent: Tensor) -> Tensor:
    """The gradient by the edge vectors of a chunk (n_edges, 3) from that by its basis."""
    v = vectors[chunk.edges].detach().requires_grad_()
    padded, _ = pad(v, chunk.center, chunk.neighbor, len(chunk.species), network.config.cutoff)
    return pull_back([network.edge_basis(padded)], [v], [cotangent])[0]


def before_last(
    network: Equivariant, species: Tensor, chunks: Sequence[Chunk]
) -> tuple[list[list[Tensor]], list[Tensor]]:
    """What goes into each layer: features of every order, and messages (n_atoms, width)."""
    features, messages = [network.start(species)], []
    for t, layer in enumerate(network.layers):
        messages.append(layer.messages(features[t]))
        if t == len(network.layers) - 1:
            break
        parts = [
            apply(layer, c, c.basis, [x[:, c.atoms] for x in features[t]], messages[t][c.slots])
            for c in chunks
        ]
        features.append([torch.cat(order, dim=1) for order in zip(*parts, strict=True)])
    return features, messages


def apply(layer: Layer, chunk: Chunk, basis: Tensor, features: list[Tensor], sent: Tensor) -> list[Tensor]:
    """A layer on the atoms of a chunk; `sent` (n_atoms * n_slots, width) are its neighbors' messages."""
    out: list[Tensor] = layer(features, chunk.species, basis, sent.view(*basis.shape[:2], -1))
    return out
