"""What prepared sets say of their labels, as of other files: for reading, and for making sets of them again."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from ase import Atoms

from train.data.dataset import Found, Frame
from train.data.files import expand
from train.data.keys import Keys
from train.data.labels import LABELS, NONE
from train.data.targets import UNITS
from train.prepared.read import Prepared, is_prepared, open_prepared
from train.prepared.schema import BITS
from train.target import Target, resolved


def found_in(frames: Prepared) -> Found:
    """What `dataset.read` says of an ordinary file."""
    have = int(np.bitwise_or.reduce(frames.labels))
    names = {label: label if have & BITS[label] else None for label in LABELS}
    held = frames.store.targets
    targets = {name: held.get(name, one) for name, one in frames.targets.items()}
    counts = {name: int(frames.store.has_target(name, frames.rows).sum()) for name in held}
    notes = [
        f"{name}: in {counts[name]} of {len(frames)} frames, not used; --targets {name} uses it"
        for name in held
        if name not in targets and counts[name]
    ]
    return Found(
        names["energy"],
        names["forces"],
        names["stress"],
        tuple(notes),
        source=frames.store.path,
        keys=Keys(energy_unit="eV", length_unit="Ang", targets=targets),
        units="eV, Ang: as the file says",
        targets={name: name if counts.get(name) else None for name in targets},
        held=(*(name for name in names.values() if name), *held),
    )


def labelled_atoms(frame: Frame, targets: Mapping[str, Target]) -> Atoms:
    """A structure that carries its labels, these targets among them, under their plain names."""
    atoms = frame.atoms.copy()
    atoms.info |= {n: v for n, v in (("energy", frame.energy), ("stress", frame.stress)) if v is not None}
    have = {name: value for name, value in frame.targets.items() if np.isfinite(value).all()}
    atoms.info |= {name: value if targets[name].per == "atom" else value[0] for name, value in have.items()}
    if frame.forces is not None:
        atoms.arrays["forces"] = frame.forces
    return atoms


def completed(
    asked: Mapping[str, Target], patterns: Sequence[str], everything: bool = False
) -> dict[str, Target]:
    """The targets that are asked for, with what prepared sets among the files say of those of which the settings say
    nothing; with `everything` also all others that these hold. What cannot be read is refused by whoever reads it."""
    found, sets = dict(asked), []
    with contextlib.suppress(ValueError):
        sets = [open_prepared(path) for path in expand(patterns) if is_prepared(path)]
    for one_set in sets:
        for name, held in one_set.store.targets.items():
            if name in asked:
                one = found[name]
                found[name] = replace(one, irreps=one.irreps or held.irreps, per=one.per or held.per)
                if not one.unit and name not in UNITS:
                    found[name] = replace(found[name], unit=held.unit)
            elif everything:
                found[name] = held
    return found


def require_same(path: str, held: Mapping[str, Target], asked: Mapping[str, Target]) -> None:
    """Targets that are asked for are what the set holds under their names.

    Raises:
        ValueError: other irreps, another thing that has a value, or another key.
    """
    for name, one in resolved(asked).items():
        if one.key not in ("", NONE, name):
            raise ValueError(
                f"{path}: its labels have names of their own, but targets.{name}.key is '{one.key}'; choose keys "
                "when the set is prepared"
            )
        has = held.get(name, one)
        if (has.irreps, has.per) != (one.irreps, one.per):
            raise ValueError(
                f"{path}: holds {name} as {has.irreps} of each {has.per}, but [targets.{name}] says {one.irreps} of "
                f"each {one.per}; leave irreps and per out, or prepare the set again"
            )
