"""What linear models take is what they are said to take; what results files say of commands."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

from bench.provenance import spell
from train.linear.cost import memory, seconds_to_solve
from train.linear.rows import accumulate
from train.linear.solve import by_evidence, scales

SOLVE = """
from pathlib import Path
import numpy as np
from train.linear.rows import accumulate, merged
from train.linear.solve import by_evidence, scales
f, rows, random = {f}, {rows}, np.random.default_rng(0)
def pieces():
    for _ in range(rows // 100):
        for kind in ("energy", "forces"):
            yield kind, random.normal(size=(100, f)), random.normal(size=100)
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()  # maxrss begins with that of the parent
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
small = merged(accumulate((("a", np.eye(9), np.ones(9)),)))
by_evidence(small, scales(small))
before = peak()
every = merged(accumulate(pieces()))
by_evidence(every, scales(every))
print(peak() - before)
"""


def test_the_memory_of_a_solution_is_what_is_said() -> None:
    f, rows = 900, 4000
    words = [sys.executable, "-c", SOLVE.format(f=f, rows=rows)]
    found = float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert 0.7 < memory(f, [[rows, rows]], 1) / found < 1.5


def test_no_path_of_a_machine_is_in_a_command() -> None:
    words = ["/usr/bin/tool", "--set", "data.isolated_atoms=/data/e0.xyz", "model.cutoff=4.0", "a/b.xyz"]
    assert spell(words) == "tool --set data.isolated_atoms=e0.xyz model.cutoff=4.0 a/b.xyz"


def test_the_time_of_a_solution_grows_as_it_does() -> None:
    """A problem of 800 columns takes what one of 400 says; wide bounds, as cores are shared."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2400, 800)), random.normal(size=2400)
    expected = seconds_to_solve(800, 2400, 1)
    started = time.perf_counter()
    one = accumulate([("one", x, y)])["one"]
    by_evidence(one, scales(one))
    assert 0.1 < expected / (time.perf_counter() - started) < 10
