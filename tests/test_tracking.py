"""What a run tells: the live line on a terminal, and metrics in TensorBoard and Weights & Biases."""

from __future__ import annotations

import io
import json
import lzma
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from ase.io import read, write

from train import tracking
from train.cli import main
from train.config import Log
from train.display import Display, rate_text
from train.schedule import make_plan
from train.tracking import require, scalars

DATA = Path(__file__).parents[1] / "data"
QUICK = [
    "train.xyz",
    "--preset",
    "tiny",
    "--set",
    "model.channels=8",
    "--set",
    "fit.batch_size=4",
    "--output",
    "run",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    text = lzma.decompress((DATA / "acac/train_300K.xyz.xz").read_bytes()).decode()
    write(tmp_path / "train.xyz", read(io.StringIO(text), ":24", format="extxyz"))
    return tmp_path


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "run/tensorboard"))
    found.Reload()
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_holds_the_metrics_also_after_a_resume(folder: Path) -> None:
    assert main([*QUICK, "--epochs", "12", "--log", "tensorboard"]) == 0
    assert main(["--resume", "--output", "run", "--epochs", "24"]) == 0
    expected, found = lines(folder), events(folder)
    assert len(expected) >= 2
    for tag, key in (("valid/forces_rmse", "valid_forces_rmse"), ("train/loss", "loss"), ("train/lr", "lr")):
        got = [(e.step, e.value) for e in found.Scalars(tag)]
        assert [step for step, _ in got] == [line["step"] for line in expected]
        assert [value for _, value in got] == pytest.approx([line[key] for line in expected], rel=1e-6)
    assert "valid/stress_rmse" not in found.Tags()["scalars"]


def test_wandb_offline_writes_the_metrics_without_a_network(folder: Path) -> None:
    import wandb

    options = ["--log", "wandb", "--set", "log.offline=true", "--set", "log.project=test"]
    assert main([*QUICK, "--epochs", "2", *options]) == 0
    (file,) = (folder / "run/wandb").glob("offline-run-*/*.wandb")
    stored = file.read_bytes()
    for word in (
        b"valid/forces_rmse",
        b"train/loss",
        json.dumps(lines(folder)[-1]["valid_forces_rmse"]).encode(),
    ):
        assert word in stored, word
    assert wandb.run is None, "the run is finished"


def test_tools_get_every_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """wandb's own interface is recorded: what it is asked for, and that a resumed run goes on with the same id."""
    told: list[Any] = []

    class Started:
        def log(self, values: dict[str, float], step: int) -> None:
            told.append((step, values))

        def finish(self) -> None:
            told.append("finished")

    def init(**settings: Any) -> Started:
        told.append(settings)
        return Started()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init, __spec__=object()))
    assert main([*QUICK, "--epochs", "1", "--log", "wandb"]) == 0
    assert main(["--resume", "--output", "run", "--epochs", "2"]) == 0
    first, _, end, second = told[:4]
    assert (first["mode"], first["project"], first["name"]) == ("online", "equiv-potential", "run")
    assert first["config"]["fit"]["batch_size"] == 4
    assert (second["id"], second["resume"]) == (first["id"], "allow")
    (step, values), last = told[-2], lines(folder)[-1]
    assert (step, values["valid/forces_rmse"]) == (last["step"], last["valid_forces_rmse"])
    assert end == told[-1] == "finished"


def test_a_tool_that_is_not_installed_is_named_before_anything_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    (folder / "train.xyz").write_text("damaged")
    assert main([*QUICK, "--log", "wandb"]) == 1
    message = capsys.readouterr().err
    assert "pip install 'equiv-potential[wandb]'" in message
    assert main([*QUICK, "--log", "tensorbord"]) == 1
    assert "did you mean 'tensorboard'" in capsys.readouterr().err
    require(Log())
    assert not (folder / "run").exists()


def test_scalars_leave_out_what_has_no_value() -> None:
    line = {
        "epoch": 1,
        "step": 2,
        "seconds": 3.0,
        "lr": 0.1,
        "train_energy_rmse": 1.0,
        "valid_stress_mae": None,
    }
    assert scalars(line) == {"train/lr": 0.1, "train/energy_rmse": 1.0}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_live_line_names_errors_rates_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    from train.config import Fit

    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    display = Display(make_plan(Fit(epochs=10), 10))
    display.atoms_per_step = 60.0
    run: Any = types.SimpleNamespace(step=0, epoch=0, seconds=0.0, ahead=0)
    line = {
        "epoch": 2,
        "step": 20,
        "valid_energy_rmse": 1.5,
        "valid_forces_rmse": 23.4,
        "valid_stress_rmse": None,
    }
    with display:
        display.tell(run, None)
        run.step, run.epoch, run.seconds = 20, 2, 4.0
        display.tell(run, line)
        run.step, run.seconds = 50, 10.0
        display.tell(run, None)
        display.live.refresh()
    text = screen.getvalue()
    for said in (
        "5 steps/s  300 atoms/s",
        "10 s left",
        "energy 1.50 meV/atom  forces 23.40 meV/Å",
        "50%",
        "epoch 2",
    ):
        assert said in text, said
    assert "epoch     2  step      20  validation RMSE: energy 1.50 meV/atom" in text


def test_rates() -> None:
    assert rate_text(12.345, 100.0) == "12.3 steps/s  1,234 atoms/s"
    assert rate_text(0.5, 0.0) == "0.5 steps/s"
