"""What is told while a study runs: what came in, what failed, how long it will take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from train.curve.frames import units_of
from train.curve.ledger import Ledger
from train.curve.study import Study
from train.report.markup import duration


class Progress:
    """Tells each new result once."""

    def __init__(self, study: Study, session: str, workers: int, say: Callable[[str], None]):
        self.study, self.session, self.workers, self.say = study, session, workers, say
        self.ledger, self.units = Ledger(study.directory), units_of(study.targets)
        self.jobs = {job.name: job for job in study.jobs}
        self.told = set(self.ledger.results())
        self.failed: dict[str, str] = {}

    def tell(self) -> None:
        """Lines for what is new."""
        results = {k: v for k, v in self.ledger.results().items() if k in self.jobs}
        for name in results.keys() - self.told:
            left = time_left(self.study, results, self.workers)
            more = (
                f", about {duration(left)} left" if left is not None and len(results) < len(self.jobs) else ""
            )
            self.say(
                f"{len(results)} of {len(self.jobs)}: {name}  {errors_text(results[name], self.units)}{more}"
            )
        self.told |= results.keys()
        reasons = self.ledger.reasons(self.session)
        for name, reason in reasons.items():
            if self.failed.get(name) != reason:
                self.say(f"failed: {name}: {reason.splitlines()[0]}")
        self.failed = reasons


def errors_text(line: dict[str, Any], units: Mapping[str, str]) -> str:
    """The errors of the first test, and the seconds."""
    test, errors = next(iter(line["errors"].items()))
    parts = [f"{name} {of['rmse']:.3g} {units[name]}" for name, of in errors.items()]
    return f"{test}: {', '.join(parts)}; {duration(line['wall'])}"


def time_left(study: Study, results: dict[str, dict[str, Any]], workers: int) -> float | None:
    """Seconds, from fits of the same model and size, else of the same model, else of all; None before the first."""
    if not results:
        return None
    times: dict[tuple[Any, ...], list[float]] = {}
    for line in results.values():
        for key in ((line["model"], line["size"]), (line["model"],), ()):
            times.setdefault(key, []).append(line["wall"])
    total = 0.0
    for job in study.jobs:
        if job.name not in results:
            keys: list[tuple[Any, ...]] = [(job.model, job.size), (job.model,), ()]
            known = next(times[key] for key in keys if key in times)
            total += sum(known) / len(known)
    return total / workers
