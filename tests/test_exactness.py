"""A run killed at any moment, also while a file is being written, resumes to the same model in every bit."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
import torch
from ase.io import read, write

from potential.checkpoint import read as read_tensors

DATA = Path(__file__).parents[1] / "data"
KILLS = 24
TINY = ["train.xyz", "--preset", "tiny", "--epochs", "8", "--seed", "3", "--set", "model.cutoff=3.0"]
DIALS = {"model.channels": 4, "model.message_channels": 4, "model.vector_channels": 2, "fit.batch_size": 4}

# The processes that are killed are forks of one that has torch imported already, and draw no plots: all that is
# left out is waiting. A fork runs potential-train and nothing else; it saves its state around every step.
DRIVER = """
import json, os, pathlib, random, signal, sys, time
import train.fit
from train import loop
from train.cli import main

options, kills = json.loads(sys.argv[1]), int(sys.argv[2])
loop.SAVE_SECONDS, loop.EPOCH_SAVE_SECONDS, loop.VALIDATE_STEPS = 0.0, 0.0, 1
train.finish.draw = lambda directory: {}
train.fit.seconds_per_step = lambda *_: 0.01
chance = random.Random(0)
replace, fsync = pathlib.Path.replace, os.fsync

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def arm(moment, count):
    # the fork kills itself at its `count`-th write of a file: cut in two, before it is put in place, or after
    left = [count]
    def now():
        left[0] -= 1
        return left[0] == 0
    def cut(descriptor):
        if now():
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            die()
        fsync(descriptor)
    def put(path, target):
        hit = now()
        if hit and moment == "before":
            die()
        replace(path, target)
        if hit:
            die()
    if moment == "cut":
        os.fsync = cut
    else:
        pathlib.Path.replace = put

def fork(arguments, moment="", count=0):
    pid = os.fork()
    if pid == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        if moment:
            arm(moment, count)
        os._exit(main(arguments))
    return pid

def wait(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

begun = time.monotonic()
assert wait(fork([*options, "--output", "whole"])) == 0
length = time.monotonic() - begun
killed = {"clock": 0, "cut": 0, "before": 0, "after": 0}
runs = []
while sum(killed.values()) < kills:
    run, code = f"cut-{len(runs)}", -signal.SIGKILL
    while code == -signal.SIGKILL:
        begun = os.path.exists(f"{run}/config.toml")
        arguments = ["--resume", "--output", run] if begun else [*options, "--output", run]
        enough = sum(killed.values()) >= kills or killed_here >= 8 if begun else False
        moment = "" if enough else chance.choice(list(killed))
        writing = moment in ("cut", "before", "after")
        pid = fork(arguments, moment if writing else "", chance.randint(1, 30))
        if moment == "clock":
            time.sleep(chance.uniform(0, length))
            os.kill(pid, signal.SIGKILL)
        code = wait(pid)
        killed_here = killed_here + 1 if begun else 1
        if code == -signal.SIGKILL:
            killed[moment] += 1
    assert code == 0, (run, code)
    runs.append(run)
print(json.dumps({"killed": killed, "runs": runs}))
"""


def test_killed_at_random_moments(tmp_path: Path) -> None:
    write(tmp_path / "train.xyz", read(DATA / "acac/train_300K.xyz.xz", ":12"))
    options = [*TINY, *(word for key, value in DIALS.items() for word in ("--set", f"{key}={value}"))]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(options), str(KILLS)],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert sum(answer["killed"].values()) >= KILLS
    assert min(answer["killed"].values()) > 0  # each way of dying was tried
    for run in answer["runs"]:
        for name in ("model.safetensors", "state.safetensors"):
            (_, whole), (_, cut) = (read_tensors(tmp_path / d / name) for d in ("whole", run))
            assert whole.keys() == cut.keys()
            assert all(torch.equal(whole[key], cut[key]) for key in whole), (run, name)
        assert not list((tmp_path / run).glob(".*.partial")), run  # what was half-written is cleared away
        lines = [(tmp_path / d / "metrics.jsonl").read_text().splitlines() for d in ("whole", run)]
        losses = [[json.loads(line)["loss"] for line in rows] for rows in lines]
        assert losses[0] == losses[1], run


def test_sessions_of_a_killed_run(tmp_path: Path) -> None:
    """Versions, commit and checksums are there as soon as anything is; a resumed run adds its own."""
    write(tmp_path / "train.xyz", read(DATA / "acac/train_300K.xyz.xz", ":12"))
    code = (
        "import os, signal, sys\nimport train.fit\nfrom train.cli import main\n"
        "train.fit.run_epochs = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "main([*sys.argv[1:], '--output', 'run'])\n"
    )
    for more in (["train.xyz", "--preset", "tiny", "--epochs", "1"], ["--resume"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *more], cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode == -9, done.stderr
    first, second = json.loads((tmp_path / "run/sessions.json").read_text())
    assert first["files"] == {
        str(tmp_path / "train.xyz"): hashlib.sha256((tmp_path / "train.xyz").read_bytes()).hexdigest()
    }
    assert first["versions"]["torch"] == torch.__version__
    assert first["versions"]["numpy"] == numpy.__version__
    assert ("--resume" in first["command"], "--resume" in second["command"]) == (False, True)
    if (Path(__file__).parents[1] / ".git").exists():
        assert len(first["commit"].removesuffix("+changes")) == 40
