"""SNAP: energies linear (or quadratic, qSNAP) in bispectrum components of the neighbor density.

Thompson, Swiler, Trott, Foiles, Tucker, J. Comput. Phys. 285, 316 (2015); quadratic: Wood, Thompson, J. Chem. Phys.
148, 241721 (2018). LAMMPS computes the components and their derivatives; nothing of it is written here again.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from ase import Atoms

from potential.linear.lammps_library import Array, hold, open_box

ARRAY = 0, 2  # of a compute: global, array; as the LAMMPS library numbers them


@dataclass(frozen=True)
class Descriptor:
    """What decides about the bispectrum components, in the words of LAMMPS."""

    elements: tuple[str, ...]
    radii: tuple[float, ...]  # of each element; neighbors count up to rcutfac * (R_i + R_j) Å
    weights: tuple[float, ...]  # of each element in the density
    rcutfac: float
    twojmax: int  # twice the highest order of the expansion
    rfac0: float = 0.99363
    rmin0: float = 0.0
    switchflag: int = 1  # neighbors fade towards the cutoff
    bzeroflag: int = 1  # components of an atom without neighbors are subtracted
    quadraticflag: int = 0  # products of two components too
    bnormflag: int = 0  # components are divided by 2j + 1

    def __post_init__(self) -> None:
        n = len(self.elements)
        if not n or len(set(self.elements)) < n or (len(self.radii), len(self.weights)) != (n, n):
            raise ValueError(
                f"{n} elements {', '.join(self.elements)}, {len(self.radii)} radii, {len(self.weights)} weights: "
                "expected one radius and one weight for each of the elements, each named once"
            )
        if not (0 < self.rcutfac < np.inf and min(self.radii) > 0 and 0 <= self.twojmax <= 20):
            raise ValueError(
                f"rcutfac {self.rcutfac}, radii {self.radii}, twojmax {self.twojmax}: expected positive lengths and "
                "twojmax from 0 to 20"
            )

    @property
    def cutoff(self) -> float:
        """Of the widest pair of elements, Å."""
        return 2 * self.rcutfac * max(self.radii)

    @cached_property
    def n_components(self) -> int:
        """Coefficients of an element, besides its constant."""
        t = self.twojmax
        n = sum(
            j >= j1
            for j1 in range(t + 1)
            for j2 in range(j1 + 1)
            for j in range(j1 - j2, min(t, j1 + j2) + 1, 2)
        )
        return n + n * (n + 1) // 2 if self.quadraticflag else n

    @property
    def n_coefficients(self) -> int:
        """Of all elements, their constants included."""
        return len(self.elements) * (1 + self.n_components)

    def keywords(self) -> dict[str, float]:
        """What `compute snap` and a snapparam file have alike."""
        names = ("rmin0", "switchflag", "bzeroflag", "quadraticflag", "bnormflag")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Rows:
    """What a structure's energy, forces and virial are of each coefficient: all of them linear in these."""

    energy: Array  # (n_coefficients,)
    forces: Array  # (n_atoms, 3, n_coefficients) 1/Å
    virial: Array  # (3, 3, n_coefficients), derivative of the energy with respect to strain


def rows(atoms: Atoms, descriptor: Descriptor) -> Rows:
    """The rows of one structure. Coefficients are in the order of a snapcoeff file: of each element its constant,
    then its components.

    Raises:
        ValueError: elements the descriptor does not have, non-finite positions, no atoms.
        ImportError: LAMMPS is not installed.
    """
    d = descriptor
    numbers = [repr(x) for x in (*d.radii, *d.weights)]
    command = f"compute rows all snap {d.rcutfac!r} {d.rfac0!r} {d.twojmax} {' '.join(numbers)}"
    command += "".join(f" {name} {value!r}" for name, value in d.keywords().items())
    with closing(open_box(d.elements)) as library:
        box = hold(library, atoms, d.elements, d.cutoff)
        library.commands_list(
            [f"pair_style zero {d.cutoff * (1 + 1e-9)!r}", "pair_coeff * *", command, "run 0"]
        )
        table = np.array(library.numpy.extract_compute("rows", *ARRAY)[:, :-1])  # the last: a reference
    n = len(atoms)
    assert table.shape == (1 + 3 * n + 6, len(d.elements) * d.n_components), table.shape
    table = table.reshape(len(table), len(d.elements), d.n_components)
    symbols = np.array(atoms.get_chemical_symbols())
    constants = np.zeros((len(table), len(d.elements), 1))
    constants[0, :, 0] = [np.count_nonzero(symbols == element) for element in d.elements]
    table = np.concatenate([constants, table], axis=2).reshape(len(table), d.n_coefficients)
    xx, yy, zz, yz, xz, xy = table[1 + 3 * n :]
    turned = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    virial = -np.einsum("ai,bj,ijk->abk", box.turn, box.turn, turned)
    forces = np.einsum("ai,nik->nak", box.turn, table[1 : 1 + 3 * n].reshape(n, 3, -1))
    return Rows(table[0], forces, virial)


@dataclass(frozen=True)
class Snap:
    """A fitted SNAP or qSNAP."""

    descriptor: Descriptor
    coefficients: Array = field(repr=False)  # (n_coefficients,) eV, in the order of a snapcoeff file

    def __post_init__(self) -> None:
        shape, expected = np.shape(self.coefficients), (self.descriptor.n_coefficients,)
        if shape != expected or not np.isfinite(self.coefficients).all():
            raise ValueError(
                f"coefficients of shape {shape}: expected {expected}, {self.descriptor.n_components + 1} finite "
                f"numbers for each of {', '.join(self.descriptor.elements)}"
            )
