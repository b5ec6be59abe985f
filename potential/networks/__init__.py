"""Architectures. Every network sees four tensors and returns features per atom.

    features = network(vectors, species, center, neighbor)
    # vectors (n_edges, 3) Å, r_ij = r_j - r_i; species (n_atoms,) indices; center, neighbor (n_edges,), sorted by center
    # features (n_atoms, network.irreps_out.dim), in e3nn's layout of network.irreps_out

A new architecture is one file here and one line in NETWORKS.
"""

from potential.networks.equivariant import Equivariant, EquivariantConfig

NETWORKS = {"equivariant": (EquivariantConfig, Equivariant)}
