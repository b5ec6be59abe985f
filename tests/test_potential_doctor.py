"""potential-doctor: every fault injected into real data is named with its frames; sound data are not accused."""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from train.data.dataset import Found, Frame, Keys, read
from train.doctor.cli import main, parser
from train.doctor.examine import Examination, Examined, compare, examine, to_dict
from train.doctor.examine import _without_e0 as without_e0
from train.doctor.examine_page import page
from train.doctor.examine_text import text
from train.doctor.findings import NOTE, PROBLEM, WARNING, Finding
from train.doctor.inspection import inspect

DATA = Path(__file__).parents[1] / "data"
ACAC, SILICON = DATA / "acac/train_300K.xyz.xz", DATA / "mlearn/Si_train.extxyz.xz"
KCAL, HARTREE, BOHR, KBAR = 23.060548, 27.211386, 0.529177, 1602.1766
Frames = list[Frame]


@cache
def acac() -> Frames:
    """150 frames of a molecule at 300 K."""
    return read(ACAC)[0][:150]


@cache
def silicon() -> Frames:
    """Strained cells (elastic constants) and 32 frames of a simulation."""
    frames = read(SILICON)[0]
    groups = {
        "Elastic": frames,
        "AIMD-NVT": [f for f in frames if f.atoms.info.get("group") == "AIMD-NVT"][::3],
    }
    return [f for kind, rows in groups.items() for f in rows if f.atoms.info.get("group") == kind]


@cache
def dynamics() -> Frames:
    """Silicon from simulations only: no pair of frames differs by a strain alone."""
    frames = [f for f in read(SILICON)[0] if f.atoms.info.get("group") == "AIMD-NVT"]
    return [f for f in frames if len(f.atoms) == 64][:40]


def examined(frames: Frames, name: str = "train", keys: Keys | None = None) -> Examined:
    stress = "calculator" if any(f.stress is not None for f in frames) else None
    found = Found("calculator", "calculator", stress)
    return Examined(name, frames, [found], inspect(frames, found, keys), *without_e0(frames))


def scaled(frames: Frames, rows: range | list[int] | None = None, **factors: float) -> Frames:
    """Labels of some frames (default: all) times a factor."""
    chosen = set(range(len(frames)) if rows is None else rows)
    return [
        replace(f, **{label: factor * getattr(f, label) for label, factor in factors.items()})
        if k in chosen
        else f
        for k, f in enumerate(frames)
    ]


def changed(frames: Frames, row: int, **changes: object) -> Frames:
    return [replace(f, **changes) if k == row else f for k, f in enumerate(frames)]


def exchanged(frames: Frames, a: int, b: int) -> Frames:
    """The forces of two frames exchanged."""
    return changed(changed(frames, a, forces=frames[b].forces), b, forces=frames[a].forces)


def structured(frame: Frame, **changes: object) -> Frame:
    atoms = frame.atoms.copy()
    for name, value in changes.items():
        setattr(atoms, name, value)
    return replace(frame, atoms=atoms)


def shuffled(frames: Frames) -> Frames:
    order = np.random.default_rng(0).permutation(len(frames))
    return [replace(f, energy=frames[k].energy) for f, k in zip(frames, order, strict=True)]


def overlapping(frames: Frames, row: int) -> Frames:
    x = frames[row].atoms.positions.copy()
    x[3] = x[7] + [0.1, 0, 0]
    return [structured(f, positions=x) if k == row else f for k, f in enumerate(frames)]


def with_atoms(frames: Frames, energies: dict[str, float]) -> Frames:
    free = [Frame(Atoms(s), e, None, None, "atoms.xyz", k) for k, (s, e) in enumerate(energies.items())]
    return [*frames, *free]


def unlabelled(frames: Frames, label: str, rows: range) -> Frames:
    return [replace(f, **{label: None}) if k in rows else f for k, f in enumerate(frames)]


