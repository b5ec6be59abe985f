"""Linear models from files to a run directory: planted coefficients, weights, what is refused; learning curves."""

from __future__ import annotations

import json
import lzma
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from potential.calculator import EquivCalculator
from potential.checkpoint import load
from potential.graph import from_atoms
from potential.model import Potential, Statistics, build
from potential.physics import predict
from train.batches import prepare
from train.cli import main
from train.config import Config, Fit
from train.curve.cli import main as curve
from train.data.dataset import Frame
from train.linear.equations import equations, solve
from train.linear.fit import MOST, choose
from train.linear.settings import Linear

ROOT = Path(__file__).parents[1]
DIALS = {"network": "ace", "functions": 60, "correlation": 3, "cutoff": 4.0}


def planted(noise: float = 0.0) -> tuple[Potential, list[Frame]]:
    """A linear model with E0 of an odd kind, and crystals labelled by it; some labels absent."""
    facts = Statistics(("C", "O"), (-1030.0, -2040.0), 2.5, 30.0)
    model, random = build(DIALS, facts, 1, torch.float64), np.random.default_rng(0)
    frames = []
    for k in range(30):
        cell = np.eye(3) * 4.5 + random.uniform(-0.3, 0.3, (3, 3))
        grid = np.stack(np.meshgrid(*[[0.0, 0.5]] * 3), -1).reshape(-1, 3)[: 6 + k % 3]
        atoms = Atoms("COCOCOOC"[: len(grid)], scaled_positions=grid, cell=cell, pbc=True)
        atoms.positions += random.normal(scale=0.3, size=atoms.positions.shape)
        p = predict(model, from_atoms(atoms, 4.0))
        forces = p.forces.numpy() + noise * random.normal(size=(len(atoms), 3))
        virial = p.virial[0].numpy()
        stress = (virial + virial.T) / 2 / atoms.get_volume()
        frames.append(
            Frame(atoms, float(p.energy), forces if k % 5 else None, stress if k % 4 else None, "made up", k)
        )
    return model, frames


@pytest.mark.parametrize("labels", [("energy", "forces", "stress"), ("forces",), ("stress", "energy")])
@pytest.mark.parametrize("ridge", ["evidence", "validation"])
def test_planted_coefficients_are_found_from_any_labels(labels: tuple[str, ...], ridge: str) -> None:
    model, frames = planted()
    fit = Fit(**{f"{label}_weight": float(label in labels) for label in ("energy", "forces", "stress")})
    linear = Linear(ridge=ridge)
    rows = equations(model, {"train": prepare(frames, 4.0)}, linear)
    found = solve(rows, model.network, fit, linear, ["train"])
    other = build(DIALS, model.statistics, 2, torch.float64)
    with torch.no_grad():
        other.network.coefficients.copy_(
            torch.from_numpy(found.coefficients).view_as(other.network.coefficients)
        )
    graph = from_atoms(frames[3].atoms, 4.0)
    one, two = predict(model, graph), predict(other, graph)
    scale = float(one.forces.abs().max())
    if len(labels) > 1 or "forces" in labels:
        torch.testing.assert_close(two.forces, one.forces, rtol=0, atol=1e-4 * scale)
    if "energy" in labels:
        torch.testing.assert_close(two.energy, one.energy, rtol=0, atol=1e-4 * scale)


def test_the_loss_is_that_of_training() -> None:
    """Squared errors of the rows are those of energies, forces and virials, each averaged, times its weight."""
    from train.loss import differences, targets

    model, frames = planted(0.1)
    frames = [replace(f, energy=(f.energy or 0.0) + 0.3) for f in frames]
    fit = Fit(energy_weight=3.0, forces_weight=0.5, stress_weight=2.0)
    samples = prepare(frames, 4.0)
    rows = equations(model, {"train": samples}, Linear())
    c = model.network.coefficients.detach().numpy().ravel()
    sums = {"energy": [0.0, 0], "forces": [0.0, 0], "stress": [0.0, 0]}
    for sample, frame in zip(samples, frames, strict=True):
        found = differences(predict(model, sample.graph), sample.graph, targets(frame))
        for label, (x, known) in found.items():
            sums[label][0] += float(x.square().sum()) / model.statistics.scale**2
            sums[label][1] += int(known.sum())
    expected = sum(getattr(fit, f"{label}_weight") * s / n for label, (s, n) in sums.items())
    factors = {"energy": fit.energy_weight, "forces": fit.forces_weight, "stress": fit.stress_weight}
    got = 0.0
    for label, factor in factors.items():
        squares = sum(float(t.squares(c)) for kind, t in rows.triangles.items() if kind[0] == label)
        got += factor * squares / rows.weights[label, "train"]
    assert got == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("ridge", ["evidence", "validation"])
