"""What a GPU does, recorded once as a CUDA graph and replayed; energy and forces of one structure in motion.

A GPU is done with a small structure sooner than its kernels can be launched one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from potential.graph import CLOSEST, Graph, from_atoms
from potential.model import Potential
from potential.physics import Prediction
from potential.table import Shape, Table, most_neighbors, predict, tabulate
from potential.verlet import Motion, VerletList, motion_since

ROOM = 1.1  # slots of a table, times the most neighbors of the list that it is made for


class Recording:
    """A function without arguments whose kernels always are the same; results and what it reads lie where they lay.

    On a CPU nothing is recorded, and the function runs.
    """

    def __init__(self, function: Callable[[], Tensor], device: torch.device):
        self.kernels: torch.cuda.CUDAGraph | None = None
        if device.type == "cuda":
            with torch.cuda.device(device):
                self._record(function)
        else:  # what was recorded is not kept: its owner, and so its memory, would wait for the collector of cycles
            self.function = function

    def _record(self, function: Callable[[], Tensor]) -> None:
        """Run it, so that what is set up in a first call is there, and then record it."""
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(2):
                function()
        torch.cuda.current_stream().wait_stream(aside)
        self.kernels = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.kernels):
            self.result = function()

    def __call__(self) -> Tensor:
        if self.kernels is None:
            return self.function()
        self.kernels.replay()
        return self.result


class Recorder:
    """Follows one structure: its Verlet list, and a recording that serves until one of another size is needed.

    Args:
        potential: one that fits a table, on any device.
        skin: Å, positive.
    """

    def __init__(self, potential: Potential, skin: float):
        self.potential, self.skin, self.n_searches = potential, skin, 0
        self.species_of = potential.species_of.cpu()
        self.e0 = torch.tensor(potential.statistics.e0, dtype=torch.float64)
        self.known: VerletList | None = None
        self.atomic_numbers = torch.zeros(0, dtype=torch.int64)  # those of the table
        self.table: Table | None = None
        self.recording: Recording | None = None

    def __reduce__(self) -> tuple[type[Recorder], tuple[Potential, float]]:  # a copy records for itself
        return type(self), (self.potential, self.skin)

    def predict(self, atoms: Atoms) -> Prediction:
        """`physics.predict` of the structure, to rounding, on the CPU.

        Raises:
            ValueError: as `potential.graph.from_atoms` and `Potential.check`.
        """
        atomic_numbers = torch.from_numpy(atoms.numbers.astype(np.int64))
        motion = None if self.known is None else motion_since(self.known, atoms, self.potential.cutoff)
        if motion is None or not torch.equal(atomic_numbers, self.atomic_numbers):
            self.potential.check(atomic_numbers.to(self.potential.species_of.device))
            known = self.known if motion else self._search(atoms)
            assert known is not None
            self.known = None  # until its edges are in the table
            self._load(known.wide, atomic_numbers)
            self.known, wide = known, known.wide
            motion = motion or Motion(wide.positions, torch.zeros_like(wide.positions), wide.cell[0])
        assert self.table is not None
        assert self.recording is not None
        self.table.positions.copy_(motion.positions - motion.crossings @ motion.cell)  # images are the list's
        self.table.cell.copy_(motion.cell[None])
        n = len(atoms)
        energy, forces, virial, closest = torch.split(self.recording().cpu(), [n, 3 * n, 9, 1])
        if closest.item() < CLOSEST:
            from_atoms(atoms, self.potential.cutoff)  # says which
        return Prediction(energy.sum()[None], energy, forces.view(-1, 3), virial.view(1, 3, 3))

    def _search(self, atoms: Atoms) -> VerletList:
        reach = self.potential.cutoff + self.skin
        self.n_searches += 1
        return VerletList(from_atoms(atoms, reach), reach)

    def _load(self, wide: Graph, atomic_numbers: Tensor) -> None:
        """Elements and edges into the table that is there, or into a new one where it has no room."""
        self.atomic_numbers = atomic_numbers
        n_atoms, most = len(atomic_numbers), most_neighbors(wide)
        held = 0 if self.table is None else len(self.table.neighbor) // len(self.table.species)
        fits = (
            self.table is not None
            and self.recording is not None
            and len(self.table.species) == n_atoms
            and held >= most
        )
        shape = Shape(n_atoms, held if fits else math.ceil(ROOM * most), 1)
        table = tabulate(wide, self.species_of[atomic_numbers], self.e0, shape)
        if fits and self.table is not None:
            self.table.copy_(table)
            return
        self.table = self.recording = None  # its memory is free for the next one
        self.table = table.each(lambda x: x.to(self.potential.species_of.device))
        self.recording = Recording(self._evaluate, self.potential.species_of.device)

    def _evaluate(self) -> Tensor:
        """Energies of atoms (eV), forces (eV/Å), virial (eV), shortest distance (Å): (4 n_atoms + 10,), float64."""
        assert self.table is not None
        p, closest = predict(self.potential, self.table)
        return torch.cat([p.node_energy.detach(), p.forces.flatten(), p.virial.flatten(), closest[None]])
