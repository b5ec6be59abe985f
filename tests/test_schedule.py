"""Schedules of the learning rate, the second stage, penalties and scores; each run can be made longer exactly."""

from __future__ import annotations

import io
import lzma
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ase.io import read

from potential.checkpoint import read as read_tensors
from train import loop
from train.batches import Sample, normalized, prepare
from train.cli import main
from train.config import Config, Fit, check
from train.data.dataset import Frame
from train.data.hdf5 import write_hdf5
from train.loop import Task, continue_run, run_epochs
from train.loss import penalties, total
from train.plan import choose_fit, elements, make_potential, measure, require_labels
from train.run import Run, start
from train.schedule import make_plan, of_stage, score
from train.statistics import fit_e0

DATA = Path(__file__).parents[1] / "data"
CUTOFF = 3.0
DIALS = {
    "channels": 4,
    "message_channels": 4,
    "vector_channels": 2,
    "correlation": 2,
    "lmax": 1,
    "hidden_lmax": 1,
    "cutoff": CUTOFF,
}
FIT = Fit(batch_size=4, warmup_steps=3)


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    text = lzma.decompress((DATA / "acac/train_300K.xyz.xz").read_bytes()).decode()
    rows = read(io.StringIO(text), ":20", format="extxyz")
    return [Frame(a, a.get_potential_energy(), a.get_forces(), None, "f", k) for k, a in enumerate(rows)]


