"""One step of training: in parts, not finite, out of memory."""

from __future__ import annotations

import io
import json
import lzma
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read, write

from potential.checkpoint import read as read_tensors
from potential.chunks import predict_in_chunks
from potential.graph import Graph
from potential.model import Potential
from potential.physics import Prediction
from train import plan, step
from train.batches import Sample, batch, normalized, prepare
from train.cli import main
from train.config import Fit, Weights
from train.data.dataset import Frame
from train.evaluate import evaluate
from train.plan import elements, make_potential, measure
from train.run import Run, start
from train.state import pack
from train.statistics import fit_e0
from train.step import Failed, NotFinite, gradient, recover, train_step
from train.threads import threads

DATA = Path(__file__).parents[1] / "data"
CUTOFF = 4.0
DIALS = {"channels": 8, "message_channels": 8, "vector_channels": 4, "correlation": 2, "cutoff": CUTOFF}
QUICK = ["--preset", "tiny", "--set", "model.channels=8", "--set", "fit.batch_size=4"]


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


def content(run: Run) -> list[torch.Tensor]:
    """Weights, optimizer and moving average."""
    tensors: dict[str, torch.Tensor] = {}
    pack([run.potential.state_dict(), run.optimizer.state_dict(), run.ema.state_dict()], tensors)
    return list(tensors.values())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with 24 frames to train on; no report is drawn, which takes longer than these runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("train.finish.draw", lambda directory: {})
    write(tmp_path / "train.xyz", structures(24))
    return tmp_path


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(loss: str) -> None:
    fit = Fit(dtype="float64", loss=loss)
    run, samples = run_of(silicon(5), fit)
    found = []
    for at_once in (0, 1, 2, 3):
        run.at_once = at_once
        run.optimizer.zero_grad()
        value, sums = gradient(run, samples, fit)
        flat = torch.cat([p.grad.flatten() for p in run.potential.parameters() if p.grad is not None])
        found.append((value, sums, flat))
    value, sums, whole = found[0]
    for other, other_sums, flat in found[1:]:
        assert other == pytest.approx(value, rel=1e-12)
        torch.testing.assert_close(flat, whole, rtol=1e-10, atol=1e-12 * float(whole.abs().max()))
        for name, (square, n) in sums.items():
            assert other_sums[name] == [pytest.approx(square, rel=1e-10), n]


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    fit = Fit(max_skipped=3)
    run, samples = run_of(silicon(4), fit)
    for _ in range(3):
        train_step(run, samples, fit, 1.0)
    before = [t.clone() for t in content(run)]
    samples[2] = replace(samples[2], weights=samples[2].weights * torch.inf)
    said: list[str] = []
    names = list("abcd")
    for k in range(3):
        with pytest.raises(NotFinite) as caught:
            train_step(run, samples, fit, 1.0)
        failed = Failed(samples, names, caught.value)
        if k < 2:
            assert not recover(run, failed, fit, said.append)
        assert all(torch.equal(a, b) for a, b in zip(before, content(run), strict=True))
    assert "not finite by itself: c; the step is skipped" in said[-1]
    assert run.step == 5
    with pytest.raises(ValueError, match=r"by itself: c; that was step number 3 in a row"):
        recover(run, failed, fit, said.append)
    run.skipped = 2
    train_step(run, samples[:2], fit, 1.0)
    assert run.skipped == 0


def past_trial(run: Run) -> bool:
    """Not one of the trial steps, which go nowhere."""
    return float(run.optimizer.param_groups[0]["lr"]) > 1e-5


def poison(monkeypatch: pytest.MonkeyPatch, spoils: Callable[[Run, Sequence[Sample]], bool]) -> None:
    whole = step.gradient

    def poisoned(run: Run, samples: Sequence[Sample], fit: Fit, *counts: Any) -> tuple[float, step.Sums]:
        value, sums = whole(run, samples, fit, *counts)
        return (float("nan") if spoils(run, samples) else value), sums

    monkeypatch.setattr(step, "gradient", poisoned)


def weights(directory: str, name: str) -> dict[str, torch.Tensor]:
    return read_tensors(Path(directory) / name)[1]


