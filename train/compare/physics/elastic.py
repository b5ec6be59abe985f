"""The full 6x6 elastic constants from stresses of strained cells, held against second differences of the energy."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, PropertyNotImplementedError

from train.compare.crystal import at_rest
from train.compare.lattice import CUBIC as LEAST
from train.compare.lattice import MISSING, symmetry_of
from train.compare.subject import Subject

STRAIN = 4e-3
CUBIC = 0.02  # of the largest constant: deviations from the form of a cubic crystal that are still noise
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def elastic(calculator: Calculator, subject: Subject) -> dict[str, Any]:
    """Constants in GPa, `matrix` with relaxed atoms and `clamped` without; C11, C12, C44 of a cubic crystal.

    `bulk_modulus` (Voigt): under equal strains; `bulk_reuss`: under pressure, which is the bulk modulus of any crystal.
    `energy_check`: largest difference of a diagonal constant from the second difference of the energy, percent.
    `asymmetry`: largest of C - C^T, percent of the largest constant. `smallest_eigenvalue`: below zero, the crystal
    shears by itself.
    """
    crystal = subject.relaxed
    assert crystal is not None
    start = at_rest(crystal, calculator)
    try:
        start.get_stress()
    except PropertyNotImplementedError:
        return {"skipped": "needs the stress, which this calculator does not give"}
    energy, volume = start.get_potential_energy(), crystal.get_volume()
    relaxed, clamped, second = np.zeros((6, 6)), np.zeros((6, 6)), np.zeros(6)
    for j in range(6):
        rows = {}
        for sign in (1, -1):
            one = strained(crystal, j, sign * STRAIN)
            one.calc = calculator
            first = one.get_stress()
            rest = at_rest(one, calculator)
            rows[sign] = first, rest.get_stress(), rest.get_potential_energy()
        clamped[:, j], relaxed[:, j] = (rows[1][k] - rows[-1][k] for k in (0, 1))
        second[j] = (rows[1][2] + rows[-1][2] - 2 * energy) / (volume * STRAIN**2) / units.GPa
    clamped, relaxed = (c / (2 * STRAIN) / units.GPa for c in (clamped, relaxed))
    matrix = (relaxed + relaxed.T) / 2
    largest = np.abs(matrix).max()
    values, notes = constants(matrix, crystal)
    values |= {"bulk_modulus": float(matrix[:3, :3].mean())}
    if np.linalg.eigvalsh(matrix)[0] > 0:
        values |= {"bulk_reuss": under_pressure(matrix)}
    values |= {"energy_check": 100 * float(np.abs(second / np.diag(matrix) - 1).max())}
    values |= {"asymmetry": 100 * float(np.abs(relaxed - relaxed.T).max() / largest)}
    values |= {"smallest_eigenvalue": float(np.linalg.eigvalsh(matrix)[0])}
    matrices = {"matrix": matrix.tolist(), "clamped": ((clamped + clamped.T) / 2).tolist()}
    pressure = float(-start.get_stress()[:3].mean() / units.GPa)
    return {"values": values, **matrices, "pressure": pressure, "notes": notes}


def constants(matrix: np.ndarray, crystal: Atoms) -> tuple[dict[str, float], list[str]]:
    """C11, C12, C44 (GPa) in the axes of a cubic lattice, however the cell is turned; or a note why there are none."""
    found = symmetry_of(crystal)
    if found is not None and found.number < LEAST:
        return {}, ["no C11, C12, C44: the crystal is not cubic"]
    own = matrix if found is None else turned(matrix, found.std_rotation_matrix)
    if np.abs(own - cubic_form(own)).max() < CUBIC * np.abs(own).max():
        return cubic(own), []
    why = f"to find the axes of the lattice {MISSING}" if found is None else "the constants are too noisy"
    return {}, [f"no C11, C12, C44: the matrix has no cubic form; {why}"]


def under_pressure(matrix: np.ndarray) -> float:
    """The bulk modulus of Reuss: what the shape of the cell gives way to is taken in (Hill 1952)."""
    return float(1 / np.linalg.inv(matrix)[:3, :3].sum())


def turned(matrix: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """The matrix in axes in which a vector x is `turn` @ x."""
    index = np.zeros((3, 3), dtype=int)
    for k, (a, b) in enumerate(VOIGT):
        index[a, b] = index[b, a] = k
    full = matrix[index[:, :, None, None], index[None, None]]
    full = np.einsum("ai,bj,ck,dl,ijkl->abcd", turn, turn, turn, turn, full, optimize=True)
    rows, columns = np.array(VOIGT).T
    own: np.ndarray = full[rows[:, None], columns[:, None], rows[None], columns[None]]
    return own


def strained(atoms: Atoms, j: int, strain: float) -> Atoms:
    """The crystal under the j-th Voigt strain; a shear is half of it on either side of the diagonal."""
    deformation = np.eye(3)
    a, b = VOIGT[j]
    deformation[a, b] += strain / (1 if a == b else 2)
    deformation[b, a] += 0 if a == b else strain / 2
    one = atoms.copy()
    one.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    return one


def cubic(matrix: np.ndarray) -> dict[str, float]:
    """Means over what a cubic crystal has equal, GPa."""
    off = (matrix[:3, :3].sum() - np.trace(matrix[:3, :3])) / 6
    return {
        "C11": float(np.trace(matrix[:3, :3]) / 3),
        "C12": float(off),
        "C44": float(np.trace(matrix[3:, 3:]) / 3),
    }


def cubic_form(matrix: np.ndarray) -> np.ndarray:
    """The cubic matrix nearest to another."""
    c = cubic(matrix)
    form = np.zeros((6, 6))
    form[:3, :3] = c["C12"]
    form[range(6), range(6)] = [c["C11"]] * 3 + [c["C44"]] * 3
    return form
