"""One step of training: gradient, update of weights and moving average; what happens where a step fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from potential.graph import Graph
from potential.physics import predict
from potential.targets import as_labelled
from train.batches import Sample, batch
from train.config import Fit
from train.denoise import Slope, draw_noise, labelled_atoms, predict_noise
from train.loss import blank, differences, penalties, spread, total, units
from train.memory import is_out_of_memory
from train.precision import tf32
from train.recorded import may_record
from train.run import Run
from train.target import weights as target_weights

Sums = dict[str, list[float]]  # of each target and of the loss: sum of squares (or of losses), count


class NotFinite(ValueError):
    """The loss or its gradient is not finite; nothing was changed."""


class OutOfMemory(ValueError):
    """The gradient of a batch does not fit into memory; nothing was changed."""


class OutOfMemoryElsewhere(OutOfMemory):
    """Another rank's share of the batch does not fit into its memory; nothing was changed."""


def train_step(run: Run, samples: Sequence[Sample], fit: Fit, rate: float) -> float:
    """One update of weights and moving average; returns the loss. Of several ranks each gives its share of the batch.

    Raises:
        NotFinite, OutOfMemory: weights, optimizer and moving average are as before.
    """
    for group in run.optimizer.param_groups:
        group["lr"] = fit.learning_rate * rate
    run.optimizer.zero_grad(set_to_none=True)
    value, sums = shared(run, samples, fit) if run.ranks.size > 1 else fitting(run, samples, fit)
    norm = float(torch.nn.utils.clip_grad_norm_(run.weights, fit.clip))
    if not math.isfinite(norm) or not math.isfinite(value):
        raise NotFinite(f"step {run.step}: the loss is {value} and the norm of its gradient {norm}")
    run.optimizer.step()
    run.ema.update()
    run.step, run.skipped = run.step + 1, 0
    add(run.sums, sums)
    add(run.sums, {"loss": [value, 1]})
    return value


def shared(run: Run, samples: Sequence[Sample], fit: Fit) -> tuple[float, Sums]:
    """`fitting` for the batch of which every rank has a share; every rank gets the whole of it.

    Raises:
        OutOfMemory: some share does not fit; every rank learns it.
    """
    error: OutOfMemory | None = None
    value, sums = 0.0, {name: [0.0, 0] for name in count(samples, fit)}
    counts = run.ranks.add_counts(count(samples, fit))
    try:
        value, own = fitting(run, samples, fit, counts)
        add(sums, own)
    except OutOfMemory as caught:
        error = caught
    sums = run.ranks.add_sums({**sums, "": [value, error is not None]})
    value, failed = sums.pop("")
    if failed:
        run.optimizer.zero_grad(set_to_none=True)
        raise error or OutOfMemoryElsewhere(f"step {run.step}: out of memory on another rank")
    run.ranks.add_gradients(run.weights)
    return value, sums


def fitting(
    run: Run, samples: Sequence[Sample], fit: Fit, counts: dict[str, Tensor] | None = None
) -> tuple[float, Sums]:
    """`gradient`, or nothing.

    Raises:
        OutOfMemory: it does not fit.
    """
    try:
        with tf32(fit.tf32):
            found = recorded(run, samples, fit) if counts is None else None
            return found or gradient(run, samples, fit, counts)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        problem = (str(error) or "out of memory").splitlines()[0]
    run.optimizer.zero_grad(set_to_none=True)
    if run.recordings.known:  # what they hold may be all that is wanting
        run.recordings.give_up()
        return fitting(run, samples, fit, counts)
    raise OutOfMemory(
        f"step {run.step}: {problem}"
    )  # out here: the traceback of `error` would keep the tensors


def recorded(run: Run, samples: Sequence[Sample], fit: Fit) -> tuple[float, Sums] | None:
    """`gradient` by a recording; None where there is none, or no memory for one, which is more than without."""
    if run.at_once or run.recordings.full or not may_record(run.potential, samples, fit):
        return None
    try:
        return run.recordings.gradient(run.potential, run.weights, samples, fit)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    run.recordings.give_up()
    run.optimizer.zero_grad(set_to_none=True)
    return None


