"""What a run takes: time, steps and atoms per second, memory, and the machine it runs on."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from train.run import Run


def machine() -> str:
    """Cores that this process may use, and the name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{cores} {'core' if cores == 1 else 'cores'} of {name}"


def peak_memory() -> float | None:
    """Largest memory of this process so far in MiB; None where the system does not say."""
    try:
        import resource
    except ImportError:  # not a Unix
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def available_memory() -> float | None:
    """Memory that a process can still get, in MiB; None where the system does not say."""
    info = Path("/proc/meminfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    found = [float(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None


def resources(run: Run, atoms_per_step: float, device: str) -> dict[str, Any]:
    """What the training took, for summary.json; seconds include validation."""
    seconds, steps = run.seconds, run.step
    rate = steps / seconds if seconds > 0 else None
    on_gpu = torch.device(device).type == "cuda"
    return {
        "steps": steps,
        "steps_per_second": rate,
        "atoms_per_second": rate and rate * atoms_per_step,
        "peak_memory_mib": peak_memory(),
        "device_memory_mib": torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else None,
        "machine": f"{torch.cuda.get_device_name(device)}; {machine()}" if on_gpu else machine(),
        "threads": torch.get_num_threads(),
        "cpu_share": run.cpu_share,
    }
