"""The directory of a run: whether it can be begun, the configuration it keeps, files that are never half-written."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from train.config import Config
from train.data.files import expand
from train.find_lr import FILES


def check_directory(directory: Path, resume: bool) -> None:
    """Refuse, before anything is read, a directory that is taken or that cannot be written."""
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file; give the name of a directory with --output")
    old = (
        {path.name for path in directory.iterdir() if not path.match(".*.partial")}
        if directory.exists()
        else set()
    )
    if not resume and old - set(FILES):
        raise ValueError(
            f"{directory} exists and is not empty; continue it with --resume, or give another --output"
        )
    nearest = next(p for p in (directory, *directory.absolute().parents) if p.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise ValueError(
            f"{directory} cannot be made: {nearest} is not a directory that can be written; give another"
        )


def from_anywhere(config: Config) -> Config:
    """The configuration with absolute paths, so that a run can be resumed from another directory.

    Patterns become the files they matched, but for those of test, whose frames go by the name of their pattern.
    """
    data = config.data
    found = {name: expand(getattr(data, name)) for name in ("train", "valid", "isolated_atoms", "replay")}
    absolute = {
        name: tuple(str(Path(p).absolute()) for p in paths)
        for name, paths in (*found.items(), ("test", data.test))
    }
    begun = str(Path(config.fit.start).absolute()) if config.fit.start else ""
    return replace(config, data=replace(data, **absolute), fit=replace(config.fit, start=begun))  # type: ignore[arg-type]


def write_text(path: Path, text: str) -> None:
    """Write a file completely or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
