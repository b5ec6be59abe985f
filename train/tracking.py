"""Metrics sent on to TensorBoard and Weights & Biases; each is imported only where [log] asks for it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from train.config import Log

Line = Mapping[str, Any]  # of metrics.jsonl
Writer = Callable[[Line], None]
COUNTERS = ("step", "epoch", "seconds")


def require(log: Log) -> None:
    """Refuse, before anything is read, a tool that is not installed.

    Raises:
        ImportError: naming the extra to install.
    """
    for name in log.to:
        if find_spec(name) is None:
            raise ImportError(
                f"[log] to names {name}, which is not installed; install it with: pip install "
                f"'equiv-potential[{name}]', or leave it out"
            )


def scalars(line: Line) -> dict[str, float]:
    """The numbers of a line as both tools group them.

    >>> scalars({"step": 5, "epoch": 1, "lr": 0.1, "valid_forces_rmse": 3.0, "valid_stress_rmse": None})
    {'train/lr': 0.1, 'valid/forces_rmse': 3.0}
    """
    names = {k: k.replace("_", "/", 1) if k.startswith(("train_", "valid_")) else f"train/{k}" for k in line}
    return {names[k]: float(v) for k, v in line.items() if k not in COUNTERS and v is not None}


@contextmanager
def tracking(log: Log, directory: Path, settings: Mapping[str, Any], step: int) -> Iterator[Writer]:
    """What takes a line of metrics to every tool named in [log]; `step` is where a resumed run goes on."""
    with ExitStack() as stack:
        writers = []
        if "tensorboard" in log.to:
            writers.append(stack.enter_context(_tensorboard(directory, step)))
        if "wandb" in log.to:
            writers.append(stack.enter_context(_wandb(log, directory, settings)))

        def write(line: Line) -> None:
            for writer in writers:
                writer(line)

        yield write


@contextmanager
def _tensorboard(directory: Path, step: int) -> Iterator[Writer]:
    """An event file in the run directory; events after `step`, which a resumed run makes again, are dropped."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1)

    def write(line: Line) -> None:
        for name, value in scalars(line).items():
            writer.add_scalar(name, value, line["step"])
        writer.flush()

    try:
        yield write
    finally:
        writer.close()


@contextmanager
def _wandb(log: Log, directory: Path, settings: Mapping[str, Any]) -> Iterator[Writer]:
    """A run named after the run directory, which a resumed run goes on with."""
    import wandb

    identity = directory / "wandb" / "id.txt"
    if not identity.is_file():
        identity.parent.mkdir(parents=True, exist_ok=True)
        identity.write_text(secrets.token_hex(8), encoding="utf-8")
    run = wandb.init(
        project=log.project,
        name=directory.resolve().name,
        id=identity.read_text(encoding="utf-8"),
        resume=None if log.offline else "allow",
        dir=str(directory),
        mode="offline" if log.offline else "online",
        config=dict(settings),
    )
    try:
        yield lambda line: run.log({"epoch": line["epoch"], **scalars(line)}, step=line["step"])
    finally:
        run.finish()
