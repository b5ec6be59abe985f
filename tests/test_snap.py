"""SNAP: rows of the linear problem against LAMMPS's own pair style, laws of nature, files, published numbers."""

from __future__ import annotations

import copy
import io
import lzma
import pickle
import sys
from contextlib import closing
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from itertools import product
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from potential.linear import lammps_library, snap_calculator
from potential.linear.lammps_library import box_of
from potential.linear.snap import Descriptor, Snap, rows
from potential.linear.snap_calculator import SnapCalculator, opened, predict
from potential.linear.snap_files import read_snap, write_snap

DATA = Path(__file__).parents[1] / "data"
PUBLISHED = DATA / "mlearn" / "Si_published.snapcoeff"
TWO = Descriptor(("O", "C"), (0.45, 0.52), (0.7, 1.0), rcutfac=3.6, twojmax=4)
KINDS = {
    "linear": TWO,
    "quadratic": replace(TWO, quadraticflag=1, twojmax=3),
    "with B0": replace(TWO, bzeroflag=0, rmin0=0.1, rfac0=0.9),
    "no switching": replace(TWO, switchflag=0, bnormflag=1),
}


def made_up(descriptor: Descriptor, seed: int = 0) -> Snap:
    return Snap(descriptor, np.random.default_rng(seed).normal(size=descriptor.n_coefficients))


def crystal() -> Atoms:
    """Two elements, no symmetry, a strongly sheared cell thinner than the cutoff, atoms outside of it."""
    atoms = bulk("C", "diamond", a=3.6)
    atoms = atoms * (1, 1, 2)
    atoms.symbols[[1, 2]] = "O"
    atoms.rattle(0.1, seed=4)
    atoms.set_cell(atoms.cell.array @ [[1, 0.3, 0], [0, 1.02, 0.5], [-0.4, 0, 0.9]], scale_atoms=True)
    atoms.positions[0] += 3 * atoms.cell[0] - atoms.cell[2]
    return atoms


def left_handed() -> Atoms:
    atoms = crystal()
    atoms.set_cell(atoms.cell.array[[1, 0, 2]])
    return atoms


def acid() -> Atoms:
    atoms = molecule("CH3COOH")
    del atoms[[k for k, s in enumerate(atoms.symbols) if s == "H"]]
    atoms.rattle(0.05, seed=2)
    return atoms


def slab() -> Atoms:
    """Periodic in two directions that are not the first two, its third vector without meaning."""
    atoms = crystal()
    atoms.pbc = [False, True, True]
    atoms.cell[0] = [0.1, 0.2, 0.3]
    return atoms


STRUCTURES = {
    "triclinic": crystal(),
    "left-handed": left_handed(),
    "molecule": acid(),
    "slab": slab(),
    "chain": Atoms("CO", [[0, 0, 0], [0.8, 0.6, 0.5]], cell=[[0, 0, 0], [1.5, 2, 0.3], [0, 0, 0]], pbc=[0, 1, 0]),
    "atom": Atoms("O", [[1, 2, 3]]),
}  # fmt: skip


