"""Worker processes: answers in order, errors told, nobody left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from train.workers import answering

ROOT = Path(__file__).parents[1]


def test_errors_of_processes_are_told() -> None:
    """`eval` answers: it can be imported everywhere."""
    with answering(eval, 2) as answers:
        assert list(answers(["1 + 1", "2 + 2", "3 + 3"])) == [2, 4, 6]
        with pytest.raises(ValueError, match="invalid literal"):
            list(answers(["1", "2", "int('three')", "4"]))
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            list(answers(["1 / 0"]))
        assert list(answers(["5"])) == [5]
        with pytest.raises(ValueError, match="a worker process has ended"):
            list(answers(["1", "__import__('os')._exit(9)", "3", "4", "5", "6"]))


def test_a_script_is_not_run_again(tmp_path: Path) -> None:
    """As multiprocessing would, where it has no guard; nor is a file of the user's imported for ours."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/train.py").write_text("raise SystemExit('not this one')")
    (tmp_path / "script.py").write_text(
        "from train.workers import answering\nprint('once')\n"
        "with answering(abs, 1) as answers:\n    print(list(answers([-3])))\n"
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path / "elsewhere",
        check=True,
    )
    assert done.stdout == "once\n[3]\n"


def test_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    code = """
import os, sys, time
from train.workers import answering
if __name__ == "__main__":
    with answering(abs, 2) as answers:
        print([abs(k) for k in answers(range(3))], flush=True)
        print(*(c for c in open(f"/proc/self/task/{os.getpid()}/children").read().split()), flush=True)
        time.sleep(60)
"""
    (tmp_path / "parent.py").write_text(code)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "[0, 1, 2]\n"
    children = [int(c) for c in parent.stdout.readline().split()]
    assert len(children) >= 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    limit = time.monotonic() + 20
    while any(
        Path(f"/proc/{c}").exists() and "Z" not in Path(f"/proc/{c}/stat").read_text().split()[2]
        for c in children
    ):
        assert time.monotonic() < limit
        time.sleep(0.05)
