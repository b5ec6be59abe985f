"""What a run tells while it goes: a live line on a terminal, plain lines elsewhere and in the log file."""

from __future__ import annotations

import sys
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
    known = [(name, line[f"valid_{name}_rmse"]) for name in units]
    return "  ".join(f"{name} {value:.2f} {units[name]}" for name, value in known if value is not None)


class Display:
    """Console and log file of a run; use as a context around training."""

    def __init__(self, plan: Plan | None = None, log: Path | None = None):
        self.plan, self.log = plan, log
        self.live: Any = None
        self.task: Any = None
        self.begun: tuple[float, float] | None = (
            None  # seconds and fraction at the first step of this session
        )

    def say(self, text: str) -> None:
        """One line (or several) for people: printed and logged."""
        if self.live is not None:
            self.live.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as f:
                f.write(text + "\n")

    def __enter__(self) -> Display:
        if sys.stdout.isatty():
            from rich.progress import BarColumn, Progress, TextColumn

            self.live = Progress(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}")
            )
            self.live.start()
            self.task = self.live.add_task("starting", total=1.0, left="")
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
        if self.begun is None:
            self.begun = (run.seconds, done)
        progress = done - self.begun[1]
        left = (1 - done) * (run.seconds - self.begun[0]) / progress if progress > 0 else None
        remaining = f"{duration(left)} left" if left is not None and left > 0 else ""
        if self.live is not None:
            text = f"epoch {run.epoch}  step {run.step}"
            self.live.update(self.task, completed=min(done, 1.0), description=text, left=remaining)
        if line is not None:
            where = f"epoch {line['epoch']:5d}  step {line['step']:7d}"
            self.say(f"{where}  validation RMSE: {metrics_text(line)}  {remaining}".rstrip())
