"""Two ranks take the steps of one: through real processes that exchange by gloo on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from ase.io import read, write

from potential.checkpoint import read as read_tensors
from train.prepared.cli import main as prepare

DATA = Path(__file__).parents[1] / "data"
# 9 frames train, in batches of 4, 4 and 1: in the last, and among the validation frames, a rank gets none.
SETTINGS = {
    "fit.dtype": "float64", "fit.batch_size": 4, "model.cutoff": 3.0,
    "model.channels": 8, "model.message_channels": 4, "model.vector_channels": 4,
}  # fmt: skip
OPTIONS = ["train.xyz", "--preset", "tiny", *(f"--set={key}={value}" for key, value in SETTINGS.items())]

# Processes as torchrun starts them, but forks of one that has torch imported already.
DRIVER = """
import json, os, signal, socket, sys, time
import train.fit
from train import loop, step as train_step
from train.cli import main

MARK = json.loads(sys.argv[2])
loop.SAVE_SECONDS, loop.VALIDATE_STEPS = 0.0, 1
train.finish.draw = lambda directory: {}
train.fit.seconds_per_step = lambda *_: 0.01
step = loop.train_step

def spoil(fault, rank):
    # frame 7 is never finite while training, or rank 1 has memory for one structure only
    gradient = train_step.gradient
    def spoiled(run, samples, fit, *counts):
        real = run.optimizer.param_groups[0]["lr"] > 1e-5 and run.ranks.size > 1
        if fault == "memory" and real and rank == 1 and (run.at_once or len(samples)) > 1:
            raise MemoryError
        value, sums = gradient(run, samples, fit, *counts)
        bad = fault == "poison" and real and any(abs(float(s.graph.positions[0, 0]) - MARK) < 1e-9 for s in samples)
        return (float("nan") if bad else value), sums
    train_step.gradient = spoiled

def launch(n, arguments, fault=""):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    pids = []
    for rank in range(n):
        pids.append(os.fork())
        if pids[-1] == 0:
            for k, stream in ((1, "out"), (2, "err")):
                os.dup2(os.open(f"{stream}-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), k)
            if n > 1:
                os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(n), MASTER_PORT=port,
                                  MASTER_ADDR="127.0.0.1", TORCHELASTIC_RUN_ID="test")
            def counted(run, *rest):
                step(run, *rest)
                if run.step == 4 and fault.startswith("SIG") and rank == 1:
                    os.kill(os.getpid(), getattr(signal, fault))
            loop.train_step = counted
            if fault in ("poison", "memory"):
                spoil(fault, rank)
            code = 70
            try:
                code = main(arguments)
            except SystemExit as error:
                code = error.code
            finally:
                sys.stdout.flush()
                os._exit(code)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    texts = [open(f"{stream}-{rank}").read() for stream in ("out", "err") for rank in range(n)]
    return {"codes": codes, "out": texts[:n], "err": texts[n:]}

print(json.dumps([launch(*order) for order in json.loads(sys.argv[1])]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "train.xyz", read(DATA / "acac/train_300K.xyz.xz", ":10"))
    return tmp_path


def launch(folder: Path, *orders: list[Any]) -> list[dict[str, list[Any]]]:
    """Each order: number of ranks, arguments, and perhaps the signal that hits rank 1 after its fourth step, or how
    `spoil` lets steps fail."""
    mark = float(read(folder / "train.xyz", "7").positions[0, 0])
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(orders), json.dumps(mark)],
        cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
        timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, list[Any]]] = json.loads(done.stdout)
    return answers


def distance(one: Path, two: Path, name: str = "model.safetensors") -> float:
    (_, a), (_, b) = read_tensors(one / name), read_tensors(two / name)
    assert a.keys() == b.keys()
    assert all(t.dtype == torch.float64 for t in a.values() if name.startswith("model"))
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


def metrics(directory: Path) -> np.ndarray:
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return np.array(
        [[row[k] for k in ("step", "loss", "train_forces_rmse", "valid_forces_rmse")] for row in rows]
    )


def test_two_ranks_are_one(folder: Path) -> None:
    """Twelve steps, in which the bases of SOAP turn."""
    four, two = ["--epochs", "4"], ["--epochs", "2"]
    answers = launch(
        folder,
        [1, [*OPTIONS, *four, "--output", "one"]],
        [2, [*OPTIONS, *four, "--output", "two"]],
        [2, [*OPTIONS, *two, "--output", "two-one"]],
        [1, ["--resume", *four, "--output", "two-one"]],
        [1, [*OPTIONS, *two, "--output", "one-two"]],
        [2, ["--resume", *four, "--output", "one-two"]],
    )
    assert [code for a in answers for code in a["codes"]] == [0] * 9, answers
    assert answers[1]["out"][1] == answers[1]["err"][1] == ""  # the first rank speaks
    for name in ("two", "two-one", "one-two"):
        assert distance(folder / "one", folder / name) < 1e-10, name
        np.testing.assert_allclose(metrics(folder / name), metrics(folder / "one"), rtol=1e-9)
    with h5py.File(folder / "one/predictions.h5") as a, h5py.File(folder / "two/predictions.h5") as b:
        for key in ("frame", "n_atoms", "atomic_numbers", "energy_predicted", "forces_predicted"):
            np.testing.assert_allclose(a["train"][key][:], b["train"][key][:], atol=1e-8)
    assert json.loads((folder / "two/sessions.json").read_text())[0]["ranks"] == 2


