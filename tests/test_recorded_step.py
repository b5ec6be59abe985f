"""Training steps that a GPU records give what those give that it does not; on a CPU the same functions run."""

from __future__ import annotations

import copy
import io
import lzma
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read

from potential.physics import predict
from potential.recorded import Recording
from train.batches import Sample, batch, normalized, prepare
from train.config import Fit, Weights
from train.data.dataset import Frame
from train.loop import valid_errors
from train.parallel import shared_errors
from train.plan import elements, make_potential, measure
from train.recorded import KEPT, may_record
from train.run import Run, start
from train.soap import Soap
from train.statistics import fit_e0
from train.step import fitting, gradient, train_step

DATA = Path(__file__).parents[1] / "data"
CUTOFF = 4.0
DIALS = {"channels": 8, "message_channels": 8, "vector_channels": 4, "correlation": 2, "cutoff": CUTOFF}
DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]
WEIGHTED = Fit(dtype="float64", energy_weight=2.0, forces_weight=3.0, stress_weight=0.7)


def structures(n: int, name: str = "acac/train_300K.xyz.xz") -> list[Atoms]:
    text = lzma.decompress((DATA / name).read_bytes()).decode()
    found: list[Atoms] = read(io.StringIO(text), f":{n}", format="extxyz")
    return found


