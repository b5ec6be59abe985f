"""Measure contestants pairwise in one run: they take turns (A B A B ...), so that both see the same machine."""

from __future__ import annotations

import datetime
import math
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

from potential.analysis.contestants import Contestant, Running, ask, running
from potential.analysis.systems import System, elements_of
from potential.analysis.worker import TASKS

CALL_SECONDS = 0.02  # a round repeats a call until this much time has passed
MIN_ROUNDS = 3
TRAINING_ATOMS = 512  # of the largest system that a training step is measured on

Line = dict[str, Any]
Times = list[dict[str, float]]


@dataclass(frozen=True)
class Settings:
    """What is measured, and how long."""

    systems: Sequence[System]
    tasks: Sequence[str] = tuple(task for task in TASKS if task != "dynamics")
    dtypes: Sequence[str] = ("float32",)
    threads: Sequence[int] = (1,)
    cutoff: float = 5.0  # Å, for contestants that are free to choose
    skin: float = 0.0  # Å, for contestants that can keep their neighbors
    device: str = "cpu"  # for contestants that can be told
    rounds: int = 15
    seconds: float = 30.0  # after which no new round begins
    limit: float = math.inf  # s for each answer of a contestant


def machine() -> str:
    """Processor and number of cores."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    names = [line.partition(": ")[2] for line in text.splitlines() if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {names[0] if names else platform.processor() or platform.machine()}"


def commit() -> str | None:
    """Commit of the checkout this package runs from, if it runs from one."""
    answers = []
    for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        try:
            done = subprocess.run(
                ["git", *command], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        answers.append(done.stdout.strip())
    return answers[0] + ("+changes" if answers[1] else "")


def measure(contestants: Sequence[Contestant], settings: Settings) -> Iterator[Line]:
    """One line per contestant, task, system, precision and number of threads, as they are measured.

    A line has either times (ms, medians and quartiles over the rounds, and ratios to the first contestant
    that was measured in the same rounds) or an `error`.

    Raises:
        ValueError: a contestant cannot be made.
    """
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    run = {"date": now, "machine": machine(), "commit": commit()}
    systems = sorted(settings.systems, key=lambda system: system.n_atoms)
    for dtype in settings.dtypes:
        for threads in settings.threads:
            asked = {"threads": threads, "asked_dtype": dtype, "asked_device": settings.device}
            options = {
                "dtype": dtype,
                "elements": elements_of(systems),
                "cutoff": settings.cutoff,
                "skin": settings.skin,
                "device": settings.device,
            }
            with running(contestants, threads, options, settings.limit) as workers:
                # One task after the other, from small to large: memory peaks of a task then follow the system.
                for task in settings.tasks:
                    for system in systems:
                        if task != "training" or system.n_atoms <= TRAINING_ATOMS:
                            for line in compare(workers, task, system, settings):
                                yield {**run, **asked, **line}


def compare(workers: Sequence[Running], task: str, system: System, settings: Settings) -> list[Line]:
    """All contestants that can do the task, on one system."""
    ready: dict[str, Running] = {}
    lines: dict[str, Line] = {}
    structures = list(system.structures)
    for one in workers:
        if task not in one.facts["tasks"] or one.process.poll() is not None:
            continue
        name = one.contestant.name
        lines[name] = _describe(one, task, system)
        try:
            lines[name] |= ask(one, do="prepare", task=task, structures=structures)
            ready[name] = one
        except ValueError as error:
            lines[name]["error"] = str(error)
    times = take_turns(ready, settings)
    for name, measured in times.items():
        try:
            lines[name] |= ask(ready[name], do="memory")
            if task == "forces" and ready[name].facts["split"]:
                lines[name] |= ask(ready[name], do="split", structures=structures)
        except ValueError as error:
            measured["error"] = str(error)
    reference = next((name for name in times if "error" not in times[name]), None)
    for name, measured in times.items():
        if "error" in measured:
            lines[name]["error"] = measured["error"]
        else:
            lines[name] |= summary(measured["rounds"])
            if reference is not None and name != reference:
                lines[name] |= ratios(measured["rounds"], times[reference]["rounds"], reference)
    return list(lines.values())


def _describe(one: Running, task: str, system: System) -> Line:
    facts = one.facts
    return {
        "contestant": one.contestant.name,
        "calculator": one.contestant.calculator,
        "task": task,
        "system": system.name,
        "structures": len(system.structures),
        "atoms": system.n_atoms,
        "dtype": facts["dtype"],
        "device": facts["device"],
        "load": os.getloadavg()[0],
        **facts["about"],
        "versions": facts["versions"],
    }


def take_turns(ready: dict[str, Running], settings: Settings) -> dict[str, dict[str, Any]]:
    """Rounds in which every contestant is measured once, in the same order: {name: {"rounds": times}}.

    One that fails has an `error` and leaves the others to go on.
    """
    times: dict[str, dict[str, Any]] = {name: {"rounds": []} for name in ready}
    begun = time.monotonic()
    for k in range(settings.rounds):
        if k >= MIN_ROUNDS and time.monotonic() - begun > settings.seconds:
            break
        for name, one in ready.items():
            if "error" not in times[name]:
                try:
                    times[name]["rounds"].append(ask(one, do="clock", seconds=CALL_SECONDS))
                except ValueError as error:
                    times[name]["error"] = str(error)
    return times


def summary(rounds: Times) -> Line:
    """Medians and quartiles over rounds, in ms."""
    line: Line = {"rounds": len(rounds)}
    for kind in ("cpu", "wall"):
        low, middle, high = spread([one[f"{kind}_ms"] for one in rounds])
        line |= {f"{kind}_ms": middle, f"{kind}_quartiles": [low, high]}
    return line


def ratios(rounds: Times, reference: Times, name: str) -> Line:
    """How many times the reference's time: medians and quartiles of the ratios of each round."""
    line: Line = {"reference": name}
    for kind in ("cpu", "wall"):
        pairs = zip(rounds, reference, strict=True)
        low, middle, high = spread([one[f"{kind}_ms"] / other[f"{kind}_ms"] for one, other in pairs])
        line |= {f"{kind}_ratio": middle, f"{kind}_ratio_quartiles": [low, high]}
    return line


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return low, middle, high


def best(line: Line) -> str:
    """The clock that a line is judged by: CPU time on one pinned thread, wall time on several and on a GPU."""
    return "cpu" if line["threads"] == 1 and line.get("asked_device", "cpu") == "cpu" else "wall"
