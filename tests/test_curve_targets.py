"""potential-curve with targets beside the energy, and with energies alone: what is fitted, measured and refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from potential import EquivCalculator, load
from train.curve.cli import main
from train.curve.frames import errors_of, sums, units_of
from train.data.dataset import read
from train.data.hdf5 import write_hdf5
from train.data.keys import Keys
from train.target import Target, resolved

CHARGES = {"O": -0.8, "H": 0.4}
SMALL = ["--sizes", "8,16", "--draws", "2", "--seeds", "1", "--protocol", "equal-epochs", "--budget", "1"]
TWO = ["--models", "painn:channels=8:n_layers=1,schnet:channels=8:n_layers=1"]
DIPOLE = ["pool.xyz", "--test", "test.xyz", "--targets", "dipole"]


def molecules(n: int, seed: int, energies: bool = False) -> list[Atoms]:
    """Water and hydrogen peroxide, with dipole (vector and length), tensor and charges, or with energies alone."""
    rng, frames = np.random.default_rng(seed), []
    for k in range(n):
        atoms = molecule("H2O" if k % 2 else "H2O2")
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        charges = np.array([CHARGES[s] for s in atoms.symbols])
        if energies:
            atoms.info["energy"] = float(10 * charges.sum() - len(atoms) + rng.normal(scale=0.1))
        else:
            dipole = charges @ (atoms.positions - atoms.positions.mean(0))
            atoms.info |= {"dipole": dipole, "length": float(np.linalg.norm(dipole))}
            atoms.info["polarizability"] = (np.eye(3) + np.outer(dipole, dipole)).reshape(-1)
            atoms.arrays["q"] = charges
        frames.append(atoms)
    return frames


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("pool.xyz", molecules(40, 0))
    write("test.xyz", molecules(6, 1))
    return tmp_path


def rows_of(study: str) -> list[dict[str, Any]]:
    return list(csv.DictReader(Path(study, "errors.csv").read_text(encoding="utf-8").splitlines()))


def test_dipoles_without_energies(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each fit's errors are those of its model; nothing is said of energies and forces, which nobody gave."""
    Path("known.csv").write_text(
        "label,test,quantity,measure,frames,error,source\nsomebody,test,dipole,mae,100,1.5,a book\n"
    )
    line = [*DIPOLE, *TWO, *SMALL, "--measure", "mae", "--keep"]
    assert main([*line, "--published", "known.csv", "--output", "s"]) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert "test, dipole MAE (10⁻³ e·Å)" in told
    rows = rows_of("s")
    assert {(row["quantity"], row["unit"]) for row in rows} == {("dipole", "10⁻³ e·Å")}
    assert len(rows) == 8
    for row in (rows[0], rows[-1]):
        (path,) = Path("s/fits").glob(f"{row['model'].split(':')[0]}*n{row['size']}-d{row['draw']}-s0")
        calc, errors = EquivCalculator(load(path / "model.safetensors")), []
        for atoms in molecules(6, 1):
            errors.append(calc.get_dipole_moment(atoms) - atoms.info["dipole"])
        assert float(row["mae"]) == pytest.approx(1e3 * np.abs(errors).mean(), rel=1e-4)
    found = json.loads(Path("s/analysis.json").read_text())
    assert list(found["tests"]["test"]) == ["dipole"]
    assert [one["label"] for one in found["published"]] == ["somebody"]
    assert "dipole (10⁻³ e·Å)" in Path("s/report.html").read_text()
    assert main([*line, "--output", "s"]) == 0  # nothing is fitted again
    assert "of 8: " not in capsys.readouterr().out


def test_lengths_and_charges_are_named_as_what_they_are(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [*DIPOLE, "--set", "targets.dipole.irreps=magnitude"]
    line += [
        "--set",
        "targets.dipole.key=length",
        "--set",
        "targets.q.irreps=0e",
        "--set",
        "targets.q.per=atom",
    ]
    line += ["--set", "targets.q.unit=e", "--match", "parameters", *TWO, *SMALL, "--output", "s"]
    assert main(line) == 0, capsys.readouterr().err
    units = {row["quantity"]: row["unit"] for row in rows_of("s")}
    assert units == {"dipole magnitude": "10⁻³ e·Å", "q": "10⁻³ e"}
    study = json.loads(Path("s/study.json").read_text())
    assert study["fixed"]["settings"]["targets"]["dipole"]["irreps"] == "magnitude"
    assert main([*line, "--set", "targets.q.weight=2.0"]) == 1
    assert "other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "target", "words"),
    [
        ("ace", "dipole", "ace: cannot learn dipole"),
        ("painn,baseline,snap", "dipole", "baseline, snap: cannot learn dipole"),
        ("painn", "polarizability", "painn: target 'polarizability' is made of"),
        ("schnet", "polarizability", "schnet: target 'polarizability' is made of"),
        ("painn", "spin", "nothing is known of spin"),
    ],
)
def test_who_cannot_learn_a_target_is_refused_by_name(
    folder: Path, capsys: pytest.CaptureFixture[str], model: str, target: str, words: str
) -> None:
    line = ["pool.xyz", "--test", "test.xyz", "--targets", target, "--models", model, *SMALL]
    assert main([*line, "--output", "s"]) == 1
    assert words in capsys.readouterr().err


