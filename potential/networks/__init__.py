"""Architectures. Every network sees four tensors and returns features per atom.

A new architecture is one file here and one line in NETWORKS.
"""

from typing import Any, Protocol

from torch import Tensor

from potential.networks.ace import ACE, ACEConfig
from potential.networks.allegro import Allegro, AllegroConfig
from potential.networks.egnn import EGNN, EGNNConfig
from potential.networks.equivariant import Equivariant, EquivariantConfig
from potential.networks.l1net import L1Net, L1NetConfig
from potential.networks.mace import MACE, MACEConfig
from potential.networks.nequip import NequIP, NequIPConfig
from potential.networks.painn import PaiNN, PaiNNConfig
from potential.networks.schnet import SchNet, SchNetConfig


class Network(Protocol):
    """What a Potential needs of an architecture."""

    config: Any  # a frozen dataclass of dials, among them `cutoff` in Å
    irreps_out: Any  # e3nn Irreps of the features

    def __call__(self, vectors: Tensor, species: Tensor, center: Tensor, neighbor: Tensor, /) -> Tensor:
        """Features (n_atoms, irreps_out.dim) in e3nn's layout.

        `vectors` (n_edges, 3) are r_j - r_i in Å, `species` (n_atoms,) indices into the model's elements,
        `center` and `neighbor` (n_edges,) the atoms i and j of each edge, sorted by center.
        """
        ...


# name -> (dataclass of dials, network built from dials, number of elements and mean number of neighbors)
NETWORKS: dict[str, tuple[Any, Any]] = {
    "equivariant": (EquivariantConfig, Equivariant),
    "ace": (ACEConfig, ACE),
    "allegro": (AllegroConfig, Allegro),
    "egnn": (EGNNConfig, EGNN),
    "l1net": (L1NetConfig, L1Net),
    "mace": (MACEConfig, MACE),
    "nequip": (NequIPConfig, NequIP),
    "painn": (PaiNNConfig, PaiNN),
    "schnet": (SchNetConfig, SchNet),
}
# Those whose only feature is the energy itself, linear in the weights: fitted by least squares, not by training.
LINEAR = ("ace",)
