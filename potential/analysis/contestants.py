"""Contestants of a benchmark: each lives in a process of its own, of its own Python if it has one."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

THREAD_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Contestant:
    """Who is measured: a factory of ASE calculators, and the Python that has it."""

    name: str
    calculator: str  # module:factory or path/to/file.py:factory
    python: str = ""  # empty: this one
    options: Mapping[str, Any] = field(default_factory=dict)  # for the factory


@dataclass(frozen=True)
class Running:
    """A contestant's process, and what it said of itself."""

    contestant: Contestant
    process: subprocess.Popen[str]
    log: IO[str]
    limit: float = math.inf  # s for an answer
    facts: dict[str, Any] = field(default_factory=dict)


def parse_calculator(text: str) -> Contestant:
    """`ase.calculators.emt:EMT`, `examples/compare/mace.py:factory` or `name=module:factory`.

    Raises:
        ValueError: no factory named.
    """
    name, equals, rest = text.partition("=")
    source, colon, factory = (rest if equals else text).rpartition(":")
    if not colon or not source or not factory.isidentifier():
        raise ValueError(
            f"--calculator {text}: expected module:factory or file.py:factory, such as ase.calculators.emt:EMT"
        )
    own = Path(source).stem if source.endswith(".py") else factory
    return Contestant(name if equals else own, f"{source}:{factory}")


def environment(contestant: Contestant, threads: int) -> dict[str, str]:
    """This process's environment for a child, with numbers of threads; paths of this Python stay with this Python."""
    child = {**os.environ, **dict.fromkeys(THREAD_COUNTS, str(threads))}
    if contestant.python:
        for name in ("PYTHONPATH", "PYTHONHOME"):
            child.pop(name, None)
    return child


def ask(running: Running, **order: Any) -> dict[str, Any]:
    """The answer to one order.

    Raises:
        ValueError: the contestant failed, its process ended, or it did not answer in time, which ends it.
    """
    process, written = running.process, os.fstat(running.log.fileno()).st_size
    assert process.stdin is not None
    assert process.stdout is not None
    name, late = running.contestant.name, threading.Event()
    with stopped_after(running.limit, process, late):
        try:
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
    if late.is_set():
        process.wait()
        raise ValueError(f"{name}: no answer within {running.limit:g} s; its process was stopped")
    if not line:
        code = process.wait()
        killed = "; it was killed, perhaps for want of memory" if code == -9 else ""
        raise ValueError(
            f"{name}: its process ended with code {code}{killed}{_last_words(running.log, written)}"
        )
    reply: dict[str, Any] = json.loads(line)
    if "error" in reply:
        raise ValueError(f"{name}: {reply['error']}")
    return reply


@contextlib.contextmanager
def stopped_after(limit: float, process: subprocess.Popen[str], late: threading.Event) -> Iterator[None]:
    """Kill a process, and set `late`, if what is done meanwhile takes longer than a limit (s; inf: none)."""

    def stop() -> None:
        late.set()
        process.kill()

    if math.isinf(limit):
        yield
        return
    timer = threading.Timer(limit, stop)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # it has killed, or never will


def _last_words(log: IO[str], since: int) -> str:
    log.seek(since)
    lines = [line for line in log.read().splitlines() if line.strip()]
    return f": {lines[-1].strip()}" if lines else ""


@contextlib.contextmanager
def running(
    contestants: Sequence[Contestant], threads: int, options: Mapping[str, Any], limit: float = math.inf
) -> Iterator[list[Running]]:
    """The processes of all contestants, each with its calculator made; ended at the end, whatever happens.

    Raises:
        ValueError: a Python that is not there, or a calculator that cannot be made.
    """
    with contextlib.ExitStack() as stack:
        yield [start(one, threads, options, stack, limit) for one in contestants]


def start(
    contestant: Contestant,
    threads: int,
    options: Mapping[str, Any],
    stack: contextlib.ExitStack,
    limit: float = math.inf,
) -> Running:
    """The process of one contestant, with its calculator made; `stack` ends it.

    `options` are for any factory that names them; `limit` (s) holds for every answer.

    Raises:
        ValueError: a Python that is not there, or a calculator that cannot be made.
    """
    python = shutil.which(contestant.python or sys.executable)
    if python is None:
        raise ValueError(
            f"--python {contestant.python}: there is no such program; give the python of an environment"
        )
    log = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))  # noqa: SIM115
    process = subprocess.Popen(
        [python, str(WORKER), str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=environment(contestant, threads),
    )
    stack.callback(_end, process)
    started = Running(contestant, process, log, limit)
    own = dict(contestant.options)
    facts = ask(started, do="make", calculator=contestant.calculator, options=dict(options), own=own)
    return Running(contestant, process, log, limit, facts)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def distinct(contestants: Sequence[Contestant]) -> None:
    """Refuse two contestants of one name.

    Raises:
        ValueError: naming it.
    """
    names = [one.name for one in contestants]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"two contestants are called {name!r}; name them: --calculator "
                f"{re.sub('[^A-Za-z0-9]', '', name)}2=module:factory"
            )
