"""Two atoms alone, at every distance: do they repel each other where they must?"""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.data import atomic_numbers, chemical_symbols, covalent_radii

from train.compare.subject import Subject

MOST = 21  # pairs of elements: those of six
POINTS = 60
NEAR, FAR = 0.5, 4.0  # of the sum of the covalent radii
BONDED = 1.3  # of that sum: within, a bond may have its minimum
SHORTEST = 0.7  # of that sum: no bond is shorter (N2: 0.77)
HOLE = 0.5  # eV; what falls less on the way to short distances is a ripple


def dimers(calculator: Calculator, subject: Subject) -> dict[str, Any]:
    """Energy of every pair of elements against the distance; `holes`: pairs that attract each other when near.

    A hole: within the distance of a bond the energy is lowest where no bond can be, or falls again further inside.
    """
    every = list(combinations_with_replacement([chemical_symbols[z] for z in subject.elements], 2))
    pairs, left = every[:MOST], ["-".join(pair) for pair in every[MOST:]]
    notes = [f"{len(left)} of {len(every)} pairs were left out: {', '.join(left)}"] if left else []
    curves, depths, holes = {}, {}, []
    for pair in pairs:
        bond = sum(covalent_radii[atomic_numbers[symbol]] for symbol in pair)
        distance = bond * np.linspace(NEAR, FAR, POINTS)
        energy = np.array([energy_of(pair, r, calculator) for r in distance])
        energy = energy - energy[-1]
        name = "-".join(pair)
        curves[name] = {"distance": distance.tolist(), "energy": energy.tolist()}
        depths[name] = {"depth": float(-energy.min()), "at": float(distance[int(np.argmin(energy))])}
        holes += [name] if has_hole(distance / bond, energy) else []
    values = {"pairs": float(len(pairs)), "holes": float(len(holes))}
    named = {"holes": ", ".join(holes)}
    return {"values": values, "curve": curves, "wells": depths, "named": named, "notes": notes}


def energy_of(pair: tuple[str, str], distance: float, calculator: Calculator) -> float:
    atoms = Atoms(pair, positions=[(0, 0, 0), (0, 0, distance)])
    atoms.calc = calculator
    return float(atoms.get_potential_energy())


def has_hole(ratio: np.ndarray, energy: np.ndarray) -> bool:
    """Whether atoms fall into each other; `ratio`: distances in sums of covalent radii, ascending."""
    bottom = int(np.argmin(energy[ratio <= BONDED]))
    wall = energy[: bottom + 1][::-1]  # inwards
    return bool(ratio[bottom] < SHORTEST or (np.maximum.accumulate(wall) - wall).max() > HOLE)
