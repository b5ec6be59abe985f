"""--find-lr: which learning rate suits the data (a range test)."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path

from potential.model import Potential
from train.loop import Task
from train.run import start
from train.step import NotFinite, train_step

LOW, HIGH = 1e-6, 1.0  # of the learning rate
STEPS = 120
SMOOTH = 0.9  # decay of the running mean of the loss
BLOWN = 4.0  # the test ends where the smoothed loss is this many times its least
SAFE = 10.0  # the suggestion is this many times below the rate of the least loss
FILES = ("find_lr.csv", "find_lr.png")


@dataclass(frozen=True)
class RangeTest:
    """Learning rates and the smoothed loss after a step with each."""

    rates: list[float]
    losses: list[float]

    @property
    def suggested(self) -> float:
        """A rate well below that of the least loss, to two digits."""
        best = min(range(len(self.losses)), key=self.losses.__getitem__)
        rate = self.rates[best] / SAFE
        digits = 1 - math.floor(math.log10(rate))
        return round(rate, digits)


def range_test(potential: Potential, task: Task) -> RangeTest:
    """Steps of a copy of the potential, each with a higher learning rate, until the loss blows up.

    Source: Smith, Cyclical learning rates for training neural networks, WACV 2017 (section 3.3).

    Raises:
        ValueError: the first steps fail.
    """
    run, fit = start(copy.deepcopy(potential), task.fit, targets=task.targets), task.fit
    rates: list[float] = []
    losses: list[float] = []
    mean, epoch, batches = 0.0, 0, task.batches(0)
    for k in range(STEPS):
        if not batches:
            epoch += 1
            batches = task.batches(epoch)
        rate = LOW * (HIGH / LOW) ** (k / (STEPS - 1))
        samples = [task.train[i] for i in batches.pop(0)]
        try:
            loss = train_step(run, samples, fit, rate / fit.learning_rate)
        except NotFinite:
            if not losses:
                raise
            break
        mean = SMOOTH * mean + (1 - SMOOTH) * loss
        rates.append(rate)
        losses.append(mean / (1 - SMOOTH ** (k + 1)))
        if losses[-1] > BLOWN * min(losses):
            break
    return RangeTest(rates, losses)


def write_range_test(found: RangeTest, directory: Path, used: float) -> str:
    """find_lr.csv and find_lr.png in the directory, and a sentence that says what was found."""
    from matplotlib.figure import Figure

    directory.mkdir(parents=True, exist_ok=True)
    table, picture = (directory / name for name in FILES)
    lines = ["learning_rate,loss", *(f"{r!r},{x!r}" for r, x in zip(found.rates, found.losses, strict=True))]
    figure = Figure(figsize=(5.0, 3.7), layout="constrained")
    axes = figure.add_subplot()
    axes.loglog(found.rates, found.losses)
    axes.axvline(found.suggested, linestyle="--", label=f"suggested: {found.suggested:g}")
    axes.axvline(used, linestyle=":", label=f"set: {used:g}")
    axes.set(xlabel="learning rate", ylabel="loss, smoothed")
    axes.legend()
    for path, partial in ((p, p.with_name(f".{p.stem}.partial{p.suffix}")) for p in (table, picture)):
        if path is table:
            partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        else:
            figure.savefig(partial, dpi=120)
        partial.replace(path)
    return (
        f"learning rate: {found.suggested:g} suggested, a tenth of that with the least loss in {len(found.rates)} "
        f"steps from {LOW:g} up; fit.learning_rate is {used:g}; nothing was trained; look at: {table}, {picture}"
    )
