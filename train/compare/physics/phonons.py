"""Phonons by finite displacement, through phonopy (extra `phonons`)."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from train.compare.crystal import repeats
from train.compare.remote import forces_of
from train.compare.subject import Subject

DISPLACEMENT = 0.01  # Å
MESH = 50.0  # Å; wave vectors are as dense as those of a supercell of this edge
N_BAND = 120  # points of the path
IMAGINARY = -0.1  # THz; frequencies below are imaginary, not noise


def phonons(calculator: Calculator, subject: Subject) -> dict[str, Any]:
    """Largest frequency (THz), share of imaginary modes on a mesh (%), acoustic modes at Gamma (THz).

    With density of states and bands along ASE's path for the primitive cell.
    """
    if importlib.util.find_spec("phonopy") is None:
        return {"skipped": "needs phonopy: pip install 'equiv-potential[phonons]'"}
    crystal = subject.relaxed
    assert crystal is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of phonopy: defaults that changed, and numbers at Gamma
        return _phonons(calculator, crystal)


def _phonons(calculator: Calculator, crystal: Atoms) -> dict[str, Any]:
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    counts = repeats(crystal)
    cell = PhonopyAtoms(
        symbols=crystal.get_chemical_symbols(),
        cell=crystal.cell.array,
        scaled_positions=crystal.get_scaled_positions(),
    )
    found = Phonopy(cell, supercell_matrix=np.diag(counts), primitive_matrix="auto", log_level=0)
    found.generate_displacements(distance=DISPLACEMENT)
    displaced = found.supercells_with_displacements
    found.forces = [forces_of(atoms_of(one), calculator)[1] for one in displaced]
    found.produce_force_constants()
    primitive = atoms_of(found.primitive)
    heights = 1 / np.linalg.norm(np.linalg.inv(primitive.cell.array), axis=0)
    found.run_mesh([int(n) for n in np.ceil(MESH / heights)])
    frequencies, weights = found.mesh.frequencies, found.mesh.weights
    share = float(weights @ (frequencies < IMAGINARY).sum(1) / weights.sum() / frequencies.shape[1])
    found.run_total_dos()
    path = primitive.cell.bandpath(npoints=N_BAND)
    found.run_band_structure([[np.zeros(3)], list(path.kpts)])
    gamma, bands = found.band_structure.frequencies
    distance, ticks, labels = path.get_linear_kpoint_axis()
    values = {
        "highest": float(frequencies.max()),
        "lowest": float(frequencies.min()),
        "imaginary": 100 * share,
    }
    values |= {"acoustic": float(np.abs(np.sort(np.abs(gamma[0]))[:3]).max())}
    values |= {"supercell": float(len(displaced[0])), "displacements": float(len(displaced))}
    dos = {"frequency": found.total_dos.frequency_points.tolist(), "dos": found.total_dos.dos.tolist()}
    band = {
        "x": distance.tolist(),
        "frequencies": bands.T.tolist(),
        "ticks": ticks.tolist(),
        "labels": labels,
    }
    return {"values": values, "curve": {"dos": dos, "band": band}}


def atoms_of(one: Any) -> Atoms:
    """ase.Atoms of phonopy's."""
    return Atoms(one.symbols, cell=one.cell, scaled_positions=one.scaled_positions, pbc=True)