def test_how_frames_are_split_does_not_change_the_objective(ridge: str) -> None:
    """Of frames with different weights, training and validation frames together are one set."""
    model, frames = planted(0.1)
    samples = [
        replace(s, weights=torch.full((1, 3), 100.0 if k % 7 == 0 else 1.0, dtype=torch.float64))
        for k, s in enumerate(prepare(frames, 4.0))
    ]
    found = []
    for sets in ({"train": samples}, {"train": samples[1:20], "valid": [samples[0], *samples[20:]]}):
        rows = equations(model, sets, Linear(ridge=ridge))
        c = model.network.coefficients.detach().numpy().ravel()
        every = solve(rows, model.network, Fit(), Linear(), list(sets))
        found.append((sum(float(t.squares(0 * c)) for t in rows.triangles.values()), every.coefficients))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-9)
    size = float(np.abs(found[0][1]).max())
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=0, atol=1e-5 * size)


def test_folds_without_labels_are_left_out_and_too_few_are_named() -> None:
    model, frames = planted()
    linear, fit = Linear(ridge="validation"), Fit(forces_weight=0, stress_weight=0)
    some = [replace(f, energy=None) if 6 <= k < 12 else f for k, f in enumerate(frames)]
    rows = equations(model, {"train": prepare(some, 4.0)}, linear)
    assert "by 4-fold" in solve(rows, model.network, fit, linear, ["train"]).text
    rows = equations(model, {"train": prepare(frames[:1], 4.0)}, linear)
    with pytest.raises(ValueError, match=r"linear.ridge=validation .* linear.ridge=evidence"):
        solve(rows, model.network, fit, linear, ["train"])


