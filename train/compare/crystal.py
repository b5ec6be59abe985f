"""The crystal whose properties are calculated: given, found in the test set, or ASE's; relaxed by each contestant."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from potential.graph import from_atoms
from train.compare.lattice import is_cubic
from train.data.dataset import Frame
from train.data.files import read_structures

AT_REST = 0.05  # eV/Å; largest force of a test frame that is taken for a crystal at rest
VACUUM = 5.0  # Å; an empty layer of this thickness is a surface
NEIGHBORS = 8  # within that distance, around every atom of a solid
FMAX = 1e-4  # eV/Å, of relaxations
STEPS = 300
FAR = 1.6  # times the volume of the start
SUPERCELL = 9.0  # Å; edges of supercells are at least this long ...
MOST = 256  # ... unless there would be more atoms than this


def find_crystal(given: str, frames: Sequence[Frame]) -> tuple[Atoms | None, str]:
    """A crystal and where it comes from, or None and why there is none.

    `given`: "" to look for one; "none"; a file (its first structure); or NAME[:STRUCTURE[:A]] as ase.build.bulk has
    them, such as Si, Cu:fcc:3.6 or NaCl:rocksalt:5.64 (A in Å).

    Raises:
        ValueError: a crystal that cannot be read or built.
    """
    if given == "none":
        return None, "no crystal is wanted (--crystal none)"
    if given and Path(given).is_file():
        atoms = read_structures(given)[0][0]
        if not atoms.pbc.all():
            raise ValueError(
                f"--crystal {given}: its first structure is not periodic in all directions; give a crystal"
            )
        return bare(atoms), f"the first structure of {given}"
    if given:
        return built(given), f"{given}, built by ase.build.bulk"
    periodic = [frame for frame in frames if frame.atoms.pbc.all()]
    if not any(is_dense(frame.atoms) for frame in periodic):
        return None, "the test set has no structure that is periodic and without vacuum; give --crystal"
    quiet = [
        f
        for f in periodic
        if f.forces is not None
        and np.abs(f.forces).max() < AT_REST
        and f.energy is not None
        and is_dense(f.atoms)
    ]
    rest = f"forces below {AT_REST} eV/Å"
    formulas = sorted({str(f.atoms.symbols.formula.reduce()[0]) for f in quiet})
    if len(formulas) > 1:
        return None, (
            f"test frames with {rest} are of several compositions, whose energies cannot be compared "
            f"({', '.join(formulas)}); give --crystal"
        )
    if quiet:
        lowest = min(quiet, key=lambda frame: float(frame.energy or 0.0) / len(frame.atoms))
        return bare(lowest.atoms), f"{lowest.name}, the lowest in energy of those with {rest}"
    symbols = {symbol for frame in periodic for symbol in frame.atoms.get_chemical_symbols()}
    if len(symbols) > 1:
        return None, f"no frame of the test set has {rest}; give --crystal"
    (symbol,) = symbols
    try:
        return built(symbol), f"{symbol} as ase.build.bulk knows it, since no test frame is at rest"
    except ValueError:
        return (
            None,
            f"no frame of the test set has {rest}, and ase.build.bulk does not build {symbol}; give --crystal",
        )


def is_dense(atoms: Atoms) -> bool:
    """Whether a periodic structure fills its cell: no empty layer, and neighbors around every atom."""
    heights = 1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
    places = np.sort(atoms.get_scaled_positions(), axis=0)
    gaps = np.diff(np.concatenate([places, places[:1] + 1]), axis=0).max(axis=0) * heights
    if gaps.max() > VACUUM:
        return False
    counts = np.bincount(from_atoms(atoms, VACUUM).center.numpy(), minlength=len(atoms))
    return bool(counts.min() >= NEIGHBORS)


def built(text: str) -> Atoms:
    """As cubic as it can be.

    Raises:
        ValueError: nothing that ASE can build.
    """
    name, _, rest = text.partition(":")
    structure, _, edge = rest.partition(":")
    try:
        how = {"crystalstructure": structure or None, "a": float(edge) if edge else None}
        try:
            return bulk(name, **how, cubic=True)
        except (RuntimeError, ValueError):
            return bulk(name, **how)  # not of the cubic system
    except Exception as error:  # ase.build raises whatever its tables raise
        raise ValueError(
            f"--crystal {text}: neither a file nor a crystal that ASE can build ({type(error).__name__}: {error}); "
            "give a file, or NAME:STRUCTURE:A such as Cu:fcc:3.6"
        ) from error


def bare(atoms: Atoms) -> Atoms:
    """Elements, positions and cell alone."""
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def relaxed(atoms: Atoms, calculator: Calculator) -> Atoms:
    """The crystal at rest, by forces and stress; without stress, atoms and the volume of a cubic one.

    Raises:
        ValueError: it does not come to rest, leaves what it was, or has a shape that takes a stress to relax.
    """
    one = atoms.copy()
    one.calc = calculator
    before = one.get_volume()
    one.get_potential_energy()
    if "stress" in calculator.results:
        done = relax_cell(one)
    else:
        one = at_rest(one, calculator)
        if not is_cubic(one):
            raise ValueError(
                "its shape cannot be relaxed: the crystal is not cubic, and this calculator gives no stress"
            )
        for span in (0.15, 0.03):
            ratios = np.linspace(1 - span, 1 + span, 9)
            rows = [
                (one.get_volume() * ratio, energy_at_rest(scaled(one, ratio), calculator)) for ratio in ratios
            ]
            volume = EquationOfState(*zip(*rows, strict=True), eos="sj").fit()[0]
            one = scaled(one, float(volume) / one.get_volume())
        one = at_rest(one, calculator)
        done = True
    ratio = one.get_volume() / before
    if not done or not 1 / FAR < ratio < FAR:
        raise ValueError(
            f"the crystal does not come to rest (its volume is {ratio:.2f} of what it was): it is no minimum of this "
            "potential, or the start is too far"
        )
    return bare(one)


def relax_cell(atoms: Atoms) -> bool:
    """Move atoms and cell downhill; whether they came to rest, with a volume not far from that of the start."""
    before = atoms.get_volume()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # logarithms of deformations, where they are large
        for done in BFGS(FrechetCellFilter(atoms), logfile=None).irun(fmax=FMAX, steps=STEPS):
            if done or not 1 / FAR < atoms.get_volume() / before < FAR:
                return bool(done)
    return False


def scaled(atoms: Atoms, ratio: float) -> Atoms:
    """The same with a volume times `ratio`."""
    one = atoms.copy()
    one.set_cell(atoms.cell.array * ratio ** (1 / 3), scale_atoms=True)
    return one


def at_rest(atoms: Atoms, calculator: Calculator, fmax: float = FMAX) -> Atoms:
    """The structure with its atoms relaxed in a fixed cell; keeps the calculator.

    Raises:
        ValueError: it does not come to rest.
    """
    one = atoms.copy()
    one.calc = calculator
    if np.abs(one.get_forces()).max() > fmax and not BFGS(one, logfile=None).run(fmax=fmax, steps=STEPS):
        raise ValueError(
            f"the atoms do not come to rest in {STEPS} steps: forces and energy may not fit each other"
        )
    return one


def energy_at_rest(atoms: Atoms, calculator: Calculator) -> float:
    """eV, after the atoms have relaxed in a fixed cell."""
    return float(at_rest(atoms, calculator).get_potential_energy())


def repeats(atoms: Atoms, edge: float = SUPERCELL, most: int = MOST) -> tuple[int, int, int]:
    """How often a cell is repeated until its faces are `edge` (Å) apart, with at most `most` atoms."""
    heights = 1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
    counts = np.maximum(1, np.ceil(edge / heights - 1e-6)).astype(int)
    while len(atoms) * counts.prod() > most and counts.max() > 1:
        counts[int(np.argmax(counts * heights))] -= 1
    return int(counts[0]), int(counts[1]), int(counts[2])
