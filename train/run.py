"""A run: everything that changes while training, and how it is saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_ema import ExponentialMovingAverage

from potential.checkpoint import read, write
from potential.model import Potential
from train.config import Fit
from train.denoise import make_head
from train.optimizers import make_optimizer
from train.parallel import Ranks
from train.recorded import Recordings
from train.soap import Soap
from train.state import pack, unpack
from train.target import Target


@dataclass
class Run:
    """Everything that changes while training: what `state.safetensors` holds."""

    potential: Potential
    optimizer: torch.optim.Optimizer
    ema: ExponentialMovingAverage
    identity: dict[str, Any] = field(
        default_factory=dict
    )  # what must not change on resume: data, model, settings
    auxiliary: torch.nn.Module | None = None  # trained along, not part of the model
    epoch: int = 0  # finished epochs
    position: int = 0  # batches done in the current epoch
    step: int = 0
    seconds: float = 0.0  # of training, over all sessions
    sums: dict[str, list[float]] = field(default_factory=dict)  # squared errors since the last validation
    validated: int = 0  # step of the last validation
    best: float = math.inf
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    planned: int = 0  # epochs that the run is to have; 0: minutes were given
    planned_seconds: float = 0.0  # of these minutes
    ahead: float = (
        0.0  # of the plan, left out on the way to the second stage: steps, or seconds where minutes are given
    )
    stage: int = 1  # 2: the loss is weighted as at the end
    reductions: int = 0  # of the learning rate, on plateaus
    reduced: int = 0  # epoch of the last reduction
    skipped: int = 0  # steps in a row that were not finite
    at_once: int = 0  # structures of a batch that fit into memory; 0: all
    cpu_share: float = 1.0  # CPU seconds per second of training, in this session; not part of the state
    ranks: Ranks = field(default_factory=Ranks)  # with whom each step is shared; not part of the state
    targets: Mapping[str, Target] = field(default_factory=dict)  # beside the energy; not part of the state
    recordings: Recordings = field(default_factory=Recordings)  # of a GPU; not part of the state

    @property
    def weights(self) -> list[Tensor]:
        """All that is trained."""
        return trained(self.potential, self.auxiliary)


# 2: state of our own SOAP; 3: planned epochs, stage, reductions, skipped steps, structures at once; 4: bounds of a
# batch (atoms, edges) are settings that must not change; 5: the best has the least geometric mean of errors
FORMAT = 5
COUNTERS = ("epoch", "position", "step", "seconds", "sums", "validated", "best", "best_epoch", "best_weights",
            "planned", "planned_seconds", "ahead", "stage", "reductions", "reduced", "skipped", "at_once")  # fmt: skip


def start(
    potential: Potential,
    fit: Fit,
    identity: dict[str, Any] | None = None,
    ranks: Ranks | None = None,
    targets: Mapping[str, Target] | None = None,
) -> Run:
    """A run at its beginning."""
    head = make_head(potential, fit.seed) if fit.denoise_weight else None
    weights = trained(potential, head)
    average = ExponentialMovingAverage(weights, decay=fit.ema)
    run = Run(potential, make_optimizer(weights, fit), average, identity or {}, head, ranks=ranks or Ranks())
    run.targets = targets or {}
    if isinstance(run.optimizer, Soap) and run.ranks.size > 1:
        run.optimizer.record = False  # other threads talk to other GPUs, which a recording does not bear
    return run


def fit_settings(fit: Fit) -> dict[str, Any]:
    """What a resumed run must share with its beginning, as JSON gives it back."""
    free = ("start", "epochs", "minutes", "patience", "device", "max_skipped", "on_oom", "workers", "record")
    found = {k: v for k, v in asdict(fit).items() if k not in free}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}


def trained(potential: Potential, auxiliary: torch.nn.Module | None) -> list[Tensor]:
    """All that is trained: weights that are not frozen."""
    more = [] if auxiliary is None else list(auxiliary.parameters())
    return [w for w in [*potential.parameters(), *more] if w.requires_grad]


def save_state(run: Run, path: Path) -> None:
    """Weights, optimizer, moving average and counters, in one file, by the first rank only."""
    if not run.ranks.first:
        return
    tensors: dict[str, Tensor] = {}
    content = {
        "weights": run.potential.state_dict(),
        "auxiliary": run.auxiliary.state_dict() if run.auxiliary is not None else {},
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
    if header.get("kind") != "training state":
        raise ValueError(f"{path}: not a training state; give the directory of a run of potential-train")
    if header.get("format") != FORMAT:
        raise ValueError(
            f"{path}: a training state of format {header.get('format')}, written by another version of "
            f"potential-train; this one reads format {FORMAT}. Finish the run with the version it began with "
            "(sessions.json names it), or begin a new one, from its model if there is one: "
            f"--from {path.parent / 'model.safetensors'}"
        )
    for name, value in run.identity.items():
        old = header.get("identity", {}).get(name)
        if name == "fit settings" and isinstance(old, dict):
            old = {**fit_settings(Fit()), **old}  # what it does not know came later, and has its default
        if old != value:
            which = ""
            if isinstance(old, dict) and isinstance(value, dict):
                changed = sorted(k for k in {*old, *value} if old.get(k) != value.get(k))
                which = f" ({', '.join(changed)})"
            raise ValueError(
                f"{path.parent}: the run was made with other {name}{which}; resume it with the {name} it began with "
                "(only its length may change), or start a new run in another --output"
            )
    try:
        content = unpack(header["content"], tensors)
        run.potential.load_state_dict(content["weights"])
        if run.auxiliary is not None:
            run.auxiliary.load_state_dict(content["auxiliary"])
        run.optimizer.load_state_dict(content["optimizer"])
        run.ema.load_state_dict(content["ema"])
        for name in COUNTERS:
            setattr(run, name, content[name])
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: the state belongs to another model or optimizer: {error}") from error
