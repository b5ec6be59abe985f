"""potential-train as a user runs it: the run directory, exact resume, interruption, and refusals."""

from __future__ import annotations

import csv
import json
import lzma
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from potential import EquivCalculator, load
from potential.checkpoint import read as read_tensors
from potential.checkpoint import write as write_tensors
from potential.model import configuration, presets
from train import loop
from train.cli import main
from train.run import FORMAT
from train.toml import tomllib

DATA = Path(__file__).parents[1] / "data"
QUICK = ["--preset", "tiny", "--set", "model.channels=8", "--set", "fit.batch_size=4"]


def frames(n: int, name: str = "acac/train_300K.xyz.xz") -> list[Atoms]:
    import io

    text = lzma.decompress((DATA / name).read_bytes()).decode()
    found: list[Atoms] = read(io.StringIO(text), f":{n}", format="extxyz")
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to work in, with 24 frames to train on."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "train.xyz", frames(24))
    return tmp_path


def weights(directory: Path, name: str = "state.safetensors") -> dict[str, torch.Tensor]:
    return read_tensors(directory / name)[1]


def assert_same(one: Path, two: Path) -> None:
    """The whole state (weights, optimizer, moving average) and the best model, bit for bit."""
    for name in ("state.safetensors", "model.safetensors"):
        a, b = weights(one, name), weights(two, name)
        assert a.keys() == b.keys()
        for key in a:
            assert torch.equal(a[key], b[key]), (name, key)


def test_run_directory_holds_what_architecture_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "new.xyz", frames(6, "acac/test_MD_600K.xyz.xz"))
    assert main(["train.xyz", "--test", "new.xyz", "--epochs", "12", "--output", "run", *QUICK]) == 0
    run = folder / "run"
    names = {path.name for path in run.iterdir()}
    assert names == {
        "model.safetensors", "state.safetensors", "trunk.safetensors", "config.toml", "split.json", "metrics.jsonl",
        "metrics.csv", "predictions.h5", "worst.xyz", "summary.json", "learning_curve.png", "parity.png", "report.html",
        "log.txt",
        "sessions.json",
    }  # fmt: skip
    summary = json.loads((run / "summary.json").read_text())
    split = json.loads((run / "split.json").read_text())
    assert sorted(split["train"]["frames"] + split["valid"]["frames"]) == list(range(24))
    assert len(split["valid"]["frames"]) == 2
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert len(lines) == len(rows) >= 1
    assert float(rows[-1]["valid_forces_rmse"]) == lines[-1]["valid_forces_rmse"]
    # the errors in the summary are those of the saved model, through the calculator, on the file
    calculator = EquivCalculator(run / "model.safetensors")
    difference = []
    for atoms in frames(6, "acac/test_MD_600K.xyz.xz"):
        reference = atoms.get_forces()
        atoms.calc = calculator
        difference.append(atoms.get_forces() - reference)
    rmse = 1e3 * np.sqrt(np.mean(np.square(difference)))
    assert summary["errors"]["new"]["forces_rmse"] == pytest.approx(rmse, rel=1e-4)
    with h5py.File(run / "predictions.h5") as file:
        assert set(file) == {"train", "valid", "new"}
        stored = file["new/forces_predicted"][:] - file["new/forces_reference"][:]
        assert 1e3 * np.sqrt(np.mean(stored**2)) == pytest.approx(rmse, rel=1e-4)
        assert list(file["valid/frame"][:]) == split["valid"]["frames"]
    printed = capsys.readouterr().out
    assert "Label report" in printed
    assert f"{summary['errors']['new']['forces_rmse']:.2f}" in printed


def test_training_learns(folder: Path) -> None:
    recipe = ["--set", "fit.learning_rate=0.005", "--set", "fit.decay=0.6"]
    assert main(["train.xyz", "--epochs", "30", "--output", "run", *QUICK, *recipe]) == 0
    summary = json.loads((folder / "run/summary.json").read_text())
    reference = np.concatenate([a.get_forces() for a in frames(24)])
    assert summary["errors"]["valid"]["forces_rmse"] < 0.5 * 1e3 * np.sqrt(np.mean(reference**2))