# --- the linear problem -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STRUCTURES)
def test_rows_times_coefficients_are_pair_style_snap(name: str, kind: str) -> None:
    atoms, snap = STRUCTURES[name], made_up(KINDS[kind])
    r, p = rows(atoms, snap.descriptor), predict(snap, atoms)
    size = np.abs(snap.coefficients) @ np.abs(r.energy)
    assert r.energy @ snap.coefficients == pytest.approx(p.energy, abs=1e-12 * size)
    np.testing.assert_allclose(r.forces @ snap.coefficients, p.forces, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(r.virial @ snap.coefficients, p.virial, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("twojmax", "n"), [(0, 1), (2, 5), (4, 14), (6, 30), (8, 55)])
def test_numbers_of_components(twojmax: int, n: int) -> None:
    one = Descriptor(("Si",), (0.5,), (1.0,), 4.0, twojmax)
    assert one.n_components == n
    assert replace(one, quadraticflag=1).n_components == n + n * (n + 1) // 2


def test_box_keeps_distances_and_is_what_lammps_wants() -> None:
    for atoms in STRUCTURES.values():
        box = box_of(atoms, 3.0)
        np.testing.assert_allclose(box.turn @ box.turn.T, np.eye(3), atol=1e-14)
        assert np.linalg.det(box.turn) == pytest.approx(1)
        assert (np.diag(box.cell) > 0).all()
        assert np.allclose(np.triu(box.cell, 1), 0, atol=1e-12)
        moved = box.positions - atoms.positions @ box.turn
        crossings = moved @ np.linalg.inv(box.cell)
        np.testing.assert_allclose(crossings, np.round(crossings), atol=1e-9)


# --- laws of nature -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["triclinic", "left-handed", "molecule", "slab"])
def test_forces_are_the_gradient(name: str) -> None:
    atoms, snap, h = STRUCTURES[name], made_up(KINDS["quadratic"]), 1e-4
    forces = predict(snap, atoms).forces
    for i, k in ((0, 0), (1, 2), (len(atoms) - 1, 1)):
        energies = []
        for step in (h, -h):
            moved = atoms.copy()
            moved.positions[i, k] += step
            energies.append(predict(snap, moved).energy)
        assert forces[i, k] == pytest.approx((energies[1] - energies[0]) / (2 * h), rel=1e-5, abs=1e-4)


def test_stress_is_the_derivative_with_respect_to_strain() -> None:
    atoms, h = left_handed(), 1e-5
    atoms.calc = SnapCalculator(made_up(TWO))
    stress = atoms.get_stress(voigt=False)
    for a, b in product(range(3), repeat=2):
        energies = []
        for step in (h, -h):
            strain = np.zeros((3, 3))
            strain[a, b] += step / 2
            strain[b, a] += step / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            strained.calc = atoms.calc
            energies.append(strained.get_potential_energy())
        expected = (energies[0] - energies[1]) / (2 * h) / atoms.get_volume()
        assert stress[a, b] == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_turned_moved_doubled() -> None:
    snap, atoms = made_up(TWO), crystal()
    one = predict(snap, atoms)
    turned = atoms.copy()
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]  # a reflection, too
    turned.set_cell(atoms.cell.array @ turn, scale_atoms=False)
    turned.positions = atoms.positions @ turn + [3, -2, 1]
    other = predict(snap, turned)
    assert other.energy == pytest.approx(one.energy, rel=1e-12)
    np.testing.assert_allclose(other.forces, one.forces @ turn, atol=1e-10)
    np.testing.assert_allclose(other.virial, turn.T @ one.virial @ turn, atol=1e-10)
    double = predict(snap, atoms * (2, 1, 1))
    np.testing.assert_allclose(double.energies, np.tile(one.energies, 2), atol=1e-11)
    np.testing.assert_allclose(double.virial, 2 * one.virial, atol=1e-10)


def test_molecules_do_not_depend_on_their_vacuum() -> None:
    snap, free = made_up(TWO), acid()
    boxed = free.copy()
    boxed.set_cell([30, 25, 20])
    far = free.copy()
    far.positions[0] += 4000.0  # a box of this size has too many bins, if bins do not grow
    for other in (boxed, Atoms(boxed, pbc=True)):
        np.testing.assert_allclose(predict(snap, other).forces, predict(snap, free).forces, atol=1e-11)
    assert predict(snap, far).energies[0] == pytest.approx(snap.coefficients[TWO.n_components + 1])


def test_an_atom_alone_has_its_constant() -> None:
    snap = made_up(replace(TWO, quadraticflag=1, twojmax=2))
    constants = snap.coefficients.reshape(2, -1)[:, 0]
    for symbol, constant in zip(TWO.elements, constants, strict=True):
        assert predict(snap, Atoms(symbol)).energy == pytest.approx(constant, abs=1e-12)


# --- published ----------------------------------------------------------------------------------------------


def test_published_silicon_has_its_errors() -> None:
    """6.44 meV/atom and 133 meV/Å on the test of mlearn, and its rows times its coefficients are itself."""
    text = lzma.decompress((DATA / "mlearn" / "Si_test.extxyz.xz").read_bytes()).decode()
    frames = ase.io.read(io.StringIO(text), ":", format="extxyz")
    snap = read_snap(PUBLISHED)
    energy, forces = [], []
    for k, atoms in enumerate(frames):
        p = predict(snap, atoms)
        energy.append((p.energy - atoms.get_potential_energy()) / len(atoms))
        forces.append((p.forces - atoms.get_forces()).ravel())
        if k % 6 == 0:
            r = rows(atoms, snap.descriptor)
            assert r.energy @ snap.coefficients == pytest.approx(p.energy, abs=1e-10)
            np.testing.assert_allclose(r.forces @ snap.coefficients, p.forces, atol=1e-10)
            np.testing.assert_allclose(r.virial @ snap.coefficients, p.virial, atol=1e-10)
    assert 1e3 * np.abs(energy).mean() == pytest.approx(6.44, abs=0.005)
    assert 1e3 * np.abs(np.concatenate(forces)).mean() == pytest.approx(133, abs=0.5)