def test_two_ranks_stream_a_prepared_set(folder: Path) -> None:
    """Each with a worker of its own, batches bounded by atoms: the run of one process on frames in memory."""
    assert prepare([str(folder / "train.xyz"), "--output", str(folder / "set.h5")]) == 0
    options = [*OPTIONS[1:], "--epochs", "2", "--batch-atoms", "45"]
    memory, stream = launch(
        folder,
        [1, ["train.xyz", *options, "--output", "memory"]],
        [2, ["set.h5", *options, "--workers", "1", "--output", "stream"]],
    )
    assert memory["codes"] + stream["codes"] == [0, 0, 0], (memory, stream)
    assert distance(folder / "memory", folder / "stream") < 1e-10
    np.testing.assert_allclose(metrics(folder / "stream"), metrics(folder / "memory"), rtol=1e-9)


def test_ranks_stop_and_fail_together(folder: Path) -> None:
    run = [*OPTIONS, "--epochs", "4"]
    write(folder / "bad.xyz", read(DATA / "acac/train_300K.xyz.xz", ":9"))
    text = (folder / "bad.xyz").read_text().splitlines()
    (folder / "bad.xyz").write_text("\n".join([*text[:5], *text[6:]]) + "\n")
    stopped, resumed, dead, again, refused, whole = launch(
        folder,
        [2, [*run, "--output", "cut"], "SIGTERM"],
        [2, ["--resume", "--output", "cut"]],
        [2, [*run, "--output", "dead"], "SIGKILL"],
        [1, ["--resume", "--output", "dead"]],
        [2, ["bad.xyz", "--output", "bad"]],
        [1, [*run, "--output", "whole"]],
    )
    assert stopped["codes"] == [130, 130]
    assert resumed["codes"] == [0, 0], resumed
    assert again["codes"] == [0], again
    assert dead["codes"][1] == -9
    assert dead["codes"][0] == 1
    assert "rank 0 has lost the others" in dead["err"][0]
    assert "--resume" in dead["err"][0]
    assert refused["codes"] == [1, 1]
    assert "bad.xyz" in "".join(refused["err"])
    assert "" in refused["err"]  # said once
    assert whole["codes"] == [0]
    for name in ("cut", "dead"):
        assert distance(folder / "whole", folder / name) < 1e-10, name


def test_what_one_rank_finds_the_first_one_says(folder: Path) -> None:
    """A frame that is not finite, in the share of either; and memory that ends on the second."""
    run = [*OPTIONS, "--epochs", "2"]
    skipped, stopped, full, shrunk = launch(
        folder,
        [2, [*run, "--output", "skipped"], "poison"],
        [2, [*run, "--output", "stopped", "--set", "fit.max_skipped=1"], "poison"],
        [2, [*run, "--output", "full"], "memory"],
        [2, [*run, "--output", "shrunk", "--on-oom", "shrink"], "memory"],
    )
    assert skipped["codes"] == [0, 0], skipped
    log = (folder / "skipped/log.txt").read_text()
    assert log.count("not finite by itself: train.xyz frame 7; the step is skipped") == 2
    assert skipped["out"][1] == skipped["err"][1] == ""
    for refused, words in (
        (stopped, "not finite by itself: train.xyz frame 7; that was"),
        (full, "1 would; the largest"),
    ):
        assert refused["codes"] == [1, 1]
        assert words in refused["err"][0]
        assert refused["out"][1] == refused["err"][1] == ""
    assert shrunk["codes"] == [0, 0], shrunk
    assert "batches are taken 1 structures at a time" in (folder / "shrunk/log.txt").read_text()


def test_torchrun(folder: Path) -> None:
    """By the real launcher, for a given time, which the first rank measures."""
    code = "import sys, train.fit; train.finish.draw = lambda _: {}; from train.cli import main; sys.exit(main())"
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--no-python",
    ]
    command += [sys.executable, "-W", "ignore", "-c", code, *OPTIONS, "--minutes", "0.02", "--output", "run"]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "on 2 ranks" in done.stdout
    assert done.stdout.count("Label report") == 1
    assert json.loads((folder / "run/sessions.json").read_text())[0]["ranks"] == 2
