"""What is done: one line of results.jsonl for each finished fit, attempts.jsonl for begun and failed ones, and locks.

Lines are appended under a lock with one write, and a line that a killed process left half-written is passed over. Locks
are those of the system (flock): they end with their process, however it ends, so nothing has to be cleaned up.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from train.curve.study import Job


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Whether the lock is ours; with `wait` it always is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def append(path: Path, line: dict[str, Any]) -> None:
    """One JSON line, whole and on the disk when this returns."""
    data = json.dumps(line).encode() + b"\n"
    with locked(path.with_name(f".{path.name}.lock")), path.open("a+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a process was killed while it wrote
                data = b"\n" + data
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines."""
    found = []
    if path.is_file():
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(json.JSONDecodeError, RecursionError):
                line = json.loads(text)
                if isinstance(line, dict) and "job" in line:
                    found.append(line)
    return found


class Ledger:
    """The records of a study's directory."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.results_path, self.attempts_path = directory / "results.jsonl", directory / "attempts.jsonl"

    def results(self) -> dict[str, dict[str, Any]]:
        """Name of a job -> its line; the first one counts."""
        found: dict[str, dict[str, Any]] = {}
        for line in lines(self.results_path):
            found.setdefault(line["job"], line)
        return found

    def finish(self, job: Job, line: dict[str, Any]) -> None:
        append(self.results_path, {"job": job.name, **line})

    def begin(self, job: Job, session: str) -> None:
        append(self.attempts_path, {"job": job.name, "session": session, "pid": os.getpid()})

    def fail(self, job: Job, session: str, reason: str) -> None:
        append(self.attempts_path, {"job": job.name, "session": session, "failed": reason})

    def begun(self, session: str) -> Counter[str]:
        """How often each job was begun in a session, whether it ended or its worker was lost."""
        found = lines(self.attempts_path)
        return Counter(x["job"] for x in found if x.get("session") == session and "failed" not in x)

    def reasons(self, session: str = "") -> dict[str, str]:
        """Name of a job -> why it failed last (in a session)."""
        found = (x for x in lines(self.attempts_path) if not session or x.get("session") == session)
        return {x["job"]: x["failed"] for x in found if "failed" in x}

    def claim(self, job: Job) -> contextlib.AbstractContextManager[bool]:
        """The right to do a job, for as long as the context and the process last."""
        return locked(self.directory / "locks" / job.name, wait=False)
