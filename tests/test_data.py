"""The shipped data are what data/README.md says: files, hashes, counts, labels."""

from __future__ import annotations

import hashlib
import io
import lzma
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

DATA = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class Row:
    """One line of the table of files in data/README.md."""

    file: str
    frames: int
    atoms: int
    labels: frozenset[str]
    sha256: str
    unpacked: str


def read_table() -> list[Row]:
    lines = (DATA / "README.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("| file | frames | atoms | labels | sha256 | unpacked |") + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        file, frames, atoms, labels, sha256, unpacked = (cell.strip() for cell in line.strip("|").split("|"))
        rows.append(Row(file, int(frames), int(atoms), frozenset(labels.split()), sha256, unpacked))
    return rows


TABLE = read_table()


def unpack(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def read_frames(path: Path) -> list[Atoms]:
    frames: list[Atoms] = ase.io.read(io.StringIO(unpack(path).decode()), ":", format="extxyz")
    return frames


def test_every_data_file_is_in_the_table() -> None:
    on_disk = {str(p.relative_to(DATA).as_posix()) for p in DATA.rglob("*xyz*") if p.is_file()}
    assert on_disk == {row.file for row in TABLE}
    assert len(TABLE) == 8


def test_published_snap_is_what_the_text_says() -> None:
    text = (DATA / "README.md").read_text(encoding="utf-8")
    for kind in ("snapcoeff", "snapparam"):
        content = (DATA / "mlearn" / f"Si_published.{kind}").read_bytes()
        assert hashlib.sha256(content).hexdigest() in text


def test_no_python_in_data_and_each_set_has_its_licence() -> None:
    assert not list(DATA.rglob("*.py"))
    for folder in {Path(row.file).parent for row in TABLE}:
        assert "Copyright (c)" in (DATA / folder / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.file)
def test_file_is_what_the_table_says(row: Row) -> None:
    path = DATA / row.file
    assert hashlib.sha256(path.read_bytes()).hexdigest() == row.sha256
    assert hashlib.sha256(unpack(path)).hexdigest() == row.unpacked
    frames = read_frames(path)
    assert len(frames) == row.frames
    assert sum(len(atoms) for atoms in frames) == row.atoms
    shapes = {"energy": (), "stress": (6,)}
    for atoms in frames:
        assert set(atoms.calc.results) == row.labels
        for label, value in atoms.calc.results.items():
            assert np.shape(value) == shapes.get(label, (len(atoms), 3))
            assert np.isfinite(value).all()
        assert np.isfinite(atoms.positions).all()
        assert np.isfinite(atoms.cell.array).all()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.file)
def test_structures_are_plausible(row: Row) -> None:
    """Right molecule or element, right periodicity, energies of the size the units promise."""
    folder, name = row.file.split("/")
    for atoms in read_frames(DATA / row.file):
        assert atoms.pbc.all() if folder == "mlearn" else not atoms.pbc.any()
        energy = atoms.calc.results["energy"] / len(atoms)
        if name.startswith("isolated"):
            assert len(atoms) == 1
        elif folder == "mlearn":
            assert set(atoms.symbols) == {"Si"}
            assert -5.5 < energy < -4.0  # eV/atom; cohesion plus VASP's own reference
        else:
            assert atoms.symbols.formula == "C5H8O2"
            assert abs(15 * energy + 9391) < 10
        if "forces" in row.labels:
            assert np.abs(atoms.calc.results["forces"]).max() < 30  # eV/Å
        if "stress" in row.labels:
            assert np.abs(atoms.calc.results["stress"]).max() < 0.3  # eV/Å^3


def test_net_force_vanishes() -> None:
    """Forces of an isolated molecule add up to zero: rows and columns are in their places."""
    for atoms in read_frames(DATA / "acac/train_300K.xyz.xz"):
        assert np.abs(atoms.calc.results["forces"].sum(axis=0)).max() < 0.02


def test_silicon_stress_follows_from_the_raw_stress() -> None:
    """kbar with VASP's sign -> eV/Å^3 with ASE's sign, in the order of components of each group."""
    kbar = 1602.1766208  # kbar per eV/Å^3
    for atoms in read_frames(DATA / "mlearn/Si_test.extxyz.xz"):
        xx, yy, zz, *off = atoms.info["raw_stress_kbar"]
        xy, yz, zx = off if atoms.info["group"] == "Elastic" else (off[0], off[2], off[1])
        np.testing.assert_allclose(
            atoms.calc.results["stress"], -np.array([xx, yy, zz, yz, zx, xy]) / kbar, atol=1e-9
        )
