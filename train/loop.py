"""The training loop: schedule, moving average, validation, early stopping, and exact resume."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from train.batches import Sample
from train.buckets import epoch_batches
from train.config import Fit
from train.memory import is_out_of_memory
from train.parallel import Index, shared_errors
from train.run import Run, load_state, save_state
from train.schedule import Plan, begin_stage_two, hasten, of_stage, reduce_on_plateau, score
from train.step import Failed, NotFinite, OutOfMemory, blame, recover, train_step
from train.stream import feeding, n_atoms, n_edges
from train.target import Target
from train.target import weights as target_weights
from train.threads import threads

VALIDATE_STEPS = 50  # validate at the first end of an epoch that is at least this many steps after the last
SAVE_SECONDS = 10.0  # after so long the next validation saves the state,
EPOCH_SAVE_SECONDS = 60.0  # and after so long the next step, since an epoch of a large set takes hours
CLOCKS = {"wall": time.monotonic, "cpu": time.process_time}  # s; of the minutes of a run


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM become a question, so that a step is never cut in two."""
    asked: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)

    old = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)


def valid_errors(run: Run, valid: Sequence[Sample], device: str) -> dict[str, float | int | None]:
    """Errors of the validation frames; where memory is short because of what recordings hold, without these."""
    try:
        return shared_errors(run.ranks, run.potential, valid, device)
    except (MemoryError, RuntimeError) as error:
        if not run.recordings.known or not is_out_of_memory(error):
            raise
    run.recordings.give_up()
    return shared_errors(run.ranks, run.potential, valid, device)


def validate(run: Run, valid: Sequence[Sample], fit: Fit) -> dict[str, float | int | None]:
    """One line of metrics; keeps the averaged weights if they are the best so far.

    Raises:
        ValueError: predictions that are not finite.
    """
    with run.ema.average_parameters():
        e = valid_errors(run, valid, fit.device)
        now = score(
            e, of_stage(fit, run), target_weights(run.targets, run.stage), run.potential.statistics.scale
        )
        if not math.isfinite(now):
            raise run.ranks.refusal(
                f"step {run.step}: predictions of the validation frames are not finite, the training diverged; "
                f"lower --set fit.learning_rate (it was {fit.learning_rate})"
            )
        if now < run.best:
            run.best, run.best_epoch = now, run.epoch
            run.best_weights = {k: v.detach().clone() for k, v in run.potential.state_dict().items()}
    reduce_on_plateau(run, fit)
    line: dict[str, float | int | None] = {
        "epoch": run.epoch,
        "step": run.step,
        "seconds": round(run.seconds, 2),
    }
    line["lr"] = run.optimizer.param_groups[0]["lr"]
    sums = {"loss": [0.0, 0], "energy": [0.0, 0], "forces": [0.0, 0], **run.sums}  # all steps may be skipped
    line["loss"] = sums["loss"][0] / sums["loss"][1] if sums["loss"][1] else None
    for name in ("energy", "forces", *run.targets):
        square, n = sums.get(name, [0.0, 0])
        line[f"train_{name}_rmse"] = 1e3 * math.sqrt(square / n) if n else None
    if fit.denoise_weight:
        square, n = run.sums.get("noise", [0.0, 0])
        line["train_noise_rmse"] = math.sqrt(square / n) if n else None
    for name in ("energy", "forces", "stress", *run.targets):
        line[f"valid_{name}_rmse"], line[f"valid_{name}_mae"] = e[f"{name}_rmse"], e[f"{name}_mae"]
    run.sums, run.validated = {}, run.step
    return line


@dataclass(frozen=True)
class Task:
    """What a run trains on, where it writes, and whom it tells."""

    train: Sequence[Sample]
    valid: Sequence[Sample]
    names: Sequence[str]  # of the training samples, for error messages
    fit: Fit
    plan: Plan
    directory: Path
    tell: Callable[
        [Run, dict[str, Any] | None], None
    ]  # after every step, and with a line after every validation
    say: Callable[[str], None] = print  # whatever else people must know
    targets: Mapping[str, Target] = field(default_factory=dict)  # beside the energy

    def batches(self, epoch: int) -> list[Any]:
        """Positions of the training samples of each batch of an epoch."""
        edges = n_edges(self.train) if self.fit.batch_edges else None
        return epoch_batches(n_atoms(self.train), self.fit, epoch, edges)


def records(run: Run) -> bool:
    """Whether steps are recorded where they can be."""
    return not run.recordings.full and getattr(run.optimizer, "record", True)


def attempt(run: Run, task: Task, index: Index, samples: Sequence[Sample]) -> None:
    """One step with these samples, again where it can be made to fit, or none."""
    while True:
        recorded = records(run)
        try:
            train_step(run, samples, of_stage(task.fit, run), task.plan.rate(run))
            return
        except (NotFinite, OutOfMemory) as error:
            failed = Failed(samples, [task.names[i] for i in index], error)
            if not recover(run, failed, task.fit, task.say):
                return
        finally:
            if recorded and not records(run):
                task.say(
                    "no memory is left to record steps: kernels are launched one by one from here on, slower"
                )


def save_after(run: Run, task: Task, saved: float, seconds: float) -> float:
    """Save the state if that was more than `seconds` ago; when it was saved last."""
    if time.monotonic() - saved <= seconds:
        return saved
    save_state(run, task.directory / "state.safetensors")
    return time.monotonic()


def look(run: Run, task: Task) -> None:
    """Validate, and say so."""
    line = validate(run, task.valid, task.fit)
    if run.ranks.first:
        append_metrics(task.directory, line)
    task.tell(run, line)


