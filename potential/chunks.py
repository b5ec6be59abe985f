"""Energy and forces a chunk of atoms at a time: the numbers of `physics.predict` in bounded memory, at linear cost.

A layer acts on one atom once the messages of its neighbors are gathered, so it can be taken for some atoms at a time.
The last layer and the head give the gradient of a chunk as soon as its energy is known; every layer before them is
computed twice, first for what it sends, then for its gradient. Nothing of a chunk outlives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from potential.graph import Graph, pad
from potential.model import Potential
from potential.networks.equivariant import Equivariant
from potential.physics import Prediction, assemble, predict, pull_back


@dataclass(frozen=True)
class Chunk:
    """Some atoms and the edges into them."""

    atoms: slice
    edges: slice
    species: Tensor  # (n_atoms,)
    center: Tensor  # (n_edges,), counted from the first of the atoms
    neighbor: Tensor  # (n_edges,), counted over all atoms
    slots: Tensor  # (n_atoms * n_slots,): whose message stands in each slot


def predict_in_chunks(potential: Potential, graph: Graph, size: int) -> Prediction:
    """`physics.predict`, at most `size` atoms at a time; the result has no derivatives.

    A graph of no more atoms, and a network that is not made of such layers, is taken as a whole.
    """
    if len(graph.positions) <= size or not isinstance(potential.network, Equivariant):
        return predict(potential, graph)
    return assemble(graph, *edge_gradient(potential, potential.network, graph, size))


def edge_gradient(
    potential: Potential, network: Equivariant, graph: Graph, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Energies per atom (n_atoms,), edge vectors and dE/dr_ij (n_edges, 3), as `physics.edge_gradient`."""
    layers, last = network.layers, len(network.layers) - 1
    with torch.no_grad():
        species = potential.species_of[graph.atomic_numbers]
        vectors = graph.edge_vectors().to(potential.dtype)
        chunks = cut(graph, vectors, species, size, network.config.cutoff)
        features, messages = before_last(network, vectors, species, chunks)
    output = vectors.new_zeros(len(species))
    gradient = torch.zeros_like(vectors)
    back = [[torch.zeros_like(x) for x in orders] for orders in features]  # dE/d features
    for t in range(last, -1, -1):
        back_messages = torch.zeros_like(messages[t])
        for chunk in chunks:
            v = vectors[chunk.edges].detach().requires_grad_()
            sent = messages[t].index_select(0, chunk.slots).requires_grad_()
            own = [x[:, chunk.atoms].detach().requires_grad_() for x in features[t]]
            out = apply(network, t, chunk, v, own, sent)
            if t == last:
                read = [x[0][0, chunk.atoms].detach().requires_grad_() for x in features[1:]]
                value = potential.head(torch.cat([*read, out[0][0]], dim=1))
                output[chunk.atoms] = value.detach()
                grads = pull_back([value.sum()], [v, sent, *own, *read])
            else:
                read = []
                grads = pull_back(out, [v, sent, *own], [x[:, chunk.atoms] for x in back[t + 1]])
            gradient[chunk.edges] += grads[0]
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
    energy = potential.energies(output, potential.alone(), species, graph.center)
    return energy, vectors, gradient * potential.statistics.scale


def cut(graph: Graph, vectors: Tensor, species: Tensor, size: int, cutoff: float) -> list[Chunk]:
    """The atoms in their order, `size` at a time."""
    first = torch.searchsorted(graph.center, torch.arange(0, len(species), size, device=species.device))
    begins = [*first.tolist(), len(graph.center)]
    chunks = []
    for k, begin in enumerate(begins[:-1]):
        atoms, edges = slice(k * size, (k + 1) * size), slice(begin, begins[k + 1])
        center, neighbor = graph.center[edges] - k * size, graph.neighbor[edges]
        _, slots = pad(vectors[edges], center, neighbor, len(species[atoms]), cutoff)
        chunks.append(Chunk(atoms, edges, species[atoms], center, neighbor, slots))
    return chunks


def before_last(
    network: Equivariant, vectors: Tensor, species: Tensor, chunks: Sequence[Chunk]
) -> tuple[list[list[Tensor]], list[Tensor]]:
    """What goes into each layer: features of every order, and messages (n_atoms, width)."""
    features, messages = [network.start(species)], []
    for t, layer in enumerate(network.layers):
        messages.append(layer.messages(features[t]))
        if t == len(network.layers) - 1:
            break
        parts = [
            apply(network, t, c, vectors[c.edges], [x[:, c.atoms] for x in features[t]], messages[t][c.slots])
            for c in chunks
        ]
        features.append([torch.cat(order, dim=1) for order in zip(*parts, strict=True)])
    return features, messages


def apply(
    network: Equivariant, t: int, chunk: Chunk, vectors: Tensor, features: list[Tensor], sent: Tensor
) -> list[Tensor]:
    """Layer t on the atoms of a chunk; `sent` (n_atoms * n_slots, width) are its neighbors' messages."""
    padded, _ = pad(vectors, chunk.center, chunk.neighbor, len(chunk.species), network.config.cutoff)
    basis = network.edge_basis(padded)
    out: list[Tensor] = network.layers[t](features, chunk.species, basis, sent.view(*padded.shape[:2], -1))
    return out
