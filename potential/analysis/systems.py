"""What is measured: crystals of a given size, molecules, or structures of a file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from potential.analysis.worker import suggestion

RATTLE = 0.05  # Å, standard deviation of the displacements from an ideal crystal or molecule
MOLECULES = 5  # in a batch, and frames taken from a file
SERIES = tuple(8 * n**3 for n in (2, 4, 6, 8, 11, 16))  # atoms of the silicon crystals

# 3-(benzyloxy)pyridin-2-amine (3BPA), C12H12N2O, from ideal bond lengths and angles; Å.
SYMBOLS = "NCCCCCHHHNHHOCCHHCHCHCHCHCH"
POSITIONS = (
    (2.58, 3.30, 0.00), (1.38, 2.61, 0.00), (1.38, 1.22, 0.00), (2.58, 0.52, 0.00), (3.78, 1.22, 0.00),
    (3.78, 2.61, 0.00), (2.58, -0.56, 0.00), (4.72, 0.68, 0.00), (4.72, 3.15, 0.00), (0.18, 3.30, 0.00),
    (-0.69, 2.79, 0.00), (0.18, 4.31, 0.00), (0.20, 0.54, 0.00), (0.25, -0.89, 0.00), (-1.15, -1.44, 0.00),
    (0.78, -1.24, 0.89), (0.78, -1.24, -0.89), (-1.79, -1.69, 1.20), (-1.29, -1.50, 2.14), (-3.09, -2.20, 1.20),
    (-3.59, -2.40, 2.14), (-3.73, -2.46, 0.00), (-4.74, -2.85, 0.00), (-3.09, -2.20, -1.20),
    (-3.59, -2.40, -2.14), (-1.79, -1.69, -1.20), (-1.29, -1.50, -2.14),
)  # fmt: skip


@dataclass(frozen=True)
class System:
    """One or several structures that are evaluated together."""

    name: str
    structures: tuple[dict[str, Any], ...]  # symbols, positions (Å), cell (Å), pbc: what ase.Atoms takes

    @property
    def n_atoms(self) -> int:
        return sum(len(one["positions"]) for one in self.structures)

    @property
    def elements(self) -> set[str]:
        return {symbol for one in self.structures for symbol in one["symbols"]}


def standard(max_atoms: int) -> list[str]:
    """Names of the systems measured unless others are asked for."""
    return ["molecules", *(f"Si{n}" for n in SERIES if n <= max_atoms)]


def elements_of(systems: Iterable[System]) -> list[str]:
    """Symbols of all systems in order of Z."""
    from ase.data import atomic_numbers

    symbols = set().union(*(system.elements for system in systems))
    return sorted(symbols, key=lambda symbol: int(atomic_numbers[symbol]))


def build_system(name: str) -> System:
    """The system that a name stands for.

    `molecules`: five molecules of 27 atoms (C12H12N2O). `Si512`, `Cu108`: a crystal of that many atoms, as cubic as the
    number allows. A file: its first five structures.

    Raises:
        ValueError: neither a known name, nor a crystal ASE can build, nor a readable file.
    """
    crystal = re.fullmatch(r"([A-Z][a-z]?)(\d+)", name)
    if name == "molecules":
        structures = _molecules()
    elif Path(name).is_file():
        structures = _read(name)
    elif crystal:
        structures = [_crystal(name, crystal[1], int(crystal[2]))]
    else:
        raise ValueError(
            f"there is no system {name!r}{suggestion(name, standard(512))}; give 'molecules', a crystal and its "
            "number of atoms such as Si64 or Cu108, or a file of structures"
        )
    return System(
        Path(name).name.split(".")[0] if Path(name).is_file() else name, tuple(map(_describe, structures))
    )


def relabel(system: System, known: Sequence[str]) -> System:
    """The system with elements that a model does not know replaced by some that it knows: the cost is the same."""
    unknown = sorted(system.elements - set(known))
    other = {symbol: known[k % len(known)] for k, symbol in enumerate(unknown)}
    structures = (
        {**one, "symbols": [other.get(symbol, symbol) for symbol in one["symbols"]]}
        for one in system.structures
    )
    return replace(system, structures=tuple(structures))


def _describe(atoms: Any) -> dict[str, Any]:
    return {
        "symbols": atoms.get_chemical_symbols(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
        "pbc": [bool(p) for p in atoms.pbc],
    }


def _molecules() -> list[Any]:
    from ase import Atoms

    molecules = [Atoms(SYMBOLS, POSITIONS) for _ in range(MOLECULES)]
    for seed, atoms in enumerate(molecules):
        atoms.rattle(RATTLE, seed=seed)
    return molecules


def _crystal(name: str, symbol: str, n_atoms: int) -> Any:
    from ase.build import bulk

    try:
        unit = bulk(symbol, cubic=True)
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{name}: ASE knows no cubic crystal of {symbol} ({error}); give a file of structures"
        ) from error
    n_cells, rest = divmod(n_atoms, len(unit))
    if rest or not n_cells:
        near = max(1, round(n_atoms / len(unit))) * len(unit)
        raise ValueError(
            f"{name}: the cubic cell of {symbol} holds {len(unit)} atoms; give a multiple, such as {symbol}{near}"
        )
    atoms = unit.repeat(_factors(n_cells))
    atoms.rattle(RATTLE, seed=0)
    return atoms


def _factors(n: int) -> tuple[int, int, int]:
    """Three factors of n, as equal as can be: 512 -> 8, 8, 8; 16 -> 2, 2, 4."""
    triples = (
        (a, b, n // a // b)
        for a in range(1, round(n ** (1 / 3)) + 1)
        if n % a == 0
        for b in range(a, int((n / a) ** 0.5) + 1)
        if (n // a) % b == 0
    )
    return min(triples, key=sum)


def _read(path: str) -> list[Any]:
    from ase.io import read

    try:
        structures = read(path, f":{MOLECULES}")
    except Exception as error:  # ase.io raises whatever its parsers raise
        raise ValueError(f"{path}: ASE cannot read it: {error}") from error
    if not structures:
        raise ValueError(f"{path} holds no structures")
    return list(structures)
