"""Potential = network + head + Statistics: energies per atom in eV."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

import torch
from ase.data import atomic_numbers as number_of
from ase.data import chemical_symbols
from torch import Tensor, nn

from potential.heads import EnergyHead
from potential.networks import LINEAR, NETWORKS, Network
from potential.targets import TargetFacts, TargetHead, directed


@dataclass(frozen=True)
class Statistics:
    """Facts of the training data, measured, never configured."""

    elements: tuple[str, ...]  # the position in this list is the species index
    e0: tuple[float, ...]  # eV, energy of the isolated atom of each element
    scale: float  # eV, the network's unit of energy
    mean_neighbors: float  # per atom, within the cutoff
    targets: tuple[TargetFacts, ...] = ()  # beside the energy
    has_energy: bool = True  # energies, forces or stress; else these are NaN

    def __post_init__(self) -> None:
        if len(self.elements) != len(self.e0) or not self.elements:
            raise ValueError(f"{len(self.elements)} elements but {len(self.e0)} e0; give one e0 per element")
        if not self.scale > 0:
            raise ValueError(f"scale is {self.scale} eV; it must be positive")


class Potential(nn.Module):
    """Energy per atom of any structure made of `statistics.elements`.

    energy_i = e0[species_i] + scale * (u_i - u_alone[species_i]), where u_alone is what the network says of an
    atom without neighbors: an isolated atom has exactly its e0. The last line is float64.
    """

    species_of: Tensor

    def __init__(
        self, network: Network, head: nn.Module | None, statistics: Statistics, targets: Sequence[TargetHead]
    ):
        super().__init__()
        self.network, self.head, self.statistics = network, head, statistics
        self.targets = cast("Sequence[TargetHead]", nn.ModuleList(targets))
        species_of = torch.full((len(chemical_symbols) + 1,), -1)
        species_of[[number_of[e] for e in statistics.elements]] = torch.arange(len(statistics.elements))
        self.register_buffer("species_of", species_of, persistent=False)

    @property
    def cutoff(self) -> float:
        """Reach of one layer in Å: what a neighbor list must hold."""
        return float(self.network.config.cutoff)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def check(self, atomic_numbers: Tensor) -> None:
        """Refuse elements that the potential was not fitted to."""
        inside = (atomic_numbers >= 0) & (atomic_numbers < len(self.species_of))
        known = inside & (self.species_of[atomic_numbers.where(inside, 0)] >= 0)
        unknown = torch.unique(atomic_numbers[~known]).tolist()
        if unknown:
            names = [chemical_symbols[z] if 0 <= z < len(chemical_symbols) else f"Z = {z}" for z in unknown]
            raise ValueError(
                f"atoms contain {', '.join(names)}, but this potential was trained on "
                f"{', '.join(self.statistics.elements)}; use one trained on these elements or fit a new one"
            )

    def forward(
        self, vectors: Tensor, atomic_numbers: Tensor, center: Tensor, neighbor: Tensor
    ) -> tuple[Tensor, dict[str, tuple[str, Tensor]]]:
        """Energies (n_atoms,) in eV, float64, and targets of atoms, from edge vectors (n_edges, 3) in Å."""
        species = self.species_of[atomic_numbers]
        n_atoms, n_species = len(species), len(self.statistics.elements)
        alone = torch.arange(n_species, device=species.device)
        features = self.network(vectors, torch.cat([species, alone]), center, neighbor)
        energy, *outputs = [torch.split(x, [n_atoms, n_species]) for x in self.read(features)]
        others = directed(self.targets, outputs, (vectors, center, neighbor))
        return self.values([energy, *others], species, center)

    def read(self, features: Tensor) -> list[Tensor]:
        """What each head says of atoms with these features, the energy's first."""
        energy = features.new_zeros(len(features)) if self.head is None else self.head(features)
        return [energy, *(head(features) for head in self.targets)]

    def alone(self) -> list[Tensor]:
        """What each head says of an atom of each element without neighbors, (n_species,) or (n_species, dim)."""
        species = torch.arange(len(self.statistics.elements), device=self.species_of.device)
        nothing = species[:0]
        with torch.no_grad():
            vectors = nothing.new_zeros(0, 3, dtype=self.dtype)
            return self.read(self.network(vectors, species, nothing, nothing))

    def values(
        self, outputs: Sequence[tuple[Tensor, ...]], species: Tensor, center: Tensor
    ) -> tuple[Tensor, dict[str, tuple[str, Tensor]]]:
        """Energies (n_atoms,) in eV and targets of atoms, float64, from what each head says of the atoms and of atoms
        alone, as which atoms that are no edge's `center` count to the last bit.
        """
        isolated = torch.bincount(center, minlength=len(species)) == 0
        e0 = torch.tensor(self.statistics.e0, dtype=torch.float64, device=species.device)
        output, alone = outputs[0]
        difference = (output.double() - alone.double()[species]).masked_fill(isolated, 0)
        energy = e0[species] + (torch.nan if self.head is None else self.statistics.scale) * difference
        targets = {
            head.facts.name: (head.facts.per, head.values(one, other, species, isolated))
            for head, (one, other) in zip(self.targets, outputs[1:], strict=True)
        }
        return energy, targets