def trained(
    directory: Path, frames: Sequence[Frame], fit: Fit, ends: str = "done", worse_until: int = 0
) -> tuple[Run, list[tuple[int, float, float]]]:
    """A run of `fit` in `directory`, gone on with where one is there; and for each of its steps number, rate and energy
    weight. The validation error rises until the epoch `worse_until`."""
    directory.mkdir(exist_ok=True)
    samples = prepare(frames, CUTOFF)
    facts = measure(frames, samples, fit_e0(frames, elements(frames)))
    run = start(make_potential(DIALS, facts, fit), fit)
    steps: list[tuple[int, float, float]] = []
    whole = loop.train_step

    def counted(run: Run, samples: Sequence[Sample], now: Fit, rate: float) -> float:
        steps.append((run.step, rate, now.energy_weight))
        return whole(run, samples, now, rate)

    plan = make_plan(fit, -(-16 // fit.batch_size))
    task = Task(
        normalized(samples[:16]), samples[16:], [""] * 16, fit, plan, directory, lambda run, line: None
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", counted)
        patch.setattr(loop, "VALIDATE_STEPS", 1)
        if worse_until:
            patch.setattr(
                loop,
                "score",
                lambda e, *rest: score(e, *rest) + (1e9 * run.epoch if run.epoch <= worse_until else 0),
            )
        continue_run(run, task)
        assert run_epochs(run, task) == ends
    return run, steps


WAYS: dict[str, dict[str, Any]] = {
    "cosine": {"schedule": "cosine", "decay": 1.0},
    "exponential": {"schedule": "exponential", "final_rate": 0.01, "decay": 0.5},
    "constant": {"schedule": "constant"},
    "plateau": {"schedule": "plateau", "plateau_patience": 1, "learning_rate": 0.3},
    "stage two": {"stage_two": 0.75, "decay": 0.3, "loss": "mae"},
    "late stage two": {"stage_two": 0.25, "schedule": "constant", "stage_two_rate": 0.5},
    "sgd": {"optimizer": "sgd", "optimizer_options": ("momentum=0.9",), "schedule": "cosine"},
}


@pytest.mark.parametrize("way", WAYS)
def test_three_and_three_epochs_are_six(way: str, tmp_path: Path, frames: list[Frame]) -> None:
    fit = replace(FIT, **WAYS[way])
    whole, steps = trained(tmp_path / "six", frames, replace(fit, epochs=6))
    trained(tmp_path / "three", frames, replace(fit, epochs=3))
    resumed, more = trained(tmp_path / "three", frames, replace(fit, epochs=6))
    (_, a), (_, b) = (read_tensors(tmp_path / d / "state.safetensors") for d in ("six", "three"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    for name in ("best", "best_epoch", "stage", "reductions", "reduced", "step"):
        assert getattr(whole, name) == getattr(resumed, name), name
    assert steps[more[0][0] :] == more
    if way == "plateau":
        assert whole.reductions > 0
        last = whole.reduced == whole.epoch  # after the last step
        assert steps[-1][1] == 0.5 ** (whole.reductions - last) < 1


def test_the_second_stage_begins_where_it_should(tmp_path: Path, frames: list[Frame]) -> None:
    fit = replace(FIT, epochs=4, stage_two=0.5, stage_two_rate=0.1, schedule="constant")
    run, steps = trained(tmp_path / "a", frames, fit)
    assert [weight for _, _, weight in steps] == [1.0] * 8 + [10.0] * 8
    assert [rate for _, rate, _ in steps[3:]] == [1.0] * 5 + [0.1] * 8
    assert (run.stage, run.best_epoch >= 3) == (2, True)
    # stages of the same weights are one stage
    same = replace(fit, stage_two_energy_weight=1.0, stage_two_rate=1.0)
    one, _ = trained(tmp_path / "b", frames, same)
    two, _ = trained(tmp_path / "c", frames, replace(same, stage_two=0.0))
    pairs = zip(one.potential.parameters(), two.potential.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("length", [{"epochs": 20}, {"minutes": 3.0}])
def test_patience_ends_the_first_stage_and_then_the_second(
    length: dict[str, Any], tmp_path: Path, frames: list[Frame], capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that gets no better goes on to its second stage, as long as planned, and may end early in it."""
    never = replace(FIT, **length, patience=1, learning_rate=1e-300, ema=1.0, schedule="constant")
    run, steps = trained(tmp_path / "one", frames, never, "early")
    assert (run.epoch, run.stage) == (3, 1)  # the best is the first
    two = replace(never, stage_two=0.25, stage_two_rate=0.5)
    run, steps = trained(tmp_path / "two", frames, two, "early")
    assert [weight for _, _, weight in steps] == [1.0] * 12 + [10.0] * 12
    assert steps[-1][1] == 0.5
    assert (run.stage, run.best_epoch, run.step, run.epoch) == (2, 4, 24, 6)
    assert (
        "epoch 3: no better validation error for 1 epochs, so the second stage begins"
        in capsys.readouterr().out
    )
    if "epochs" in length:  # all of the second stage, where it does get better
        improving = replace(two, patience=2, learning_rate=0.0005)
        run, steps = trained(tmp_path / "three", frames, improving, "done", worse_until=4)
        assert [weight for _, _, weight in steps] == [1.0] * 16 + [10.0] * 20
        assert make_plan(improving, 4).done(run) == 1


@pytest.mark.parametrize("clock", ["wall", "cpu"])
def test_minutes_are_of_the_clock_asked_for(
    clock: str, tmp_path: Path, frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one of the two that stands still would let the run go on forever."""
    now = iter(range(1000))
    clocks = {name: (lambda: 0.0) for name in ("wall", "cpu")} | {clock: lambda: float(next(now))}
    monkeypatch.setattr(loop, "CLOCKS", clocks)
    run, _ = trained(tmp_path / "run", frames, replace(FIT, minutes=0.5, clock=clock))
    assert (run.step, run.seconds) == (30, 30.0)  # one look at the clock a step, a second each


@pytest.mark.parametrize(("epochs", "ends"), [(4, "done"), (8, "early")])
def test_a_run_whose_second_stage_came_early_can_be_made_longer(
    epochs: int, ends: str, tmp_path: Path, frames: list[Frame]
) -> None:
    fit = replace(FIT, patience=1, stage_two=0.5, decay=0.3, learning_rate=1e-300, ema=1.0)
    whole, _ = trained(tmp_path / "whole", frames, replace(fit, epochs=12), "early")
    assert (whole.step, whole.ahead) == (24, 12)
    trained(tmp_path / "longer", frames, replace(fit, epochs=epochs), ends)
    _, more = trained(tmp_path / "longer", frames, replace(fit, epochs=epochs), ends)
    assert more == []  # the same length: nothing is left to do
    longer, _ = trained(tmp_path / "longer", frames, replace(fit, epochs=12), "early")
    (_, a), (_, b) = (read_tensors(tmp_path / d / "state.safetensors") for d in ("whole", "longer"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert (longer.step, longer.ahead, longer.epoch) == (whole.step, whole.ahead, whole.epoch)


def test_rates_are_what_their_names_say() -> None:
    samples = Fit(epochs=10, decay=0.5, warmup_steps=0, final_rate=0.1)
    run = Run.__new__(Run)
    run.stage, run.reductions, run.seconds = 1, 0, 0.0
    known = {
        "linear": [1.0, 1.0, 1.0, 0.55, 0.1],
        "cosine": [1.0, 1.0, 1.0, 0.55, 0.1],
        "exponential": [1.0, 1.0, 1.0, math.sqrt(0.1), 0.1],
        "constant": [1.0] * 5,
    }
    for shape, expected in known.items():
        plan = make_plan(replace(samples, schedule=shape), 100)
        rates = []
        for run.step in (0, 250, 500, 750, 1000):
            rates.append(plan.rate(run))
        assert rates == pytest.approx(expected), shape
    run.step = 600  # a fifth of the way down
    assert make_plan(replace(samples, schedule="cosine"), 100).rate(run) == pytest.approx(
        0.1 + 0.9 * (1 + math.cos(math.pi / 5)) / 2
    )
    plan = make_plan(Fit(epochs=7, decay=0.6), 33)  # the formula, to the last bit
    for run.step in range(7 * 33):
        left = max(0.0, min(1.0, (1 - run.step / (7 * 33)) / 0.6))
        assert plan.rate(run) == min(1.0, (run.step + 1) / 33) * left


def test_penalties_are_means_over_all_labels() -> None:
    """Of a batch of different sizes: sum over sum, not a mean of means."""
    d = torch.tensor([[3.0, -4.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, -2.0]], dtype=torch.float64)
    known = torch.tensor([True, True, False])[:, None].expand(3, 3)
    d = torch.where(known, d, torch.zeros_like(d)).requires_grad_()
    fits = {
        "mse": (9 + 16 + 0.25) / 4,
        "mae": 7.5 / 2,
        "huber": (1 * (2 * 1.5 - 1) + 1 * (2 * 2 - 1) + 0.25**2),
    }
    for loss, expected in fits.items():
        fit = Fit(loss=loss, huber_delta=1.0, forces_weight=2.0)
        value = total(penalties({"forces": (d, known)}, fit, scale=2.0), fit)
        assert value.item() == pytest.approx(2.0 * expected / 6), loss
        (gradient,) = (torch.func.grad(lambda x: total(penalties({"forces": (x, known)}, fit, 2.0), fit))(d),)  # noqa: B023
        assert bool(torch.isfinite(gradient).all())


def test_the_best_model_has_least_of_what_is_minimized() -> None:
    e: dict[str, float | int | None] = {"energy_rmse": 3.0, "forces_rmse": 2.0, "stress_rmse": 5.0}
    e |= {"energy_mae": 1.0, "forces_mae": 0.5, "stress_mae": 4.0}
    nothing = {**e, "energy_rmse": None, "forces_rmse": None}
    for errors, fit, expected in (
        (e, Fit(energy_weight=2.0), (3.0 * 2.0**3) ** 0.25),
        (e, Fit(energy_weight=2.0, loss="mae"), 0.5**0.75),
        (e, Fit(energy_weight=0.0), 2.0),
        ({**e, "energy_rmse": None}, Fit(), 2.0),
        (e, Fit(energy_weight=0.0, forces_weight=0.0, stress_weight=2.0), 5.0),
        (nothing, Fit(stress_weight=2.0), 5.0),  # 0: the first would be best forever
    ):
        assert score(errors, fit) == pytest.approx(expected, rel=1e-3)
    exact = [score({**e, "energy_rmse": x, "forces_rmse": y}, Fit()) for x, y in ((4.0, 0.0), (2.0, 7e-5))]
    assert exact[0] == pytest.approx(2**0.25 * exact[1], rel=1e-4)  # rounding does not decide
    assert math.isnan(score({**e, "forces_rmse": math.nan}, Fit()))
    run = Run.__new__(Run)
    run.stage = 2
    two = of_stage(Fit(stage_two_energy_weight=7.0), run)
    assert {k: v for k, v in asdict(two).items() if v != asdict(Fit())[k]} == {
        "energy_weight": 7.0,
        "stage_two_energy_weight": 7.0,
    }


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"energy_weight": 0.0, "forces_weight": 0.0, "stress_weight": 0.0}, "all 0: nothing to learn"),
        (
            {"stage_two": 0.2} | {f"stage_two_{k}_weight": 0.0 for k in ("energy", "forces", "stress")},
            "stage_two_energy_weight, .* are all 0",
        ),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"stage_two": 1.0}, "stage_two is 1.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check(Config(fit=Fit(**settings)))


def test_an_exponential_needs_an_end() -> None:
    with pytest.raises(ValueError, match="never reaches final_rate = 0"):
        make_plan(Fit(epochs=1, schedule="exponential"), 3)


def test_nothing_to_learn_from_labels_that_are_not_there(frames: list[Frame]) -> None:
    with pytest.raises(ValueError, match="no training frame has stress"):
        choose_fit(Fit(energy_weight=0.0, forces_weight=0.0), frames)
    with pytest.raises(ValueError, match=r"no training frame has stress.*stage_two_energy_weight"):
        choose_fit(Fit(stage_two=0.5, stage_two_energy_weight=0.0, stage_two_forces_weight=0.0), frames)
    bare = [replace(f, forces=None) for f in frames]
    with pytest.raises(
        ValueError, match=r"no validation frame has forces or stress.*choose the best model by"
    ):
        require_labels(Fit(energy_weight=0.0), "validation", bare)
    require_labels(Fit(), "validation", bare)


def test_validation_frames_must_have_what_is_minimized(
    tmp_path: Path, frames: list[Frame], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_hdf5("train.h5", frames)
    write_hdf5("valid.h5", [replace(f, forces=None) for f in frames[:2]])
    arguments = ["train.h5", "--valid", "valid.h5", "--set", "fit.energy_weight=0", "--epochs", "1"]
    assert main([*arguments, "--preset", "tiny"]) == 1
    assert "no validation frame has forces or stress" in capsys.readouterr().err
    assert not Path("train-run").exists()
