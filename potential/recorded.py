"""Energy and forces of one structure in motion: the kernels of a GPU recorded once, as a CUDA graph, and replayed.

A GPU is done with a small structure sooner than its kernels can be launched one by one. A recording needs shapes that
stay, so the edges are those of a Verlet list, in a table with room to spare; beyond the cutoff they add nothing, since
the envelope is zero there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from potential.graph import CLOSEST, Graph, from_atoms, slots
from potential.model import Potential
from potential.networks.equivariant import Equivariant
from potential.physics import Prediction, pull_back
from potential.verlet import Motion, VerletList, motion_since

ROOM = 1.1  # slots of a table, times the most neighbors of the list that it is made for


def recordable(potential: Potential) -> bool:
    """A potential of energies alone, whose network takes a table of edges."""
    facts = potential.statistics
    return isinstance(potential.network, Equivariant) and facts.has_energy and not facts.targets


class Recording:
    """Energies, forces and virial for one number of atoms and of slots; of any elements, neighbors, positions, cell.

    What changes lies in tensors that stay where they are. On a CPU nothing is recorded, and the same function runs.
    """

    def __init__(self, potential: Potential, n_atoms: int, n_slots: int):
        assert isinstance(potential.network, Equivariant)
        self.potential, self.network, self.n_slots = potential, potential.network, n_slots
        device, facts = potential.species_of.device, potential.statistics
        place: dict[str, Any] = {"dtype": torch.float64, "device": device}
        self.positions, self.cell = torch.zeros(n_atoms, 3, **place), torch.zeros(3, 3, **place)
        self.image = torch.zeros(n_atoms * n_slots, 3, **place)
        self.filled = torch.zeros(n_atoms * n_slots, 1, dtype=torch.bool, device=device)
        self.neighbor = torch.zeros(n_atoms * n_slots, dtype=torch.int64, device=device)
        self.species = torch.zeros(n_atoms, dtype=torch.int64, device=device)
        self.e0, self.alone = torch.tensor(facts.e0, **place), potential.alone()[0].double()
        self.beyond = torch.tensor([2 * potential.cutoff, 0.0, 0.0], **place)
        self.kernels: torch.cuda.CUDAGraph | None = None
        if device.type == "cuda":
            with torch.cuda.device(device):
                self._record()

    def _record(self) -> None:
        """Run it, so that what is set up in a first call is there, and then record it."""
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(2):
                self.evaluate()
        torch.cuda.current_stream().wait_stream(aside)
        self.kernels = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.kernels):
            self.result = self.evaluate()

    def load(self, graph: Graph) -> None:
        """Take the edges of one structure over, sorted by center, at most `n_slots` of an atom."""
        n_atoms = len(self.positions)
        place, _ = slots(graph.center, n_atoms, self.n_slots)
        empty = torch.zeros(n_atoms * self.n_slots, dtype=torch.int64)
        self.neighbor.copy_(empty.index_copy(0, place, graph.neighbor))
        self.image.copy_(empty[:, None].double().repeat(1, 3).index_copy(0, place, graph.image))
        self.filled.copy_(empty.index_fill(0, place, 1)[:, None].bool())

    def __call__(self, positions: Tensor, cell: Tensor, species: Tensor) -> Tensor:
        """`evaluate` of these (n_atoms, 3), (3, 3) Å, (n_atoms,), on the CPU."""
        self.positions.copy_(positions)
        self.cell.copy_(cell)
        self.species.copy_(species)
        if self.kernels is None:
            return self.evaluate().cpu()
        self.kernels.replay()
        return self.result.cpu()

    def evaluate(self) -> Tensor:
        """Energies of atoms (eV), forces (eV/Å), virial (eV), shortest distance (Å): (4 n_atoms + 10,), float64."""
        n_atoms, scale = len(self.positions), self.potential.statistics.scale
        sent, shift = self.positions.index_select(0, self.neighbor), self.image @ self.cell
        received = self.positions.repeat_interleave(self.n_slots, 0)
        vectors = torch.where(self.filled, sent - received + shift, self.beyond)
        with torch.enable_grad():
            padded = vectors.view(n_atoms, self.n_slots, 3).to(self.potential.dtype).requires_grad_()
            (value,) = self.potential.read(self.network.of_table(padded, self.neighbor, self.species))
            (gradient,) = pull_back([value.sum()], [padded])
        gradient = scale * gradient.double()
        difference = value.detach().double() - self.alone.index_select(0, self.species)
        lengths = torch.linalg.vector_norm(vectors, dim=1)
        isolated = (lengths >= self.potential.cutoff).view(n_atoms, -1).all(1)
        energy = self.e0.index_select(0, self.species) + scale * difference.masked_fill(isolated, 0)
        forces = gradient.sum(1).index_add(0, self.neighbor, gradient.flatten(0, 1), alpha=-1)
        virial = padded.detach().flatten(0, 1).double().T @ gradient.flatten(0, 1)
        return torch.cat([energy, forces.flatten(), virial.flatten(), lengths.min()[None]])


class Recorder:
    """Follows one structure: its Verlet list, and a recording that serves until one of another size is needed.

    Args:
        potential: one that is `recordable`, on any device.
        skin: Å, positive.
    """

    def __init__(self, potential: Potential, skin: float):
        self.potential, self.skin, self.n_searches = potential, skin, 0
        self.known: VerletList | None = None
        self.recording: Recording | None = None
        self.atomic_numbers = torch.zeros(0, dtype=torch.int64)
        self.species = self.atomic_numbers

    def predict(self, atoms: Atoms) -> Prediction:
        """`physics.predict` of the structure, to rounding, on the CPU.

        Raises:
            ValueError: as `potential.graph.from_atoms` and `Potential.check`.
        """
        motion = None if self.known is None else motion_since(self.known, atoms, self.potential.cutoff)
        if motion is None:
            motion = self._search(atoms)
        self._look_at(torch.from_numpy(atoms.numbers.astype(np.int64)))
        assert self.recording is not None
        positions = motion.positions - motion.crossings @ motion.cell  # with the images of the list
        result = self.recording(positions, motion.cell, self.species)
        n_atoms = len(atoms)
        energy, forces, virial, closest = torch.split(result, [n_atoms, 3 * n_atoms, 9, 1])
        if closest.item() < CLOSEST:
            from_atoms(atoms, self.potential.cutoff)  # says which
        return Prediction(energy.sum()[None], energy, forces.view(-1, 3), virial.view(1, 3, 3))

    def _look_at(self, atomic_numbers: Tensor) -> None:
        """Elements may change while neighbors stay."""
        if not torch.equal(atomic_numbers, self.atomic_numbers):
            there = atomic_numbers.to(self.potential.species_of.device)
            self.potential.check(there)
            self.species, self.atomic_numbers = self.potential.species_of[there].cpu(), atomic_numbers

    def _search(self, atoms: Atoms) -> Motion:
        """A new list, in the recording that is there if it has room."""
        reach = self.potential.cutoff + self.skin
        wide = from_atoms(atoms, reach)
        self.known, self.n_searches = None, self.n_searches + 1
        _, most = slots(wide.center, len(atoms))
        if (
            self.recording is None
            or len(self.recording.positions) != len(atoms)
            or self.recording.n_slots < most
        ):
            self.recording = None  # its memory is free for the next one
            self.recording = Recording(self.potential, len(atoms), math.ceil(ROOM * most))
        self.recording.load(wide)
        self.known = VerletList(wide, reach)
        return Motion(wide.positions, torch.zeros_like(wide.positions), wide.cell[0])
