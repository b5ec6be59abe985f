"""Are forces the slope of the energy, can they be a slope at all, and is the energy smooth?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from train.compare.remote import forces_of
from train.compare.subject import Subject

DIRECTIONS = 4  # random ones, of each structure
STEPS = (
    4e-3,
    1e-3,
)  # Å, RMS displacement of a coordinate; a fault shows with both, curvature and rounding with one
REACH = 0.08  # Å, RMS displacement of a coordinate at the ends of the path
AT_REST = 0.05  # eV/Å, RMS force component
WAKE = 0.05  # Å
POINTS = 61  # of the path; a multiple of four, and one


def conservation(calculator: Calculator, subject: Subject) -> dict[str, Any]:
    """Slope of the energy against the force, curl of the forces, and work against energy along a path.

    Directions u are unit vectors of all 3N coordinates, so the slope along one has the size of a force component.
    `slope_error`: RMS of dE/du + F.u (meV/Å); `slope_percent`: of the RMS force component. `curl_percent`: the
    antisymmetric part of the Jacobian of the forces between pairs of directions, in percent of the symmetric one, which
    is zero for every force that is the slope of some energy. `path_step`: largest difference of energy and work between
    two points of a path, with the error of the quadrature (meV).
    """
    subject, n_woken = awake(calculator, subject)
    notes = (
        [f"{n_woken} of the frames are at rest; their atoms were moved by {WAKE} Å first"] if n_woken else []
    )
    found = [stencils(calculator, subject, step) for step in STEPS]
    gap, curl = (min(one[k] for one in found) for k in (0, 1))
    size = rms(np.concatenate([forces_of(atoms, calculator)[1].ravel() for atoms in subject.structures]))
    values = {
        "slope_error": 1000 * gap,
        "slope_percent": 100 * gap / max(size, 1e-12),
        "curl_percent": 100 * curl,
    }
    atoms = subject.structures[0]
    distance, energies, work, error = path(
        atoms, unit(np.random.default_rng(subject.seed), len(atoms)), calculator
    )
    left = np.diff(energies) - work
    values |= {"path_step": 1000 * float(np.abs(left).max()), "path_step_error": 1000 * error}
    curve = {
        "x": distance.tolist(),
        "unexplained": (1000 * np.concatenate([[0.0], np.cumsum(left)])).tolist(),
    }
    return {"values": values, "curve": curve, "on": list(subject.names), "notes": notes}


def awake(calculator: Calculator, subject: Subject) -> tuple[Subject, int]:
    """The subject with the atoms of structures at rest moved: where forces are zero, most faults of them are too."""
    rng = np.random.default_rng(subject.seed)
    structures, n_woken = [], 0
    for atoms in subject.structures:
        if rms(forces_of(atoms, calculator)[1]) < AT_REST:
            atoms = atoms.copy()
            atoms.positions += WAKE * rng.normal(size=(len(atoms), 3))
            n_woken += 1
        structures.append(atoms)
    return replace(subject, structures=structures), n_woken


def stencils(calculator: Calculator, subject: Subject, step: float) -> tuple[float, float]:
    """RMS of slope plus force (eV/Å), and the antisymmetric part of the Jacobian as a part of the symmetric one."""
    rng = np.random.default_rng(subject.seed)
    gaps, odd, even = [], [], []
    for atoms in subject.structures:
        _, forces = forces_of(atoms, calculator)
        directions = [unit(rng, len(atoms)) for _ in range(DIRECTIONS)]
        slopes = [slope(atoms, u, calculator, step) for u in directions]
        for u, (energy_slope, _) in zip(directions, slopes, strict=True):
            gaps.append(energy_slope + float((forces * u).sum()))
        for i in range(DIRECTIONS):
            for j in range(i):
                one, other = (float((slopes[k][1] * directions[m]).sum()) for k, m in ((i, j), (j, i)))
                odd.append((one - other) / 2)
                even.append((one + other) / 2)
    return rms(gaps), rms(odd) / max(rms(even), 1e-12)


def unit(rng: np.random.Generator, n: int) -> np.ndarray:
    """A random direction (n, 3) of length 1 in which the atoms as a whole do not move."""
    u = rng.normal(size=(n, 3))
    u = u - u.mean(0) if n > 1 else u
    return u / np.linalg.norm(u)


def at(atoms: Atoms, shift: np.ndarray, calculator: Calculator) -> tuple[float, np.ndarray]:
    one = atoms.copy()
    one.positions += shift
    return forces_of(one, calculator)


def slope(atoms: Atoms, u: np.ndarray, calculator: Calculator, step: float) -> tuple[float, np.ndarray]:
    """dE/du (eV/Å) and dF/du (n, 3), by five points."""
    h = step * np.sqrt(u.size)
    rows = [at(atoms, k * h * u, calculator) for k in (1, -1, 2, -2)]
    (e1, f1), (e2, f2), (e3, f3), (e4, f4) = rows
    return (8 * (e1 - e2) - (e3 - e4)) / (12 * h), (8 * (f1 - f2) - (f3 - f4)) / (12 * h)


def path(
    atoms: Atoms, u: np.ndarray, calculator: Calculator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """RMS displacement (Å) and energy (eV) at every fourth point, work between these (Simpson), its largest error."""
    reach = REACH * np.sqrt(u.size)
    places = np.linspace(-reach, reach, POINTS)
    rows = [at(atoms, s * u, calculator) for s in places]
    along = np.array([-float((forces * u).sum()) for _, forces in rows])
    h = places[1] - places[0]
    fine = (h / 3 * (along[:-2:2] + 4 * along[1:-1:2] + along[2::2])).reshape(-1, 2).sum(1)
    coarse = 2 * h / 3 * (along[:-4:4] + 4 * along[2:-2:4] + along[4::4])
    energies = np.array([energy for energy, _ in rows])
    return places[::4] / np.sqrt(u.size), energies[::4], fine, float(np.abs(fine - coarse).max() / 15)


def rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