HALF = range(80, 150)
BAD_FORCES = np.full((15, 3), np.nan)
# Fault -> data with it, check, level, part of the sentence, and rows that must be listed.
FAULTS: dict[str, tuple[Callable[[], Frames], str, str, str, list[int]]] = {
    "energy missing in half": (
        lambda: unlabelled(acac(), "energy", HALF),
        "missing labels",
        PROBLEM,
        "no energy in this",
        [80, 149],
    ),
    "forces missing in half": (
        lambda: unlabelled(acac(), "forces", HALF),
        "missing labels",
        PROBLEM,
        "no forces in this",
        [80, 149],
    ),
    "NaN energy": (
        lambda: changed(acac(), 20, energy=np.nan),
        "not finite",
        PROBLEM,
        "energy not finite",
        [20],
    ),
    "NaN forces": (
        lambda: changed(acac(), 20, forces=BAD_FORCES),
        "not finite",
        PROBLEM,
        "forces not finite",
        [20],
    ),
    "energies in kcal/mol in half": (
        lambda: scaled(acac(), HALF, energy=KCAL),
        "mixed units",
        PROBLEM,
        "kcal/mol and eV",
        [80, 149],
    ),
    "everything in kcal/mol": (
        lambda: scaled(acac(), energy=KCAL, forces=KCAL),
        "energy unit",
        WARNING,
        "--energy-unit kcal/mol",
        [],
    ),
    "everything in kJ/mol": (
        lambda: scaled(acac(), energy=96.485, forces=96.485),
        "energy unit",
        WARNING,
        "--energy-unit kJ/mol",
        [],
    ),
    "everything in Hartree": (
        lambda: scaled(acac(), energy=1 / HARTREE, forces=BOHR / HARTREE),
        "energy unit",
        WARNING,
        "--energy-unit Ha",
        [],
    ),
    "energies in kcal/mol": (
        lambda: scaled(acac(), energy=KCAL),
        "energy and force units",
        WARNING,
        "energies in kcal/mol",
        [],
    ),
    "forces in kcal/mol/Å": (
        lambda: scaled(acac(), forces=KCAL),
        "energy and force units",
        WARNING,
        "forces in kcal/mol/Ang",
        [],
    ),
    "forces in Ha/Bohr": (
        lambda: scaled(acac(), forces=BOHR / HARTREE),
        "energy and force units",
        WARNING,
        "forces in Ha/Bohr",
        [],
    ),
    "forces in kcal/mol/Å in every fourth": (
        lambda: scaled(acac(), range(0, 150, 4), forces=KCAL),
        "mixed units",
        WARNING,
        "in two units?",
        [0, 148],
    ),
    "energy gradients for forces": (
        lambda: scaled(acac(), forces=-1.0),
        "force sign",
        WARNING,
        "energy gradients",
        [],
    ),
    "energy gradients in half": (
        lambda: scaled(acac(), HALF, forces=-1.0),
        "force sign",
        WARNING,
        "opposite way",
        [],
    ),
    "forces of zero": (
        lambda: scaled(acac(), HALF, forces=0.0),
        "labels of exactly zero",
        PROBLEM,
        "forces are exactly zero",
        [80, 149],
    ),
    "energies of zero": (
        lambda: scaled(acac(), [7], energy=0.0),
        "labels of exactly zero",
        PROBLEM,
        "energy is exactly 0",
        [7],
    ),
    "energies shuffled": (
        lambda: shuffled(acac()),
        "shuffled energies",
        WARNING,
        "do not follow the forces",
        [],
    ),
    "forces of two frames exchanged": (
        lambda: exchanged(acac(), 40, 90),
        "net torque",
        WARNING,
        "another frame",
        [40, 90],
    ),
    "one energy 1 eV off": (
        lambda: changed(acac(), 33, energy=acac()[33].energy + 1.0),
        "energy outlier",
        WARNING,
        "frame 33",
        [33],
    ),
    "one energy 50 eV off": (
        lambda: changed(acac(), 33, energy=acac()[33].energy + 50.0),
        "outliers",
        WARNING,
        "frame 33: energy",
        [33],
    ),
    "one set of forces twenty times too large": (
        lambda: scaled(acac(), [50], forces=20.0),
        "mixed units",
        WARNING,
        "frame 50",
        [50],
    ),
    "overlapping atoms": (lambda: overlapping(acac(), 12), "overlapping atoms", PROBLEM, "atoms 3 ", [12]),
    "a frame twice": (
        lambda: [*acac(), replace(acac()[5], index=150)],
        "duplicates",
        WARNING,
        "frame 150: the same",
        [150],
    ),
    "a frame twice with two energies": (
        lambda: [*acac(), replace(acac()[5], index=150, energy=-9400.0)],
        "contradictions",
        WARNING,
        "different",
        [150],
    ),
    "isolated atoms of another method": (
        lambda: with_atoms(acac(), {"H": -10.7, "C": -48.8, "O": -113.0}),
        "isolated atoms",
        WARNING,
        "another method",
        [150],
    ),
    "isolated atoms in Hartree": (
        lambda: with_atoms(acac(), {"H": -0.5, "C": -37.8, "O": -75.0}),
        "isolated atoms",
        WARNING,
        "another method",
        [152],
    ),
    "positions in Bohr": (
        lambda: [structured(f, positions=f.atoms.positions / BOHR) for f in acac()],
        "length unit",
        WARNING,
        "Bohr",
        [],
    ),
    "stress with flipped sign": (
        lambda: scaled(silicon(), stress=-1.0),
        "stress",
        WARNING,
        "sign is flipped",
        [],
    ),
    "stress in kbar": (lambda: scaled(silicon(), stress=KBAR), "stress", WARNING, "stress_unit=kbar", []),
    "stress in GPa, flipped": (
        lambda: scaled(silicon(), stress=-0.1 * KBAR),
        "stress",
        WARNING,
        "GPa, and its sign is flipped",
        [],
    ),
    "stress flipped, no strained pairs": (
        lambda: scaled(dynamics(), stress=-1.0),
        "stress",
        WARNING,
        "sign is flipped",
        [],
    ),
    "stress in kbar, no strained pairs": (
        lambda: scaled(dynamics(), stress=KBAR),
        "stress",
        WARNING,
        "times what the forces say",
        [],
    ),
    "one stress 300 times too large": (
        lambda: scaled(dynamics(), [6], stress=300.0),
        "outliers",
        WARNING,
        "largest stress",
        [6],
    ),
    "stress missing in half": (
        lambda: unlabelled(silicon(), "stress", range(40)),
        "missing labels",
        WARNING,
        "no stress",
        [0, 39],
    ),
    "stress of zero": (
        lambda: scaled(silicon(), range(40), stress=0.0),
        "labels of exactly zero",
        PROBLEM,
        "stress is",
        [0, 39],
    ),
    "crystal in kcal/mol": (
        lambda: scaled(silicon(), energy=KCAL, forces=KCAL),
        "force unit",
        WARNING,
        "Si-Si bonds",
        [],
    ),
    "forces of two crystals exchanged": (
        lambda: exchanged(dynamics(), 4, 30),
        "misplaced forces",
        WARNING,
        "fit the structure",
        [4, 30],
    ),
    "periodicity lost": (
        lambda: [structured(replace(f, stress=None), pbc=False) for f in dynamics()],
        "lost periodicity",
        WARNING,
        "T T T",
        [],
    ),
    "lattice vectors missing": (
        lambda: [structured(f, cell=np.zeros((3, 3))) if f is dynamics()[3] else f for f in dynamics()],
        "no volume",
        PROBLEM,
        "has no volume",
        [3],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(fault: str) -> None:
    make, check, level, said, rows = FAULTS[fault]
    frames = make()
    found = compare([examined(frames)])
    named = [f for _, f in found.findings if f.check == check and f.level == level and said in f.text]
    assert named, [(f.level, f.check, f.text) for _, f in found.findings]
    listed = {id(f) for one in named for f in one.frames}
    assert listed.issuperset(id(frames[k]) for k in rows)
    assert found.code == (2 if level == PROBLEM else 1)
    assert frames[0].source in named[0].text or frames[-1].source in named[0].text or check == "force unit"


def complaints(found: Examination) -> list[tuple[str, str, str]]:
    return [(name, f.check, f.text) for name, f in found.findings if f.level != NOTE]


@pytest.mark.parametrize(
    "name",
    ["train_300K", "test_MD_300K", "test_MD_600K", "test_dihedral", "test_H_transfer", "isolated_atoms"],
)
def test_sound_molecules_are_not_accused(name: str) -> None:
    path = next((DATA / "acac").glob(f"{name}.xyz*"))
    assert complaints(examine({"train": [str(path)]})) == []


def test_sound_sets_share_nothing() -> None:
    paths = {name: [str(DATA / f"acac/{name}.xyz.xz")] for name in ("train_300K", "test_MD_300K")}
    assert complaints(examine(paths)) == []


@pytest.mark.parametrize("name", ["train", "test"])
def test_sound_silicon_is_not_accused(name: str) -> None:
    found = examine({name: [str(DATA / f"mlearn/Si_{name}.extxyz.xz")]})
    assert complaints(found) == []
    said = [f.text for _, f in found.findings if f.check == "stress"]
    assert any("stress and energy agree" in one for one in said)


def test_copies_in_two_sets() -> None:
    """Exact copies, and one that is rotated, shifted and renumbered."""
    train, rng = acac(), np.random.default_rng(3)
    turned = structured(train[8])
    turned.atoms.rotate(40.0, (1, 2, 3))
    turned = structured(turned, positions=turned.atoms.positions + 7.0)
    order = rng.permutation(15)
    turned = replace(turned, atoms=turned.atoms[order], forces=None, source="test.xyz", index=1)
    test = [
        replace(train[3], source="test.xyz", index=0),
        turned,
        *(replace(f, source="test.xyz") for f in acac600()),
    ]
    found = compare([examined(train), examined(test, "test")])
    (shared,) = [f for _, f in found.findings if f.check == "shared structures"]
    assert "2 of 22 test structures are also train structures, 1 exactly and 1 within" in shared.text
    assert [f.index for f in shared.frames] == [0, 1]


@cache
def acac600() -> Frames:
    return read(DATA / "acac/test_MD_600K.xyz.xz")[0][:20]


def test_new_elements() -> None:
    other = structured(acac()[0], numbers=np.where(acac()[0].atoms.numbers == 8, 16, acac()[0].atoms.numbers))
    found = compare([examined(acac()[:5]), examined([replace(other, source="test.xyz")], "test")])
    assert any("test has S, which train does not" in f.text for _, f in found.findings)


# --- the command --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """The first 30 frames of acetylacetone as lines of extended XYZ."""
    return lzma.decompress(ACAC.read_bytes()).decode().split("\n")[: 30 * 17]


def write(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_command_on_sound_data(tmp_path: Path, lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    data, out, html = write(tmp_path / "a.xyz", lines), tmp_path / "a.json", tmp_path / "a.html"
    assert main([data, "--json", str(out), "--html", str(html)]) == 0
    said = capsys.readouterr().out
    assert said.endswith("No fault found.\n")
    for word in ("closest C-O", "neighbors in 5 Å", "net torque", "E0 rank"):
        assert word in said
    report = json.loads(out.read_text())
    assert (report["format"], report["verdict"], report["code"]) == (1, "clean", 0)
    assert report["sets"]["train"]["coverage"]["all"]["forces"] == 30
    assert report["sets"]["train"]["coverage"]["300K_MD"]["frames"] == 30
    assert report["sets"]["train"]["e0"]["rank"] == 1
    document = html.read_text()
    assert "No fault found" in document
    assert "http://" not in document.split("<script>")[0]


def test_sets_of_several_files(tmp_path: Path, lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Frames are named with their file."""
    one, other = write(tmp_path / "a.xyz", lines[:340]), write(tmp_path / "b.xyz", lines[340:])
    out = tmp_path / "c.json"
    assert main([str(tmp_path / "?.xyz"), "--json", str(out)]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "closest C-O" in line]
    assert f"{one}, frame" in row or f"{other}, frame" in row
    told = json.loads(out.read_text())["sets"]["train"]
    assert list(told["files"]) == [one, other]
    assert told["coverage"]["all"]["frames"] == 30
    assert told["largest_force"]["file"] in (one, other)
    again = write(tmp_path / "copy.xyz", lines[:17])  # a frame of a.xyz
    assert main([one, again]) == 1
    assert f"{again}, frame 0" in capsys.readouterr().out


def test_units_that_nobody_says_are_not_assumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    atoms = acac()[0].atoms
    content = {
        "z": atoms.numbers,
        "R": atoms.positions[None],
        "E": np.ones(1),
        "F": np.ones((1, len(atoms), 3)),
    }
    np.savez(tmp_path / "a.npz", **content)
    assert main([str(tmp_path / "a.npz")]) == 2
    assert "--energy-unit" in capsys.readouterr().out


def test_command_with_faults(tmp_path: Path, lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "a.xyz", lines)
    same = write(tmp_path / "b.xyz", lines[:34])
    assert main([data, "--test", same, "--json", str(tmp_path / "c.json")]) == 1
    assert "2 of 2 b structures are also train structures" in capsys.readouterr().out
    (shared,) = [
        f for f in json.loads((tmp_path / "c.json").read_text())["findings"] if f["level"] == "warning"
    ]
    assert shared["frames"] == {same: [0, 1]}


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda rows: rows[:-3], 2, "frame 29 (line 494): truncated"),
        (lambda rows: [r.replace("energy=", "enrgy=") for r in rows], 2, "did you mean 'enrgy'"),
        (lambda rows: [r.replace("forces:R", "forcs:R") for r in rows], 2, "did you mean 'forcs'"),
        (
            lambda rows: [r.replace("forces:R", "slopes:R") for r in rows],
            1,
            "'slopes' has the shape of forces",
        ),
        (
            lambda rows: [r.replace("energy=", "result=") for r in rows],
            1,
            "'result' have the shape of energy",
        ),
    ],
)
def test_command_with_damaged_files(
    tmp_path: Path, lines: list[str], capsys: pytest.CaptureFixture[str],
    change: Callable[[list[str]], list[str]], code: int, said: str,
) -> None:  # fmt: skip
    assert main([write(tmp_path / "a.xyz", change(lines))]) == code
    assert said in capsys.readouterr().out


def test_command_with_wrong_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(ACAC), "--energy-unit", "hartree"]) == 2
    assert "energy_unit is 'hartree'; expected one of" in capsys.readouterr().err
    assert main([str(tmp_path / "nothing.xyz")]) == 2
    assert "does not exist" in capsys.readouterr().out


def test_help_tells_the_exit_codes_at_once() -> None:
    assert "0  clean" in parser().format_help()
    load = "import sys; from train.doctor import cli; cli.parser()"
    code = f"{load}; print({{'torch', 'numpy', 'ase'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- what is written ----------------------------------------------------------------------------------------


def test_text_and_page_escape_what_comes_from_files() -> None:
    frames = [replace(f, source="<b>&.xyz", config_type="<i>") for f in acac()[:20]]
    found = compare([examined(changed(frames, 3, energy=np.nan))])
    assert "ERROR (train, not finite): <b>&.xyz, frame 3" in text(found)
    document = page(found)
    assert "<b>&.xyz" not in document.split("<script>")[0]
    assert "&lt;b&gt;&amp;.xyz" in document


def test_findings_are_sorted_by_gravity() -> None:
    found = compare([examined(changed(scaled(acac(), forces=-1.0), 3, energy=np.nan))])
    levels = [f.level for _, f in found.findings]
    assert levels == sorted(levels, key=[PROBLEM, WARNING, NOTE].index)
    assert to_dict(found)["verdict"] == "errors"
    assert isinstance(found.findings[0][1], Finding)