# --- files and calculator -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_files_bring_back_every_bit(tmp_path: Path, kind: str) -> None:
    snap = made_up(KINDS[kind])
    write_snap(tmp_path / "C.O", snap, ["of two elements"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["C.O.snapcoeff", "C.O.snapparam"]
    for name in ("C.O", "C.O.snapcoeff", "C.O.snapparam"):
        back = read_snap(tmp_path / name)
        assert back.descriptor == snap.descriptor
        assert (back.coefficients == snap.coefficients).all()


def test_published_file_is_read() -> None:
    snap = read_snap(PUBLISHED)
    assert snap.descriptor == Descriptor(("Si",), (0.5,), (1.0,), 4.9, 8, bzeroflag=0)
    assert snap.descriptor.cutoff == 4.9
    assert snap.coefficients[[0, 1, -1]].tolist() == [
        -5.663990890722773, 2.135204505942156e-05, float(PUBLISHED.read_text().split()[-1]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("snapparam", "twojmax 8", "twojmax 6"), "expected \\(31,\\)"),
        (("snapparam", "twojmax 8", "twojmaks 8"), "'twojmaks 8'; expected one of rcutfac"),
        (("snapparam", "twojmax 8", "twojmax eight"), "invalid literal"),
        (("snapparam", "twojmax 8", ""), "twojmax"),
        (("snapparam", "rfac0", "chemflag 1\nrfac0"), "'chemflag 1'; expected"),
        (("snapcoeff", "1 56", "2 56"), "are announced"),
        (("snapcoeff", "Si 0.5 1", "Si 0.5"), "expected a snapcoeff file"),
        (("snapcoeff", "Si 0.5 1", "Si -0.5 1"), "expected positive lengths"),
        (("snapcoeff", "-5.66", "x"), "could not convert"),
        (("snapcoeff", "-5.66", "nan #"), "finite"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, change: tuple[str, str, str], complaint: str) -> None:
    for kind in ("snapcoeff", "snapparam"):
        text = PUBLISHED.with_suffix(f".{kind}").read_text()
        if kind == change[0]:
            assert change[1] in text
            text = text.replace(*change[1:], 1)
        (tmp_path / f"Si.{kind}").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        read_snap(tmp_path / "Si")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Si\.snapparam is not there"):
        read_snap(tmp_path / "Si")


def test_calculator_as_ase_knows_them() -> None:
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.1, seed=0)
    atoms.calc = SnapCalculator(PUBLISHED)
    assert set(atoms.calc.implemented_properties) == {"energy", "free_energy", "energies", "forces", "stress"}
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy(), rel=1e-14)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    np.testing.assert_allclose(atoms.get_forces().sum(0), 0, atol=1e-12)
    before = atoms.get_potential_energy()
    atoms.positions[0, 0] += 0.1
    assert atoms.get_potential_energy() != before
    atoms.pbc = False
    assert atoms.get_forces().shape == (8, 3)
    with pytest.raises(ValueError, match="without full periodicity"):
        atoms.get_stress()


def test_one_lammps_takes_one_structure_after_the_other() -> None:
    """Of any size, cell and elements; nothing of one is left in the next, in any bit."""
    snap = made_up(KINDS["quadratic"])
    several = [*STRUCTURES.values(), crystal() * (2, 1, 2), *reversed(STRUCTURES.values())]
    with closing(opened(snap)) as library:
        for atoms in several:
            kept, fresh = predict(snap, atoms, library), predict(snap, atoms)
            for name in ("energies", "forces", "virial"):
                assert (getattr(kept, name) == getattr(fresh, name)).all()


def test_calculator_opens_lammps_once(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[Snap] = []
    monkeypatch.setattr(snap_calculator, "opened", lambda snap: times.append(snap) or opened(snap))
    atoms = crystal()
    atoms.calc = SnapCalculator(made_up(TWO))
    energy = atoms.get_potential_energy()
    atoms.rattle(0.1)
    with pytest.raises(ValueError, match="atoms contain N"):
        atoms.calc.get_potential_energy(molecule("N2"))
    other = atoms.calc.get_potential_energy(atoms)
    assert other != energy
    assert atoms.calc.get_potential_energy(acid()) != other
    assert len(times) == 1
    for copied in (copy.deepcopy(atoms.calc), pickle.loads(pickle.dumps(atoms.calc))):
        assert copied.get_potential_energy(crystal()) == energy
    assert len(times) == 3


def test_what_has_no_energy_is_refused() -> None:
    snap = made_up(TWO)
    with pytest.raises(ValueError, match="atoms contain N, but this potential was fitted to O, C"):
        predict(snap, molecule("N2"))
    with pytest.raises(ValueError, match="must be finite"):
        predict(snap, Atoms("O", [[np.nan, 0, 0]]))
    with pytest.raises(ValueError, match="no atoms"):
        predict(snap, Atoms())
    with pytest.raises(ValueError, match="one radius and one weight"):
        Descriptor(("O", "O"), (0.5, 0.5), (1.0, 1.0), 4.0, 4)
    with pytest.raises(ValueError, match="coefficients of shape"):
        Snap(TWO, np.zeros(3))


def test_without_lammps_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lammps", None)
    with pytest.raises(ImportError, match=r"equiv-potential\[snap\]"):
        predict(made_up(TWO), acid())


def test_without_mpi_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(lammps_library, "distribution", missing)
    with pytest.raises(ImportError, match=r"equiv-potential\[snap\]', which brings MPICH"):
        lammps_library._load_mpich()
