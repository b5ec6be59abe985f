"""Are energies, forces and lengths of the size that nature allows? Tells units when a whole file is in another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from ase import units
from ase.data import covalent_radii

from train.data.dataset import Array, Frame
from train.data.keys import ENERGY_UNITS
from train.doctor.checks import energy_of, is_finite
from train.doctor.findings import Finding, warning
from train.doctor.geometry import Geometry, all_edges

EXACT = 0.03  # how well the energy of an atom is known from its number, apart from H
STRETCH = 8.0  # part or multiple of the expected stiffness that is no chemistry
CLEAR = 0.5  # correlation of force and length above which a bond is stiff enough to judge
FEWEST = 100  # bonds of a kind
LONG = 1.5  # median distance to the nearest atom over the sum of covalent radii
COVALENT = {1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 32, 33, 34, 35, 52, 53}  # the rule is not for metals
NOBLE = {2, 10, 18, 36, 54, 86}
SAMPLE = 200  # frames
BADGER = {(1, 1): 0.025, (1, 2): 0.335, (2, 2): 0.68, (1, 3): 0.585, (2, 3): 0.90, (3, 3): 1.18}  # Å


def total_energy(atomic_numbers: Array) -> Array:
    """Energy of all electrons of free atoms, eV, to 1 % (hydrogen 8 %).

    The statistical atom with Scott's, Schwinger's and exchange corrections: -0.768745 Z^(7/3) + Z^2/2 -
    0.269900 Z^(5/3) Hartree (J. Schwinger, Phys. Rev. A 24, 2353 (1981)).
    """
    z = np.asarray(atomic_numbers, dtype=np.float64)
    energy: Array = units.Hartree * (-0.768745 * z ** (7 / 3) + 0.5 * z**2 - 0.2699 * z ** (5 / 3))
    return energy


def impossible_energies(frames: Sequence[Frame], unit: str) -> Iterator[Finding]:
    """Energies below those of all electrons, which nothing is; or exactly a unit factor above them."""
    rows = [f for f in frames if is_finite(f.energy) and len(f.atoms) > 1]
    if not rows:
        return
    ratio = np.array([energy_of(f) / float(total_energy(f.atoms.numbers).sum()) for f in rows])
    middle = float(np.median(ratio))
    factors = {name: 1.0 / value * ENERGY_UNITS[unit] for name, value in ENERGY_UNITS.items() if name != unit}
    name = min(factors, key=lambda one: abs(np.log(abs(middle) / factors[one])) if middle else np.inf)
    fits = middle > 0 and abs(middle / factors[name] - 1.0) < EXACT and np.ptp(ratio) < EXACT * middle
    if middle > 1.0 + 2 * EXACT:
        guess = f" They fit {name}: say --energy-unit {name}" if fits else " Check the unit"
        yield warning(
            "energy unit",
            f"{rows[0].name} and the others: energies, taken as {unit}, are {middle:.4g} times the energy of all "
            f"electrons of the atoms, below which no energy can be.{guess}",
            rows,
        )
    elif fits:
        yield warning(
            "energy unit",
            f"{rows[0].name} and the others: energies, taken as {unit}, are {middle:.4g} times the energy of all "
            f"electrons of the atoms, the factor of {name}: unless they are valence energies that agree by "
            f"chance, say --energy-unit {name}",
            rows,
        )


def bond_lengths(frames: Sequence[Frame], geometry: Geometry, unit: str) -> Iterator[Finding]:
    """Atoms much farther apart than bonds are long: positions in Bohr taken as Å."""
    known = geometry.nearest[np.isfinite(geometry.nearest)]
    noble = any(not NOBLE.isdisjoint(f.atoms.numbers.tolist()) for f in frames[:SAMPLE])
    if len(known) < 10 or noble:
        return
    middle = float(np.median(known))
    if middle > LONG:
        yield warning(
            "length unit",
            f"{frames[0].source}: the distance to the nearest atom is {middle:.2f} times the sum of the covalent "
            f"radii (median; about 1 expected); positions, taken as {unit}, may be in Bohr: say --length-unit Bohr",
            frames,
        )


def stiffness(frames: Sequence[Frame]) -> dict[tuple[int, int], tuple[float, float, float]]:
    """How fast the force along a bond grows with its length, for every pair of elements.

    Compared with Badger's rule, k = 1.86 mdyn/Å / (r - d)^3 with d from the rows of the elements in the periodic
    table (R. M. Badger, J. Chem. Phys. 3, 710 (1935)).

    Returns:
        atomic numbers -> stiffness (eV/Å^2), Badger's (eV/Å^2), correlation of force and length.
    """
    rows = [f for f in frames if is_finite(f.forces) and len(f.atoms) > 1]
    rows = rows[:: max(1, len(rows) // SAMPLE)]
    found: dict[tuple[int, int], list[Array]] = {}
    for edges in all_edges(rows):
        r, (i, j) = edges.length, (edges.center, edges.neighbor)
        z = np.sort(np.stack([edges.numbers[i], edges.numbers[j]]), axis=0)
        forces = np.concatenate([rows[k].forces for k in edges.frames])
        ratio = r / (covalent_radii[z[0]] + covalent_radii[z[1]])
        bond = np.flatnonzero((ratio < 1.25) & (r > 0.3))
        along = 0.5 * np.einsum("ea,ea->e", (forces[j] - forces[i])[bond], edges.vector[bond] / r[bond, None])
        for key in np.unique(z[:, bond], axis=1).T.tolist():
            here = (z[0, bond] == key[0]) & (z[1, bond] == key[1])
            found.setdefault((key[0], key[1]), []).append(np.stack([r[bond][here], along[here]]))
    result = {}
    for (a, b), parts in found.items():
        length, force = np.concatenate(parts, axis=1)
        spread = float(length.std())
        if len(length) < FEWEST or spread < 0.005 or force.std() == 0:
            continue
        slope = float(np.mean((length - length.mean()) * (force - force.mean()))) / spread**2
        low, high = (1 if z < 3 else 2 if z < 11 else 3 for z in (a, b))  # a <= b
        expected = 1.86 * 6.2415 / max(float(length.mean()) - BADGER[low, high], 0.2) ** 3
        result[a, b] = (-slope, expected, slope * spread / float(force.std()))
    return result


def force_scale(found: dict[tuple[int, int], tuple[float, float, float]], unit: str) -> Iterator[Finding]:
    """Bonds many times stiffer or softer than bonds are: a whole file of forces in another unit, or sign."""
    clear = {k: row for k, row in found.items() if abs(row[2]) > CLEAR and not COVALENT.isdisjoint(k)}
    if not clear:
        return
    key = max(clear, key=lambda one: abs(clear[one][2]))
    given, expected, correlation = clear[key]
    if 1 / STRETCH < given / expected < STRETCH and correlation < 0:
        return
    from ase.data import chemical_symbols as symbols

    name = f"{symbols[key[0]]}-{symbols[key[1]]}"
    if correlation > 0:
        text = f"the forces stretch long {name} bonds further and press short ones: their sign is wrong"
    else:
        text = (
            f"the {name} bonds have a stiffness of {given:.3g} eV/Å^2, {given / expected:.3g} times that of Badger's "
            f"rule; the forces, taken as {unit}, are in another unit, or the positions are"
        )
    yield warning("force unit", f"{text}: set data.forces_unit, or correct the file")
