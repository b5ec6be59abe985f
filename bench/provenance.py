"""What every results file says about itself: commit, command, machine and date."""

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from train.directory import write_text

ROOT = Path(__file__).resolve().parents[1]


def spell(command: Sequence[str]) -> str:
    """A command as text; of absolute paths, also after a "=", only the names, which mean something elsewhere."""

    def short(word: str) -> str:
        key, equals, value = word.rpartition("=")
        return key + equals + (Path(value).name if Path(value).is_absolute() else value)

    return shlex.join(map(short, command))


def read_rows(results: Path) -> list[dict[str, Any]]:
    """The lines of a results file, none where there is no file yet."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def write_rows(results: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The whole file or nothing."""
    results.parent.mkdir(parents=True, exist_ok=True)
    write_text(results, "".join(json.dumps(row) + "\n" for row in rows))


def provenance() -> dict[str, Any]:
    """Commit, command, machine and date of a results file."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    status = ["git", "status", "--porcelain", "--", ".", ":!docs/results"]  # results change nothing that runs
    dirty = subprocess.run(status, cwd=ROOT, capture_output=True, text=True, check=False)
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "commit": commit.stdout.strip() + ("+changes" if dirty.stdout.strip() else ""),
        "command": spell(["python", *sys.orig_argv[1:]]),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores of {names[0].partition(': ')[2] if names else platform.processor()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
