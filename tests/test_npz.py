"""npz files of sGDML and rMD17: the same frames as in extxyz, and no unit that nobody said."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from train.data.dataset import read
from train.data.keys import ENERGY_UNITS, Keys
from train.doctor.inspection import inspect

KCAL = units.kcal / units.mol
GIVEN = Keys(energy_unit="kcal/mol", length_unit="Ang")


def made(n: int = 5) -> tuple[Atoms, np.ndarray, np.ndarray, np.ndarray]:
    """Ethanol: structure, positions (Å), energies (kcal/mol), forces (kcal/mol/Å)."""
    rng = np.random.default_rng(4)
    atoms = molecule("CH3CH2OH")
    positions = atoms.positions + rng.normal(scale=0.03, size=(n, 9, 3))
    return atoms, positions, -97000 + rng.normal(size=n), rng.normal(scale=20, size=(n, 9, 3))


def arrays(style: str, n: int = 5) -> dict[str, Any]:
    atoms, x, e, f = made(n)
    if style == "rmd17":
        return {"nuclear_charges": atoms.numbers, "coords": x, "energies": e, "forces": f}
    extra = {"type": "d", "name": "ethanol", "theory": "unknown", "md5": "0", "F_max": f.max()}
    return {"z": atoms.numbers.astype(np.uint8), "R": x, "E": e[:, None], "F": f, **extra}


def save(path: Path, **content: Any) -> Path:
    np.savez_compressed(path, **content)
    return path


@pytest.mark.parametrize("style", ["rmd17", "sgdml"])
def test_the_same_data_as_extxyz(tmp_path: Path, style: str) -> None:
    atoms, x, e, f = made()
    frames = []
    for k in range(5):
        frame = Atoms(atoms.numbers, x[k])
        frame.calc = SinglePointCalculator(frame, energy=e[k] * KCAL, forces=f[k] * KCAL)
        frames.append(frame)
    write(tmp_path / "a.xyz", frames)
    expected, _ = read(tmp_path / "a.xyz")
    got, found = read(save(tmp_path / "a.npz", **arrays(style)), GIVEN)
    assert [g.index for g in got] == [0, 1, 2, 3, 4]
    for a, b in zip(got, expected, strict=True):
        assert list(a.atoms.symbols) == list(b.atoms.symbols)
        assert not a.atoms.pbc.any()
        assert a.stress is None
        assert a.energy == pytest.approx(b.energy, abs=1e-7)
        np.testing.assert_allclose(a.atoms.positions, b.atoms.positions, atol=1e-7)
        np.testing.assert_allclose(a.forces, b.forces, atol=1e-7)  # type: ignore[arg-type]
    report = inspect(got, found).text
    assert "5/5 under 'forces', taken as kcal/mol/Ang" in report
    assert "kcal/mol, Ang: as given" in report


@pytest.mark.parametrize("style", ["rmd17", "sgdml"])
@pytest.mark.parametrize(
    ("keys", "missing"),
    [
        (Keys(), "--energy-unit"),
        (Keys(energy_unit="eV"), "--length-unit"),
        (Keys(length_unit="Ang"), "--energy-unit"),
    ],
)
def test_a_unit_that_nobody_said_is_refused(tmp_path: Path, style: str, keys: Keys, missing: str) -> None:
    path = save(tmp_path / "a.npz", **arrays(style))
    with pytest.raises(
        ValueError, match=rf"a\.npz: the file does not say its unit of .* give it with {missing}"
    ) as error:
        read(path, keys)
    assert ("--energy-unit kcal/mol --length-unit Ang" in str(error.value)) == (style == "rmd17")


@pytest.mark.parametrize(
    ("e_unit", "r_unit", "energy", "length"),
    [
        ("kcal/mol", "Ang", KCAL, 1.0),
        ("kJ/mol", "Angstrom", units.kJ / units.mol, 1.0),
        ("eV", "bohr", 1.0, units.Bohr),
        ("Hartree", "Bohr", units.Hartree, units.Bohr),
        ("au", "au", units.Hartree, units.Bohr),
    ],
)
def test_units_that_the_file_says(
    tmp_path: Path, e_unit: str, r_unit: str, energy: float, length: float
) -> None:
    content = arrays("sgdml")
    frames, found = read(save(tmp_path / "a.npz", **content, e_unit=e_unit, r_unit=r_unit))
    assert frames[2].energy == pytest.approx(content["E"][2, 0] * energy)
    np.testing.assert_allclose(frames[2].atoms.positions, content["R"][2] * length)
    np.testing.assert_allclose(frames[2].forces, content["F"][2] * energy / length)  # type: ignore[arg-type]
    assert found.units.endswith("as the file says")
    report = inspect(frames, found).text
    assert re.search(r"units +\S+, \S+: as the file says", report)


def test_the_file_knows_better_and_the_report_says_so(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", **arrays("sgdml"), e_unit="kcal/mol", r_unit="unknown")
    frames, found = read(path, Keys(energy_unit="eV", length_unit="Ang"))
    assert frames[0].energy == pytest.approx(made()[2][0] * ENERGY_UNITS["kcal/mol"])
    assert found.units == (
        "kcal/mol: as the file says (the given eV is for files that say nothing); Ang: as given"
    )
    with pytest.raises(ValueError, match="does not say its unit of length"):
        read(path)


def test_other_arrays_of_each_frame_come_along(tmp_path: Path) -> None:
    content = {**arrays("rmd17"), "old_energies": np.arange(5.0), "old_forces": np.ones((5, 9, 3))}
    content["config_type"] = np.array(["a", "a", "b", "b", "b"])
    path = save(tmp_path / "a.npz", **content)
    frames, _ = read(path, GIVEN)
    assert [f.config_type for f in frames] == ["a", "a", "b", "b", "b"]
    old, found = read(path, Keys("old_energies", "old_forces", None, "eV", "Ang"))
    assert [f.energy for f in old] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert found.forces == "old_forces"
    np.testing.assert_array_equal(old[3].forces, np.ones((9, 3)))


def test_a_lattice_must_be_the_same_by_rows_and_columns(tmp_path: Path) -> None:
    frames, _ = read(save(tmp_path / "a.npz", **arrays("sgdml"), lattice=np.diag([8.0, 9, 10])), GIVEN)
    assert frames[0].atoms.pbc.all()
    np.testing.assert_array_equal(frames[0].atoms.cell.lengths(), [8, 9, 10])
    skewed = np.array([[8.0, 1, 0], [0, 8, 0], [0, 0, 8]])
    with pytest.raises(ValueError, match=r"a\.npz: lattice is .*symmetric.*convert"):
        read(save(tmp_path / "a.npz", **arrays("sgdml"), lattice=skewed), GIVEN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"R": None}, r"a\.npz: holds .*; expected z, R, E, F"),
        ({"z": np.ones((5, 9), dtype=int)}, r"'z' has shape \(5, 9\)"),
        ({"z": np.full(9, 6.5)}, r"'z' has shape \(9,\) and type float64"),
        ({"z": np.zeros(9, dtype=int)}, r"'z' has .*expected the atomic numbers"),
        ({"R": np.ones((5, 8, 3))}, r"'R' has shape \(5, 8, 3\); expected \(n_frames, 9, 3\)"),
        ({"E": np.ones(4)}, r"'E' has shape \(4,\).*as there are 5 frames"),
        ({"F": np.ones((5, 9))}, r"'F' has shape \(5, 9\).*\(5, 9, 3\) for forces"),
        ({"E": np.array([None] * 5)}, r"a\.npz: cannot be read .*array 'E': Object arrays"),
        ({"e_unit": "parsec"}, r"e_unit is 'parsec'; expected one of eV"),
        ({"E": None, "F": None}, r"neither energy nor forces found"),
    ],
)
def test_wrong_content(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    content = {k: v for k, v in {**arrays("sgdml"), **change}.items() if v is not None}
    with pytest.raises(ValueError, match=message):
        read(save(tmp_path / "a.npz", **content), GIVEN)


def test_damaged_files(tmp_path: Path) -> None:
    data = save(tmp_path / "a.npz", **arrays("sgdml", 50)).read_bytes()
    flipped = bytearray(data)
    flipped[3000:3010] = bytes(b ^ 0xFF for b in flipped[3000:3010])
    for content in (data[: len(data) // 2], b"not a zip file", bytes(flipped)):
        (tmp_path / "b.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"b\.npz: cannot be read as npz .*damaged"):
            read(tmp_path / "b.npz", GIVEN)
    np.save(tmp_path / "c.npy", np.ones(3))
    (tmp_path / "c.npz").write_bytes((tmp_path / "c.npy").read_bytes())
    with pytest.raises(ValueError, match=r"c\.npz: cannot be read as npz"):
        read(tmp_path / "c.npz", GIVEN)
