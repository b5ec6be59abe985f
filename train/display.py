"""What a run tells while it goes: a live line on a terminal, plain lines elsewhere and in the log file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from train.run import Run
from train.schedule import Plan


def duration(seconds: float) -> str:
    """`1 h 02 min`, `3 min 20 s`, `12 s`."""
    s = round(seconds)
    if s >= 3600:
        return f"{s // 3600} h {s % 3600 // 60:02d} min"
    return f"{s // 60} min {s % 60:02d} s" if s >= 60 else f"{s} s"


def metrics_text(line: dict[str, Any]) -> str:
    """Validation errors with their units, the absent ones left out."""
    units = {"energy": "meV/atom", "forces": "meV/Å", "stress": "meV/Å^3"}
    names = [key.removeprefix("valid_").removesuffix("_rmse") for key in line if key.startswith("valid_")]
    known = {name: line.get(f"valid_{name}_rmse") for name in names}  # other targets in 1/1000 of their units
    return "  ".join(
        f"{name} {x:.2f} {units.get(name, '10^-3')}" for name, x in known.items() if x is not None
    )


def rate_text(steps: float, atoms_per_step: float) -> str:
    """`12.3 steps/s  3,280 atoms/s`, from steps per second."""
    atoms = steps * atoms_per_step
    return f"{steps:.3g} steps/s" + (f"  {atoms:,.0f} atoms/s" if atoms else "")


class Display:
    """Console and log file of a run; use as a context around training."""

    def __init__(self, plan: Plan | None = None, log: Path | None = None, silent: bool = False):
        self.plan, self.log, self.silent = plan, log, silent
        self.atoms_per_step = 0.0  # on average
        self.record: Callable[[dict[str, Any]], None] = lambda line: None  # is given every line of metrics
        self.live: Any = None
        self.task: Any = None
        # seconds, fraction, step and what was left out, at the first step of this session or of the second stage
        self.begun: tuple[float, float, int, float] | None = None
        self.errors = ""  # of the last validation

    def say(self, text: str) -> None:
        """One line (or several) for people: printed and logged."""
        if self.silent:
            return
        if self.live is not None:
            self.live.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as f:
                f.write(text + "\n")

    def __enter__(self) -> Display:
        if sys.stdout.isatty() and not self.silent:
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

            texts = [TextColumn("{task.description}"), BarColumn(bar_width=20), TaskProgressColumn()]
            self.live = Progress(
                *texts, TextColumn("{task.fields[left]}"), TextColumn("{task.fields[errors]}")
            )
            self.live.start()
            self.task = self.live.add_task("starting", total=1.0, left="", errors="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def tell(self, run: Run, line: dict[str, Any] | None) -> None:
        """Called after every step, and with a line of metrics after every validation."""
        assert self.plan is not None
        done = self.plan.done(run)
        if self.begun is None or self.begun[3] != run.ahead:
            self.begun = (run.seconds, done, run.step, run.ahead)
        seconds, progress = run.seconds - self.begun[0], done - self.begun[1]
        left = (1 - done) * seconds / progress if progress > 0 else None
        told = [rate_text((run.step - self.begun[2]) / seconds, self.atoms_per_step)] if seconds > 0 else []
        told += [f"{duration(left)} left"] if left is not None and left > 0 else []
        if line is not None:
            self.record(line)
            self.errors = metrics_text(line)
            where = f"epoch {line['epoch']:5d}  step {line['step']:7d}"
            self.say("  ".join([where, f"validation RMSE: {self.errors}", *told]))
        if self.live is not None:
            text = f"epoch {run.epoch}  step {run.step:,}"
            self.live.update(
                self.task,
                completed=min(done, 1.0),
                description=text,
                left="  ".join(told),
                errors=self.errors,
            )
