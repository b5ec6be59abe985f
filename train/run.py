"""A run: everything that changes while training, how long it lasts, and how it is saved."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_ema import ExponentialMovingAverage

from potential.checkpoint import read, write
from potential.model import Potential
from train.config import Fit
from train.soap import Soap
from train.state import pack, unpack


@dataclass
class Run:
    """Everything that changes while training: what `state.safetensors` holds."""

    potential: Potential
    optimizer: torch.optim.Optimizer
    ema: ExponentialMovingAverage
    identity: dict[str, Any] = field(
        default_factory=dict
    )  # what must not change on resume: data, model, settings
    epoch: int = 0  # finished epochs
    position: int = 0  # batches done in the current epoch
    step: int = 0
    seconds: float = 0.0  # of training, over all sessions
    sums: dict[str, list[float]] = field(default_factory=dict)  # squared errors since the last validation
    validated: int = 0  # step of the last validation
    best: float = math.inf
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    skipped: int = 0  # steps in a row that were not finite
    at_once: int = 0  # structures of a batch that fit into memory; 0: all


FORMAT = 3  # 2: state of our own SOAP; 3: skipped steps, structures at once
COUNTERS = ("epoch", "position", "step", "seconds", "sums", "validated", "best", "best_epoch", "best_weights",
            "skipped", "at_once")  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How long a run is: in steps when epochs are given, otherwise in seconds."""

    n_batches: int
    epochs: int
    seconds: float
    warmup: int
    decay: float

    @property
    def total_steps(self) -> int:
        return self.epochs * self.n_batches

    @property
    def decay_step(self) -> int:
        """First step of the decay of the learning rate (epochs given)."""
        return int((1 - self.decay) * self.total_steps)

    def done(self, run: Run) -> float:
        """Finished fraction of the run."""
        return run.step / self.total_steps if self.epochs else run.seconds / self.seconds

    def decaying(self, run: Run) -> bool:
        return run.step >= self.decay_step if self.epochs else self.done(run) >= 1 - self.decay

    def rate(self, run: Run) -> float:
        """Factor of the learning rate: linear warm-up, constant, linear decay to zero."""
        return min(1.0, (run.step + 1) / max(self.warmup, 1)) * max(
            0.0, min(1.0, (1 - self.done(run)) / self.decay)
        )


def make_plan(fit: Fit, n_batches: int) -> Plan:
    return Plan(n_batches, fit.epochs, 60 * fit.minutes, min(fit.warmup_steps, n_batches), fit.decay)


def start(potential: Potential, fit: Fit, identity: dict[str, Any] | None = None) -> Run:
    """A run at its beginning."""
    weights = list(potential.parameters())
    if fit.optimizer == "soap":
        optimizer: torch.optim.Optimizer = Soap(weights, lr=fit.learning_rate, weight_decay=fit.weight_decay)
    else:
        optimizer = torch.optim.AdamW(weights, lr=fit.learning_rate, weight_decay=fit.weight_decay)
    return Run(potential, optimizer, ExponentialMovingAverage(weights, decay=fit.ema), identity or {})


def save_state(run: Run, path: Path) -> None:
    """Weights, optimizer, moving average and counters, in one file."""
    tensors: dict[str, Tensor] = {}
    content = {
        "weights": run.potential.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "ema": run.ema.state_dict(),
        **{name: getattr(run, name) for name in COUNTERS},
    }
    header = {"kind": "training state", "format": FORMAT, "identity": run.identity}
    write(path, {**header, "content": pack(dict(content), tensors)}, tensors)


def load_state(run: Run, path: Path) -> None:
    """Put a saved state into `run`, which was made by `start` with the same model and settings.

    Raises:
        ValueError: a damaged file, or a state of other data, another model or other settings.
    """
    header, tensors = read(path)
    if header.get("kind") != "training state" or header.get("format") != FORMAT:
        raise ValueError(
            f"{path}: not a training state of this version; give the directory of a run of potential-train, and "
            "finish a run with the version it began with"
        )
    for name, value in run.identity.items():
        if header.get("identity", {}).get(name) != value:
            raise ValueError(
                f"{path.parent}: the run was made with other {name}; resume it with the {name} it began with "
                "(only its length may change), or start a new run in another --output"
            )
    try:
        content = unpack(header["content"], tensors)
        run.potential.load_state_dict(content["weights"])
        run.optimizer.load_state_dict(content["optimizer"])
        run.ema.load_state_dict(content["ema"])
        for name in COUNTERS:
            setattr(run, name, content[name])
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: the state belongs to another model or optimizer: {error}") from error
