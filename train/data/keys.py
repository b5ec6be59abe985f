"""Where the labels of a file are and in which units: given, said by the file, or the convention of its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ase import units

from train.config import Data
from train.data.labels import LABELS, NONE
from train.data.targets import unit_used
from train.target import Target, resolved

ENERGY_UNITS: dict[str, float] = {
    "eV": 1.0,
    "meV": 1e-3,
    "Ha": units.Hartree,
    "Ry": units.Rydberg,
    "kcal/mol": units.kcal / units.mol,
    "kJ/mol": units.kJ / units.mol,
}
LENGTH_UNITS: dict[str, float] = {"Ang": 1.0, "Bohr": units.Bohr}
FORCES_UNITS: dict[str, float] = {
    f"{e}/{d}": x / y for e, x in ENERGY_UNITS.items() for d, y in LENGTH_UNITS.items()
}
STRESS_UNITS: dict[str, float] = {
    **{f"{e}/{d}^3": x / y**3 for e, x in ENERGY_UNITS.items() for d, y in LENGTH_UNITS.items()},
    "GPa": units.GPa,
    "kbar": 0.1 * units.GPa,
}


@dataclass(frozen=True)
class Keys:
    """Where the labels are and in which units; the defaults suit most files.

    A key of None means: look under the usual names; "none" means: do not read this label.
    A stress is 3x3, 9 numbers (row by row) or 6 in ASE's Voigt order xx yy zz yz xz xy, positive when the
    cell wants to shrink (ASE's sign). A key with "virial" in its name holds -stress * volume in energy units.
    """

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    energy_unit: str | None = None  # of energy and virial; None: as the file says, or eV by ASE's convention
    length_unit: str | None = (
        None  # of positions and cell; None: as the file says, or Ang by ASE's convention
    )
    forces_unit: str | None = None  # None: energy_unit / length_unit
    stress_unit: str | None = None  # None: energy_unit / length_unit^3
    targets: Mapping[str, Target] = field(default_factory=dict)  # beside these; resolved

    def __post_init__(self) -> None:
        for name, table in (
            ("energy_unit", ENERGY_UNITS),
            ("length_unit", LENGTH_UNITS),
            ("forces_unit", FORCES_UNITS),
            ("stress_unit", STRESS_UNITS),
        ):
            given = getattr(self, name)
            if given is not None and given not in table:
                raise ValueError(f"{name} is '{given}'; expected one of {', '.join(table)}")

    @property
    def energy_unit_used(self) -> str:
        return self.energy_unit or "eV"

    @property
    def length_unit_used(self) -> str:
        return self.length_unit or "Ang"

    @property
    def forces_unit_used(self) -> str:
        return self.forces_unit or f"{self.energy_unit_used}/{self.length_unit_used}"

    @property
    def stress_unit_used(self) -> str:
        return self.stress_unit or f"{self.energy_unit_used}/{self.length_unit_used}^3"


def keys(data: Data, targets: Mapping[str, Target] | None = None) -> Keys:
    """Where labels are and in which units; an empty setting means: find it, or follow from the others."""
    return Keys(
        energy=data.energy_key or None,
        forces=data.forces_key or None,
        stress=data.stress_key or None,
        energy_unit=data.energy_unit or None,
        length_unit=data.length_unit or None,
        forces_unit=data.forces_unit or None,
        stress_unit=data.stress_unit or None,
        targets=resolved(targets or {}),
    )


@dataclass(frozen=True)
class Said:
    """What a file, or the convention of its format, says about its units."""

    energy_unit: str | None = None  # None: nothing
    length_unit: str | None = None
    convention: bool = True  # eV and Ang where neither file nor user says anything, as in ASE
    hint: str = ""  # for the error where there is no convention
    plain: bool = False  # labels are under their own names, targets in the units that are used


ASE_UNITS = Said()
PLAIN = Said("eV", "Ang", convention=False, plain=True)


def settle(keys: Keys, said: Said, source: str) -> tuple[Keys, str]:
    """The keys with the units of one file, and a phrase that says where these come from.

    What the file says holds; given units are for files that say nothing. Nothing is assumed but the convention
    of ASE for its own formats.

    Raises:
        ValueError: a file without a convention that does not say its units, and none given.
    """
    used, how = [], []
    for name in ("energy_unit", "length_unit"):
        given, of_file = getattr(keys, name), getattr(said, name)
        unit = of_file or given or (getattr(keys, f"{name}_used") if said.convention else None)
        if unit is None:
            what = name.split("_")[0]
            raise ValueError(
                f"{source}: the file does not say its unit of {what}, and none is given; give it with "
                f"--{what}-unit{said.hint}"
            )
        used.append(unit)
        how.append("as the file says" if of_file else "as given" if given else "assumed, as in all of ASE")
        if of_file and given not in (None, of_file):
            how[-1] += f" (the given {given} is for files that say nothing)"
    if said.plain:
        labels = {name: NONE if getattr(keys, name) == NONE else name for name in LABELS}
        targets = {
            name: replace(t, key=t.key if t.key == NONE else name, unit=unit_used(name) or t.unit)
            for name, t in keys.targets.items()
        }
        keys = replace(keys, **labels, targets=targets)
    text = f"{used[0]}: {how[0]}; {used[1]}: {how[1]}" if how[0] != how[1] else f"{', '.join(used)}: {how[0]}"
    if said.energy_unit and said.length_unit:
        if keys.forces_unit or keys.stress_unit:
            text += "; forces and stress follow (the given units are for files that say nothing)"
        keys = replace(keys, forces_unit=None, stress_unit=None)
    return replace(keys, energy_unit=used[0], length_unit=used[1]), text
