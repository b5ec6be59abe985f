"""Energy against volume: lattice constant, bulk modulus, cohesion of the relaxed crystal."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from ase import units
from ase.calculators.calculator import Calculator
from ase.eos import EquationOfState, birchmurnaghan

from train.compare.crystal import energy_at_rest, scaled
from train.compare.lattice import MISSING, conventional_atoms, is_cubic
from train.compare.subject import Subject

SPAN, POINTS = 0.06, 13  # of volumes about the relaxed one


def eos(calculator: Calculator, subject: Subject) -> dict[str, Any]:
    """V0 (Å^3/atom), a0 (Å, of a cubic lattice), E0 (eV/atom), B0 (GPa), its pressure derivative, misfit (meV/atom).

    Birch-Murnaghan, with the atoms relaxed at every volume and the shape of the cell kept: of a crystal that is not
    cubic, `B0_shape` is no bulk modulus.

    Raises:
        ValueError: no minimum within the volumes.
    """
    crystal = subject.relaxed
    assert crystal is not None
    n = len(crystal)
    ratios = np.linspace(1 - SPAN, 1 + SPAN, POINTS)
    volumes = ratios * crystal.get_volume() / n
    energies = np.array([energy_at_rest(scaled(crystal, r), calculator) for r in ratios]) / n
    found = EquationOfState(volumes, energies, eos="birchmurnaghan")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            volume, energy, bulk = found.fit()
    except Exception as error:  # scipy and ASE have several ways to say that there is no fit
        raise ValueError(
            f"no minimum of the energy within {100 * SPAN:g} % of the volume: {error}"
        ) from error
    misfit = float(np.sqrt(np.mean((birchmurnaghan(volumes, *found.eos_parameters) - energies) ** 2)))
    is_cube, notes = is_cubic(crystal), []
    values = {"V0": float(volume), "E0": float(energy)}
    values |= {"B0" if is_cube else "B0_shape": float(bulk / units.GPa)}
    values |= {"B0_prime": float(found.eos_parameters[2]), "misfit": 1000 * misfit}
    if not is_cube:
        notes.append(
            "the crystal is not cubic, and its cell keeps its shape: the bulk modulus is that of the elastic constants"
        )
    elif (of_cell := conventional_atoms(crystal)) is not None:
        values = {"a0": float((volume * of_cell) ** (1 / 3)), **values}
    else:
        notes.append(f"no a0, only V0: the conventional cell {MISSING}")
    curve = {"volume": volumes.tolist(), "energy": (1000 * (energies - energy)).tolist()}
    return {"values": values, "curve": curve, "notes": notes}
