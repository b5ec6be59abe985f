"""Data files, whole and broken: each fault is an error that names file, frame and remedy."""

import bz2
import gzip
import lzma
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from train.data.dataset import Found, read


def waters(n):
    """extxyz text of n water molecules, one entry per frame."""
    frames = []
    for k in range(n):
        atoms = molecule("H2O")
        rows = [
            f"{s} " + " ".join(f"{v:.8f}" for v in (*x, 0.125, -0.25, 0.5))
            for s, x in zip(atoms.symbols, atoms.positions, strict=True)
        ]
        head = f'Properties=species:S:1:pos:R:3:forces:R:3 energy={-2080.0 - 0.01 * k} pbc="F F F"'
        frames.append("\n".join(["3", head, *rows]) + "\n")
    return frames


def save(path: Path, frames) -> Path:
    path.write_text("".join(frames))
    return path


def labelled(atoms, **results):
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


@pytest.mark.parametrize(
    ("suffix", "pack"), [(".xz", lzma.compress), (".gz", gzip.compress), (".bz2", bz2.compress)]
)
def test_compressed_files(tmp_path, suffix, pack):
    plain = save(tmp_path / "w.xyz", waters(3))
    packed = tmp_path / f"v.xyz{suffix}"
    packed.write_bytes(pack(plain.read_bytes()))
    a, b = read(plain)[0], read(packed)[0]
    assert [f.energy for f in a] == [f.energy for f in b]
    cut = tmp_path / f"cut.xyz{suffix}"
    cut.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"cut\.xyz.*cannot be decompressed.*copy it again"):
        read(cut)
    wrong = tmp_path / "unnamed.xyz"
    wrong.write_bytes(packed.read_bytes())
    with pytest.raises(ValueError, match=rf"rename it to unnamed\.xyz\{suffix}"):
        read(wrong)


def test_trajectory_and_its_compressed_copy(tmp_path):
    atoms = labelled(bulk("Si"), energy=-10.8, forces=np.ones((2, 3)), stress=np.arange(6.0))
    write(tmp_path / "t.traj", [atoms, atoms])
    frames, found = read(tmp_path / "t.traj")
    assert found == Found("calculator", "calculator", "calculator")
    assert len(frames) == 2
    (tmp_path / "t.traj.gz").write_bytes(gzip.compress((tmp_path / "t.traj").read_bytes()))
    np.testing.assert_array_equal(read(tmp_path / "t.traj.gz")[0][0].stress, frames[0].stress)
    assert frames[0].stress[1, 2] == 3.0  # Voigt order of ASE: xx yy zz yz xz xy
    assert frames[0].stress[0, 1] == 5.0


def test_blank_lines_between_frames_lose_nothing(tmp_path):
    frames = waters(4)
    assert len(read(save(tmp_path / "w.xyz", [*frames[:2], "\n\n", *frames[2:], "\n"]))[0]) == 4


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_empty_file(tmp_path, content):
    with pytest.raises(ValueError, match=r"e\.xyz: the file is empty"):
        read(save(tmp_path / "e.xyz", [content]))


def test_missing_file_and_folder(tmp_path):
    save(tmp_path / "train.xyz", waters(1))
    with pytest.raises(ValueError, match=r"train\.extxyz: does not exist.*holds train\.xyz"):
        read(tmp_path / "train.extxyz")
    with pytest.raises(ValueError, match="is a folder"):
        read(tmp_path)


def test_truncated_in_an_atom_line_in_a_number_and_between_lines(tmp_path):
    text = "".join(waters(3))
    lines = text.splitlines(keepends=True)
    with pytest.raises(ValueError, match=r"t\.xyz, frame 2 \(line 11\): truncated, 2 atoms found .* says 3"):
        read(save(tmp_path / "t.xyz", lines[:-1]))
    with pytest.raises(ValueError, match=r"t\.xyz, frame 2, atom 2: 5 columns, .*announces 7"):
        read(save(tmp_path / "t.xyz", [" ".join(text.split(" ")[:-2])]))
    atoms = labelled(molecule("CH3CH2OH"), energy=-1.0, forces=np.full((9, 3), 0.25))
    write(tmp_path / "c.xyz", atoms)
    with pytest.raises(ValueError, match=r"c\.xyz, frame 0: the file ends inside a number"):
        read(save(tmp_path / "c.xyz", [(tmp_path / "c.xyz").read_text().rstrip()[:-3]]))


def test_wrong_atom_count(tmp_path):
    frames = waters(3)
    frames[1] = frames[1].replace("3\n", "2\n", 1)
    with pytest.raises(
        ValueError, match=r"frame 2 \(line 10\): expected the number of atoms, got 'H .*frame 1"
    ):
        read(save(tmp_path / "w.xyz", frames))


def test_wrong_extension(tmp_path):
    with pytest.raises(ValueError, match=r"w\.dat: cannot be read as .*looks like XYZ: rename it to w\.xyz"):
        read(save(tmp_path / "w.dat", waters(2)))
    with pytest.raises(ValueError, match=r"unknown extension '\.foo'.*rename it to w\.xyz"):
        read(save(tmp_path / "w.foo", waters(2)))
    with pytest.raises(ValueError, match=r"t\.csv.*(unknown extension|cannot be read)"):
        read(save(tmp_path / "t.csv", ["energy,forces\n1,2\n"]))
    with pytest.raises(
        ValueError, match=r"c\.xyz, frame 0 \(line 1\): expected the number of atoms, got 'energy"
    ):
        read(save(tmp_path / "c.xyz", ["energy,forces\n1,2\n"]))
    np.savez(tmp_path / "a.npz", R=np.ones(3))
    (tmp_path / "a.xyz").write_bytes((tmp_path / "a.npz").read_bytes())
    with pytest.raises(ValueError, match=r"a\.xyz: named as extended XYZ but holds binary data"):
        read(tmp_path / "a.xyz")
    with pytest.raises(ValueError, match=r"a\.npz"):
        read(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"w\.traj: cannot be read as"):
        read(save(tmp_path / "w.traj", waters(2)))


@pytest.mark.parametrize(("old", "new", "message"), [
    ("energy=-2080.01", "energy=********", r"frame 1: 'energy' is '\*+'; expected numbers"),
    ("energy=-2080.01", 'energy="1.0 2.0"', r"frame 1: energy 'energy' has shape \(2,\); expected one"),
    ("H ", "Hx ", "frame 0: not valid extended XYZ"),
    ("forces:R:3", "force:R:3:x:R:0", "frame 0"),
])  # fmt: skip
def test_damaged_values(tmp_path, old, new, message):
    with pytest.raises(ValueError, match=message):
        read(save(tmp_path / "w.xyz", ["".join(waters(3)).replace(old, new)]))


def test_forces_of_the_wrong_shape(tmp_path):
    text = "".join(waters(2)).replace("forces:R:3", "forces:R:2:x:R:1")
    with pytest.raises(ValueError, match=r"frame 0: forces 'forces' has shape \(3, 2\); expected \(3, 3\)"):
        read(save(tmp_path / "w.xyz", [text]))