def gradient(
    run: Run, samples: Sequence[Sample], fit: Fit, counts: dict[str, Tensor] | None = None
) -> tuple[float, Sums]:
    """Add the gradient of the loss of a batch to that of the weights; the loss, and the squared errors.

    The batch is taken `run.at_once` structures at a time (0: all), and every part divides by the number of labels of
    the whole: the result is that of the whole to rounding. `counts`: these numbers, where others have more of it.
    """
    size = run.at_once or len(samples)
    parts = [samples[k : k + size] for k in range(0, len(samples), size)]
    if counts is None and len(parts) > 1:
        counts = count(samples, fit)
    value, sums = 0.0, Sums()
    for part in parts:
        b = batch(part, fit.device)
        facts = run.potential.statistics
        if not facts.has_energy:  # these labels have weight 0, and nothing predicts them
            b = replace(b, target=replace(blank(b.target), others=b.target.others))
        slopes = not facts.targets or any(
            bool(torch.isfinite(x).any()) for x in (b.target.forces, b.target.stress)
        )
        prediction = predict(run.potential, b.graph, create_graph=True, forces=slopes)
        labelled = as_labelled(prediction.targets, facts.targets)
        difference = differences(replace(prediction, targets=labelled), b.graph, b.target)
        weights = spread(b.weights, b.graph, b.target)
        terms = penalties(difference, fit, facts.scale, weights, units(facts.targets, b.graph))
        if fit.denoise_weight:
            terms["noise"] = noise_penalty(run, part, b.graph, fit)
            add(sums, {"noise": [float(terms["noise"][0].detach()), int(terms["noise"][1])]})
        if counts is not None:
            terms = {name: (s, counts[name].to(s.device)) for name, (s, _) in terms.items()}
        loss = total(terms, fit, target_weights(run.targets, run.stage))
        loss.backward()  # type: ignore[no-untyped-call]
        value += loss.item()
        squares = {
            n: [float(d.detach().square().sum()), int(known.sum())] for n, (d, known) in difference.items()
        }
        add(sums, squares)
    return value, sums


def noise_penalty(run: Run, samples: Sequence[Sample], graph: Graph, fit: Fit) -> tuple[Tensor, Tensor]:
    """Sum of squared errors of the predicted noise, and the number of its components."""
    assert run.auxiliary is not None
    noise = draw_noise(samples, fit.seed, run.step).to(graph.positions)
    error = predict_noise(Slope(run.potential, run.auxiliary), graph, noise, fit.denoise_sigma) - noise
    numbers = torch.tensor([labelled_atoms(s) for s in samples], device=error.device)
    counted = (numbers > 0)[graph.system][:, None]
    return torch.where(counted, error**2, 0.0).sum(), 3 * numbers.sum()


def count(samples: Sequence[Sample], fit: Fit) -> dict[str, Tensor]:
    """How many labels of each kind there are, and components of noise."""
    labels = [s.target.all() for s in samples]
    known = {name: [torch.isfinite(one[name]).sum() for one in labels] for name in labels[0]}
    if fit.denoise_weight:
        known["noise"] = [torch.tensor(3 * labelled_atoms(s)) for s in samples]
    return {name: torch.stack(numbers).sum() for name, numbers in known.items()}


def add(sums: Sums, more: Sums) -> None:
    """Add sums and counts in place."""
    for name, (value, n) in more.items():
        old = sums.get(name, [0.0, 0])
        sums[name] = [old[0] + value, old[1] + n]


@dataclass(frozen=True)
class Failed:
    """A batch whose step failed, and the names of its frames."""

    samples: Sequence[Sample]
    names: Sequence[str]
    error: ValueError


