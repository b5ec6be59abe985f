"""One contestant of potential-bench in a process of its own: reads orders as JSON lines, answers each with one line.

A script that needs only tasks.py beside it, Python >= 3.9, ase and the calculator, so that the Python of another
environment can run it.
What a contestant is, and what an adapter may add to it, stands in this folder's README.md.
"""

from __future__ import annotations

import contextlib
import ctypes
import difflib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import math
import os
import platform
import re
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

TASKS = ("forces", "dynamics", "evaluation", "training")
ANY_CALCULATOR = TASKS[:2]  # tasks that need no adapter
WARM_UP = 3  # calls before the clock runs; a call longer than PATIENCE is warm after one
PATIENCE = 5.0  # s


@dataclass
class Stage:
    """What the process holds between orders."""

    module: ModuleType | None = None
    calculator: Any = None
    call: Callable[[], Any] | None = None
    period: int = 1  # calls that belong together
    seconds: float = 0.0  # of the last call
    base_mib: float = 0.0  # in memory before the task
    gpu: Any = None  # torch.cuda where a GPU computes


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'EMT'?`, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def module_at(path: Path) -> ModuleType:
    """The module in a file, under a name of its own: an adapter called mace.py must not hide the package mace."""
    spec = importlib.util.spec_from_file_location(f"contestant_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tasks: Any = module_at(
    Path(__file__).with_name("tasks.py")
)  # by its path: no package in a Python that is not ours


def load_factory(text: str) -> tuple[ModuleType, Callable[..., Any]]:
    """The module and the callable that `module:factory` or `path/to/file.py:factory` names.

    Raises:
        ValueError: no such module, file or name in it.
    """
    source, _, name = text.rpartition(":")
    if source.endswith(".py"):
        path = Path(source)
        if not path.is_file():
            raise ValueError(f"{source}: there is no such file; give the path of an adapter")
        module = module_at(path)
    else:
        try:
            module = importlib.import_module(source)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{error} for Python {platform.python_version()}; install it, or give --python"
            ) from error
    factory = getattr(module, name, None)  # also what a module makes when it is asked for
    if not callable(factory):
        public = [key for key, value in vars(module).items() if callable(value) and key[:1] != "_"]
        raise ValueError(f"{source} has no {name!r}{suggestion(name, public)}")
    return module, factory


def make(stage: Stage, calculator: str, options: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Build the calculator, given all of its own options and those of the others that its factory names; facts of it.
    The precision is the one it was asked for, "own" if it takes none."""
    stage.module, factory = load_factory(calculator)
    named = inspect.signature(factory).parameters
    given = {key: value for key, value in options.items() if key in named and value is not None} | own
    if str(given.get("device", "cpu")).startswith("cuda"):
        stage.gpu = importlib.import_module("torch").cuda
    stage.calculator = factory(**given)
    more = vars(stage.module)
    about = more["about"](stage.calculator) if "about" in more else {}
    packages = [*more.get("PACKAGES", [calculator.split(":")[0].split(".")[0]]), "ase", "numpy", "torch"]
    versions = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    able = [*ANY_CALCULATOR, *(task for task in TASKS if task in more and task not in ANY_CALCULATOR)]
    facts = {"tasks": able, "split": "split" in more and not stage.gpu, "dtype": given.get("dtype", "own")}
    device = stage.gpu.get_device_name() if stage.gpu else "cpu"
    return {**facts, "device": device, "versions": versions, "about": about}


def prepare(stage: Stage, task: str, structures: list[dict[str, Any]]) -> dict[str, Any]:
    """Set the task up and run it until it is warm."""
    stage.call = None
    forget_peak(stage.gpu)
    stage.base_mib = memory("VmRSS")
    atoms, more = tasks.structures_of(structures), vars(stage.module)
    edges = more["edges"](stage.calculator, atoms) if "edges" in more else None
    stage.call = {**more, "forces": tasks.forces, "dynamics": tasks.dynamics}[task](stage.calculator, atoms)
    stage.period = more.get("PERIODS", {}).get(task, 1)
    for _ in range(WARM_UP):
        begun = time.perf_counter()
        stage.call()
        stage.seconds = time.perf_counter() - begun
        if stage.seconds > PATIENCE:
            break
    return {"edges": edges}


def clock(stage: Stage, seconds: float) -> dict[str, float]:
    """Mean times of one call in ms: CPU time of the process and wall time, over at least `seconds`."""
    assert stage.call is not None
    n = stage.period * max(1, math.ceil(seconds / max(stage.seconds * stage.period, 1e-6)))
    wait = stage.gpu.synchronize if stage.gpu else int  # what a GPU was told to do takes time after the call
    wait()
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(n):
        stage.call()
    wait()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    stage.seconds = wall / n
    return {"cpu_ms": 1e3 * cpu / n, "wall_ms": 1e3 * wall / n}


def split(stage: Stage, structures: list[dict[str, Any]]) -> dict[str, Any]:
    """Where the time of energy and forces goes, in ms, as the adapter measures it."""
    return {
        "split": vars(stage.module)["split"](
            stage.calculator, tasks.together(tasks.structures_of(structures))
        )
    }


def memory(name: str) -> float:
    """VmRSS (now) or VmHWM (largest so far) of this process in MiB; elsewhere than on Linux always the largest."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else math.nan


def peak(stage: Stage) -> dict[str, float]:
    """Memory in MiB before the task and at most; of a GPU, the largest sum of its tensors, the model included."""
    found = {"base_mib": stage.base_mib, "peak_mib": memory("VmHWM")}
    return {**found, "gpu_mib": stage.gpu.max_memory_allocated() / 2**20} if stage.gpu else found


def forget_peak(gpu: Any = None) -> None:
    """Hand freed memory back and let the kernel, and torch.cuda, count the peak from here, where they can."""
    if gpu:
        gpu.empty_cache()
        gpu.reset_peak_memory_stats()
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def pin(threads: int) -> None:
    """As many cores as threads (Linux): the last ones, since the first ones serve interrupts."""
    if sys.platform == "linux":
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[-threads:])


def evaluate(stage: Stage, structure: dict[str, Any], properties: list[str]) -> dict[str, Any]:
    """Energy, forces, stress of one structure."""
    answer: dict[str, Any] = tasks.evaluate(stage.calculator, structure, properties)
    return answer


ORDERS: dict[str, Callable[..., dict[str, Any]]] = {
    "make": make, "prepare": prepare, "clock": clock, "split": split, "evaluate": evaluate,
    "memory": peak,
}  # fmt: skip


def main() -> None:
    """Serve until the orders end. Only answers go to stdout: what libraries print goes to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.path[0] = os.getcwd()  # not this folder: its modules must not hide anybody's
    pin(int(sys.argv[1]))
    stage = Stage()
    for line in sys.stdin:
        try:
            order = json.loads(line)
            reply = ORDERS[order.pop("do")](stage, **order)
        except Exception as error:
            traceback.print_exc()
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            reply = {"error": f"{kind}{error}"}
        out.write(json.dumps(reply) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