def assert_same(one: str, two: str) -> None:
    for name in ("state.safetensors", "model.safetensors"):
        a, b = weights(one, name), weights(two, name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_runs_skip_and_resume_exactly(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One frame is never finite while training; its batches are skipped, and 2 + 2 epochs are 4."""
    poison(
        monkeypatch,
        lambda run, samples: past_trial(run) and any(s.graph.positions[0, 0] == x for s in samples),
    )
    x = structures(8)[7].positions[0, 0]
    assert main(["train.xyz", *QUICK, "--epochs", "4", "--output", "four"]) == 0
    log = Path("four/log.txt").read_text()
    assert "not finite by itself: train.xyz frame 7; the step is skipped" in log
    assert main(["train.xyz", *QUICK, "--epochs", "2", "--output", "two"]) == 0
    assert main(["--resume", "--output", "two", "--epochs", "4"]) == 0
    assert_same("four", "two")
    line = json.loads(Path("four/metrics.jsonl").read_text().splitlines()[-1])
    assert np.isfinite(line["loss"])


def test_runs_stop_where_nothing_is_finite(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    poison(monkeypatch, lambda run, samples: run.step >= 15)
    assert main(["train.xyz", *QUICK, "--epochs", "6", "--output", "run", "--set", "fit.max_skipped=4"]) == 1
    assert "that was step number 4 in a row to fail; look at these frames" in capsys.readouterr().err
    assert main(["train.xyz", *QUICK, "--epochs", "6", "--output", "b", "--set", "fit.max_skipped=0"]) == 1
    assert "max_skipped is 0" in capsys.readouterr().err


def little_memory(monkeypatch: pytest.MonkeyPatch, most: int, error: BaseException) -> None:
    predict = step.predict

    def limited(potential: object, graph: object, **options: bool) -> object:
        if len(graph.n_atoms) > most:  # type: ignore[attr-defined]
            raise error
        return predict(potential, graph, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(step, "predict", limited)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "cpu", "python"])
def test_out_of_memory_says_what_fits(
    error: BaseException, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    little_memory(monkeypatch, 2, error)
    assert main(["train.xyz", *QUICK, "--epochs", "2", "--output", "run"]) == 1
    said = capsys.readouterr().err
    assert "4 structures at a time do not fit into memory, 2 would; the largest is train.xyz frame" in said
    assert "(15 atoms, " in said
    assert "fit.batch_size=2, or --on-oom shrink" in said
    assert not Path("run").exists()
    little_memory(monkeypatch, 0, error)
    assert main(["train.xyz", *QUICK, "--epochs", "2", "--output", "run", "--on-oom", "shrink"]) == 1
    assert "not even one structure at a time" in capsys.readouterr().err


def test_out_of_memory_elsewhere_is_explained(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A library that is loaded late, or a process that is started, may be the first for which there is no room."""
    problems = {
        "train.loop.shared_errors": MemoryError(),
        "train.finish.draw": ImportError("_backend_agg.so: failed to map segment from shared object"),
        "train.finish.write_worst": OSError(12, "Cannot allocate memory"),
    }
    for place, problem in problems.items():
        with monkeypatch.context() as patch:
            patch.setattr(place, lambda *_, problem=problem: (_ for _ in ()).throw(problem))
            assert main(["train.xyz", *QUICK, "--epochs", "1", "--output", place]) == 1
        said = capsys.readouterr().err
        assert f"out of memory outside the gradient of a step ({str(problem) or 'MemoryError'})" in said
        saved = not place.startswith("train.loop")  # there the first validation, before which nothing is
        assert (f"--resume --output {place} goes on from what was saved" in said) == saved
        assert main(["--resume", "--output", place]) == 0
        assert (Path(place) / "summary.json").exists()
        capsys.readouterr()


def test_other_errors_are_no_lack_of_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    little_memory(monkeypatch, 2, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        main(["train.xyz", *QUICK, "--epochs", "2", "--output", "run", "--on-oom", "shrink"])


def test_shrunk_batches_train_and_resume_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["train.xyz", *QUICK, "--set", "fit.dtype=float64", "--on-oom", "shrink"]
    assert main([*options, "--epochs", "2", "--output", "whole"]) == 0
    little_memory(monkeypatch, 3, ERRORS[1])
    assert main([*options, "--epochs", "2", "--output", "shrunk"]) == 0
    assert main([*options, "--epochs", "1", "--output", "resumed"]) == 0
    assert main(["--resume", "--epochs", "2", "--output", "resumed"]) == 0
    assert_same("shrunk", "resumed")
    assert "batches are taken 2 structures at a time from here on" in Path("shrunk/log.txt").read_text()
    whole, shrunk = weights("whole", "model.safetensors"), weights("shrunk", "model.safetensors")
    assert any(not torch.equal(whole[k], v) for k, v in shrunk.items())
    for k, v in shrunk.items():
        torch.testing.assert_close(v, whole[k], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("alone", "said"), [(0.5, True), (0.9, False)])
def test_too_many_threads_are_said_and_left_as_they_are(
    monkeypatch: pytest.MonkeyPatch, alone: float, said: bool
) -> None:
    asked: list[int] = []

    def trial(*_: object) -> tuple[None, float]:
        asked.append(torch.get_num_threads())
        return None, alone

    monkeypatch.setattr(plan, "trial", trial)
    potential, task = torch.nn.Linear(1, 1), SimpleNamespace(fit=Fit())
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        text = plan.fewer_threads(potential, task, 1.0)  # type: ignore[arg-type]
        assert (torch.get_num_threads(), asked) == (3, [1])
        with pytest.raises(ValueError, match="stop"), threads(2):
            raise ValueError("stop")
        assert torch.get_num_threads() == 3
        torch.set_num_threads(1)
        assert not plan.fewer_threads(potential, task, 1.0)  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(before)
    assert ("OMP_NUM_THREADS=1" in text, "500 ms a step instead of the 1000 of 3" in text) == (said, said)


def test_evaluations_take_halves_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Down to single structures; one that does not fit even in chunks is an error, as is anything else."""
    run, samples = run_of(silicon(7), Fit(dtype="float64"))
    whole, sizes = evaluate(run.potential, samples, "cpu"), []

    def short(most: int, words: str = "CUDA out of memory") -> Callable[[Sequence[Sample], str], Sample]:
        def attempt(some: Sequence[Sample], device: str) -> Sample:
            sizes.append(len(some))
            if len(some) > most:
                raise RuntimeError(words)
            return batch(some, device)

        return attempt

    monkeypatch.setattr("train.evaluate.batch", short(2))
    halves = evaluate(run.potential, samples, "cpu")
    assert sizes == [7, 3, 1, 2, 4, 2, 2]
    for name, values in whole.arrays().items():
        np.testing.assert_allclose(halves.arrays()[name], values, rtol=1e-9, atol=1e-12)
    for most, words in ((0, "CUDA out of memory"), (2, "something else")):
        monkeypatch.setattr("train.evaluate.batch", short(most, words))
        with pytest.raises((MemoryError, RuntimeError), match=words) as raised:
            evaluate(run.potential, samples, "cpu")
        assert ("a structure of 63 atoms" in str(raised.value)) == (most == 0)


def test_evaluations_take_chunks_of_a_structure_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    run, samples = run_of(silicon(2), Fit(dtype="float64"))
    whole, sizes = evaluate(run.potential, samples, "cpu"), []

    def short(potential: Potential, graph: Graph, size: int) -> Prediction:
        sizes.append(size)
        if size > 3:
            raise MemoryError
        return predict_in_chunks(potential, graph, size)

    monkeypatch.setattr("train.evaluate.predict_in_chunks", short)
    monkeypatch.setattr("train.evaluate.CHUNK", 3)
    chunks = evaluate(run.potential, samples, "cpu")
    one, two = whole.n_atoms
    assert sizes == [one + two, one, 3, two, 3]
    for name, values in whole.arrays().items():
        np.testing.assert_allclose(chunks.arrays()[name], values, rtol=1e-9, atol=1e-12)