def recover(run: Run, failed: Failed, fit: Fit, say: Callable[[str], None]) -> bool:
    """Make the run ready to go on after a failed step; True: with the same batch again, False: with the next.

    What any rank finds in its share, every rank learns, and the first one says.

    Raises:
        ValueError: too many failures in a row, or a batch that does not fit; says which frames and what to do.
    """
    if isinstance(failed.error, OutOfMemory):
        problem, text = None, ""
        try:
            if not isinstance(failed.error, OutOfMemoryElsewhere):
                text = shrink(run, failed, fit)
        except ValueError as error:
            problem = error
        told = "; ".join(run.ranks.gather_texts([text] * bool(text)))
        refused = run.ranks.gather_texts([str(problem)] * (problem is not None))
        if refused:
            raise run.ranks.refusal("; ".join(refused)) from problem
        say(told)
        return True
    names = list(dict.fromkeys(run.ranks.gather_texts(failed.names)))
    found = run.ranks.gather_texts([failed.names[k] for k in blame(run, failed.samples, fit)])
    blamed = [name for name in names if name in found] or names
    who = "the batch held" if len(blamed) == len(names) > 1 else "not finite by itself:"
    frames = f"{who} {', '.join(blamed)}"
    run.skipped += 1
    if run.skipped >= fit.max_skipped:
        raise run.ranks.refusal(
            f"{failed.error}; {frames}; that was step number {run.skipped} in a row to fail; look at these frames, "
            "or lower --set fit.learning_rate"
        ) from failed.error
    say(
        f"{failed.error}; {frames}; the step is skipped, {fit.max_skipped - run.skipped} more in a row stop the run"
    )
    run.step += 1  # the length of the run and the learning rate count it
    return False


def blame(run: Run, samples: Sequence[Sample], fit: Fit) -> list[int]:
    """The structures whose own loss or gradient is not finite."""
    found = []
    for k, sample in enumerate(samples):
        run.optimizer.zero_grad(set_to_none=True)
        value, _ = gradient(run, [sample], fit)
        gradients = [p.grad for p in run.weights if p.grad is not None]
        if not math.isfinite(value) or not all(bool(torch.isfinite(g).all()) for g in gradients):
            found.append(k)
    run.optimizer.zero_grad(set_to_none=True)
    return found


def shrink(run: Run, failed: Failed, fit: Fit) -> str:
    """Batches are taken in smaller parts from now on, if the run may do that; a sentence that says so.

    Raises:
        ValueError: it may not, or single structures do not fit.
    """
    n = min(run.at_once or len(failed.samples), len(failed.samples))
    edges = [len(s.graph.center) for s in failed.samples]
    k = edges.index(max(edges))
    largest = f"{failed.names[k]} ({len(failed.samples[k].graph.positions)} atoms, {edges[k]} edges)"
    if n == 1:
        raise ValueError(
            f"{failed.error}; not even one structure at a time fits into memory; the largest is {largest}; "
            "take a smaller --preset or --set model.cutoff, or leave this frame out"
        ) from failed.error
    if fit.on_oom == "stop":
        fits = what_fits(run, failed, fit)
        remedy = f"--set fit.batch_size={fits}" if fits else "a smaller --preset"
        raise ValueError(
            f"{failed.error}; {n} structures at a time do not fit into memory, {fits or 'not even 1'} would; the "
            f"largest is {largest}; give {remedy}, or --on-oom shrink to take batches in parts with the same result"
        ) from failed.error
    run.at_once = n // 2
    return f"{failed.error}; batches are taken {n // 2} structures at a time from here on; the largest is {largest}"


def what_fits(run: Run, failed: Failed, fit: Fit) -> int:
    """How many of the largest structures of the batch fit at a time, found by trying; 0: not one."""
    order = sorted(range(len(failed.samples)), key=lambda k: -len(failed.samples[k].graph.center))
    size = len(order) // 2
    while size:
        try:
            fitting(run, [failed.samples[k] for k in order[:size]], fit)
            break
        except OutOfMemory:
            size //= 2
    run.optimizer.zero_grad(set_to_none=True)
    return size
