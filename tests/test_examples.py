"""Every example runs as its reader runs it, on settings small enough for a test, and leaves what it promises."""

from __future__ import annotations

import io
import json
import lzma
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.io import read, write

from potential import Statistics, build, save
from potential.model import presets
from train.config import NETWORK, Config, Data, Fit
from train.fit import fit

ROOT = Path(__file__).parents[1]
PNG = b"\x89PNG"


def run(name: str, *arguments: str | Path, code: int = 0) -> str:
    """What an example prints; one thread, warnings are errors."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr


def numbers(text: str) -> list[float]:
    return [float(word) for word in text.split() if word.lstrip("+-").replace(".", "", 1).isdigit()]


def finite(value: Any) -> bool:
    """Every number in nested tables and lists."""
    if isinstance(value, dict):
        return all(finite(v) for v in value.values())
    return not isinstance(value, float) or bool(np.isfinite(value))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained potential of H, C, O with forces so weak that atoms fly straight on."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    statistics = Statistics(("H", "C", "O"), (-13.0, -1030.0, -2042.0), 1e-3, 12.0)
    save(build({**presets(NETWORK)["tiny"], "cutoff": 5.0}, statistics), path)
    return path


@pytest.fixture(scope="module")
def silicon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small potential of the strained silicon cells."""
    directory = tmp_path_factory.mktemp("silicon")
    text = lzma.decompress((ROOT / "data/mlearn/Si_train.extxyz.xz").read_bytes()).decode()
    kinds = ("mode 0", "Ground state")
    frames = [
        f
        for f in read(io.StringIO(text), ":", format="extxyz")
        if any(kind in f.info["description"] for kind in kinds)
    ]
    write(directory / "train.xyz", frames, format="extxyz")
    config = Config(
        Data(train=str(directory / "train.xyz")),
        {"preset": "tiny", "cutoff": 4.0},
        Fit(epochs=25, batch_size=1, stress_weight=1.0, learning_rate=0.005, decay=0.6),
    )
    fit(config, directory / "run")
    return directory / "run" / "model.safetensors"


def test_01_forces(model: Path) -> None:
    text = run("01_forces.py", model)
    assert text.startswith("energy ")
    assert len(numbers(text)) == 1 + 3 * 15
    assert np.isfinite(numbers(text)).all()


def test_a_missing_model_is_explained(tmp_path: Path) -> None:
    text = run("01_forces.py", tmp_path / "nothing.safetensors", code=1)
    assert "run `make quickstart` first" in text
    assert "Traceback" not in text


def test_02_md(model: Path, tmp_path: Path) -> None:
    text = run("02_md.py", "--model", model, "--output", tmp_path, "--picoseconds", "0.01")
    assert "NVE drift" in text
    results = json.loads((tmp_path / "md.json").read_text(encoding="utf-8"))
    assert finite(results)
    assert results["one_molecule"] is True
    assert abs(results["nve_drift_meV_per_atom_per_ps"]) < 10
    assert 1.0 < results["longest_bond_in_covalent_radii"] < 1.5
    assert len(read(tmp_path / "nve.xyz", ":")) == 2
    for name in ("energy.png", "temperature.png", "proton.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG)
    assert not list(tmp_path.glob(".*"))


def test_02_md_sees_a_broken_molecule(model: Path, tmp_path: Path) -> None:
    """Atoms that fly straight on do not stay together for long."""
    text = run("02_md.py", "--model", model, "--output", tmp_path, "--picoseconds", "0.05", code=1)
    assert "BROKE" in text
    assert (
        json.loads((tmp_path / "md.json").read_text(encoding="utf-8"))["longest_bond_in_covalent_radii"] > 1.5
    )


def test_03_fit(tmp_path: Path) -> None:
    text = run("03_fit.py", "--output", tmp_path, "--frames", "10", "--epochs", "2")
    table = text[text.index("set    forces RMSE") :].splitlines()
    assert [line.split()[0] for line in table[1:4]] == ["train", "valid", "test"]
    assert np.isfinite(numbers("\n".join(table))).all()
    assert (tmp_path / "run" / "report.html").is_file()
    assert "give another --output" in run("03_fit.py", "--output", tmp_path, code=2)


def test_dipole(tmp_path: Path) -> None:
    """The dipole of a water molecule is learned from a hundred of them."""
    text = run("05_dipole.py", "--output", tmp_path / "dipole", "--epochs", "15")
    assert (tmp_path / "dipole/run/report.html").is_file()
    last = text[text.index("dipole in e Å") :].splitlines()[0]
    found = np.array(re.findall(r"-?\d+\.\d*", last), dtype=float)
    predicted, reference = found[:3], found[3:]
    assert np.abs(predicted - reference).max() < 0.2 * np.linalg.norm(reference)


def test_04_relax_and_eos(silicon: Path, tmp_path: Path) -> None:
    text = run("04_relax_and_eos.py", "--model", silicon, "--output", tmp_path)
    assert "silicon, diamond" in text
    results = json.loads((tmp_path / "silicon.json").read_text(encoding="utf-8"))
    assert finite(results)
    # The labels against all-electron PBE, and the model against its labels.
    assert results["a (Å)"]["data"] == pytest.approx(results["a (Å)"]["literature"], abs=0.005)
    assert results["B, stress (GPa)"]["data"] == pytest.approx(88.5, abs=1.5)
    assert results["a (Å)"]["model"] == pytest.approx(results["a (Å)"]["data"], abs=0.05)
    assert results["B, E(V) (GPa)"]["model"] == pytest.approx(results["B, stress (GPa)"]["model"], rel=0.1)
    assert (tmp_path / "silicon.png").read_bytes().startswith(PNG)


def test_quickstart_keeps_earlier_results(tmp_path: Path) -> None:
    set_aside = runpy.run_path(str(ROOT / "examples" / "quickstart.py"))["set_aside"]
    set_aside(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    for content in ("first", "second"):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "summary.json").write_text(content)
        (tmp_path / "mine.txt").write_text("untouched")
        set_aside(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["earlier-1", "earlier-2", "mine.txt"]
    assert (tmp_path / "earlier-1" / "run" / "summary.json").read_text() == "first"
    assert (tmp_path / "earlier-2" / "run" / "summary.json").read_text() == "second"
