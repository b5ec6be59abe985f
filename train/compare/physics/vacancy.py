"""What it costs to take an atom out of the crystal."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from train.compare.crystal import FMAX, at_rest, repeats
from train.compare.lattice import MISSING, sites
from train.compare.subject import Subject

MOST = 4  # sites
PUSH = 0.01  # Å
LOOSE = 10 * FMAX  # eV/Å; the energy changes with the square of what is left


def vacancy(calculator: Calculator, subject: Subject) -> dict[str, Any]:
    """Formation energy (eV) of a vacancy in a supercell of fixed size, E(N - 1) - (N - 1)/N E(N), relaxed and not.

    The lowest of all sites that symmetry tells apart. `moved`: largest displacement of an atom, Å.
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
    kept = (n - 1) / n * energy
    found = sites(crystal)
    tried = [0] if found is None else found[:MOST]  # the first cell of the supercell is the crystal
    results = [hole(whole, site, kept, calculator, subject.seed) for site in tried]
    notes = []
    if found is None and len(crystal) > 1:
        notes.append(f"only the site of atom 0 was tried: the others {MISSING}")
    elif len(tried) > 1:
        energies = ", ".join(f"atom {k}: {one['vacancy']:.4g}" for k, one in zip(tried, results, strict=True))
        left = len(found or tried) - len(tried)
        notes.append(
            f"the lowest of {len(tried)} sites (eV: {energies})"
            + f"; {left} more were not tried" * (left > 0)
        )
    lowest = min(results, key=lambda one: one["vacancy"])
    return {"values": {**lowest, "atoms": float(n)}, "notes": notes}


def hole(whole: Atoms, site: int, kept: float, calculator: Calculator, seed: int) -> dict[str, float]:
    """The values of one site; `kept`: energy (eV) of the atoms that stay, in the crystal."""
    holed = whole.copy()
    del holed[site]
    holed.calc = calculator
    unrelaxed = holed.get_potential_energy() - kept
    pushed = holed.copy()  # or it would stay where symmetry holds it, though it is no minimum
    pushed.positions += PUSH * np.random.default_rng(seed).normal(size=pushed.positions.shape)
    rest = at_rest(pushed, calculator, LOOSE)
    moved = float(np.linalg.norm(rest.positions - holed.positions, axis=1).max())
    return {
        "vacancy": float(rest.get_potential_energy() - kept),
        "unrelaxed": float(unrelaxed),
        "moved": moved,
    }
