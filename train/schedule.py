"""How long a run is, how its learning rate goes, and where its second stage begins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from train.config import Fit
from train.run import Run

ROUNDING = 0.01  # meV/atom, meV/Å


@dataclass(frozen=True)
class Plan:
    """How long a run is: in steps when epochs are given, otherwise in seconds."""

    n_batches: int
    epochs: int
    seconds: float
    warmup: int
    decay: float = 0.0  # last part of the run, over which the learning rate falls; 0: it does not
    shape: str = "linear"
    final_rate: float = 0.0
    plateau_factor: float = 1.0
    stage_two: float = 0.0  # last part of the run, with weights of its own
    stage_two_rate: float = 1.0

    @property
    def total_steps(self) -> int:
        return self.epochs * self.n_batches

    @property
    def decay_step(self) -> int:
        """First step that a longer run would not make in the same way (epochs given): of the decay or of the second
        stage. The last one at the latest, because a run ends with a validation that the longer one need not make."""
        part = max(self.decay, self.stage_two)
        return min(int((1 - part) * self.total_steps), self.total_steps - 1)

    def place(self, run: Run) -> float:
        """How far the plan has come, what was left out included: in steps, or in seconds."""
        return (run.step if self.epochs else run.seconds) + run.ahead

    def done(self, run: Run) -> float:
        """Finished fraction of the run."""
        return self.place(run) / (self.total_steps if self.epochs else self.seconds)

    def decaying(self, run: Run) -> bool:
        """What comes depends on the length of the run."""
        if self.epochs:
            return self.place(run) >= self.decay_step
        return self.done(run) >= 1 - max(self.decay, self.stage_two)

    def extends(self, trunk: Run) -> bool:
        """This plan passes through a state that was kept where what comes began to depend on the length of a run."""
        if (trunk.planned, trunk.planned_seconds) == (self.epochs, self.seconds):
            return False
        if self.epochs and trunk.planned:
            return self.epochs > trunk.planned and trunk.step <= self.decay_step
        return not self.decaying(trunk)

    def second(self, run: Run) -> bool:
        """The second stage has come."""
        if not self.stage_two:
            return False
        return self.place(run) >= self.stage_two_begins

    @property
    def stage_two_begins(self) -> float:
        """Where in the plan the second stage does: a step, or seconds."""
        part = 1 - self.stage_two
        return int(part * self.total_steps) if self.epochs else part * self.seconds

    def rate(self, run: Run) -> float:
        """Factor of the learning rate: linear warm-up, constant, and then down from 1 to `final_rate`."""
        left = max(0.0, min(1.0, (1 - self.done(run)) / self.decay)) if self.decay else 1.0
        rate = min(1.0, (run.step + 1) / max(self.warmup, 1))
        if self.shape == "exponential":
            rate *= self.final_rate ** (1 - left)
        else:
            left = (1 - math.cos(math.pi * left)) / 2 if self.shape == "cosine" else left
            rate *= self.final_rate + (1 - self.final_rate) * left
        return rate * self.plateau_factor**run.reductions * (self.stage_two_rate if run.stage == 2 else 1.0)


def make_plan(fit: Fit, n_batches: int) -> Plan:
    """The plan of a run with `n_batches` steps an epoch.

    Raises:
        ValueError: an exponential that is to end at 0.
    """
    if fit.schedule == "exponential" and not fit.final_rate:
        raise ValueError(
            "[fit] schedule = 'exponential' never reaches final_rate = 0; give one, such as 0.01"
        )
    return Plan(
        n_batches,
        fit.epochs,
        60 * fit.minutes,
        min(fit.warmup_steps, n_batches),
        decay=0.0 if fit.schedule in ("constant", "plateau") else fit.decay,
        shape=fit.schedule,
        final_rate=fit.final_rate,
        plateau_factor=fit.plateau_factor,
        stage_two=fit.stage_two,
        stage_two_rate=fit.stage_two_rate,
    )


def begin_stage_two(run: Run) -> None:
    """Errors are weighted in another way from here on: the best is chosen among what these weights make."""
    run.stage, run.best, run.best_epoch = 2, math.inf, run.epoch


def hasten(run: Run, plan: Plan) -> None:
    """The second stage begins now; what was left of the first one is left out."""
    run.ahead += plan.stage_two_begins - plan.place(run)
    begin_stage_two(run)


def of_stage(fit: Fit, run: Run) -> Fit:
    """The settings with the weights of the stage that the run is in."""
    if run.stage == 1:
        return fit
    return replace(
        fit,
        energy_weight=fit.stage_two_energy_weight,
        forces_weight=fit.stage_two_forces_weight,
        stress_weight=fit.stage_two_stress_weight,
    )


def reduce_on_plateau(run: Run, fit: Fit) -> None:
    """Lower the learning rate where the validation error has not fallen for a while."""
    if fit.schedule == "plateau" and run.epoch - max(run.best_epoch, run.reduced) > fit.plateau_patience:
        run.reductions, run.reduced = run.reductions + 1, run.epoch


def score(
    errors: dict[str, float | int | None],
    fit: Fit,
    targets: Mapping[str, float] | None = None,
    scale: float = 1.0,
) -> float:
    """What the best model has least of: the weighted geometric mean of the errors of what is trained (its weight in the
    loss is above 0): energy once and forces three times, or stress where neither is known, and `targets` (name ->
    weight) three times. Root mean squares, with the loss `mae` mean absolute values. So no error is too small to count,
    as energies are in a sum of squares; but a frame has one energy, which may be right by chance early on. Of what is
    exact but for rounding, as forces that vanish by symmetry, nothing counts. Errors of targets, relative to their
    unit in the loss, are forces of that many `scale` (eV/Å)."""
    kind = "mae" if fit.loss == "mae" else "rmse"
    weights = {"energy": fit.energy_weight, "forces": fit.forces_weight}
    if not any(weight and errors[f"{name}_{kind}"] is not None for name, weight in weights.items()):
        weights = {"stress": fit.stress_weight}
    found = [
        (errors[f"{name}_{kind}"], 1 if name == "energy" else 3) for name, weight in weights.items() if weight
    ]
    for name, weight in (targets or {}).items():
        error, unit = errors.get(f"{name}_{kind}"), errors.get(f"{name}_unit")
        found += [(1e3 * scale * error / unit, 3)] if weight and error is not None and unit else []
    known = [(math.log(math.hypot(error, ROUNDING)), times) for error, times in found if error is not None]
    return math.exp(sum(x * times for x, times in known) / sum(times for _, times in known)) if known else 0.0
