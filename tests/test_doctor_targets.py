"""The doctor on dipoles, polarizabilities and other targets: it names every fault with its frames, and no other."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write
from scipy.spatial.transform import Rotation

from train.data.dataset import Found, Frame
from train.data.keys import Keys
from train.doctor.cli import main
from train.doctor.inspection import inspect
from train.doctor.targets import odd_targets, outliers
from train.prepared.cli import main as prepare
from train.target import Target, resolved

N = 60
CHARGES = {"O": -0.6, "H": 0.3, "C": 0.0, "N": -0.75}  # e
VOLUMES = {"H": 0.4, "C": 1.3, "N": 1.0, "O": 0.6}  # Å^3
TARGETS = resolved(
    {
        "dipole": Target(),
        "polarizability": Target(),
        "q": Target(irreps="0e", per="atom"),
        "gap": Target(irreps="0e"),
    }
)


def made() -> list[Frame]:
    """Molecules of two kinds in all directions, with the dipole of charges that change a little, and their sizes."""
    rng, frames = np.random.default_rng(0), []
    for k in range(N):
        atoms = molecule(("H2O", "NH3")[k % 2])
        atoms.rattle(0.08, rng=rng)
        atoms.positions = atoms.positions @ Rotation.random(random_state=rng).as_matrix().T + 3
        q = np.array([CHARGES[s] for s in atoms.symbols]) * (1 + 0.05 * rng.normal(size=len(atoms)))
        q -= q.mean()
        size = sum(VOLUMES[s] for s in atoms.symbols)
        a = rng.normal(scale=0.05, size=(3, 3))
        given = {
            "dipole": (q @ atoms.positions)[None],
            "polarizability": size * (np.eye(3) + a + a.T).reshape(1, 9),
            "q": q[:, None],
            "gap": np.array([[7.0 + rng.normal(scale=0.1)]]),
        }
        frames.append(Frame(atoms, -5.0, None, None, "made.xyz", k, targets=given))
    return frames


def with_(frames: list[Frame], name: str, change: Callable[[int, Any], Any]) -> list[Frame]:
    return [replace(f, targets={**f.targets, name: change(k, f.targets[name])}) for k, f in enumerate(frames)]


def said(frames: list[Frame]) -> list[tuple[str, list[int]]]:
    odd = [(f.text, [frame.index for frame in f.frames]) for f in odd_targets(frames, TARGETS)]
    return odd + [(text, [frame.index]) for _, text, frame in outliers(frames, TARGETS)]


def test_clean_targets_are_clean() -> None:
    assert said(made()) == []
    assert said(made()[:3]) == []  # too few to judge


every, third = list(range(N)), [3, 7]


def turned(k: int, x: Any) -> Any:
    return x @ Rotation.random(random_state=k).as_matrix()


@pytest.mark.parametrize(
    ("name", "change", "words", "rows"),
    [
        ("dipole", lambda k, x: x / 0.2082, "charges of H \\+3.*is targets.dipole.unit right", every),
        ("dipole", lambda k, x: -x, "O is positive .* reversed", every),
        ("dipole", lambda k, x: -x if k in third else x, "points against those of similar .*frames 3, 7", third),
        ("dipole", lambda k, x: 0 * x if k in third else x, "dipole is exactly zero, .*frames 3, 7", third),
        ("dipole", lambda _, x: 0 * x, "dipole is exactly zero in all 60 frames, though .*nothing to learn", every),
        ("q", lambda _, x: 0 * x, "q is exactly zero in all 60 frames", every),
        ("dipole", turned, "not their directions", every),
        ("dipole", lambda k, x: 40 * x if k == 3 else x, "frame 3: dipole, length: .*median", [3]),
        ("polarizability", lambda k, x: x / 0.1482, "are 6.* times those of their atoms", every),
        ("polarizability", lambda k, x: x / 14.4, "are 0.07.* times those of their atoms", every),
        ("polarizability", lambda k, x: -x if k in third else x, "negative in a direction.*frames 3, 7", third),
        ("polarizability", lambda k, x: 9 * x if k == 7 else x, "frame 7: polarizability, beyond its elements", [7]),
        ("q", lambda k, x: x + 9 * (k == 7), "frame 7: q, beyond its elements", [7]),
        ("gap", lambda k, x: x + 30 * (k == 3), "frame 3: gap, beyond its elements", [3]),
    ],
)  # fmt: skip
def test_every_fault_is_named(
    name: str, change: Callable[[int, Any], Any], words: str, rows: list[int]
) -> None:
    found = said(with_(made(), name, change))
    assert any(re.search(words, text) and at == rows for text, at in found), found


@pytest.mark.parametrize(("factor", "said_so"), [(1.0, False), (6.0, False), (0.07, True)])
def test_crystals_are_at_least_as_polarizable_as_their_atoms(factor: float, said_so: bool) -> None:
    frames = [
        replace(f, atoms=Atoms(f.atoms, cell=[3, 3, 3], pbc=True))
        for f in with_(made(), "polarizability", lambda _, x: factor * x)
    ]
    assert (
        any("and the other cells: their polarizabilities are 0.07" in text for text, _ in said(frames))
        == said_so
    )


def test_a_dipole_that_vanishes_by_symmetry_is_no_fault() -> None:
    frames = [
        Frame(molecule("CO2"), -5.0, None, None, "made.xyz", N + k,
              targets={**made()[0].targets, "dipole": np.zeros((1, 3)), "q": np.zeros((3, 1))})
        for k in range(2)
    ]  # fmt: skip
    assert not [text for text, _ in said([*made(), *frames]) if "exactly zero" in text]


def test_equal_structures_with_other_targets_contradict_each_other() -> None:
    frames = made()
    again = replace(frames[4], index=N)
    other = replace(again, targets={**again.targets, "gap": again.targets["gap"] + 0.5})
    found = Found("energy", None, None, keys=Keys(targets=TARGETS), targets=dict.fromkeys(TARGETS, "x"))
    for last, check in ((again, "duplicates"), (other, "contradictions")):
        report = inspect([*frames, last], found)
        assert [f.check for f in report.findings if f.check in ("duplicates", "contradictions")] == [check]


# --- the command --------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = []
    for f in made():
        atoms = Atoms(
            f.atoms, info={"energy": -5.0, "mu": f.targets["dipole"][0] / 0.208194, "config_type": "a"}
        )
        atoms.info["config_type"] = ("a", "b")[f.index % 2]
        if f.index == 5:
            del atoms.info["mu"]
        rows.append(atoms)
    write(tmp_path / "w.xyz", rows)
    return tmp_path


def checks(path: str = "d.json") -> list[tuple[str, str]]:
    return [(f["check"], f["text"]) for f in json.loads(Path(path).read_text())["findings"]]


def test_units_and_keys_of_targets_are_told_to_the_doctor(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["w.xyz", "--json", "d.json", "--html", "d.html", "--targets", "dipole"]
    assert main(line) == 1
    assert any(check == "targets" and "unit right" in text for check, text in checks())
    assert main([*line, "--set", "targets.dipole.unit=Debye"]) == 1
    assert not any(check == "targets" for check, _ in checks())
    (gap,) = [text for check, text in checks() if check == "missing labels"]
    assert "frame 5: no dipole" in gap
    assert json.loads(Path("d.json").read_text())["sets"]["train"]["coverage"]["b"]["dipole"] == N // 2 - 1
    assert "under 'mu', taken as Debye" in capsys.readouterr().out
    assert re.search("<th[^>]*>dipole</th>", Path("d.html").read_text())
    Path("s.toml").write_text("[targets.moment]\nkey = 'mu'\nirreps = '1o'\n")
    assert main([*line[:5], "--config", "s.toml"]) == 1
    assert "under 'mu', taken as given, without a unit, 1o of each structure" in capsys.readouterr().out
    assert main([*line, "--set", "targets.dipole.irreps=2e"]) == 2
    assert any("dipole has shape (3,)" in text for _, text in checks())
    assert main([*line, "--set", "data.energy_key=x"]) == 2
    assert "only targets can be described here" in capsys.readouterr().err


def test_prepared_sets_are_examined_with_their_targets(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(["w.xyz", "--output", "set.h5", "--targets", "dipole"]) == 0  # in a wrong unit
    assert main(["set.h5", "--json", "d.json", "--targets", "dipole"]) == 1
    assert any(check == "targets" and "unit right" in text for check, text in checks())
    assert main(["set.h5", "--html", "d.html"]) < 2
    assert "dipole: in 59 of 60 frames, not used; --targets dipole uses it" in Path("d.html").read_text()