def build(
    config: Mapping[str, Any], statistics: Statistics, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Potential:
    """A potential with random weights: `config` is {"network": name, dial: value, ...}.

    The global random state is left as it was. Use `recast`, not `.double()`, to raise the precision afterwards.

    Raises:
        ValueError: an unknown network or dial, with the nearest known one.
    """
    network_type, dials = settings(config)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = network_type(dials, len(statistics.elements), statistics.mean_neighbors)
        linear = config.get("network") in LINEAR  # its feature is the energy
        head = (
            (nn.Flatten(0) if linear else EnergyHead(network.irreps_out)) if statistics.has_energy else None
        )
        reach = 0.0 if linear or "lmax_out" in asdict(dials) else float(dials.cutoff)
        targets = [TargetHead(network.irreps_out, facts, reach) for facts in statistics.targets]
    return Potential(network, head, statistics, targets).to(dtype)


def presets(network: str, dense: bool = False) -> dict[str, dict[str, Any]]:
    """What each preset makes of the dials of a network; of dense structures, if it has others for these.

    Raises:
        ValueError: an unknown network, with the nearest known one.
    """
    dials = architecture(network)[0]
    found: dict[str, dict[str, Any]] = getattr(dials, "dense", dials.presets) if dense else dials.presets
    return found


def architecture(name: Any) -> tuple[Any, Any]:
    """Dials and class of a network.

    Raises:
        ValueError: an unknown network, with the nearest known one.
    """
    if not isinstance(name, str) or name not in NETWORKS:
        raise ValueError(
            f"there is no network {name!r}{suggestion(name, NETWORKS)}; there are {', '.join(NETWORKS)}"
        )
    return NETWORKS[name]


def settings(config: Mapping[str, Any]) -> tuple[Any, Any]:
    """The network's class and its checked dials, from {"network": name, dial: value, ...}.

    Raises:
        ValueError: an unknown network or dial, with the nearest known one, or a value out of range.
    """
    dials = dict(config)
    name = dials.pop("network", "equivariant")
    config_type, network_type = architecture(name)
    known = [f.name for f in fields(config_type)]
    for key in dials:
        if key not in known:
            others = [n for n, (other, _) in NETWORKS.items() if key in [f.name for f in fields(other)]]
            whose = f", which is a dial of {', '.join(others)}" if others else ""
            raise ValueError(
                f"[model] has no setting {key!r}{whose}{suggestion(key, known)}; "
                f"network {name} has {', '.join(known)}"
            )
    return network_type, config_type(**dials)


def recast(potential: Potential, dtype: torch.dtype) -> Potential:
    """The same potential in another precision, its constants (couplings, quadrature) exact in that precision."""
    copy = build(configuration(potential), potential.statistics, dtype=dtype)
    copy.load_state_dict(potential.state_dict())
    return copy.to(next(potential.parameters()).device)


def configuration(potential: Potential) -> dict[str, Any]:
    """What `build` needs to make this potential again."""
    name = next(n for n, (_, network) in NETWORKS.items() if type(potential.network) is network)
    return {"network": name, **asdict(potential.network.config)}


def suggestion(word: str, known: Any) -> str:
    """`; did you mean 'cutoff'?`, or nothing."""
    same = [k for k in known if str(k).lower() == str(word).lower()]  # difflib tells eV from ev
    close = same or difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