def run_epochs(run: Run, task: Task) -> str:
    """Train until the plan is done, early stopping, or a stop signal; says which: done, early, stopped.

    The state is saved on the way and at the end, so that nothing is lost.
    """
    plan, fit = task.plan, task.fit
    saved = begun = time.monotonic()
    clock, cpu = CLOCKS[fit.clock], time.process_time()
    started = clock()
    before, run.planned, run.planned_seconds = run.seconds, plan.epochs, plan.seconds
    trunk = task.directory / "trunk.safetensors"
    # a GPU waits for one thread, which others would only disturb
    n_threads = 1 if fit.device.startswith("cuda") else torch.get_num_threads()
    with stop_signals() as stopping, feeding(task.train, fit.workers) as fetch, threads(n_threads):
        while plan.done(run) < 1:
            validated = run.validated == run.step and run.position == 0
            if validated and run.epoch - run.best_epoch > fit.patience:
                if not plan.stage_two or run.stage == 2:
                    save_state(run, task.directory / "state.safetensors")
                    return "early"
                if not trunk.exists():
                    save_state(run, trunk)
                hasten(run, plan)
                task.say(
                    f"epoch {run.epoch}: no better validation error for {fit.patience} epochs, so the second stage "
                    "begins now"
                )
            batches = task.batches(run.epoch)[run.position :]
            own = [run.ranks.take(batch) for batch in batches]
            for batch, index, samples in zip(batches, own, fetch(own), strict=True):
                if plan.done(run) >= 1:
                    break  # before a save: what is saved at its end has been validated
                saved = save_after(run, task, saved, EPOCH_SAVE_SECONDS)
                if plan.decaying(run) and not trunk.exists():
                    save_state(run, trunk)
                if plan.second(run) and run.stage == 1:
                    begin_stage_two(run)
                attempt(run, task, index, run.ranks.used(samples, len(batch)))
                run.position += 1
                run.seconds, stop = run.ranks.agree(before + clock() - started, stopping())
                run.cpu_share = (time.process_time() - cpu) / (time.monotonic() - begun)
                task.tell(run, None)
                if stop and plan.done(run) < 1:
                    save_state(run, task.directory / "state.safetensors")
                    return "stopped"
            run.epoch, run.position = run.epoch + 1, 0
            if run.step - run.validated >= VALIDATE_STEPS or plan.done(run) >= 1:
                look(run, task)
                saved = save_after(run, task, saved, SAVE_SECONDS)
    if run.validated != run.step:  # resumed with fewer minutes than it has had
        look(run, task)
    save_state(run, task.directory / "state.safetensors")
    if run.skipped and len(blame(run, task.valid[:8], fit)) == len(task.valid[:8]):
        raise run.ranks.refusal(
            f"step {run.step}: the last {run.skipped} steps were not finite, and neither are the validation frames: "
            f"the training diverged; lower --set fit.learning_rate (it was {fit.learning_rate})"
        )
    return "done"


def append_metrics(directory: Path, line: dict[str, Any]) -> None:
    """One JSON line and one CSV line."""
    with (directory / "metrics.jsonl").open("a", encoding="utf-8") as f:
        f.write(json.dumps(line) + "\n")
    table = directory / "metrics.csv"
    new = not table.exists()
    with table.open("a", encoding="utf-8") as f:
        if new:
            f.write(",".join(line) + "\n")
        f.write(",".join("" if v is None else str(v) for v in line.values()) + "\n")


def cut_metrics(directory: Path, step: int) -> None:
    """Drop the lines of steps that a resumed run will make again."""
    path = directory / "metrics.jsonl"
    if not path.exists():
        return
    kept = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        # the last line of a killed run may be cut, any line of a damaged file may be anything
        with contextlib.suppress(json.JSONDecodeError, KeyError, RecursionError, TypeError):
            line = json.loads(text)
            if line["step"] <= step:
                kept.append(line)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".metrics", suffix=".partial") as folder:
        for line in kept:
            append_metrics(Path(folder), line)
        for name in ("metrics.jsonl", "metrics.csv"):
            if kept:
                (Path(folder) / name).replace(directory / name)
            else:
                (directory / name).unlink(missing_ok=True)


def continue_run(run: Run, task: Task) -> str:
    """Load the state to go on from. A run made longer goes on from where its learning rate began to fall,
    so that 3 epochs and then 6 are the same as 6 at once.

    Raises:
        ValueError: a damaged state, one of other data or another model, or a run that is longer than now asked for.
    """
    if not run.ranks.first:  # the first rank has been here already
        last = next(
            (p for p in (task.directory / f"{n}.safetensors" for n in ("state", "trunk")) if p.exists()), None
        )
        if last:
            load_state(run, last)
        return ""
    state, trunk = task.directory / "state.safetensors", task.directory / "trunk.safetensors"
    for leftover in task.directory.glob(".*.partial"):  # of a process that was killed while writing
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    if trunk.exists():
        load_state(run, trunk)
        if task.plan.extends(run):
            trunk.replace(state)  # first of all: a kill from here on finds the state to go on from
            cut_metrics(task.directory, run.step)
            return (
                f"longer than before: going on after step {run.step}, where the learning rate began to fall"
            )
    if state.exists():
        load_state(run, state)
    elif not trunk.exists():
        cut_metrics(task.directory, -1)
        return "no state was saved yet: starting from the beginning"
    if task.plan.done(run) > 1 and task.plan.epochs:
        raise ValueError(
            f"{task.directory}: {run.epoch} epochs are done already; give --epochs above that to go on"
        )
    cut_metrics(task.directory, run.step)
    return f"continuing after epoch {run.epoch}, step {run.step}"
