"""--dry-run: what a run costs in time, memory and disk, measured by a few steps of each preset."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from potential.analysis.worker import forget_peak, memory
from potential.model import Potential, presets
from train.config import Fit
from train.display import duration
from train.evaluate import evaluate
from train.loop import VALIDATE_STEPS, Task
from train.plan import make_potential, trial
from train.run import Run
from train.schedule import Plan
from train.state import pack

STEPS, SECONDS = 20, 3.0  # of each trial; slow presets get fewer steps
ENOUGH = 3000  # updates below which a preset has not learned what it can
SOME = 16  # validation frames whose evaluation is timed
OWN = "own"  # in place of a preset, where a network has none
REPORT = 5.2e6  # bytes of report, plots and the program that draws in the page
PER_ATOM, PER_FRAME, PER_LINE = 56, 200, 500  # bytes in predictions.h5, uncompressed, and in the metrics


@dataclass(frozen=True)
class Cost:
    """What one preset costs."""

    preset: str
    parameters: int
    step: float  # seconds
    validation: float  # seconds
    peak: float  # MiB
    state: int  # bytes of a saved state

    def epochs_in(self, seconds: float, plan: Plan) -> int:
        """Epochs that fit, validations included."""
        return int(seconds / self.per_epoch(plan))

    def per_epoch(self, plan: Plan) -> float:
        """Seconds of one epoch."""
        return plan.n_batches * self.step + self.validation * min(1.0, plan.n_batches / VALIDATE_STEPS)


def measure_cost(name: str, potential: Potential, task: Task) -> Cost:
    """A trial of one potential. Its peak is that of the process, or of the GPU, while it lasted."""
    cuda = task.fit.device.startswith("cuda")
    forget_peak()
    if cuda:
        torch.cuda.reset_peak_memory_stats(task.fit.device)
    run, step = trial(potential, task, STEPS, SECONDS)
    some = [task.valid[k] for k in range(min(SOME, len(task.valid)))]
    begun = time.perf_counter()
    evaluate(run.potential, some, task.fit.device)
    validation = (time.perf_counter() - begun) * len(task.valid) / max(len(some), 1)
    peak = torch.cuda.max_memory_allocated(task.fit.device) / 2**20 if cuda else memory("VmHWM")
    n = sum(p.numel() for p in potential.parameters())
    return Cost(name, n, step, validation, peak, state_bytes(run))


def state_bytes(run: Run) -> int:
    """Size of what `state.safetensors` will hold: weights, best weights, optimizer and moving average."""
    tensors: dict[str, torch.Tensor] = {}
    weights = run.potential.state_dict()
    pack([weights, weights, run.optimizer.state_dict(), run.ema.state_dict()], tensors)
    return sum(t.numel() * t.element_size() for t in tensors.values())


def costs(potential: Potential, model: Mapping[str, Any], task: Task) -> list[Cost]:
    """Every preset with the data and settings of the run; the run's own network stands for its preset, and is alone
    where a saved potential is the start."""
    if task.fit.start:
        return [measure_cost(str(model.get("preset") or OWN), potential, task)]
    found = []
    # of dense structures or not, as the run's own network: the data were asked when that was chosen
    tables = [presets(model["network"], dense) for dense in (False, True)]
    own_dials = [table[model.get("preset") or "small"] for table in tables]
    alike = [sum(model.get(k) == v for k, v in dials.items()) for dials in own_dials]
    of_network = tables[alike[1] > alike[0]]
    dials = {key for preset in of_network.values() for key in preset}
    for name, sizes in of_network.items():
        own = name == model.get("preset")
        settings = {**{k: v for k, v in model.items() if k not in dials}, **sizes}
        other = None if own else make_potential(settings, potential.statistics, task.fit)
        found.append(measure_cost(name, other or potential, task))
    return found


def disk_bytes(cost: Cost, plan: Plan, size: tuple[int, int], epochs: float) -> float:
    """Bytes of the run directory: two states, the model, predictions of `size` (frames, atoms), metrics, report."""
    frames, atoms = size
    lines = epochs * min(1.0, plan.n_batches / VALIDATE_STEPS)
    states = 2 * cost.state + 4 * cost.parameters
    return states + PER_ATOM * atoms + PER_FRAME * frames + PER_LINE * lines + REPORT


def budget_text(found: list[Cost], own: str, task: Task, size: tuple[int, int]) -> str:
    """The table of --dry-run, and what it means for the time given."""
    plan, fit = task.plan, task.fit
    column = f"time for {fit.epochs} epochs" if fit.epochs else f"epochs in {fit.minutes:g} min"
    lines = ["What it costs, from a few steps of each preset:", ""]
    lines.append(
        f"{'preset':<8} {'parameters':>10}  {'steps/s':>7}  {'peak MiB':>8}  {'disk MB':>7}  {column}"
    )
    for c in found:
        epochs = fit.epochs or c.epochs_in(plan.seconds, plan)
        updates = f"{epochs} ({epochs * plan.n_batches:,} updates)"
        last = duration(epochs * c.per_epoch(plan)) if fit.epochs else updates
        disk = disk_bytes(c, plan, size, epochs) / 1e6
        mark = "*" if c.preset == own else " "
        lines.append(
            f"{c.preset + mark:<8} {c.parameters:>10,}  {1 / c.step:>7.1f}  {c.peak:>8.0f}  {disk:>7.1f}  {last}"
        )
    lines.append("* this run; peak: of the whole process, the data included")
    return "\n".join([*lines, *advice(found, own, plan, fit)])


def advice(found: list[Cost], own: str, plan: Plan, fit: Fit) -> list[str]:
    """Which preset fits the minutes given; nothing where epochs or the network are."""
    if fit.epochs or fit.start:
        return []
    updates = {c.preset: c.epochs_in(plan.seconds, plan) * plan.n_batches for c in found}
    fitting = [name for name, n in updates.items() if n >= ENOUGH]
    if not fitting:
        most = max(updates, key=updates.__getitem__)
        needed = min(c.per_epoch(plan) for c in found) / plan.n_batches * ENOUGH
        return [
            f"no preset makes {ENOUGH:,} updates in {fit.minutes:g} min; {most} makes most, and needs "
            f"--minutes {needed / 60:.1f} for so many"
        ]
    text = f"{fitting[-1]} is the largest preset that makes {ENOUGH:,} updates or more in {fit.minutes:g} min"
    return [text if fitting[-1] == own else f"{text}: --preset {fitting[-1]}; this run has {own}"]
