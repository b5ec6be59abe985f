"""Where jobs are done: in this process, in processes of this machine, or as jobs of a cluster through submitit."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from train.curve.ledger import Ledger
from train.curve.progress import Progress
from train.curve.study import Study
from train.curve.work import work

POLL = 0.5  # seconds between looks
IDLE = 3  # workers that end, one after the other, without having begun anything: something else is wrong


@dataclass(frozen=True)
class Where:
    """How a study is worked on."""

    engine: str = "local"
    workers: int = 1
    threads: int = 1
    retries: int = 1
    keep: bool = False
    options: dict[str, Any] = field(default_factory=dict)  # of submitit, such as slurm_partition


class Worker(Protocol):
    """A worker somewhere."""

    def ended(self) -> str | None:
        """None while it works, empty when nothing was left to do, otherwise how it was lost."""

    def stop(self) -> None:
        """Ask it to save and end."""


class Process:
    """A worker of this machine: a plain interpreter with its own number of threads."""

    def __init__(self, study: Study, session: str, where: Where, number: int):
        self.log = study.directory / "logs" / f"worker-{number}.txt"
        self.log.parent.mkdir(exist_ok=True)
        threads = [f"{name}_NUM_THREADS={where.threads}" for name in ("OMP", "MKL", "OPENBLAS")]
        code = f"import sys; sys.path[:] = {sys.path!r}; from train.curve.work import serve"
        code += "; sys.exit(serve(sys.argv[1:]))"
        words = [str(study.directory), session, str(where.retries), "keep" if where.keep else "tidy"]
        with self.log.open("a") as file:
            self.process = subprocess.Popen(
                [
                    "env",
                    *threads,
                    sys.executable,
                    "-c",
                    code,
                    *words,
                ],  # threads are counted when torch is loaded
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
            )

    def ended(self) -> str | None:
        code = self.process.poll()
        if code is not None:
            self._close()
        return None if code is None else "" if code == 0 else f"exit code {code}, see {self.log}"

    def stop(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(60)
        self._close()

    def _close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()


class Submitted:
    """A worker that a cluster runs; submitit gives it the machine, the study's directory tells it what to do."""

    def __init__(self, study: Study, session: str, where: Where, number: int):
        try:
            import submitit
        except ImportError:
            raise ImportError(
                "--engine submitit needs the package submitit: pip install 'equiv-potential[cluster]'"
            ) from None
        options = dict(where.options)
        cluster = options.pop("cluster", "slurm")
        executor = submitit.AutoExecutor(study.directory / "logs" / "submitit", cluster=cluster)
        given: dict[str, Any] = {"timeout_min": 60 * 24, "name": "potential-curve"}
        if cluster == "slurm":
            threads = [f"export {name}_NUM_THREADS={where.threads}" for name in ("OMP", "MKL", "OPENBLAS")]
            given |= {"cpus_per_task": where.threads, "slurm_setup": threads}
        executor.update_parameters(**(given | options))
        self.job = executor.submit(work, study.directory.absolute(), session, where.retries, where.keep)

    def ended(self) -> str | None:
        if not self.job.done():
            return None
        error = self.job.exception()
        return "" if error is None else f"{self.job.state}, see {self.job.paths.stderr}"

    def stop(self) -> None:
        self.job.cancel(check=False)


ENGINES: dict[str, Any] = {"local": None, "process": Process, "submitit": Submitted}


def run(study: Study, where: Where, say: Callable[[str], None]) -> dict[str, str]:
    """Do all jobs that are left; name of a job that failed or is not ours -> why.

    Raises:
        ValueError: workers cannot be started.
        ImportError: a package that the engine needs.
        KeyboardInterrupt: asked to stop; workers were told.
    """
    session = f"{time.time():.6f}"
    progress = Progress(study, session, max(1, where.workers), say)
    if where.engine == "local":
        work(study.directory, session, where.retries, where.keep, progress.tell)
    else:
        watch(study, session, where, progress)
    progress.tell()
    ledger = Ledger(study.directory)
    reasons, done, begun = ledger.reasons(session), ledger.results(), ledger.begun(session)
    return {
        job.name: reasons.get(
            job.name, "its worker was lost" if begun[job.name] else "another process is at it"
        )
        for job in study.jobs
        if job.name not in done
    }


def watch(study: Study, session: str, where: Where, progress: Progress) -> None:
    """Start workers, start others for those that are lost, until nothing is left to do."""
    ledger, idle, count = Ledger(study.directory), 0, where.workers
    workers: list[Worker] = [ENGINES[where.engine](study, session, where, k) for k in range(count)]
    begun = 0
    try:
        while workers:
            time.sleep(POLL)
            progress.tell()
            for worker in list(workers):
                lost = worker.ended()
                if lost is None:
                    continue
                workers.remove(worker)
                if not lost:
                    continue
                now = sum(ledger.begun(session).values())
                idle, begun = (0, now) if now > begun else (idle + 1, now)
                if idle == IDLE:
                    raise ValueError(f"workers end before they begin anything: {lost}")
                progress.say(f"a worker was lost ({lost}); another one takes over")
                workers.append(ENGINES[where.engine](study, session, where, count))
                count += 1
    finally:
        for worker in workers:
            worker.stop()
