"""What is asked before a run: what it costs (--dry-run), which learning rate (--find-lr), in which precision."""

from __future__ import annotations

import csv
import io
import lzma
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read, write

from potential import Statistics, build, from_atoms
from potential.model import presets
from train.batches import Sample
from train.budget import Cost, advice, budget_text
from train.choice import choose_model, coordination
from train.cli import main
from train.config import PRESETS, Config, Fit
from train.data.dataset import Frame
from train.find_lr import RangeTest
from train.loop import Task
from train.parallel import Ranks
from train.precision import tf32
from train.prepared.cli import main as prepare
from train.schedule import make_plan
from train.stream import Fetch, feeding
from train.toml import update

DATA = Path(__file__).parents[1] / "data"
QUICK = ["--preset", "tiny", "--set", "model.channels=8", "--set", "fit.batch_size=4"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with 24 frames to train on."""
    monkeypatch.chdir(tmp_path)
    text = lzma.decompress((DATA / "acac/train_300K.xyz.xz").read_bytes()).decode()
    write(tmp_path / "train.xyz", read(io.StringIO(text), ":24", format="extxyz"))
    return tmp_path


def test_dry_run_says_what_a_run_costs(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.budget.SECONDS", 0.0)
    assert main(["train.xyz", "--dry-run", "--epochs", "6", "--output", "run", *QUICK]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(tuple(PRESETS))]
    assert [row[0] for row in rows] == ["tiny*", "small", "medium", "large"]
    assert rows[0][1] == "5,929"  # the run's own network
    assert rows[1][1] == "170,841"
    rates, peaks = ([float(row[k]) for row in rows] for k in (2, 3))
    assert rates[0] > rates[-1] > 0
    assert all(100 < peak < 20_000 for peak in peaks)
    assert not Path("run").exists()
    disk = float(rows[0][4]) * 1e6
    assert main(["train.xyz", "--epochs", "6", "--output", "run", *QUICK]) == 0
    real = sum(path.stat().st_size for path in Path("run").iterdir())
    assert real == pytest.approx(disk, rel=0.2)


def silicon() -> list[Atoms]:
    text = lzma.decompress((DATA / "mlearn/Si_train.extxyz.xz").read_bytes()).decode()
    rows: list[Atoms] = read(io.StringIO(text), ":20", format="extxyz")
    return rows


@pytest.mark.parametrize(
    ("name", "expected"),
    [("fcc", 12), ("bcc", 14), ("diamond", 4), ("rocksalt", 6), ("C60", 3), ("CH3CH2OH", 13 / 9)],
)
def test_coordination(name: str, expected: float) -> None:
    """An atom alone has no neighbors, and is an atom."""
    solids = ("fcc", "bcc", "diamond", "rocksalt")
    atoms = bulk("NaCl" if name == "rocksalt" else "X", name, 5.0) if name in solids else molecule(name)
    graph, alone = from_atoms(atoms, 6.0), from_atoms(Atoms("H"), 6.0)
    assert coordination([graph]) == pytest.approx(expected)
    assert coordination([graph, alone]) == pytest.approx(expected * len(atoms) / (len(atoms) + 1))


def test_dense_structures_have_presets_of_their_own(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that has none for them keeps those it has."""
    dense = [Frame(a, a.get_potential_energy(), a.get_forces(), None, "si", 0) for a in silicon()]
    loose = [replace(f, atoms=molecule("C6H6")) for f in dense]
    small = {"model": {"preset": "small"}}
    for frames, expected in ((dense, True), (loose, False)):
        model, why = choose_model(update(Config(), small), frames)
        assert model.items() >= presets("equivariant", expected)["small"].items()
        assert any("dense structures" in line and "channels=32" in line for line in why) == expected
    assert presets("equivariant", dense=True)["small"]["lmax"] == 4
    model, why = choose_model(update(Config(), {"model": {"preset": "small", "lmax": 3}}), dense)
    assert (model["lmax"], model["channels"]) == (3, 32)
    assert any("lmax=3" in line for line in why)
    again, why = choose_model(
        update(Config(), {"model": model}), loose
    )  # a configuration says all there is to say
    assert (again, why) == (model, [])
    model, why = choose_model(update(Config(), {"model": {"preset": "small", "hidden_lmax": 3}}), loose)
    assert (model["lmax"], model["hidden_lmax"]) == (3, 3)
    for value in ("two", 2.5, True):
        with pytest.raises(ValueError, match=r"hidden_lmax is .* an integer"):
            choose_model(update(Config(), {"model": {"preset": "small", "hidden_lmax": value}}), loose)
    model, why = choose_model(update(Config(), {"model": {"preset": "small", "network": "painn"}}), dense)
    assert model.items() >= presets("painn")["small"].items()
    assert not any("dense" in line for line in why)
    monkeypatch.setattr("train.budget.SECONDS", 0.0)
    write("si.xyz", silicon())
    assert main(["si.xyz", "--dry-run", "--epochs", "6", "--output", "run"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(tuple(PRESETS))]
    facts = Statistics(("Si",), (0.0,), 1.0, 20.0)
    for preset, row in zip(PRESETS, rows, strict=True):
        potential = build(presets("equivariant", True)[preset], facts)
        assert row[1] == f"{sum(p.numel() for p in potential.parameters()):,}"


def table(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(name).read_text().splitlines()))


def cost(preset: str, step: float) -> Cost:
    return Cost(preset, 10, step, 1.0, 500.0, 1000)


def test_the_preset_that_fits_the_minutes() -> None:
    found = [cost("tiny", 0.01), cost("small", 0.05), cost("medium", 0.5)]
    fit = Fit(minutes=5.0)
    plan = make_plan(fit, 100)
    assert found[1].epochs_in(300, plan) == 50  # 100 steps and a validation: 6 s
    assert advice(found, "small", plan, fit) == [
        "small is the largest preset that makes 3,000 updates or more in 5 min"
    ]
    assert "--preset small; this run has medium" in advice(found, "medium", plan, fit)[0]
    short = Fit(minutes=0.1)
    assert (
        "no preset makes 3,000 updates in 0.1 min; tiny makes most, and needs --minutes 1.0"
        in advice(found, "small", make_plan(short, 100), short)[0]
    )
    assert advice(found, "small", make_plan(Fit(epochs=3), 100), Fit(epochs=3)) == []
    task = Task([], [], [], fit, plan, Path(), lambda run, line: None)
    text = budget_text(found, "small", task, (10, 100))
    assert "small*" in text
    assert "50 (5,000 updates)" in text
    assert "time for 3 epochs" in budget_text(
        found, "small", Task([], [], [], Fit(epochs=3), make_plan(Fit(epochs=3), 100), Path(), print), (1, 1)
    )


def test_find_lr_suggests_and_trains_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train.xyz", "--find-lr", "--output", "run", *QUICK]) == 0
    said = capsys.readouterr().out
    assert {path.name for path in Path("run").iterdir()} == {"find_lr.csv", "find_lr.png"}
    rows = [{k: float(v) for k, v in row.items()} for row in table("run/find_lr.csv")]
    rates = [row["learning_rate"] for row in rows]
    assert rates == sorted(rates)
    assert rates[0] == 1e-6
    least = min(rows, key=lambda row: row["loss"])
    suggested = float(said.split("learning rate: ")[1].split()[0])
    assert suggested == pytest.approx(least["learning_rate"] / 10, rel=0.06)
    assert 1e-4 < suggested < 0.1
    assert (
        main(["train.xyz", "--epochs", "1", "--output", "run", *QUICK]) == 0
    )  # its files are not in the way


def test_find_lr_writes_on_the_first_rank_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.fit.joined", lambda _: nullcontext(Ranks(1, 1)))
    assert main(["train.xyz", "--find-lr", "--output", "run", *QUICK]) == 0
    assert not Path("run").exists()


def test_a_suggestion_lies_below_the_least_loss() -> None:
    assert RangeTest([0.01, 0.123, 1.0], [2.0, 1.0, 3.0]).suggested == 0.012


@pytest.mark.parametrize("both", [("--dry-run", "--find-lr"), ("--resume", "--dry-run")])
def test_what_cannot_be_asked_together(both: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train.xyz", *both])
    assert f"argument {both[1]}: not allowed with argument {both[0]}" in capsys.readouterr().err


def test_workers_without_anything_to_read_are_mentioned(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train.xyz", "--dry-run", "--workers", "2", *QUICK]) == 0
    assert "workers = 2 changes nothing" in capsys.readouterr().out


@pytest.mark.parametrize(("cores", "words"), [(2, "workers 1: reads the"), (1, "workers 0: no core is left")])
def test_a_prepared_set_is_read_by_another_process_where_a_core_is_left(
    cores: int, words: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.stream.cores", lambda: cores)
    asked: list[int] = []

    def counted(samples: Sequence[Sample], workers: int) -> AbstractContextManager[Fetch]:
        asked.append(workers)
        return feeding(samples, workers)

    monkeypatch.setattr("train.loop.feeding", counted)
    assert prepare(["train.xyz", "--output", "set.h5"]) == 0
    run = ["set.h5", "--epochs", "1", *QUICK]
    assert main([*run, "--output", "run"]) == 0
    assert words in capsys.readouterr().out
    assert main([*run, "--workers", str(2 - cores), "--output", "other"]) == 0
    assert asked == [cores - 1, 2 - cores]
    rows = [
        [r[k] for k in ("step", "loss", "valid_forces_rmse")]
        for n in ("run", "other")
        for r in table(f"{n}/metrics.csv")
    ]
    assert rows[0] == rows[1]


def test_tf32_is_put_back() -> None:
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    with tf32(True):
        assert products.fp32_precision == "tf32"
    assert products.fp32_precision == before
    with pytest.raises(ZeroDivisionError), tf32(True):
        _ = 1 / 0
    assert products.fp32_precision == before
    with tf32(False):
        assert products.fp32_precision == before


def test_names_of_precision(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, float] = {}
    for name in ("float32", "mixed", "float64"):
        options = ["--dtype", name, "--epochs", "2", "--output", name, "--set", "fit.tf32=true"]
        assert main(["train.xyz", *options, *QUICK]) == 0
        found[name] = float(table(f"{name}/metrics.csv")[-1]["valid_forces_rmse"])
    assert "dtype mixed: another name of float32" in capsys.readouterr().out
    assert found["mixed"] == found["float32"] != found["float64"]
    assert math.isclose(found["float32"], found["float64"], rel_tol=0.05)
    assert 'dtype = "float32"' in Path("mixed/config.toml").read_text()
    assert main(["--resume", "--epochs", "3", "--output", "mixed", "--dtype", "mixed"]) == 0
    assert main(["train.xyz", "--dtype", "bfloat16", *QUICK]) == 1
    assert "bfloat16" in capsys.readouterr().err
