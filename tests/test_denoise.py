"""Noisy nodes: the predicted noise turns with the structure, is learned, and resumes; off unless asked for."""

from __future__ import annotations

import io
import json
import lzma
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read
from scipy.spatial.transform import Rotation

from potential.checkpoint import read as read_tensors
from potential.graph import from_atoms
from train.batches import Sample, normalized, prepare
from train.config import Fit
from train.data.dataset import Frame
from train.denoise import Slope, draw_noise, labelled_atoms, make_head, predict_noise
from train.loop import Task, continue_run, run_epochs
from train.loss import blank as nothing
from train.plan import elements, make_potential, measure
from train.run import Run, start
from train.schedule import make_plan
from train.statistics import fit_e0
from train.step import gradient

DATA = Path(__file__).parents[1] / "data"
CUTOFF = 3.0
DIALS = {
    "channels": 8,
    "message_channels": 4,
    "vector_channels": 4,
    "correlation": 2,
    "lmax": 1,
    "hidden_lmax": 1,
    "cutoff": CUTOFF,
}
FIT = Fit(batch_size=4, denoise_weight=0.5, denoise_sigma=0.1, learning_rate=0.01, decay=0.6)


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    text = lzma.decompress((DATA / "acac/train_300K.xyz.xz").read_bytes()).decode()
    rows = read(io.StringIO(text), ":20", format="extxyz")
    return [Frame(a, a.get_potential_energy(), a.get_forces(), None, "f", k) for k, a in enumerate(rows)]


def begun(frames: list[Frame], fit: Fit) -> tuple[Run, list[Sample]]:
    samples = prepare(frames, CUTOFF)
    facts = measure(frames, samples, fit_e0(frames, elements(frames)))
    return start(make_potential(DIALS, facts, fit), fit), normalized(samples)


def test_predicted_noise_turns_mirrors_and_does_not_drift(frames: list[Frame]) -> None:
    run, samples = begun(frames[:2], replace(FIT, dtype="float64"))
    slope = Slope(run.potential, make_head(run.potential, 3))
    noise = draw_noise(samples[:1], 0, 5)
    predicted = predict_noise(slope, samples[0].graph, noise, 0.1)
    turn = -Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()  # a rotation and an inversion
    atoms = frames[0].atoms.copy()
    atoms.positions = atoms.positions @ turn.T
    turned = predict_noise(slope, from_atoms(atoms, CUTOFF), noise @ torch.from_numpy(turn).T, 0.1)
    torch.testing.assert_close(turned, predicted @ torch.from_numpy(turn).T, rtol=1e-9, atol=1e-10)
    assert float(predicted.detach().abs().max()) > 1e-4
    assert torch.allclose(predicted.sum(0), torch.zeros(3, dtype=torch.float64), atol=1e-10)


def test_noise_is_a_function_of_seed_step_and_structure(frames: list[Frame]) -> None:
    samples = prepare(frames, CUTOFF)
    noise = draw_noise(samples, 1, 2)
    parts = [draw_noise([s], 1, 2) for s in samples]
    assert torch.equal(noise, torch.cat(parts))
    assert not torch.equal(noise, draw_noise(samples, 1, 3))
    assert not torch.equal(noise, draw_noise(samples, 2, 2))
    assert not torch.equal(parts[0], parts[1])
    assert float(torch.stack([p.mean(0) for p in parts]).abs().max()) < 1e-12
    assert float(noise.square().mean()) == pytest.approx(14 / 15, abs=0.1)  # one of 15 atoms is the drift


def test_parts_and_structures_without_labels(frames: list[Frame]) -> None:
    run, samples = begun(frames[:4], replace(FIT, dtype="float64"))
    fit = replace(FIT, dtype="float64")
    found = []
    for run.at_once in (0, 3):
        run.optimizer.zero_grad()
        value, sums = gradient(run, samples, fit)
        found.append(
            (value, sums["noise"], torch.cat([w.grad.flatten() for w in run.weights if w.grad is not None]))
        )
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    assert found[0][1] == [pytest.approx(found[1][1][0]), 4 * 45]
    torch.testing.assert_close(found[0][2], found[1][2], rtol=1e-9, atol=1e-11)
    blank = replace(samples[3], target=nothing(samples[3].target))
    assert [labelled_atoms(s) for s in (samples[3], blank)] == [15, 0]
    run.at_once = 0
    assert gradient(run, [*samples[:3], blank], fit)[0] == pytest.approx(gradient(run, samples[:3], fit)[0])


def trained(directory: Path, frames: list[Frame], fit: Fit) -> Run:
    directory.mkdir(exist_ok=True)
    run, samples = begun(frames, fit)
    task = Task(
        samples[:16], samples[16:], [""] * 16, fit, make_plan(fit, 4), directory, lambda run, line: None
    )
    continue_run(run, task)
    assert run_epochs(run, task) == "done"
    return run


def test_noise_is_learned_and_resumes(tmp_path: Path, frames: list[Frame]) -> None:
    fit = replace(FIT, epochs=20, forces_weight=0.0, energy_weight=0.01, denoise_weight=1.0)
    run = trained(tmp_path / "whole", frames, fit)
    assert run.auxiliary is not None
    lines = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["train_noise_rmse"] < 0.8 < lines[0]["train_noise_rmse"]
    trained(tmp_path / "twice", frames, replace(fit, epochs=10))
    trained(tmp_path / "twice", frames, fit)
    (_, a), (_, b) = (read_tensors(tmp_path / d / "state.safetensors") for d in ("whole", "twice"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_off_by_default(frames: list[Frame]) -> None:
    run, samples = begun(frames[:4], Fit())
    assert run.auxiliary is None
    assert "noise" not in gradient(run, samples, Fit())[1]
    with_noise, _ = begun(frames[:4], FIT)  # the weights of the network begin the same
    names = run.potential.state_dict()
    assert all(torch.equal(v, with_noise.potential.state_dict()[k]) for k, v in names.items())
    assert np.isfinite(gradient(with_noise, samples, FIT)[0])
