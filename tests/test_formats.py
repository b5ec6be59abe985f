"""Files of other programs, each made small here: the same frames in every format give the same labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write

from train.data.dataset import Frame, read
from train.data.files import expand

STRESS = np.array([[0.010, 0.001, 0.002], [0.001, 0.020, 0.003], [0.002, 0.003, 0.030]])


def crystals() -> list[Atoms]:
    """Two frames of a distorted crystal, with made-up labels; the same atoms in the order that VASP keeps."""
    rng = np.random.default_rng(3)
    frames = []
    for k in range(2):
        atoms = bulk("NaCl", "rocksalt", a=5.6) * (1, 1, 2)
        atoms = atoms[np.argsort(-atoms.numbers, kind="stable")]
        atoms.set_cell(atoms.cell.array * (1 + 0.01 * k), scale_atoms=True)
        atoms.positions += rng.normal(scale=0.02, size=(4, 3))
        atoms.calc = SinglePointCalculator(
            atoms,
            energy=-27.5 - 0.25 * k,
            forces=rng.normal(size=(4, 3)),
            stress=STRESS[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] * (1 + k),
        )
        frames.append(atoms)
    return frames


def rows(values: np.ndarray) -> str:
    return "\n".join(" ".join(f"{v: .10f}" for v in row) for row in np.atleast_2d(values)) + "\n"


def outcar(frames: list[Atoms]) -> str:
    """The lines of an OUTCAR that hold structure and labels."""
    text = " POTCAR:    PAW_PBE Cl 06Sep2000\n POTCAR:    PAW_PBE Na 08Apr2002\n" * 2
    text += "   ISPIN  =      1    spin polarized calculation?\n   ions per type =               2   2\n"
    text += (
        "   k-points           NKPTS =      1   k-points in BZ     NKDIM =      1   bands    NBANDS=      1\n"
    )
    text += " k-points in reciprocal lattice and weights: Gamma\n  0.0 0.0 0.0 1.0\n"
    for k, atoms in enumerate(frames, start=1):
        energy, kbar = atoms.get_potential_energy(), -atoms.get_stress(voigt=False) / (0.1 * units.GPa)
        xx, yy, zz, xy, yz, zx = kbar[[0, 1, 2, 0, 1, 2], [0, 1, 2, 1, 2, 0]]
        text += f"----- Iteration   {k}(   1)  -----\n"
        text += f"  in kB  {xx:.8f} {yy:.8f} {zz:.8f} {xy:.8f} {yz:.8f} {zx:.8f}\n"
        text += "      direct lattice vectors                 reciprocal lattice vectors\n"
        text += rows(np.hstack([atoms.cell.array, atoms.cell.reciprocal()]))
        text += " POSITION                                       TOTAL-FORCE (eV/Angst)\n ----\n"
        text += rows(np.hstack([atoms.positions, atoms.get_forces()])) + " ----\n"
        text += "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n  ----\n"
        text += f"  free  energy   TOTEN  = {energy - 0.5:.8f} eV\n\n"
        text += f"  energy  without entropy= {energy - 0.2:.8f}  energy(sigma->0) = {energy:.8f}\n"
    return text


def varray(name: str, values: np.ndarray) -> str:
    return f'<varray name="{name}">' + "".join(f"<v>{rows(v).strip()}</v>" for v in values) + "</varray>"


def vasprun(frames: list[Atoms]) -> str:
    """The elements of a vasprun.xml that hold structure and labels."""

    def structure(atoms: Atoms, name: str = "") -> str:
        inside = f"<crystal>{varray('basis', atoms.cell.array)}</crystal>"
        return f"<structure{name}>{inside}{varray('positions', atoms.get_scaled_positions(wrap=False))}</structure>"

    atoms = "".join(f"<rc><c>{s}</c><c>1</c></rc>" for s in frames[0].symbols)
    text = f'<modeling><atominfo><array name="atoms"><set>{atoms}</set></array></atominfo>'
    text += f"<kpoints>{varray('kpointlist', np.zeros((1, 3)))}{varray('weights', np.ones((1, 1)))}</kpoints>"
    text += structure(frames[0], ' name="initialpos"')
    for frame in frames:
        e = frame.get_potential_energy()
        energy = f'<energy><i name="e_fr_energy">{e - 0.5:.8f}</i><i name="e_0_energy">{e:.8f}</i></energy>'
        kbar = -frame.get_stress(voigt=False) / (0.1 * units.GPa)
        labels = varray("forces", frame.get_forces()) + varray("stress", kbar)
        text += f"<calculation><scstep>{energy}</scstep>{structure(frame)}{labels}{energy}</calculation>"
    return text + "</modeling>"


def store(name: str, folder: Path) -> Path:
    path = folder / name
    if name == "OUTCAR":
        path.write_text(outcar(crystals()))
    elif name.endswith(".xml"):
        path.write_text(vasprun(crystals()))
    else:
        write(path, crystals())
    return path


def assert_same(one: list[Frame], two: list[Frame]) -> None:
    assert len(one) == len(two) == 2
    for a, b in zip(one, two, strict=True):
        assert list(a.atoms.symbols) == list(b.atoms.symbols)
        assert a.energy == pytest.approx(b.energy, abs=1e-6)
        np.testing.assert_allclose(a.atoms.positions, b.atoms.positions, atol=1e-6)
        np.testing.assert_allclose(a.atoms.cell.array, b.atoms.cell.array, atol=1e-6)
        np.testing.assert_allclose(a.forces, b.forces, atol=1e-6)  # type: ignore[arg-type]
        np.testing.assert_allclose(a.stress, b.stress, atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a.db", "a.json", "a.traj", "OUTCAR", "vasprun.xml"])
def test_formats_of_ase_agree_with_extxyz(tmp_path: Path, name: str) -> None:
    expected, _ = read(store("a.xyz", tmp_path))
    np.testing.assert_allclose(expected[1].stress, 2 * STRESS)  # type: ignore[arg-type]
    frames, found = read(store(name, tmp_path))
    assert_same(frames, expected)
    assert (found.energy, found.forces, found.stress) == ("calculator",) * 3
    assert found.units == "eV, Ang: assumed, as in all of ASE"


def test_key_value_pairs_of_a_database_are_info(tmp_path: Path) -> None:
    with connect(tmp_path / "a.db") as database:
        for k, atoms in enumerate(crystals()):
            database.write(atoms, config_type=f"type{k}", config_weight=0.5, run=k)
    frames, _ = read(tmp_path / "a.db")
    assert [f.config_type for f in frames] == ["type0", "type1"]
    assert [f.atoms.info["run"] for f in frames] == [0, 1]
    assert frames[0].atoms.info["config_weight"] == 0.5


def test_damaged_database(tmp_path: Path) -> None:
    path = store("a.db", tmp_path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"a\.db: cannot be read as db .*damaged"):
        read(path)


def test_names_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.xyz", "b/10.xyz", "b/c/1.xyz", "a.xyz", "a[1].xyz"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("b/folder.xyz").mkdir()
    assert expand(["b/*.xyz", "a.xyz"]) == ["b/10.xyz", "b/2.xyz", "a.xyz"]
    assert expand(["**/1.xyz", "a[1].xyz"]) == ["b/c/1.xyz", "a[1].xyz"]  # a name that looks like a pattern
    assert expand(["absent.xyz"]) == ["absent.xyz"]  # for the reader to refuse
    with pytest.raises(ValueError, match=r"d/\*\.xyz: no file matches"):
        expand(["a.xyz", "d/*.xyz"])
    for twice in (["a.xyz", "a.xyz"], ["a.xyz", "b/../a.xyz"], ["b/*.xyz", "b/2.xyz"], ["b/*.xyz", "b/*"]):
        with pytest.raises(ValueError, match="named twice, by"):
            expand(twice)
    Path("link.xyz").symlink_to("a.xyz")
    with pytest.raises(ValueError, match=r"link\.xyz: named twice, by 'a\.xyz' and by 'link\.xyz'"):
        expand(["a.xyz", "link.xyz"])
