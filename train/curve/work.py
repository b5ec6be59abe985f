"""A worker: takes free jobs of a study and does them, one after the other, until none is left.

Workers know nothing of each other. A job is claimed by a lock that ends with its process, so losing a worker loses its
job only for as long as nobody takes it up again: the next one continues the fit where it was saved.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from potential import __version__
from train.curve.fitters import FITTERS
from train.curve.frames import errors_of, sums_path, write_sums
from train.curve.ledger import Ledger
from train.curve.study import Job, Study, read_study
from train.origin import commit, now

BULKY = ("*.safetensors", "predictions.h5", "report.html", "*.png", "worst.xyz", "tensorboard", "wandb")
Tell = Callable[[], None]


def work(
    directory: Path, session: str, retries: int = 1, keep: bool = False, tell: Tell = lambda: None
) -> None:
    """Do what is left of a study, leaving out what others do; each job is begun `retries` + 1 times in a session.

    Raises:
        KeyboardInterrupt: it was asked to stop; what was trained is saved.
    """
    study, ledger = read_study(directory), Ledger(directory)
    while True:
        begun, done = ledger.begun(session), ledger.results()
        left = [job for job in study.jobs if job.name not in done and begun[job.name] <= retries]
        progress = False
        for job in sorted(left, key=lambda job: begun[job.name]):
            with ledger.claim(job) as mine:
                if not mine or job.name in ledger.results() or ledger.begun(session)[job.name] > retries:
                    continue
                ledger.begin(job, session)
                progress = True
                try:
                    perform(study, job, keep)
                except Exception as error:
                    ledger.fail(job, session, f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
                tell()
        if not progress:
            return


def perform(study: Study, job: Job, keep: bool) -> None:
    """Do one job and record it; what the fitter says goes to a file."""
    begun = time.monotonic()
    log = study.directory / "logs" / f"{job.name}.txt"
    log.parent.mkdir(exist_ok=True)
    with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        fit = FITTERS[study.models[job.model]["fitter"]](study, job)
    write_sums(sums_path(study, job), fit.tests)
    line: dict[str, Any] = {k: getattr(job, k) for k in ("model", "size", "draw", "seed")}
    line |= {"errors": {test: errors_of(found) for test, found in fit.tests.items()}, **fit.facts}
    line |= {"wall": time.monotonic() - begun, "host": socket.gethostname(), "date": now()}
    Ledger(study.directory).finish(job, line | {"version": __version__, "commit": commit()})
    tidy(study.run_directory(job), keep)


def tidy(directory: Path, keep: bool) -> None:
    """Leave of a finished fit its configuration, metrics, log and summary, and with `keep` the rest."""
    for pattern in () if keep else BULKY:
        for path in directory.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def serve(arguments: list[str]) -> int:
    """The life of a worker process, told directory, session, retries and whether to keep. It ends with its parent."""
    directory, session, retries, keep = arguments

    def watch() -> None:
        os.read(0, 1)  # returns when the parent has ended, however
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    try:
        work(Path(directory), session, int(retries), keep == "keep")
    except KeyboardInterrupt:
        return 130
    return 0
