"""Targets beside the energy in data files: under which key, in which unit, of which shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import units
from numpy.typing import NDArray

from train.data.labels import NONE, TAGS
from train.target import MAGNITUDE, TENSOR, Target, dimension

if TYPE_CHECKING:
    from train.data.dataset import Found
    from train.data.keys import Keys

Array = NDArray[np.float64]
Entries = Sequence[Mapping[str, Any]]

UNITS: dict[str, dict[str, float]] = {  # the first is the one that everything is converted to
    "dipole": {"e*Ang": 1.0, "e*Bohr": units.Bohr, "Debye": units.Debye},
    "polarizability": {
        "Ang^3": 1.0,
        "Bohr^3": units.Bohr**3,
        "e^2*Ang^2/eV": units.Hartree * units.Bohr,  # e^2 / (4 pi epsilon_0), eV Å
    },
}
OF_LENGTH = {"dipole": "e*{}", "polarizability": "{}^3"}  # where no unit is given
ALIASES = {
    "dipole": ("dipole", "Dipole", "dipole_moment", "dipoles", "mu"),
    "polarizability": ("polarizability", "Polarizability", "polarisability", "alpha"),
}
ASYMMETRY = 0.01  # of the largest component of a tensor; less is noise of a finite difference


def usual_names(name: str) -> list[str]:
    """What a target is called in files, in the order in which it is tried.

    >>> usual_names("dipole")[:4], "REF_dipole" in usual_names("dipole")
    (['dipole', 'Dipole', 'dipole_moment', 'dipoles'], True)
    """
    plain = ALIASES.get(name, (name,))
    return [*plain, *(one for tag in TAGS for word in plain for one in (f"{tag}_{word}", f"{word}_{tag}"))]


def unit_of(name: str, target: Target, length_unit: str) -> str:
    """The unit of a target in the files.

    Raises:
        ValueError: one that is not known for it.
    """
    unit = target.unit or OF_LENGTH.get(name, "").format(length_unit)
    if unit not in UNITS.get(name, {unit: 1.0}):
        raise ValueError(f"[targets.{name}] unit is {unit!r}; expected one of {', '.join(UNITS[name])}")
    return unit


def unit_used(name: str) -> str:
    """The unit that a target is converted to; empty where nothing is converted."""
    return next(iter(UNITS.get(name, {"": 1.0})))


def unit_text(unit: str) -> str:
    """A unit as it is written in reports.

    >>> unit_text("e*Ang")
    'e·Å'
    """
    return unit.replace("*", "·").replace("Ang", "Å").replace("^2", "²").replace("^3", "³")


def target_table(targets: Mapping[str, Target]) -> dict[str, dict[str, str]]:
    """What our files say of (resolved) targets, which are in the units that are used."""
    facts = {name: {"irreps": t.irreps, "per": t.per, "unit": t.unit} for name, t in targets.items()}
    return {name: {**of_one, "unit": unit_used(name) or of_one["unit"]} for name, of_one in facts.items()}


def choose_key(name: str, target: Target, table: Entries, source: str) -> str | None:
    """Under which entry of a file a target is; None: nowhere.

    Raises:
        ValueError: frames that have it under different names.
    """
    if target.key:
        return None if target.key == NONE or not any(target.key in f for f in table) else target.key
    present = {key: {i for i, f in enumerate(table) if key in f} for key in usual_names(name)}
    present = {key: rows for key, rows in present.items() if rows}
    chosen = next(iter(present), None)
    for key, rows in present.items():
        rest = sorted(rows - present[chosen or key])
        if rest:
            raise ValueError(
                f"{source}, frame {rest[0]}: {name} is under '{key}' in {len(rest)} frames but under '{chosen}' in "
                f"others; one file must use one key: rename them, or choose with "
                f"potential-train --set targets.{name}.key={key}"
            )
    _refuse_misspelt(name, target, present.get(chosen or "", set()), table, source)
    return chosen


def _refuse_misspelt(name: str, target: Target, have: set[int], table: Entries, source: str) -> None:
    """Frames without the target that hold something of almost its name and of its size."""
    for index, frame in enumerate(table):
        names = [] if index in have else [key for key, value in frame.items() if _fits(target, value)]
        if near := get_close_matches(name, names, n=1, cutoff=0.75):
            n = sum(near[0] in other for k, other in enumerate(table) if k not in have)
            raise ValueError(
                f"{source}, frame {index}: no {name} under a usual name ({', '.join(usual_names(name)[:4])}, ...); did "
                f"you mean '{near[0]}', in {n} of {len(table)} frames? Rename it, or say under targets.{name}.key "
                f"which is meant, for example potential-train --set targets.{name}.key={near[0]}"
            )


def _fits(target: Target, value: Any) -> bool:
    if isinstance(value, str) or np.asarray(value).dtype.kind not in "iuf":
        return False
    sizes = (6, 9) if target.irreps == TENSOR else (dimension(target.irreps),)
    return any(np.size(value) % n == 0 if target.per == "atom" else np.size(value) == n for n in sizes)


def unused(targets: Mapping[str, Target], table: Entries) -> list[str]:
    """Remarks on known targets that the frames hold and that were not asked for."""
    notes = []
    for name in UNITS.keys() - targets.keys():
        keys = [key for key in usual_names(name) if key != "alpha" and any(key in f for f in table)]
        if keys:
            n = sum(keys[0] in f for f in table)
            notes.append(
                f"{name}: under '{keys[0]}' in {n} of {len(table)} frames, not used; --targets {name} uses it"
            )
    return sorted(notes)


def require_targets(keys: Keys, files: Sequence[Found]) -> None:
    """Each target that is asked for is in one of the files.

    Raises:
        ValueError: with the names that are there.
    """
    known = sorted({key for one in files for key in one.held})
    for name, target in keys.targets.items():
        if not any(one.targets[name] for one in files):
            wanted = target.key or f"a usual name ({', '.join(usual_names(name)[:4])}, ...)"
            near = get_close_matches(target.key or name, known, n=1, cutoff=0.5)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            raise ValueError(
                f"{files[0].source}: no frame has the target {name} under {wanted}; the frames hold "
                f"{', '.join(known[:12]) or 'nothing but structures'}{hint}; give its name with "
                f"potential-train --set targets.{name}.key=..., or prepare the set again with --targets {name}"
            )


def absent(target: Target, n_atoms: int) -> Array:
    """A target that a frame does not have."""
    return np.full((n_atoms if target.per == "atom" else 1, dimension(target.irreps)), np.nan)


def values(value: Any, name: str, target: Target, n_atoms: int, where: str) -> Array:
    """A target of one frame as (1 or n_atoms, dim), NaN where there is none; the unit is as in the file.

    Raises:
        ValueError: no numbers, another shape, a tensor that is not symmetric, or a negative length.
    """
    rows = n_atoms if target.per == "atom" else 1
    tensor = target.irreps == TENSOR
    dim = dimension(target.irreps)
    if value is None:
        return absent(target, n_atoms)
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise ValueError(
            f"{where}: {name} is {str(value)[:60]!r}; expected numbers; correct or remove this frame"
        )
    array = array.astype(np.float64)
    if array.size and np.isnan(array).all():
        raise ValueError(
            f"{where}: {name} is NaN; the calculation failed or the file is damaged: remove this frame, or the entry "
            "where nothing was calculated"
        )
    of_one = ((3, 3), (9,), (6,)) if tensor else ((dim,), ()) if dim == 1 else ((dim,),)
    shapes = [(rows, *one) if target.per == "atom" else one for one in of_one]
    if array.shape not in shapes:
        told = " or ".join(map(str, shapes)) + (" in the order xx yy zz yz xz xy" if tensor else "")
        length = target.irreps == "1o" and array.size == rows
        hint = (
            f"; is it the length of the vector? Then set targets.{name}.irreps={MAGNITUDE}" if length else ""
        )
        raise ValueError(
            f"{where}: {name} has shape {array.shape}; expected {told}, as its irreps are {target.irreps} and a value "
            f"is of each {'atom' if target.per == 'atom' else 'structure'}; correct the frame or [targets.{name}]{hint}"
        )
    if target.irreps == MAGNITUDE and array.min(initial=0.0) < 0:
        raise ValueError(
            f"{where}: {name} is {array.min():g}, but as a {MAGNITUDE} it is the length of a vector, never negative; "
            f"correct the frame, or [targets.{name}] irreps"
        )
    return _symmetric(array, rows, name, where) if tensor else array.reshape(rows, dim)


def _symmetric(array: Array, rows: int, name: str, where: str) -> Array:
    if array.size == 6 * rows:
        array = array.reshape(rows, 6)[:, [0, 5, 4, 5, 1, 3, 4, 3, 2]]
    full = array.reshape(rows, 3, 3)
    odd = np.abs(full - full.transpose(0, 2, 1)).max()
    if odd > ASYMMETRY * np.abs(full).max():
        raise ValueError(
            f"{where}: {name} is not symmetric ({full[0].tolist()}), as a 'tensor' must be; its antisymmetric part "
            "(1e) has no natural parity: give the symmetric part"
        )
    return ((full + full.transpose(0, 2, 1)) / 2).reshape(rows, 9)
