"""Processes that answer questions, always in the order of the questions; built once, gone when their parent is."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")
AHEAD = 2  # questions that a process has at a time: it works on one while the answer to the other waits


@contextlib.contextmanager
def answering(
    answer: Callable[[Question], Answer], n: int
) -> Iterator[Callable[[Iterable[Question]], Iterator[Answer]]]:
    """A map over questions by `n` processes; 0: by this one, when an answer is asked for.

    `answer`, which must be something that can be imported, and what it holds is sent to every process once. Each has a
    pipe of its own, so that it meets the end of the pipe, and ends, however its parent ends. They are plain
    interpreters: those of multiprocessing would run a script of the user's again.

    Raises:
        ValueError: as raised by `answer`, or a process that was killed.
    """
    if not n:
        yield lambda questions: map(answer, questions)
        return
    pipes: list[Connection] = []
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(n):
            here, there = Pipe()
            pipes.append(here)
            code = f"import sys; sys.path[:] = {sys.path!r}; from train.workers import serve"
            code += f"; serve({there.fileno()})"
            with there:
                processes.append(subprocess.Popen([sys.executable, "-c", code], pass_fds=[there.fileno()]))
            _talk(here.send, answer)
        yield lambda questions: _in_order(pipes, questions)
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.wait()


def _in_order(pipes: list[Connection], questions: Iterable[Any]) -> Iterator[Any]:
    """The k-th question goes to process k modulo n, so the order of the answers is known."""
    todo = zip(count(), questions)
    asked: deque[Connection] = deque()

    def ask() -> None:
        for k, question in todo:
            pipe = pipes[k % len(pipes)]
            asked.append(pipe)
            _talk(pipe.send, question)
            return

    try:
        for _ in range(AHEAD * len(pipes)):
            ask()
        while asked:
            ok, value = _talk(asked.popleft().recv)
            if not ok:
                raise value
            ask()
            yield value
    finally:  # answers that nobody waits for any more
        with contextlib.suppress(EOFError, OSError):
            for pipe in asked:
                pipe.recv()


def _talk(action: Callable[..., Any], *what: Any) -> Any:
    try:
        return action(*what)
    except (EOFError, OSError) as error:
        raise ValueError(
            "a worker process has ended before its work was done; it was killed, perhaps for want of memory: use "
            "fewer workers"
        ) from error


def serve(handle: int) -> None:
    """The life of a worker process: it answers until there is nobody to answer to."""
    for number in (signal.SIGINT, signal.SIGTERM):  # of the whole group; the parent decides when to end
        signal.signal(number, signal.SIG_IGN)
    pipe = Connection(handle)
    with contextlib.suppress(EOFError, OSError):
        answer = pipe.recv()
        if (
            "torch" in sys.modules
        ):  # its threads, waiting for each other in every process, would keep all cores busy
            sys.modules["torch"].set_num_threads(1)
        while True:
            question = pipe.recv()
            try:
                reply = (True, answer(question))
            except ValueError as error:
                reply = (False, ValueError(str(error)))
            except Exception:
                reply = (False, RuntimeError(traceback.format_exc()))
            pipe.send(reply)
