"""Data files -> Frames: labels found, shapes checked, units converted. The only unit conversion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray

from train.config import Weights
from train.data.files import read_structures
from train.data.keys import ENERGY_UNITS, FORCES_UNITS, LENGTH_UNITS, STRESS_UNITS, Keys, Said, settle
from train.data.labels import (
    CALCULATOR,
    LABELS,
    choose,
    entries,
    refuse_two_methods,
    refuse_unlabelled,
    unclaimed,
)
from train.data.targets import UNITS, choose_key, require_targets, unit_of, unused, values

Array = NDArray[np.float64]

HUGE = 1e15  # in any unit; what is larger is a damaged number, and its square would overflow
ALONE = 8.0  # Å; an atom whose periodic images are all farther than this is an isolated atom


@dataclass(frozen=True)
class Frame:
    """One labelled structure."""

    atoms: Atoms  # Å, without a calculator
    energy: float | None  # eV
    forces: Array | None  # (n_atoms, 3) eV/Å
    stress: Array | None  # (3, 3) eV/Å^3, ASE's sign
    source: str  # the file as the user named it
    index: int  # number of the frame in that file, from 0
    config_type: str | None = None
    weights: Weights = field(
        default_factory=Weights
    )  # of its squared errors; a label of weight 0 is not kept
    targets: Mapping[str, Array] = field(default_factory=dict)  # (1 or n_atoms, dim) each; NaN where absent

    @property
    def name(self) -> str:
        return f"{self.source}, frame {self.index}"

    @property
    def is_isolated_atom(self) -> bool:
        """One atom with no periodic image near; a crystal with one atom per cell is not isolated."""
        if len(self.atoms) != 1:
            return False
        pbc = np.asarray(self.atoms.pbc, dtype=bool)
        cell = self.atoms.cell.array
        if not pbc.any():
            return True
        if not np.isfinite(cell).all() or np.linalg.matrix_rank(cell[pbc]) < pbc.sum():
            return False
        reduced = minkowski_reduce(cell, pbc)[0]
        return bool(np.linalg.norm(reduced[pbc], axis=1).min() > ALONE)


@dataclass(frozen=True)
class Found:
    """The key under which each label was found in a file; None when it is nowhere."""

    energy: str | None
    forces: str | None
    stress: str | None
    notes: tuple[str, ...] = ()
    source: str = field(default="", compare=False)
    keys: Keys | None = field(default=None, compare=False)  # with the units that were used
    units: str = field(default="", compare=False)  # where these come from
    # entries that may be a missing label
    unclaimed: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)
    targets: Mapping[str, str | None] = field(default_factory=dict)  # the key of each that was asked for
    held: tuple[str, ...] = field(default=(), compare=False)  # names of all entries


def read(path: str | Path, keys: Keys | None = None, optional: bool = False) -> tuple[list[Frame], Found]:
    """Every frame of one file with its labels in eV, Å, eV/Å and eV/Å^3.

    `optional`: explicit keys need not be in this file, as another one has them.

    Raises:
        ValueError: a file that cannot be read, units that nobody says, no labels, a misspelt or unknown key, frames
            with different keys, a unit that the label does not have, or a label of the wrong shape; the message
            names file, frame and remedy.
    """
    structures, said = read_structures(path)
    keys = keys or Keys()
    frames, found = label(structures, said, keys, (str(path), 0), optional or said.plain)
    if found.energy is None and found.forces is None and not any(found.targets.values()):
        require_targets(keys, [found])
        table = [entries(a) for a in structures]
        refuse_unlabelled({"energy": None, "forces": None}, table, str(path), unused({}, table))
    return frames, found


def label(
    structures: Sequence[Atoms], said: Said, keys: Keys, origin: tuple[str, int], optional: bool = False
) -> tuple[list[Frame], Found]:
    """As `read`, of structures of one file, of which the first has number `origin[1]`; they need not have labels.

    Raises:
        ValueError: as `read`.
    """
    source, first = origin
    keys, units = settle(keys, said, source)
    table = [entries(atoms) for atoms in structures]
    try:
        names, notes = _names(keys, table, source, optional)
        others = {name: choose_key(name, one, table, source) for name, one in keys.targets.items()}
    except ValueError as error:
        where = f" (of the {len(table)} frames from number {first} on, counted from 0)" if first else ""
        raise ValueError(f"{error}{where}") from error
    frames = [
        _frame(atoms, entry, {**names, **others}, keys, (source, i))
        for i, (atoms, entry) in enumerate(zip(structures, table, strict=True), start=first)
    ]
    notes += [*_stress_notes(names["stress"], table, frames), *unused(keys.targets, table)]
    shown = {
        label: CALCULATOR if name == label and _in_results(name, structures) else name
        for label, name in names.items()
    }
    rest = unclaimed(names, [keys.energy, keys.forces], table)
    held = tuple(sorted({key for entry in table for key in entry}))
    labels = (shown["energy"], shown["forces"], shown["stress"])
    return frames, Found(*labels, tuple(notes), source, keys, units, rest, others, held)


def _names(
    keys: Keys, table: Sequence[dict[str, Any]], source: str, optional: bool
) -> tuple[dict[str, str | None], list[str]]:
    """The key of each label, and remarks."""
    names: dict[str, str | None] = {}
    notes: list[str] = []
    for label in LABELS:
        names[label], remarks = choose(label, getattr(keys, label), table, source, optional)
        notes += remarks
    _refuse_unit_of_virial(names["stress"], keys, source)
    if keys.energy is None and keys.forces is None:
        refuse_two_methods(names, table, source)
    return names, notes


def _refuse_unit_of_virial(name: str | None, keys: Keys, source: str) -> None:
    if name is not None and keys.stress_unit is not None and is_virial(name):
        raise ValueError(
            f"{source}: stress_unit is '{keys.stress_unit}', but '{name}' is a virial, an energy read in "
            f"energy_unit ('{keys.energy_unit_used}'); leave stress_unit out, or name a stress with --stress-key"
        )


def _in_results(name: str, structures: Sequence[Atoms]) -> bool:
    return any(a.calc is not None and name in a.calc.results for a in structures)


def _frame(
    atoms: Atoms, entry: dict[str, Any], names: dict[str, str | None], keys: Keys, origin: tuple[str, int]
) -> Frame:
    where = f"{origin[0]}, frame {origin[1]}"
    length = LENGTH_UNITS[keys.length_unit_used]
    _refuse_unknown_elements(atoms, where)
    _refuse_huge(atoms.positions, "positions", where)
    _refuse_huge(atoms.cell.array, "the cell", where)
    structure = Atoms(
        numbers=atoms.numbers,
        positions=atoms.positions * length,
        cell=atoms.cell.array * length,
        pbc=atoms.pbc,
        # labels have places of their own; here they would stay in the unit of the file
        info={k: v for k, v in atoms.info.items() if k not in names.values()},
    )
    value = {label: entry.get(name) if name else None for label, name in names.items()}
    energy = _numbers(value["energy"], names["energy"], where)
    forces = _numbers(value["forces"], names["forces"], where)
    stress = _numbers(value["stress"], names["stress"], where)
    if energy is not None and energy.shape != ():
        raise ValueError(_shape_error(where, "energy", names["energy"], energy, "one number"))
    if forces is not None and forces.shape != (len(atoms), 3):
        raise ValueError(_shape_error(where, "forces", names["forces"], forces, f"({len(atoms)}, 3)"))
    if stress is not None:
        stress = _stress(stress, names["stress"] or "", structure, keys, where)
    tag = atoms.info.get("config_type")
    return Frame(
        atoms=structure,
        energy=None if energy is None else float(energy) * ENERGY_UNITS[keys.energy_unit_used],
        forces=None if forces is None else forces * FORCES_UNITS[keys.forces_unit_used],
        stress=stress,
        source=origin[0],
        index=origin[1],
        config_type=None if tag is None else str(tag),
        targets={name: _target(value[name], name, keys, len(atoms), where) for name in keys.targets},
    )


def _target(value: Any, name: str, keys: Keys, n_atoms: int, where: str) -> Array:
    array = values(value, name, keys.targets[name], n_atoms, where)
    _refuse_huge(array, name, where)
    return array * UNITS.get(name, {}).get(unit_of(name, keys.targets[name], keys.length_unit_used), 1.0)


def _refuse_unknown_elements(atoms: Atoms, where: str) -> None:
    odd = np.flatnonzero((atoms.numbers < 1) | (atoms.numbers >= len(chemical_symbols)))
    if len(odd):
        raise ValueError(
            f"{where}, atom {odd[0]}: atomic number {atoms.numbers[odd[0]]} (X is 0) is no element; correct or "
            "remove this frame"
        )


def _numbers(value: Any, name: str | None, where: str) -> Array | None:
    if value is None:
        return None
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise ValueError(
            f"{where}: '{name}' is {str(value)[:60]!r}; expected numbers; correct it or remove this frame"
        )
    array = array.astype(np.float64)
    _refuse_huge(array, f"'{name}'", where)
    return array


def _refuse_huge(values: Array, name: str, where: str) -> None:
    huge = values[np.isfinite(values) & (np.abs(values) > HUGE)]
    if huge.size:
        raise ValueError(
            f"{where}: {name} holds {huge[0]:g}, which nothing measures; the file is damaged: correct or remove "
            "this frame"
        )


def _shape_error(where: str, label: str, name: str | None, got: Array, expected: str) -> str:
    return (
        f"{where}: {label} '{name}' has shape {got.shape}; expected {expected}; correct the frame "
        f"or choose another key with --{label}-key"
    )


def _stress(value: Array, name: str, atoms: Atoms, keys: Keys, where: str) -> Array | None:
    """3x3 in eV/Å^3 with ASE's sign; None without full periodicity, where a stress means nothing."""
    if value.shape == (6,):
        xx, yy, zz, yz, xz, xy = value
        value = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    elif value.shape in ((9,), (3, 3)):
        value = value.reshape(3, 3)
    else:
        raise ValueError(
            _shape_error(
                where, "stress", name, value, "(3, 3), 9 numbers or 6 in the order xx yy zz yz xz xy"
            )
        )
    finite = bool(np.isfinite(value).all())
    if finite and np.abs(value - value.T).max() > 0.1 * np.abs(value).max() + 1e-4:
        raise ValueError(
            f"{where}: '{name}' is not symmetric ({value.tolist()}); a stress must be; check the order of "
            "its components, or leave it out with --stress-key none"
        )
    value = 0.5 * (value + value.T) if finite else value
    if not atoms.pbc.all():
        return None
    if not is_virial(name):
        return value * STRESS_UNITS[keys.stress_unit_used]
    volume = abs(float(np.linalg.det(atoms.cell.array)))
    if not volume > 1e-6:
        raise ValueError(
            f"{where}: the cell has zero volume, so '{name}' cannot become a stress; give the cell, or set "
            'pbc="F F F" for a molecule'
        )
    return -value * ENERGY_UNITS[keys.energy_unit_used] / volume


def is_virial(name: str) -> bool:
    return "virial" in name.lower()


def _stress_notes(name: str | None, table: Sequence[dict[str, Any]], frames: Sequence[Frame]) -> list[str]:
    if name is None:
        return []
    notes = [f"stress = -{name} / volume"] if is_virial(name) else []
    left = [f.index for f, entry in zip(frames, table, strict=True) if name in entry and f.stress is None]
    if left:
        notes.append(
            f"stress: ignored in {len(left)} frames without full periodicity, which have no volume "
            f"(e.g. frame {left[0]})"
        )
    return notes
