"""npz files of molecular dynamics of one molecule, in the names of sGDML (z, R, E, F) or of rMD17."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from io import BytesIO
from typing import Any
from zipfile import BadZipFile

import numpy as np
from ase import Atoms

from train.data.keys import Said

# (name of the atomic numbers, of the positions): {name in the file: name the labels are looked up by}
KINDS = {
    ("z", "R"): {"E": "energy", "F": "forces"},
    ("nuclear_charges", "coords"): {"energies": "energy", "forces": "forces"},
}
UNITS = {  # in lower case
    "e_unit": {
        "ev": "eV", "mev": "meV", "ha": "Ha", "hartree": "Ha", "eh": "Ha", "ry": "Ry", "rydberg": "Ry",
        "kcal/mol": "kcal/mol", "kcal mol-1": "kcal/mol", "kj/mol": "kJ/mol", "kj mol-1": "kJ/mol",
    },
    "r_unit": {"ang": "Ang", "angstrom": "Ang", "å": "Ang", "a": "Ang", "bohr": "Bohr", "a0": "Bohr"},
}  # fmt: skip
ATOMIC = ("au", "a.u.", "atomic")  # Ha and Bohr
SILENT = ("", "unknown")


def read_npz(data: bytes, source: str) -> tuple[list[Atoms], Said]:
    """Every frame, and the units that the file says.

    The energy is in info and the forces in arrays; whatever else has one entry per frame (numbers, text, or rows
    of three per atom) comes along under its own name, such as config_type or old_energies.

    Raises:
        ValueError: a damaged file, other names or shapes, a unit that is not known, or a skewed lattice.
    """
    content = _arrays(data, source)
    known = next((pair for pair in KINDS if set(pair) <= set(content)), None)
    if known is None:
        raise ValueError(
            f"{source}: holds {', '.join(sorted(content)) or 'nothing'}; expected z, R, E, F as in sGDML or "
            "nuclear_charges, coords, energies, forces as in rMD17; rename the arrays, or convert to extxyz"
        )
    numbers, positions = _structure(content, known, source)
    n_frames = len(positions)
    cell = _cell(content, source)
    info, arrays = _entries(content, known, positions.shape, source)
    frames = []
    for k in range(n_frames):
        atoms = Atoms(numbers, positions[k], cell=cell, pbc=cell is not None)
        atoms.info = {name: values[k].item() for name, values in info.items()}
        for name, values in arrays.items():
            atoms.arrays[name] = values[k]
        frames.append(atoms)
    return frames, _said(content, known, source)


def _arrays(data: bytes, source: str) -> dict[str, Any]:
    """All arrays but those of Python objects, which would have to be executed: needed ones are an error."""
    content: dict[str, Any] = {}
    needed = {name for pair, labels in KINDS.items() for name in (*pair, *labels)}
    try:
        with np.load(BytesIO(data)) as file:
            for name in file.files:
                try:
                    content[name] = file[name]
                except ValueError as error:
                    if name in needed or "allow_pickle" not in str(error):
                        raise ValueError(f"array '{name}': {error}") from error
    except (OSError, ValueError, BadZipFile, EOFError, AttributeError, TypeError, zlib.error) as error:
        raise ValueError(
            f"{source}: cannot be read as npz ({type(error).__name__}: {error}); the file is damaged or its "
            "extension is wrong; copy it again"
        ) from error
    return content


def _structure(content: Mapping[str, Any], names: tuple[str, str], source: str) -> tuple[Any, Any]:
    numbers, positions = (np.asarray(content[name]) for name in names)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or not ((numbers > 0) & (numbers < 119)).all():
        raise ValueError(
            f"{source}: '{names[0]}' has shape {numbers.shape} and type {numbers.dtype}; expected the atomic "
            "numbers of one molecule, (n_atoms,); give one file per molecule, or convert to extxyz"
        )
    if positions.ndim != 3 or positions.shape[1:] != (len(numbers), 3):
        raise ValueError(
            f"{source}: '{names[1]}' has shape {positions.shape}; expected (n_frames, {len(numbers)}, 3); "
            "correct the array"
        )
    return numbers, positions.astype(np.float64)


def _cell(content: Mapping[str, Any], source: str) -> Any:
    """Lattice vectors; versions of sGDML differ in whether they are rows or columns, so both must be the same."""
    lattice = content.get("lattice")
    if lattice is None or lattice.shape == ():
        return None
    if lattice.shape != (3, 3) or not np.allclose(lattice, lattice.T):
        raise ValueError(
            f"{source}: lattice is {np.asarray(lattice).tolist()}; expected a symmetric 3x3 matrix, as some writers "
            "keep the vectors in rows and some in columns; convert the file to extxyz"
        )
    return lattice


def _entries(
    content: Mapping[str, Any], known: tuple[str, str], shape: tuple[int, ...], source: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What has one number or text per frame, and what has three numbers per atom."""
    info, arrays = {}, {}
    for name, values in content.items():
        shown = KINDS[known].get(name, name)
        if name in known:
            continue
        if values.shape == shape:
            arrays[shown] = values
        elif values.shape in ((shape[0],), (shape[0], 1)) and values.dtype.kind in "biufU":
            info[shown] = values.reshape(-1)
        elif name in KINDS[known]:
            raise ValueError(
                f"{source}: '{name}' has shape {values.shape} and type {values.dtype}; expected {shape[:1]} for "
                f"energies and {shape} for forces, as there are {shape[0]} frames; correct the array"
            )
    return info, arrays


def _said(content: Mapping[str, Any], known: tuple[str, str], source: str) -> Said:
    found: dict[str, str | None] = {}
    for name, table in UNITS.items():
        text = str(content[name]).strip() if name in content else ""
        unit = table.get(text.lower())
        if text.lower() in ATOMIC:
            unit = "Ha" if name == "e_unit" else "Bohr"
        if unit is None and text.lower() not in SILENT:
            raise ValueError(
                f"{source}: {name} is '{text}'; expected one of {', '.join(dict.fromkeys(table.values()))}; "
                "correct it in the file, or leave it out and give the unit on the command line"
            )
        found[name] = unit
    hint = ""
    if known == ("nuclear_charges", "coords"):
        hint = "; the published rMD17 files are in kcal/mol and Ang: --energy-unit kcal/mol --length-unit Ang"
    return Said(found["e_unit"], found["r_unit"], convention=False, hint=hint)
