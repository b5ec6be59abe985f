"""Twelve broken files: each is refused with file, frame and remedy, a failing exit code, and nothing half-written."""

from __future__ import annotations

import io
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from ase import Atoms
from ase.io import read, write

from potential import EquivCalculator, Statistics, build, load, save
from train.cli import main
from train.compare.cli import main as compare
from train.curve.cli import main as curve
from train.doctor.cli import main as doctor
from train.prepared.cli import main as prepare

DATA = Path(__file__).parents[1] / "data"


def frames(n: int = 20) -> list[Atoms]:
    text = lzma.decompress((DATA / "acac/train_300K.xyz.xz").read_bytes()).decode()
    found: list[Atoms] = read(io.StringIO(text), f":{n}", format="extxyz")
    return found


def text(n: int = 20) -> str:
    buffer = io.StringIO()
    write(buffer, frames(n), format="extxyz")
    return buffer.getvalue()


def blocks(content: str) -> list[str]:
    """The frames of an extxyz text."""
    return re.findall(r"15\n.*\n(?:.*\n){15}", content)


def change(at: list[int], how: Callable[[str], str]) -> str:
    return "".join(how(block) if k in at else block for k, block in enumerate(blocks(text())))


def moved(block: str) -> str:
    """The second atom on top of the first."""
    lines = block.splitlines(keepends=True)
    lines[3] = lines[3][:2] + lines[2][2:]
    return "".join(lines)


HALF = list(range(10, 20))
FILES: dict[str, tuple[str, list[str]]] = {
    "missing_labels.xyz": (
        change(HALF, lambda b: re.sub(r" energy=\S+", "", b)),
        ["missing_labels.xyz", "10", "energy", "--allow-missing"],
    ),
    "misspelt.xyz": (
        change(list(range(20)), lambda b: b.replace("energy=", "enregy=")),
        ["misspelt.xyz", "enregy"],
    ),
    "nan_energy.xyz": (
        change([7], lambda b: re.sub(r"energy=\S+", "energy=nan", b)),
        ["nan_energy.xyz", "7"],
    ),
    "zero_volume.xyz": (
        change(
            [3],
            lambda b: re.sub(r'Lattice="[^"]*"', 'Lattice="9 0 0 0 9 0 0 0 0"', b).replace("F F F", "T T T"),
        ),
        ["zero_volume.xyz", "3"],
    ),
    "overlap.xyz": (change([5], moved), ["overlap.xyz", "5", "Å"]),
    "mixed_units.xyz": (
        change(
            HALF,
            lambda b: re.sub(
                r"energy=(\S+)", lambda m: f"energy={float(m.group(1)) * 23.060547830619026}", b
            ),
        ),
        ["mixed_units.xyz", "kcal/mol", "frame"],
    ),
    "empty.xyz": ("", ["empty.xyz", "empty"]),
    "truncated.xyz": (text()[: int(len(text()) * 0.77)], ["truncated.xyz", "frame"]),
    "frames.docx": (text(), ["frames.docx"]),
}


@pytest.mark.parametrize("name", FILES)
def test_broken_training_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    content, words = FILES[name]
    Path(name).write_text(content)
    assert main([name, "--epochs", "1", "--preset", "tiny"]) == 1
    message = capsys.readouterr().err
    for word in words:
        assert word in message, message
    assert "Traceback" not in message
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", FILES)
def test_broken_test_file_is_refused_before_training(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.xyz").write_text(text())
    Path(name).write_text(FILES[name][0])
    assert main(["good.xyz", "--test", name, "--epochs", "1", "--preset", "tiny", "--output", "run"]) == 1
    assert name in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["good.xyz", name])


def test_unknown_element_in_a_test_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.xyz").write_text(text())
    Path("gold.xyz").write_text("".join(blocks(text())[:2]) + blocks(text())[2].replace("\nO ", "\nAu"))
    assert (
        main(["good.xyz", "--test", "gold.xyz", "--epochs", "1", "--preset", "tiny", "--output", "run"]) == 1
    )
    message = capsys.readouterr().err
    assert "gold.xyz, frame 2" in message
    assert "atoms contain Au, but this potential was trained on H, C, O" in message
    assert not Path("run").exists()


def test_unknown_element_at_prediction() -> None:
    potential = build(
        {"channels": 4, "message_channels": 4, "vector_channels": 4}, Statistics(("H",), (0.0,), 1.0, 2.0)
    )
    atoms = Atoms("HAu", [[0, 0, 0], [0, 0, 1.5]], calculator=EquivCalculator(potential))
    with pytest.raises(
        ValueError, match="atoms contain Au, but this potential was trained on H; use one trained on"
    ):
        atoms.get_potential_energy()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    potential = build(
        {"channels": 4, "message_channels": 4, "vector_channels": 4}, Statistics(("H",), (0.0,), 1.0, 2.0)
    )
    save(potential, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_corrupted_checkpoint(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    data[-100:] = np.random.default_rng(0).bytes(100)
    saved.write_bytes(data)
    with pytest.raises(ValueError, match=r"model\.safetensors: .*damaged"):
        load(saved)


def test_future_format_version(saved: Path) -> None:
    from potential.checkpoint import read as read_file
    from potential.checkpoint import write as write_file

    header, tensors = read_file(saved)
    assert json.loads(json.dumps(header)) == header
    write_file(saved, {**header, "format": header["format"] + 1, "version": "9.9.0"}, tensors)
    newer = rf"model\.safetensors: format {header['format'] + 1}, written by version 9\.9\.0.*a newer equiv"
    with pytest.raises(ValueError, match=newer):
        load(saved)
    safetensors.torch.save_file(tensors, saved)
    with pytest.raises(ValueError, match=r"model\.safetensors: not a potential file"):
        load(saved)


@pytest.mark.parametrize("command", [main, doctor, prepare, curve, compare])
def test_unknown_option_of_a_command(
    command: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command(["train.xyz", "--lenght-unit=Ang", *["--output", "set.h5"] * (command is prepare)])
    assert stopped.value.code == 2
    assert (
        "unrecognized arguments: --lenght-unit=Ang; did you mean '--length-unit'?" in capsys.readouterr().err
    )


def test_unit_in_other_letters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train.xyz", "--energy-unit", "ev"]) == 1
    assert "energy_unit is 'ev'; did you mean 'eV'?" in capsys.readouterr().err
