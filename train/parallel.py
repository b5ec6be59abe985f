"""Data parallel training on torch.distributed: every rank holds the model and takes its share of each batch.

Started by torchrun, and only then; a single process exchanges nothing. The loss is a sum over labels divided by
their number in the whole batch, so the numbers are added up before the gradient is taken and the gradients after it:
n ranks take the steps that one would take, up to rounding, and a run may be resumed with any number of ranks.
Gradients are added by one plain all-reduce: hooks that fire during the backward pass (DistributedDataParallel) would
gain nothing for a model of a megabyte, and average over ranks what must be divided by labels.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from potential.model import Potential
from train.batches import Sample
from train.columns import spaced
from train.evaluate import (
    PREDICTED,
    Predictions,
    errors,
    evaluate,
    evaluate_parts,
    from_arrays,
    pooled_errors,
    target_units,
)
from train.loss import blank as nothing
from train.stream import n_atoms

Index: TypeAlias = Sequence[int] | np.ndarray


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this one is; the first one reads the clock, writes and speaks."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def take(self, index: Index) -> Index:
        """This rank's part of a batch; the first of all for one that would get none."""
        return (
            index
            if self.size == 1
            else index[self.rank :: self.size]
            if self.rank < len(index)
            else index[:1]
        )

    def share(self, samples: Sequence[Sample], index: Index) -> Sequence[Sample]:
        """This rank's samples of a batch. One that would get none has one without labels, which adds nothing to
        sums, counts and gradient.
        """
        return self.used([samples[i] for i in self.take(index)], len(index))

    def used(self, taken: Sequence[Sample], n: int) -> Sequence[Sample]:
        """The samples that this rank took of a batch of n, as they count."""
        return taken if self.rank < n else [blank(taken[0])]

    def add_counts(self, counts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Numbers of labels over all ranks, which name the same kinds."""
        total = torch.stack(list(counts.values()))
        _reduce(total)
        return dict(zip(counts, total, strict=True))

    def add_sums(self, sums: dict[str, list[float]]) -> dict[str, list[float]]:
        """Pairs of numbers over all ranks, under the same names."""
        total = torch.tensor(list(sums.values()), dtype=torch.float64)
        _reduce(total)
        return dict(zip(sums, total.tolist(), strict=True))

    def add_gradients(self, weights: Iterable[Tensor]) -> None:
        """Each gradient becomes the sum over all ranks, the same bits on every one."""
        trained = [w for w in weights if w.requires_grad]
        flat = torch.cat([(torch.zeros_like(w) if w.grad is None else w.grad).flatten() for w in trained])
        _reduce(flat)
        for w, total in zip(trained, torch.split(flat, [w.numel() for w in trained]), strict=True):
            w.grad = total.view_as(w)

    def agree(self, seconds: float, stop: bool) -> tuple[float, bool]:
        """The clock of the first rank, and whether any was asked to stop."""
        if self.size == 1:
            return seconds, stop
        told = torch.tensor([seconds if self.first else 0.0, float(stop)], dtype=torch.float64)
        _reduce(told)
        return float(told[0]), bool(told[1])

    def gather(self, array: Tensor) -> list[Tensor]:
        """The arrays of all ranks, which differ in their first axis only."""
        sizes = torch.zeros(self.size, dtype=torch.int64)
        sizes[self.rank] = len(array)
        _reduce(sizes)
        room = array.new_zeros(int(sizes.max()), *array.shape[1:])
        room[: len(array)] = array
        parts = [torch.empty_like(room) for _ in range(self.size)]
        _guarded(dist.all_gather, parts, room)
        return [part[:n] for part, n in zip(parts, sizes.tolist(), strict=True)]

    def gather_texts(self, texts: Sequence[str]) -> list[str]:
        """The texts of all ranks, one after the other."""
        if self.size == 1:
            return list(texts)
        own = np.frombuffer(json.dumps(list(texts)).encode(), dtype=np.uint8)
        parts = self.gather(torch.from_numpy(own.copy()))
        return [text for part in parts for text in json.loads(part.numpy().tobytes())]

    def refusal(self, text: str) -> BaseException:
        """What ends all ranks, which know it: an error of the first, that says it; the others end without a word."""
        return ValueError(text) if self.first else SystemExit(1)

    def require_same(self, text: str, what: str) -> None:
        """Refuse to go on when `text` is not the same on every rank.

        Raises:
            ValueError: naming the ranks that differ from the first.
        """
        if self.size == 1:
            return
        digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype=np.int64)
        everywhere = self.gather(torch.from_numpy(digest.copy())[None])
        other = [str(k) for k, part in enumerate(everywhere) if not torch.equal(part, everywhere[0])]
        if other:
            raise ValueError(
                f"{what} of rank {', '.join(other)} differ from those of rank 0; give every rank the same files, "
                "versions and settings"
            )

    def follow(self, tensors: Iterable[Tensor]) -> None:
        """Every rank takes the values of the first."""
        if self.size > 1:
            for tensor in tensors:
                _guarded(dist.broadcast, tensor.detach(), 0)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Work without exchange, after which all ranks go on or none: what fails everywhere is said once.

        Raises:
            ValueError, OSError: as raised within.
            SystemExit: another rank has failed and says why.
        """
        error: Exception | None = None
        try:
            yield
        except (ValueError, OSError) as caught:
            error = caught
        if self.size > 1:
            failed = torch.zeros(self.size, dtype=torch.int64)
            failed[self.rank] = error is not None
            _reduce(failed)
            if failed.any() and self.rank != int(failed.argmax()):
                raise SystemExit(1)
        if error is not None:
            raise error


def blank(sample: Sample) -> Sample:
    """The sample with no label at all."""
    return replace(sample, target=nothing(sample.target))


def evaluate_shared(
    ranks: Ranks, potential: Potential, samples: Sequence[Sample], device: str, rows: Index | None = None
) -> Predictions:
    """`evaluate` with the samples (in `rows`) shared by all ranks; each gets the whole answer, in their order."""
    rows = range(len(samples)) if rows is None else rows
    n = len(rows)
    own = evaluate(potential, (samples[k] for k in ranks.take(rows)), device)
    if ranks.size == 1:
        return own
    parts = {name: torch.from_numpy(x) for name, x in own.arrays().items()}
    if ranks.rank >= n:  # what it was given is another rank's
        parts = {name: x[:0] for name, x in parts.items()}
    whole = {name: torch.cat(ranks.gather(x)) for name, x in parts.items()}
    order = np.argsort(np.concatenate([np.arange(rank, n, ranks.size) for rank in range(ranks.size)]))
    atoms = np.split(np.arange(int(whole["n_atoms"].sum())), whole["n_atoms"].cumsum(0)[:-1].numpy())
    atom_order = np.concatenate([atoms[i] for i in order])
    of_atoms = [f"targets/{one.name}" for one in potential.statistics.targets if one.per == "atom"]
    per_atom = ("atomic_numbers", "forces", *of_atoms)
    return from_arrays({k: x.numpy()[atom_order if k in per_atom else order] for k, x in whole.items()})


def shared_errors(
    ranks: Ranks, potential: Potential, samples: Sequence[Sample], device: str
) -> dict[str, float | int | None]:
    """Errors on all samples, shared by all ranks, and the unit of each target in the loss; what is predicted is not
    held together."""
    facts = potential.statistics.targets
    unit = target_units(facts, float(np.mean(n_atoms(samples)))) if facts else {}
    if ranks.size == 1:
        return pooled_errors(evaluate_parts(potential, samples, device)) | unit
    parts = (range(k, min(k + PREDICTED, len(samples))) for k in range(0, len(samples), PREDICTED))
    return pooled_errors(evaluate_shared(ranks, potential, samples, device, rows) for rows in parts) | unit


def predict_all(
    ranks: Ranks, potential: Potential, sets: Mapping[str, Sequence[Sample]], device: str
) -> tuple[dict[str, Any], dict[str, tuple[Predictions, Any]], list[str]]:
    """Errors of every set; its predictions with the positions of these frames; sentences on what was left out.

    Of a set of more than `PREDICTED` frames evenly spaced ones are kept; errors are over all frames, of the training
    set over those kept.
    """
    table, predictions, told = {}, {}, []
    for name, samples in sets.items():
        rows = spaced(len(samples), PREDICTED)
        if len(rows) < len(samples):
            told.append(
                f"{name}: predictions of {len(rows)} of {len(samples)} frames, evenly spaced, are kept"
            )
            told[-1] += ", and its errors are over these" * (name == "train")
            if name != "train":
                table[name] = shared_errors(ranks, potential, samples, device)
        predictions[name] = evaluate_shared(ranks, potential, samples, device, rows), rows
        table.setdefault(name, errors(predictions[name][0]))
    return table, predictions, told


def _reduce(tensor: Tensor) -> None:
    _guarded(dist.all_reduce, tensor)


def _guarded(exchange: Any, *arguments: Any) -> None:
    try:
        exchange(*arguments)
    except RuntimeError as error:
        raise ValueError(
            f"rank {dist.get_rank()} has lost the others ({str(error).splitlines()[0]}); one of them has ended, see "
            "what it said; continue from the last saved state with --resume"
        ) from error


@contextlib.contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """The ranks that torchrun started, for as long as the context lasts; a process alone without it.

    On GPUs every process of a node takes its own one.

    Raises:
        ValueError: fewer GPUs on this node than processes.
    """
    if not dist.is_available() or not dist.is_torchelastic_launched():
        yield Ranks()
        return
    with contextlib.ExitStack() as stack:
        cuda = device.startswith("cuda") and torch.cuda.is_available()
        if cuda:
            local = dist.get_node_local_rank()
            if local >= torch.cuda.device_count():
                raise ValueError(
                    f"process {local} of this node has no GPU, there are {torch.cuda.device_count()}; start as many "
                    "processes as GPUs: torchrun --nproc-per-node"
                )
            stack.enter_context(torch.cuda.device(local))
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
        try:
            yield Ranks(dist.get_rank(), dist.get_world_size())
        finally:
            dist.destroy_process_group()
