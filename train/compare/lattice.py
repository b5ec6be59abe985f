"""The symmetry of a crystal, by spglib (it comes with the extra `phonons`)."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

from ase import Atoms

ALIKE = 1e-2  # Å; positions and edges that differ less are taken for equal
CUBIC = 195  # the first space group of the cubic system
LATTICES = ("CUB", "FCC", "BCC")  # as ASE names the cubic ones
MISSING = "needs spglib: pip install 'equiv-potential[phonons]'"


def symmetry_of(atoms: Atoms) -> Any:
    """What spglib finds (number, std_types, std_rotation_matrix, equivalent_atoms, ...); None without it."""
    if importlib.util.find_spec("spglib") is None:
        return None
    from spglib import get_symmetry_dataset

    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of spglib: how it will tell of errors in future
        return get_symmetry_dataset(cell, symprec=ALIKE)


def is_cubic(atoms: Atoms) -> bool:
    """Whether symmetry keeps the crystal cubic; without spglib, whether its cell alone is that of a cubic lattice."""
    found = symmetry_of(atoms)
    if found is None:
        return atoms.cell.get_bravais_lattice(eps=1e-3).name in LATTICES
    return bool(found.number >= CUBIC)


def conventional_atoms(atoms: Atoms) -> int | None:
    """Atoms of the conventional cell; None where nobody can tell."""
    found = symmetry_of(atoms)
    return None if found is None else len(found.std_types)


def sites(atoms: Atoms) -> list[int] | None:
    """One atom of every kind that symmetry tells apart; None where nobody can tell."""
    found = symmetry_of(atoms)
    return None if found is None else sorted({int(k) for k in found.equivalent_atoms})