def test_three_and_three_epochs_are_six(folder: Path) -> None:
    options = ["train.xyz", *QUICK, "--set", "fit.ema=0.9"]
    assert main([*options, "--epochs", "6", "--output", "six"]) == 0
    assert main([*options, "--epochs", "3", "--output", "three"]) == 0
    three = weights(folder / "three")
    assert any(not torch.equal(three[k], v) for k, v in weights(folder / "six").items())
    assert main(["--resume", "--output", "three", "--epochs", "6"]) == 0
    assert_same(folder / "six", folder / "three")
    same = ("epoch", "step", "lr", "loss", "valid_forces_rmse", "valid_energy_rmse")
    metrics = [
        [
            [json.loads(line)[k] for k in same]
            for line in (folder / d / "metrics.jsonl").read_text().splitlines()
        ]
        for d in ("six", "three")
    ]
    assert metrics[0] == metrics[1]


def signalled(body: str) -> str:
    """A program that trains with `body` in place of every step, for a process of its own."""
    return (
        "import os, signal, sys\n"
        "from train import loop\n"
        "from train.cli import main\n"
        "step = loop.train_step\n"
        f"def watched(run, *rest):\n{body}"
        "loop.train_step = watched\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )


@pytest.mark.parametrize("steps", [3, 20])
def test_ctrl_c_saves_and_resume_goes_on_exactly(folder: Path, steps: int) -> None:
    """Interrupted after `steps` steps, in the middle of an epoch, before and in the decay of the learning rate."""
    options = ["train.xyz", *QUICK, "--epochs", "6"]
    assert main([*options, "--output", "whole"]) == 0
    code = signalled(
        "    step(run, *rest)\n"
        f"    if run.step == {steps} and len(run.ema.shadow_params) and rest[2] > 1e-5:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *options, "--output", "cut"], check=False, capture_output=True
    )
    assert done.returncode == 130, done.stderr
    assert b"--resume" in done.stdout
    assert main(["--resume", "--output", "cut"]) == 0
    assert_same(folder / "whole", folder / "cut")


def test_killed_run_resumes_to_the_same_weights(folder: Path) -> None:
    """SIGKILL at whatever moment the clock picks."""
    options = ["train.xyz", *QUICK, "--epochs", "20"]
    assert main([*options, "--output", "whole"]) == 0
    code = "import sys; from train import loop; from train.cli import main; loop.SAVE_SECONDS = 0.0; main(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *options, "--output", "cut"], stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (folder / "cut/state.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main(["--resume", "--output", "cut"]) == 0
    assert_same(folder / "whole", folder / "cut")


def test_killed_in_the_middle_of_a_long_epoch(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was done in the epoch is not lost but for the last minute, here for the step that was cut."""
    options = ["train.xyz", *QUICK, "--epochs", "2"]
    assert main([*options, "--output", "whole"]) == 0
    code = signalled(
        "    loop.EPOCH_SAVE_SECONDS = 0.0\n"
        "    if run.step == 2:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    step(run, *rest)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *options, "--output", "cut"], check=False)
    assert done.returncode == -signal.SIGKILL
    capsys.readouterr()
    assert main(["--resume", "--output", "cut"]) == 0
    assert "continuing after epoch 0, step 2" in capsys.readouterr().out
    assert_same(folder / "whole", folder / "cut")


def test_dies_in_its_last_validation(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An epoch longer than the run: what is saved within it still has to be validated."""
    monkeypatch.setattr(loop, "EPOCH_SAVE_SECONDS", 0.0)
    with monkeypatch.context() as short:
        short.setattr(loop, "validate", lambda *_: (_ for _ in ()).throw(MemoryError))
        assert main(["train.xyz", *QUICK, "--minutes", "0.02", "--output", "run"]) == 1
    assert "--resume --output run goes on" in capsys.readouterr().err
    assert main(["--resume", "--output", "run"]) == 0
    (line,) = Path("run/metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] > 0


def test_lack_of_memory_before_a_run_promises_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("train.fit.fit", lambda *_: (_ for _ in ()).throw(MemoryError))
    assert main(["train.xyz", *QUICK, "--epochs", "1", "--output", "run"]) == 1
    said = capsys.readouterr().err
    assert "out of memory" in said
    assert "--resume" not in said


def test_same_seed_same_weights_other_seed_other_weights(folder: Path) -> None:
    for seed, name in (("1", "a"), ("1", "b"), ("2", "c")):
        assert main(["train.xyz", "--epochs", "2", "--seed", seed, "--output", name, *QUICK]) == 0
    assert_same(folder / "a", folder / "b")
    a, c = load("a/model.safetensors"), load("c/model.safetensors")
    assert any(not torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))


def test_minutes_bound_the_training(folder: Path) -> None:
    assert main(["train.xyz", "--minutes", "0.05", "--output", "run", *QUICK]) == 0
    summary = json.loads((folder / "run/summary.json").read_text())
    assert 3.0 <= summary["seconds"] < 6.0  # the step that is under way at the end is finished


def test_early_stopping_stops(folder: Path) -> None:
    options = ["--epochs", "200", "--set", "fit.patience=10", "--set", "fit.learning_rate=1e-12"]
    assert main(["train.xyz", *options, "--output", "run", *QUICK]) == 0
    last = json.loads((folder / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["epoch"] < 60
    assert "stopped early" in (folder / "run/log.txt").read_text()


def test_energies_alone_and_stress_train(folder: Path) -> None:
    write(folder / "si.xyz", frames(214, "mlearn/Si_train.extxyz.xz")[::30])
    assert main(["si.xyz", "--epochs", "3", "--output", "si", *QUICK]) == 0
    errors = json.loads((folder / "si/summary.json").read_text())["errors"]["valid"]
    assert errors["stress_rmse"] is not None
    assert (
        main(
            [
                "si.xyz",
                "--forces-key",
                "none",
                "--stress-key",
                "none",
                "--epochs",
                "3",
                "--output",
                "e",
                *QUICK,
            ]
        )
        == 0
    )
    errors = json.loads((folder / "e/summary.json").read_text())["errors"]["valid"]
    assert errors["forces_rmse"] is None
    assert errors["energy_rmse"] is not None


def test_dry_run_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train.xyz", "--dry-run"]) == 0
    assert [p.name for p in folder.iterdir()] == ["train.xyz"]
    printed = capsys.readouterr().out
    assert "ms a step measured" in printed
    assert "cutoff 5.0 Å" in printed


def test_help_answers_in_a_second() -> None:
    """The best of three: a busy machine is not the command's fault."""
    command = [sys.executable, "-c", "from train.cli import main; main(['--help'])"]
    times = []
    for _ in range(3):
        begun = time.monotonic()
        done = subprocess.run(command, capture_output=True, check=True)
        times.append(time.monotonic() - begun)
        assert b"--minutes" in done.stdout
    assert min(times) < 1.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["no training file"]),
        (["absent.xyz"], ["absent.xyz"]),
        (["train.xyz", "--preset", "smal"], ["smal", "did you mean 'small'"]),
        (
            ["train.xyz", "--set", "model.cuttoff=4.0"],
            ["[model] has no setting 'cuttoff'", "did you mean 'cutoff'"],
        ),
        (["train.xyz", "--network", "paiN"], ["there is no network 'paiN'", "did you mean 'painn'"]),
        (
            ["train.xyz", "--network", "painn", "--set", "model.correlation=2"],
            ["no setting 'correlation', which is a dial of equivariant", "network painn has channels"],
        ),
        (["train.xyz", "--set", "fit.batchsize=4"], ["'batchsize'", "did you mean 'batch_size'"]),
        (["train.xyz", "--set", "fti.batch_size=4"], ["[fti]", "did you mean 'fit'"]),
        (["train.xyz", "--set", "fit.batch_size=many"], ["batch_size", "whole number"]),
        (["train.xyz", "--epochs", "2", "--minutes", "1"], ["epochs", "minutes"]),
        (["train.xyz", "--epochs", "-2"], ["epochs is -2"]),
        (["train.xyz", "--minutes", "0"], ["minutes is 0"]),
        (["train.xyz", "--set", "model.cutoff=abc"], ["cutoff", "abc"]),
        (["train.xyz", "--set", "model.preset=[1]"], ["preset"]),
        (["train.xyz", "--output", "train.xyz"], ["train.xyz is a file"]),
        (["train.xyz", "--output", "train.xyz/x"], ["train.xyz"]),
        (["train.xyz", "--config", "."], ["."]),
        (["train.xyz", "--set", "fit.energy_weight=0", "--set", "fit.forces_weight=0"], ["nothing to learn"]),
        (["train.xyz", "--config", "none.toml"], ["none.toml"]),
        (["train.xyz", "--device", "gpu"], ["gpu"]),
        (["train.xyz", "--device", "meta"], ["'meta' is not here"]),
        (["train.xyz", "--set", "model.network=[1]"], ["there is no network [1]"]),
        (["train.xyz", "--set", "fit.learning_rate=1e300"], ["learning_rate is 1e+300"]),
        (["--resume", "--output", "nowhere"], ["nowhere", "no run"]),
        (["train.xyz", "--energy-unit", "electronvolt"], ["electronvolt", "eV"]),
        (["train.xyz", "--energy-key", "REF_energy"], ["REF_energy"]),
        (["train.xyz", "train.xyz"], ["train.xyz: named twice"]),
        (["train.xyz", "--test", "*.xyz"], ["train.xyz: named twice, by 'train.xyz' and by '*.xyz'"]),
        (["runs/*.xyz"], ["runs/*.xyz: no file matches"]),
        (["train.xyz", "--valid", "none*"], ["none*: no file matches"]),
        (["train.xyz", "--folds", "5", "--fold", "5"], ["fold is 5", "choose 0 to 4"]),
        (["train.xyz", "--folds", "50"], ["24 frames cannot make 50 folds"]),
        (["train.xyz", "--set", "data.split=block"], ["did you mean 'blocks'"]),
        (["train.xyz", "--set", "data.group_key=mol"], ["no 'mol' in its info"]),
        (["train.xyz", "--set", "weights.md.energy=0"], ["[weights.md]", "no training frame"]),
        (["train.xyz", "--set", "data.isolated_atoms=iso.xyz"], ["iso.xyz", "does not exist"]),
        (["train.xyz", "--set", "e0.Hx=-13.6"], ["'Hx' is no chemical symbol"]),
    ],
)
def test_wrong_arguments_are_explained(
    folder: Path, arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    message = capsys.readouterr().err
    assert message.startswith("potential-train: ")
    for word in words:
        assert word in message
    assert [p.name for p in folder.iterdir()] == ["train.xyz"]


def test_a_run_is_never_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train.xyz", "--epochs", "1", "--output", "run", *QUICK]) == 0
    before = {p.name: p.stat().st_mtime_ns for p in (folder / "run").iterdir()}
    assert main(["train.xyz", "--epochs", "1", "--output", "run", *QUICK]) == 1
    assert "--resume" in capsys.readouterr().err
    for arguments in (["run"], ["--resume", "run"]):  # the directory in the place of a data file
        assert main(arguments) == 1
        assert "--resume --output run, or" in capsys.readouterr().err
    assert before == {p.name: p.stat().st_mtime_ns for p in (folder / "run").iterdir()}


def test_a_diverged_run_is_not_a_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    diverging = ["--set", "fit.learning_rate=100.0", "--set", "fit.batch_size=24"]
    assert main(["train.xyz", "--epochs", "3", "--output", "run", *QUICK, *diverging]) == 1
    assert "fit.learning_rate" in capsys.readouterr().err
    assert not (folder / "run/model.safetensors").exists()


def test_killed_after_being_made_longer(folder: Path) -> None:
    """The first thing a longer run does is to make the old trunk its state."""
    options = ["train.xyz", *QUICK]
    assert main([*options, "--epochs", "6", "--output", "six"]) == 0
    assert main([*options, "--epochs", "3", "--output", "three"]) == 0
    code = (
        "import os, signal, sys\n"
        "from train import loop\n"
        "from train.cli import main\n"
        "def dead(*_):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "loop.cut_metrics = dead\n"
        "main(sys.argv[1:])\n"
    )
    killed = ["--resume", "--epochs", "6", "--output", "three"]
    assert (
        subprocess.run([sys.executable, "-c", code, *killed], check=False, capture_output=True).returncode
        == -9
    )
    assert main(["--resume", "--epochs", "6", "--output", "three"]) == 0
    assert_same(folder / "six", folder / "three")


def test_resume_refuses_another_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train.xyz", "--epochs", "2", "--output", "run", *QUICK]) == 0
    before = (folder / "run/config.toml").read_bytes(), (folder / "run/split.json").read_bytes()
    write(folder / "other.xyz", frames(23))
    for options, word in (
        (["--seed", "9"], "training and validation frames"),
        (["other.xyz"], "training and validation frames"),
        (["--set", "model.channels=12"], "model settings"),
        (["--set", "fit.ema=0.5"], "fit settings (ema)"),
        (["--preset", "medium"], "--preset with --resume"),
        (["--network", "painn"], "--network with --resume"),
        (["--epochs", "1"], "2 epochs are done already"),
    ):
        assert main(["--resume", "--output", "run", "--epochs", "4", *options]) == 1
        assert word in capsys.readouterr().err
    assert before == ((folder / "run/config.toml").read_bytes(), (folder / "run/split.json").read_bytes())
    assert main(["--resume", "--output", "run", "--epochs", "4"]) == 0
    for name in ("state", "trunk"):  # as an older version left it
        header, tensors = read_tensors(folder / f"run/{name}.safetensors")
        write_tensors(folder / f"run/{name}.safetensors", {**header, "format": 3}, tensors)
    capsys.readouterr()
    assert main(["--resume", "--output", "run", "--epochs", "6"]) == 1
    said = capsys.readouterr().err
    assert f"format 3, written by another version of potential-train; this one reads format {FORMAT}" in said
    assert f"--from {Path('run/model.safetensors')}" in said


def test_resume_refuses_other_isolated_atoms(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are not trained on, but E0 comes from them, and the weights belong to it."""
    structures = frames(24)
    for energy in (-13.6, -13.7):
        alone = []
        for symbol in ("H", "C", "O"):
            atom = Atoms(symbol)
            atom.calc = SinglePointCalculator(atom, energy=energy, forces=np.zeros((1, 3)))
            alone.append(atom)
        write(folder / "train.xyz", [*structures, *alone])
        if energy == -13.6:
            assert main(["train.xyz", "--epochs", "2", "--output", "run", *QUICK]) == 0
    capsys.readouterr()
    assert main(["--resume", "--output", "run", "--epochs", "4"]) == 1
    assert "E0" in capsys.readouterr().err


def test_the_border_of_training_and_validation_is_part_of_a_run(folder: Path) -> None:
    """The same frames in the same order, one more of them to validate on, are another run."""
    one, other, last = frames(8)[:4], frames(8)[4:5], frames(8)[5:]
    for name, structures in (("a", one), ("b", other), ("c", last)):
        write(folder / f"{name}.xyz", structures)
    assert main(["a.xyz", "b.xyz", "--valid", "c.xyz", "--epochs", "2", "--output", "run", *QUICK]) == 0
    moved = ["--train", "a.xyz", "--valid", "b.xyz", "c.xyz"]
    assert main(["--resume", "--output", "run", "--epochs", "4", *moved]) == 1


def test_resume_from_another_directory_with_a_cut_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["train.xyz", "--epochs", "30", "--output", "run", *QUICK]) == 0
    metrics = folder / "run/metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:-20])
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert main(["--resume", "--output", str(folder / "run"), "--epochs", "40"]) == 0
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] == 40 * 6


def test_patience_shorter_than_the_time_between_validations(folder: Path) -> None:
    """It counts from one validation to the next, and never ends a run that has none."""
    assert main(["train.xyz", "--epochs", "30", "--output", "run", *QUICK, "--set", "fit.patience=1"]) == 0
    assert json.loads((folder / "run/metrics.jsonl").read_text().splitlines()[0])["step"] >= 50
    assert (folder / "run/model.safetensors").exists()


def test_a_preset_replaces_that_of_a_configuration(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c.toml").write_text("[model]\npreset = 'tiny'\nchannels = 16\ncutoff = 4.0\n")
    assert main(["train.xyz", "--config", "c.toml", "--preset", "small", "--dry-run"]) == 0
    assert "170,841 parameters" in capsys.readouterr().out


def test_another_network_takes_its_own_preset(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also over a configuration of the flagship, whose widths are not its own."""
    assert main(["train.xyz", "--epochs", "2", "--output", "run", *QUICK]) == 0
    own = ["--config", "run/config.toml", "--network", "painn"]
    assert main([*own, "--output", "two"]) == 0
    dials = configuration(load("two/model.safetensors"))
    assert dials["network"] == "painn"
    assert dials.items() >= presets("painn")["tiny"].items()
    assert main(["--resume", "--output", "two", "--epochs", "3"]) == 0
    assert main(["train.xyz", "--from", "two/model.safetensors", "--epochs", "1", "--output", "on"]) == 0
    assert tomllib.loads(Path("on/config.toml").read_text())["model"]["preset"] == "tiny"
    assert main([*own, "--set", "model.smoothness=2.0", "--output", "three"]) == 1
    assert "no setting 'smoothness', which is a dial of equivariant" in capsys.readouterr().err


def test_files_weights_folds_and_e0_reach_the_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two files by a pattern, a fold in blocks, weights, and E0 of a file and given; all of it recorded."""
    (folder / "md").mkdir()
    for part in range(2):
        rows = frames(24)[12 * part : 12 * part + 12]
        for k, atoms in enumerate(rows):
            atoms.info |= {"config_type": f"part{part}", "config_weight": 1.0 + (k == 0)}
        write(folder / f"md/{part}.xyz", rows)
    (folder / "c.toml").write_text("[e0]\nH = -13.0\n[weights.part1]\nenergy = 2.0\n")
    options = ["--set", f"data.isolated_atoms={DATA / 'acac/isolated_atoms.xyz'}", "--config", "c.toml"]
    run = ["--epochs", "2", "--folds", "4", "--fold", "1", "--set", "data.split=blocks", "md/*.xyz", *QUICK]
    assert main([*options, *run]) == 0
    assert "E0 of H is the given value" in capsys.readouterr().out
    directory = folder / "md-run"
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["e0_sources"] == {"H": "given", "C": "isolated atoms", "O": "isolated atoms"}
    assert summary["e0"]["H"] == -13.0
    assert load(directory / "model.safetensors").statistics.e0[0] == -13.0
    assert summary["split"] == {"split": "blocks", "folds": 4, "fold": 1}
    assert {(w["energy"], w["forces"]) for w in summary["weights"]} == {
        (1.0, 1.0),
        (2.0, 2.0),
        (2.0, 1.0),
        (4.0, 2.0),
    }
    split = json.loads((directory / "split.json").read_text())
    assert split["valid"]["files"] == ["md/0.xyz", "md/1.xyz"]
    assert len(split["valid"]["frames"]) == 6
    for number in (0, 1):
        index = [
            k for f, k in zip(split["valid"]["file"], split["valid"]["frames"], strict=True) if f == number
        ]
        assert index == list(range(index[0], index[0] + 3))
    with h5py.File(directory / "predictions.h5") as file:
        assert list(file["valid/frame"][:]) == split["valid"]["frames"]
        assert list(file["valid/file"][:]) == split["valid"]["file"]
    write(folder / "md/2.xyz", frames(3))  # matches the pattern too, but the run keeps its files
    resume = ["--resume", "--output", "md-run", "--epochs", "4"]
    for change, word in (
        ("weights.part0.forces=3", "weights"),
        ("e0.H=-14", "E0"),
        ("data.fold=2", "training and validation frames"),
        ("data.split=random", "training and validation frames"),
    ):
        assert main([*resume, "--set", change]) == 1
        assert f"the run was made with other {word}" in capsys.readouterr().err
    assert main(resume) == 0


def test_files_may_stand_anywhere_among_the_options(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = frames(30)
    write(folder / "a.xyz", rows[24:27])
    write(folder / "b.xyz", rows[27:])
    ways = (
        ["train.xyz", "--seed", "1", "a.xyz", "--dry-run", "b.xyz"],
        ["--train", "train.xyz", "a.xyz", "b.xyz", "--seed", "1", "--dry-run"],
        ["--dry-run", "--seed", "1", "train.xyz", "--train", "[ab].xyz"],
    )
    for arguments in ways:
        assert main([*arguments, *QUICK]) == 0
        assert "train.xyz (24), a.xyz (3), b.xyz (3)" in capsys.readouterr().out


def test_settings_of_an_older_run_are_read(folder: Path) -> None:
    """One file as text, empty text for none, units written out."""
    (folder / "c.toml").write_text(
        "[data]\ntrain = 'train.xyz'\nvalid = ''\ntest = []\nenergy_unit = 'eV'\nlength_unit = 'Ang'\n"
    )
    assert main(["--config", "c.toml", "--dry-run", *QUICK]) == 0