def test_energies_alone_per_atom_or_structure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The baseline's error is that of sums of E0, networks learn without forces, and --reach goes by energies."""
    write("pool.xyz", molecules(40, 0, energies=True))
    write("test.xyz", molecules(6, 1, energies=True))
    line = [
        "pool.xyz",
        "--test",
        "test.xyz",
        "--models",
        "baseline,ace:functions=10,schnet:channels=8",
        *SMALL,
    ]
    line += ["--measure", "mae", "--output", "s"]
    assert main([*line, "--reach", "1.0"]) == 0, capsys.readouterr().err
    found = json.loads(Path("s/analysis.json").read_text())
    assert list(found["tests"]["test"]) == ["energy"]
    assert [one["error"] for one in found["tests"]["test"]["energy"]["targets"]] == [1.0]
    assert main(["--report", "--output", "s", "--measure", "mae", "--energy-per", "structure"]) == 0
    assert "test, energy MAE (meV)" in capsys.readouterr().out
    whole = json.loads(Path("s/analysis.json").read_text())["tests"]["test"]["energy"]["models"]["baseline"]
    with np.load(next(Path("s/frames").glob("baseline-n8-d0*"))) as file:
        one = file["test/energy/1"] * [len(a) for a in molecules(6, 1)]
    with np.load(next(Path("s/frames").glob("baseline-n8-d1*"))) as file:
        other = file["test/energy/1"] * [len(a) for a in molecules(6, 1)]
    assert whole["errors"][0][0] == pytest.approx(np.sqrt(one.mean() * other.mean()))


def test_errors_of_targets_frame_by_frame() -> None:
    nan, nothing = np.full((2, 2), np.nan), np.full((2, 3, 3, 2), np.nan)
    of_frames = np.array([[[1.0, 1.002], [np.nan, 5.0]], [[0.0, 0.0], [0.0, -0.004]]])
    of_atoms = np.array([[[0.0, 0.001]], [[0.0, 0.002]], [[0.0, 0.003]]])
    found = sums(np.array([1, 2]), nan, np.full((3, 3, 2), np.nan), nothing, {"a": of_frames, "b": of_atoms})
    assert found["a/1"].tolist() == pytest.approx([2, 4])
    assert found["a/n"].tolist() == [1, 2]
    assert found["b/2"].tolist() == pytest.approx([1, 13])
    assert errors_of(found)["a"]["mae"] == pytest.approx(2.0)
    of_frames[1, 0, 1] = np.inf
    with pytest.raises(ValueError, match="a of test frame 1 is predicted as"):
        sums(np.array([1, 2]), nan, np.full((3, 3, 2), np.nan), nothing, {"a": of_frames})
    units = units_of(resolved({"dipole": Target(unit="Debye"), "gap": Target(irreps="0e")}), "structure")
    assert (units["energy"], units["dipole"], units["gap"]) == ("meV", "10⁻³ e·Å", "10⁻³")


def test_hdf5_keeps_targets_bit_for_bit(folder: Path) -> None:
    """With their units, absent ones, tensors and values of atoms; a unit that is asked for is that of other files."""
    given = {"dipole": Target(unit="Debye"), "polarizability": Target(), "q": Target(irreps="0e", per="atom")}
    rows = molecules(5, 2)
    del rows[1].info["dipole"], rows[3].arrays["q"]
    write("some.xyz", rows)
    keys = Keys(targets=resolved(given))
    frames, _ = read("some.xyz", keys)
    write_hdf5("some.h5", frames, keys.targets)
    again, found = read("some.h5", keys)
    assert found.targets == {"dipole": "dipole", "polarizability": "polarizability", "q": "q"}
    for one, other in zip(frames, again, strict=True):
        for name in given:
            np.testing.assert_array_equal(one.targets[name], other.targets[name])
        assert (one.atoms.positions == other.atoms.positions).all()
        assert other.energy is None
    plain, _ = read("some.xyz", Keys(targets=resolved({"dipole": Target(unit="Debye")})))
    with pytest.raises(ValueError, match="no place for dipole"):
        write_hdf5("other.h5", plain)
    data = bytearray(Path("some.h5").read_bytes())
    data[-200] ^= 1
    Path("some.h5").write_bytes(data)
    with pytest.raises(ValueError, match=r"some\.h5"):
        read("some.h5", keys)
