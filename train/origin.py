"""Where a run comes from: command, versions, commit and the files it read, one entry for every time it was started."""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from potential import __version__
from train.config import Config
from train.data.files import expand

PACKAGES = ("torch", "numpy", "e3nn", "ase", "matscipy", "torch-ema", "safetensors")
ROOT = Path(__file__).resolve().parents[1]


def command() -> str:
    """What was typed, without the path of the program."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def session(config: Config, ranks: int) -> dict[str, Any]:
    """One start of a run on so many ranks."""
    data, fit = config.data, config.fit
    files = expand([*data.train, *data.valid, *data.test, *data.isolated_atoms, *data.replay])
    files += [fit.start] if fit.start else []
    versions = {"python": platform.python_version(), "equiv-potential": __version__}
    versions |= {name: version(name) for name in PACKAGES}
    return {
        "command": command(),
        "date": now(),
        "versions": versions,
        "commit": commit(),
        "machine": platform.platform(),
        "device": fit.device,
        "ranks": ranks,
        "files": {str(Path(file).absolute()): sha256(Path(file)) for file in files},
    }


def commit() -> str | None:
    """Commit of the checkout that this package lies in, `+changes` if files differ from it; None without one."""
    if not (ROOT / ".git").exists():
        return None
    try:
        found = [
            subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True)
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", "potential", "train"))
        ]
    except (OSError, subprocess.CalledProcessError):  # no git here, or not its checkout
        return None
    return found[0].stdout.strip() + ("+changes" if found[1].stdout.strip() else "")


def sha256(path: Path) -> str:
    """Checksum of a file, as `sha256sum` prints it."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sessions(directory: Path) -> list[dict[str, Any]]:
    """What `sessions.json` of a run directory holds; nothing where there is none.

    Raises:
        ValueError: a damaged file.
    """
    path = directory / "sessions.json"
    if not path.is_file():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        found = error
    if not isinstance(found, list):
        raise ValueError(f"{path}: no list of sessions ({found}); the file is damaged: restore or remove it")
    return found
