"""What it costs to take an atom out of the crystal."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator

from train.compare.crystal import FMAX, at_rest, repeats
from train.compare.subject import Subject

PUSH = 0.01  # Å
LOOSE = 10 * FMAX  # eV/Å; the energy changes with the square of what is left


def vacancy(calculator: Calculator, subject: Subject) -> dict[str, Any]:
    """Formation energy (eV) of a vacancy in a supercell of fixed size, E(N - 1) - (N - 1)/N E(N), relaxed and not.

    `moved`: largest displacement of an atom, Å.
    """
    crystal = subject.relaxed
    assert crystal is not None
    if len(set(crystal.numbers)) > 1:
        return {"skipped": "needs a crystal of one element: those of several leave chemical potentials open"}
    whole = crystal.repeat(repeats(crystal))
    whole.calc = calculator
    n, energy = len(whole), whole.get_potential_energy()
    if n < 2:
        return {"skipped": "needs a supercell of at least two atoms"}
    holed = whole.copy()
    del holed[0]
    holed.calc = calculator
    kept = (n - 1) / n * energy
    unrelaxed = holed.get_potential_energy() - kept
    pushed = holed.copy()  # or it would stay where symmetry holds it, though it is no minimum
    pushed.positions += PUSH * np.random.default_rng(subject.seed).normal(size=pushed.positions.shape)
    rest = at_rest(pushed, calculator, LOOSE)
    moved = float(np.linalg.norm(rest.positions - holed.positions, axis=1).max())
    values = {"vacancy": float(rest.get_potential_energy() - kept), "unrelaxed": float(unrelaxed)}
    return {"values": {**values, "moved": moved, "atoms": float(n)}}