def silicon(n: int) -> list[Frame]:
    """Frames of different sizes, some of them without a label, with different weights."""
    rows = []
    for k, atoms in enumerate(structures(214, "mlearn/Si_train.extxyz.xz")[:: 214 // n][:n]):
        virial = np.eye(3) * 0.01 * k if k % 2 else None
        forces = atoms.get_forces() if k != 1 else None
        weights = Weights(1.0 + k, 1.0, 0.5)
        rows.append(Frame(atoms, atoms.get_potential_energy(), forces, virial, "si", k, None, weights))
    return rows


def run_of(frames: Sequence[Frame], fit: Fit) -> tuple[Run, list[Sample]]:
    samples = prepare(frames, CUTOFF)
    facts = measure(frames, samples, fit_e0(frames, elements(frames)))
    return start(make_potential(DIALS, facts, fit), fit), normalized(samples)


def run_on(device: str, frames: list[Frame], fit: Fit) -> tuple[Run, list[Sample], Fit]:
    run, samples = run_of(frames, fit)
    if device == "cpu":
        return run, samples, fit
    fit = replace(fit, device=device)
    return start(run.potential.to(device), fit), samples, fit


def both(run: Run, samples: list[Sample], fit: Fit) -> None:
    """Loss, squared errors and gradients, recorded or not."""
    value, sums = gradient(run, samples, fit)
    slopes = [w.grad for w in run.weights]
    run.optimizer.zero_grad(set_to_none=True)
    got, got_sums = run.recordings.gradient(run.potential, run.weights, samples, fit)
    assert got == pytest.approx(value, rel=1e-10)
    assert set(got_sums) == set(sums)
    for name, (square, n) in sums.items():
        assert got_sums[name] == [pytest.approx(square, rel=1e-10), n]
    for w, slope in zip(run.weights, slopes, strict=True):
        assert w.grad is not None
        assert slope is not None
        torch.testing.assert_close(w.grad, slope, rtol=1e-8, atol=1e-11 * float(slope.abs().max() + 1))
    run.optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_gradients_of_crystals_of_all_sizes(device: str, loss: str) -> None:
    """With and without stress and forces, weighted; one recording serves another batch of its shape."""
    run, samples, fit = run_on(device, silicon(6), replace(WEIGHTED, loss=loss))
    for some in (samples, samples[::-1], samples[:2], samples[3:5]):
        both(run, some, fit)
    assert len(run.recordings.known) <= 3
    assert run.recordings.n_slots % 4 == 0


@pytest.mark.parametrize("device", DEVICES)
def test_weights_in_another_graph(device: str) -> None:
    """What somebody else holds of the same weights does not matter, for the first recording and for a later one."""
    run, samples, fit = run_on(device, silicon(4), WEIGHTED)
    held = predict(run.potential, batch(samples, device).graph, create_graph=True)
    for some in (samples, samples[:1]):
        both(run, some, fit)
    assert held.energy.requires_grad


@pytest.mark.parametrize("device", DEVICES)
def test_energies_alone_need_no_slope(device: str) -> None:
    rows = structures(4)
    frames = [Frame(a, a.get_potential_energy(), None, None, "a", k) for k, a in enumerate(rows)]
    run, samples, fit = run_on(device, frames, WEIGHTED)
    both(run, samples, fit)
    assert not next(iter(run.recordings.known)).slopes


@pytest.mark.parametrize("device", DEVICES)
def test_an_atom_without_neighbors(device: str) -> None:
    rows = structures(3)
    rows[1].calc.atoms.positions[2] += 50.0  # ASE forgets labels of other positions
    rows[1].positions[2] += 50.0
    frames = [Frame(a, a.get_potential_energy(), a.get_forces(), None, "a", k) for k, a in enumerate(rows)]
    both(*run_on(device, frames, WEIGHTED))


def test_few_recordings_are_kept() -> None:
    run, samples, fit = run_on("cpu", silicon(3), WEIGHTED)
    for n in range(1, KEPT + 5):
        run.recordings.gradient(run.potential, run.weights, samples[:1] * n, fit)
    assert len(run.recordings.known) == KEPT


def out_of_memory(_: Recording, function: Callable[[], torch.Tensor], __: torch.device) -> None:
    for _ in range(2):
        function()
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_no_memory_to_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step is made without, and so is every one after it."""
    run, samples, fit = run_on("cpu", silicon(2), WEIGHTED)
    value, sums = gradient(run, samples, fit)
    monkeypatch.setattr("train.step.may_record", lambda *_: True)
    monkeypatch.setattr(Recording, "__init__", out_of_memory)
    for _ in range(2):
        run.optimizer.zero_grad(set_to_none=True)
        assert fitting(run, samples, fit) == (value, sums)
        assert run.recordings.full


def test_recordings_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory may be short because of what recordings hold: a step that is not recorded is tried again without them."""
    run, samples, fit = run_on("cpu", silicon(2), WEIGHTED)
    run.recordings.gradient(run.potential, run.weights, samples, fit)
    expected = gradient(run, samples, fit)

    def short(*arguments: Any) -> Any:
        if run.recordings.known:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return gradient(*arguments)

    monkeypatch.setattr("train.step.gradient", short)
    run.optimizer.zero_grad(set_to_none=True)
    assert fitting(run, samples, fit) == expected
    assert not run.recordings.known


def test_recordings_make_room_for_a_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything else that goes wrong is an error; so is memory that nothing can free."""
    run, samples, fit = run_on("cpu", silicon(2), WEIGHTED)
    expected = valid_errors(run, samples, "cpu")
    words = "CUDA out of memory"

    def short(*arguments: Any) -> Any:
        if run.recordings.known:
            raise RuntimeError(words)
        return shared_errors(*arguments)

    monkeypatch.setattr("train.loop.shared_errors", short)
    run.recordings.gradient(run.potential, run.weights, samples, fit)
    assert valid_errors(run, samples, "cpu") == expected
    assert run.recordings.full
    run, samples, fit = run_on("cpu", silicon(2), WEIGHTED)
    run.recordings.gradient(run.potential, run.weights, samples, fit)
    words = "something else"
    with pytest.raises(RuntimeError, match=words):
        valid_errors(run, samples, "cpu")


def test_soap_without_memory_to_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has moved, and it does not try again."""
    weight = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    optimizer = Soap([weight], lr=0.1)
    weight.grad = torch.ones(4, 3) + torch.eye(4, 3)
    for _ in range(2):
        optimizer.step()
    before = [weight.detach().clone(), *(copy.deepcopy(list(optimizer.state[weight].values())))]
    monkeypatch.setattr(Recording, "__init__", out_of_memory)
    with torch.no_grad():
        assert not optimizer._replay([(weight, optimizer.param_groups[0])])
    assert not optimizer.record
    for one, other in zip(before, [weight.detach(), *optimizer.state[weight].values()], strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


def test_a_copied_soap_goes_on() -> None:
    weight = torch.zeros(4, 3, requires_grad=True)
    weight.grad = torch.eye(4, 3)
    copy.deepcopy(Soap([weight], lr=0.1)).step()


def test_who_may_record() -> None:
    run, samples, fit = run_on("cpu", silicon(2), Fit())
    on = replace(fit, device="cuda")
    assert may_record(run.potential, samples, on)
    assert not may_record(run.potential, samples, fit)
    assert not may_record(run.potential, samples, replace(on, record=False))
    assert not may_record(run.potential, samples, replace(on, denoise_weight=1.0))
    assert not may_record(run.potential, samples * 2000, on)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_soap_recorded(device: str, weight_decay: float) -> None:
    """25 steps with two turns, at a rate that changes; a state that is loaded is recorded anew."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 6, 5), (4, 4), (7,)]
    starts = [torch.randn(*s, generator=generator, dtype=torch.float64) for s in shapes]
    slopes = [
        [torch.randn(*s, generator=generator, dtype=torch.float64).to(device) for s in shapes]
        for _ in range(25)
    ]
    ends = []
    for record in (False, True):
        weights = [x.to(device, copy=True).requires_grad_() for x in starts]
        optimizer = Soap(weights, lr=0.01, weight_decay=weight_decay)
        optimizer.record = record
        for k, step in enumerate(slopes):
            optimizer.param_groups[0]["lr"] = 0.01 / (1 + k)
            for w, g in zip(weights, step, strict=True):
                w.grad = g.clone()
            if record and k and device == "cpu":  # what a GPU does by itself
                with torch.no_grad():
                    optimizer._replay([(w, optimizer.param_groups[0]) for w in weights])
            else:
                optimizer.step()
            if k == 14:
                optimizer.load_state_dict(optimizer.state_dict())
                assert optimizer.recorded is None
        assert (optimizer.recorded is not None) == record
        ends.append(weights)
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_run_is_the_same_recorded_or_not() -> None:
    """Twelve steps with all that belongs to one. With AdamW: sums of a GPU have no order."""
    rows = structures(12)
    frames = [Frame(a, a.get_potential_energy(), a.get_forces(), None, "a", k) for k, a in enumerate(rows)]
    ends = []
    for record in (False, True):
        run, samples, fit = run_on("cuda", frames, replace(WEIGHTED, record=record, optimizer="adamw"))
        for k in range(12):
            train_step(run, [samples[(k + j) % 12] for j in range(4)], fit, 1.0)
        assert bool(run.recordings.known) == record
        ends.append([w.detach().clone() for w in run.weights])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)