@pytest.fixture(scope="module")
def acac(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames of acetylacetone at 300 K and 6 at 600 K."""
    folder = tmp_path_factory.mktemp("acac")
    for name, file, n in (("train", "train_300K", 30), ("hot", "test_MD_600K", 6)):
        text = lzma.decompress((ROOT / f"data/acac/{file}.xyz.xz").read_bytes()).decode().splitlines(True)
        (folder / f"{name}.xyz").write_text("".join(text[: 17 * n]))
    return folder


SMALL = ["--network", "ace", "--set", "model.functions=40", "--set", "model.cutoff=4.0"]


def test_a_run_directory_from_a_file(acac: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(acac / "train.xyz"), "--test", str(acac / "hot.xyz"), *SMALL]
    assert main([*words, "--dry-run", "--output", str(tmp_path / "nothing")]) == 0
    assert not (tmp_path / "nothing").exists()
    assert "coefficients" in capsys.readouterr().out
    assert main([*words, "--output", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert {"train", "valid", "hot"} == set(summary["errors"])
    assert any("by evidence" in line for line in summary["why"])
    model = load(tmp_path / "run" / "model.safetensors")
    assert model.dtype == torch.float64
    assert summary["parameters"] == model.network.coefficients.numel()
    rows = json.loads((tmp_path / "run" / "split.json").read_text())["valid"]["frames"]
    frames = [read(acac / "train.xyz", k) for k in rows]
    wrong = [
        predict(model, from_atoms(f, 4.0)).forces.numpy() - f.get_forces() for f in frames
    ]  # of the model that has seen them too
    seen = 1e3 * float(np.sqrt(np.mean(np.square(wrong))))
    assert seen < summary["errors"]["valid"]["forces_rmse"] < 2 * seen
    atoms = Atoms("CO", [(0, 0, 0), (0, 0, 1.2)], calculator=EquivCalculator(model))
    assert np.isfinite(atoms.get_forces()).all()
    for name in ("report.html", "parity.png", "predictions.h5", "config.toml", "split.json", "worst.xyz"):
        assert (tmp_path / "run" / name).is_file()
    assert not (tmp_path / "run" / "learning_curve.png").exists()  # it would be empty
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "ridge" in log
    assert "valid: errors of the same fit without these frames" in log
    assert list(summary["errors"]) == ["train", "valid", "hot"]
    assert main([*words, "--output", str(tmp_path / "again")]) == 0  # the same bits
    same = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "again")]
    assert same[0] == same[1]


def test_energies_without_a_weight_are_met_where_e0_is_free(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Forces say nothing of E0: a constant is left, which moves fitted E0, and is a WARNING where E0 is known."""
    _, frames = planted()
    for f in frames:
        forces = np.zeros((len(f.atoms), 3)) if f.forces is None else f.forces
        f.atoms.calc = SinglePointCalculator(f.atoms, energy=f.energy, forces=forces)
    write(tmp_path / "some.xyz", [f.atoms for f in frames if f.forces is not None], format="extxyz")
    words = [str(tmp_path / "some.xyz"), *SMALL, "--set", "fit.energy_weight=0"]
    assert main([*words, "--output", str(tmp_path / "free")]) == 0
    summary = json.loads((tmp_path / "free" / "summary.json").read_text())
    model = load(tmp_path / "free" / "model.safetensors")
    assert summary["e0"] == dict(zip(model.statistics.elements, model.statistics.e0, strict=True))
    seen = [f for f in frames if f.forces is not None]  # for training or validation
    off = [(float(predict(model, from_atoms(f.atoms, 4.0)).energy) - f.energy) / len(f.atoms) for f in seen]  # type: ignore[operator]
    assert np.mean(off) == pytest.approx(0, abs=1e-7)
    capsys.readouterr()
    known = ["--set", "e0.C=-1000", "--set", "e0.O=-2000"]
    assert main([*words, *known, "--output", str(tmp_path / "known")]) == 0
    assert "WARNING: energies, which have no weight, are off by" in capsys.readouterr().out


def test_rows_of_a_label_without_a_weight_are_not_built() -> None:
    model, frames = planted()
    found = equations(model, {"train": prepare(frames[:4], 4.0)}, Linear(), ("energy",))
    assert {kind[0] for kind in found.triangles} == {"energy"}


def test_what_does_not_fit_into_memory_is_refused(
    acac: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.linear.cost.available_memory", lambda: 0.5)
    assert main([str(acac / "train.xyz"), *SMALL, "--output", str(tmp_path / "run")]) == 1
    assert "MiB are available; take fewer: --set model.functions=" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_many_elements_have_fewer_functions_with_a_preset_too() -> None:
    cells = [Atoms(symbols, np.arange(12.0).reshape(4, 3)) for symbols in ("HHeLiBe", "BCNO")]
    frames = [Frame(atoms, 0.0, None, None, "made up", 0) for atoms in cells]
    settings = {"network": "ace", "preset": "medium", "cutoff": 4.0}
    assert choose(Config(model=settings), frames)[0]["functions"] == MOST // 8
    assert choose(Config(model={**settings, "functions": 1500}), frames)[0]["functions"] == 1500


def test_a_null_model_is_not_left_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Energies only, that have nothing to do with the structures."""
    random, frames = np.random.default_rng(0), [f.atoms for f in planted()[1]]
    for atoms in frames:
        atoms.calc = SinglePointCalculator(atoms, energy=float(random.normal()) - 5.0 * len(atoms))
    write(tmp_path / "noise.xyz", frames, format="extxyz")
    words = [str(tmp_path / "noise.xyz"), *SMALL, "--output", str(tmp_path / "run")]
    assert main(words) == 0
    assert "WARNING: " in capsys.readouterr().out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert any("take linear.ridge=validation" in line for line in summary["why"])


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--epochs", "3"], "it has no length"),
        (["--find-lr"], "no learning rate"),
        (["--log", "tensorboard"], "no metrics"),
        (["--targets", "dipole"], "take another network"),
        (["--replay", "old.xyz"], "--replay with network ace"),
        (["--set", "data.replay_weight=0.5"], "--replay-weight"),
        (["--set", "fit.freeze=['head']"], "fit.freeze"),
        (["--set", "fit.lora_rank=2"], "fit.lora_rank"),
        (["--set", "fit.drop_targets=dipole"], "fit.drop_targets"),
        (["--set", "fit.loss=mae"], "fit.loss"),
        (["--set", "fit.stage_two=0.2"], "fit.stage_two"),
        (["--set", "fit.optimizer=Adam"], "fit.optimizer"),
        (["--dtype", "mixed"], "float64 is what"),
        (["--set", "linear.ridge=magic"], "evidence"),
        (["--set", "model.channels=8"], "functions"),
    ],
)
def test_what_has_no_meaning_is_refused(
    acac: Path, more: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(acac / "train.xyz"), *SMALL, *more, "--output", str(tmp_path / "run")]) == 1
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_weights_of_frames_count(tmp_path: Path) -> None:
    """A frame with twice the weight is the frame twice; with none it is not there."""
    model, frames = planted(0.2)

    def coefficients(chosen: list[Frame], weights: list[float]) -> Any:
        samples = [
            replace(s, weights=torch.full((1, 3), w, dtype=torch.float64))
            for s, w in zip(prepare(chosen, 4.0), weights, strict=True)
        ]
        rows = equations(model, {"train": samples}, Linear())
        return rows, samples

    heavy, _ = coefficients(frames[:3], [2.0, 1.0, 0.0])
    twice, _ = coefficients([frames[0], frames[0], frames[1]], [1.0, 1.0, 1.0])
    c = np.random.default_rng(0).normal(size=model.network.coefficients.numel())
    for label in ("energy", "stress"):
        mean = [
            sum(float(t.squares(c)) for kind, t in rows.triangles.items() if kind[0] == label)
            / rows.weights[label, "train"]
            for rows in (heavy, twice)
        ]
        assert mean[0] == pytest.approx(mean[1], rel=1e-9)


def test_a_crystal_with_stress_from_a_file(tmp_path: Path) -> None:
    _, frames = planted(0.01)
    for frame in frames:
        frame.atoms.calc = SinglePointCalculator(
            frame.atoms,
            energy=frame.energy,
            forces=np.zeros((len(frame.atoms), 3)) if frame.forces is None else frame.forces,
            stress=np.zeros((3, 3)) if frame.stress is None else frame.stress,
        )
    whole = [f.atoms for f in frames if f.forces is not None and f.stress is not None]
    write(tmp_path / "crystal.xyz", whole, format="extxyz")
    words = [str(tmp_path / "crystal.xyz"), *SMALL, "--set", "linear.ridge=validation"]
    assert main([*words, "--output", str(tmp_path / "run")]) == 0
    errors = json.loads((tmp_path / "run" / "summary.json").read_text())["errors"]["valid"]
    assert errors["forces_rmse"] < 200
    assert errors["stress_rmse"] is not None


def test_a_contestant_of_learning_curves(
    acac: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(acac / "train.xyz"), "--test", str(acac / "hot.xyz"), "--sizes", "6,12", "--seeds", "1"]
    words += [
        "--draws",
        "1",
        "--protocol",
        "equal-time",
        "--budget",
        "1",
        "--output",
        str(tmp_path / "study"),
    ]
    small = "functions=40:cutoff=4.0"
    assert curve([*words, "--models", f"ace:{small},ace:{small}:correlation=1,baseline"]) == 0
    said = capsys.readouterr().out
    assert "Solved at once by least squares" in said
    results = [json.loads(line) for line in (tmp_path / "study" / "results.jsonl").read_text().splitlines()]
    found = {(r["model"], r["size"]): r for r in results}
    assert len(found) == 6
    ace, pairs = found[f"ace:{small}", 12], found[f"ace:{small}:correlation=1", 12]
    assert ace["ended"] == "solved"
    assert ace["cpu_seconds"] > 0
    force = "forces"
    assert ace["errors"]["hot"][force]["rmse"] < found["baseline", 12]["errors"]["hot"][force]["rmse"]
    assert pairs["parameters"] != ace["parameters"]


def test_matched_in_parameters_but_not_in_time(
    acac: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(acac / "train.xyz"), "--test", str(acac / "hot.xyz"), "--sizes", "6", "--seeds", "1"]
    words += ["--draws", "1", "--models", "ace:functions=60:cutoff=4.0,ace:functions=300:correlation=2"]
    assert curve([*words, "--match", "time", "--output", str(tmp_path / "time")]) == 1
    assert "the reference, has none" in capsys.readouterr().err
    assert curve([*words, "--match", "parameters", "--output", str(tmp_path / "same")]) == 0
    models = json.loads((tmp_path / "same" / "study.json").read_text())["models"]
    one, two = (model["parameters"] for model in models.values())
    assert abs(one - two) < 0.3 * one
