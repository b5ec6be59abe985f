"""Samples of a prepared set: made when they are asked for, if wanted by other processes while a step is computed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any, TypeAlias, overload

import numpy as np
import torch

from potential.graph import Graph
from train.batches import Sample, normalized, prepare
from train.columns import Integers, sizes, target_sizes
from train.config import Fit
from train.data.dataset import Frame
from train.data.labels import LABELS
from train.loss import Targets
from train.prepared.read import Prepared
from train.prepared.schema import BITS
from train.workers import answering

GPU_WORKERS = 8  # processes that read a prepared set for a GPU, if there are cores for them; for a CPU 1
COUNTED = 500  # samples whose edges are counted at a time
Fetch: TypeAlias = Callable[[Iterable[Any]], Iterator[Sequence[Sample]]]  # of arrays or lists of positions


@dataclass(frozen=True, eq=False)
class Stream(Sequence[Sample]):
    """The samples of frames that stay in their file; none is kept."""

    frames: Prepared
    cutoff: float  # Å
    mean: tuple[float, ...] = (1.0,)  # of the weights of each label, by which they are divided
    edges: Integers | None = None  # of each sample, where they were counted (`with_edges`)

    def __len__(self) -> int:
        return len(self.frames)

    @overload
    def __getitem__(self, at: int) -> Sample: ...
    @overload
    def __getitem__(self, at: slice) -> list[Sample]: ...
    def __getitem__(self, at: int | slice) -> Sample | list[Sample]:
        if isinstance(at, slice):
            return [self[k] for k in range(*at.indices(len(self)))]
        (sample,) = prepare([self.frames[at]], self.cutoff)
        return replace(sample, weights=sample.weights / torch.tensor(self.mean, dtype=torch.float64))

    def __iter__(self) -> Iterator[Sample]:
        return (self[k] for k in range(len(self)))


def make_samples(frames: Sequence[Frame], cutoff: float) -> Sequence[Sample]:
    """Graphs and targets of all frames; of a prepared set they are made when they are used.

    Raises:
        ValueError: see `batches.prepare`.
    """
    return Stream(frames, cutoff) if isinstance(frames, Prepared) else prepare(frames, cutoff)


def with_unit_weights(samples: Sequence[Sample]) -> Sequence[Sample]:
    """As `batches.normalized`; of a prepared set with the same sums in the same order."""
    if not isinstance(samples, Stream):
        return normalized(samples)
    frames = samples.frames
    entries = {
        "energy": np.ones(len(frames)),
        "forces": 3.0 * frames.n_atoms,
        "stress": np.full(len(frames), 9.0),
    }
    known_in = {name: (frames.labels & BITS[name]) > 0 for name in LABELS}
    known_in |= {name: frames.has_target(name) for name in frames.targets}
    entries |= {name: n.astype(np.float64) for name, n in target_sizes(frames).items()}
    own = [factor for _, factor in frames.store.tables["kinds"]]
    mean = []
    for name, there in known_in.items():
        known = np.where(there, entries[name], 0.0)
        of_kind = [asdict(weights)[name] for weights in frames.of_kind] if name in LABELS else own
        factor = np.array(of_kind, dtype=np.float64)[frames.kind]
        total = np.cumsum(factor * known)[-1]  # one after the other, where a sum would go by pairs
        mean.append(float(total / max(known.sum(), 1.0)) if total > 0 else 1.0)
    return replace(samples, mean=tuple(mean))


def n_atoms(samples: Sequence[Sample]) -> Any:
    """(n_samples,) atoms of each."""
    if isinstance(samples, Stream):
        return sizes(samples.frames)
    return np.array([len(s.graph.positions) for s in samples], dtype=np.int64)


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def choose_workers(fit: Fit, frames: Sequence[Frame], ranks: int) -> tuple[Fit, list[str]]:
    """How many processes read the frames beside each of `ranks` (all taken to be on this machine), and why."""
    prepared = isinstance(frames, Prepared)
    if fit.workers >= 0:
        idle = f"workers = {fit.workers} changes nothing: only a set made by potential-prepare is read by workers"
        return fit, [idle] * (fit.workers > 0 and not prepared)
    spare = cores() // ranks - 1 if fit.device.startswith("cuda") else int(cores() > ranks)
    n = min(GPU_WORKERS, max(0, spare)) if prepared else 0
    reason = (
        f"{'reads' if n == 1 else 'read'} the prepared set while a step is computed"
        if n
        else "no core is left to read the prepared set beside"
    )
    return replace(fit, workers=n), [f"workers {n}: {reason}"] * prepared


def n_edges(samples: Sequence[Sample]) -> Integers:
    """(n_samples,) edges of each; those of a prepared set must be known."""
    if isinstance(samples, Stream):
        assert samples.edges is not None
        return samples.edges
    return np.array([len(s.graph.center) for s in samples], dtype=np.int64)


def with_edges(samples: Sequence[Sample], fit: Fit) -> tuple[Sequence[Sample], Integers | None, list[str]]:
    """The samples, the numbers of their edges where `fit.batch_edges` bounds them, and what that took in words.

    Of a prepared set they are read where they were stored for this cutoff, and counted by the workers where not.

    Raises:
        ValueError: see `batches.prepare`.
    """
    if not fit.batch_edges:
        return samples, None, []
    told = []
    if isinstance(samples, Stream):
        path, cutoff, begun = samples.frames.store.path, samples.cutoff, time.monotonic()
        counts = samples.frames.n_edges(cutoff)
        if counts is None:
            parts = [range(k, min(k + COUNTED, len(samples))) for k in range(0, len(samples), COUNTED)]
            with answering(partial(_count_edges, samples), fit.workers) as answers:
                counts = np.array([n for part in answers(parts) for n in part], dtype=np.int64)
            told.append(
                f"edges of {path} within {cutoff:g} Å counted in {time.monotonic() - begun:.0f} s, as at every start "
                f"and --resume; potential-prepare --cutoff {cutoff:g} stores their numbers in the set"
            )
        samples = replace(samples, edges=counts)
    return samples, n_edges(samples), told


def _count_edges(samples: Sequence[Sample], rows: Sequence[int]) -> list[int]:
    return [len(samples[k].graph.center) for k in rows]


def feed_digest(samples: Sequence[Sample], content: Any, weights: Any) -> None:
    """What tells these samples and their weights from others goes into two digests; nothing is read for it."""
    if isinstance(samples, Stream):
        frames = samples.frames
        content.update(f"{frames.store.sha256} {samples.cutoff}".encode())
        content.update(np.ascontiguousarray(frames.rows).tobytes() + frames.labels.tobytes())
        for name in frames.targets:
            content.update(name.encode() + frames.has_target(name).tobytes())
        weights.update(repr(frames.of_kind).encode() + frames.kind.tobytes())
        return
    for sample in samples:
        weights.update(sample.weights.numpy().tobytes())
        graph = [getattr(sample.graph, f.name) for f in fields(Graph)]
        for part in (*graph, *sample.target.all().values()):
            content.update(np.ascontiguousarray(part.numpy()).tobytes())


@contextlib.contextmanager
def feeding(samples: Sequence[Sample], workers: int) -> Iterator[Fetch]:
    """What gives the samples of each of several batches, the next ones being made by `workers` meanwhile."""
    if not workers or not isinstance(samples, Stream):
        yield lambda batches: ([samples[k] for k in index] for index in batches)
        return
    alone = replace(samples, edges=None)  # numbers that a worker does not need
    with answering(partial(_pack, alone), workers) as answers:
        names = list(samples.frames.targets)
        yield lambda batches: (_unpack(packed, names) for packed in answers(batches))


Columns: TypeAlias = list[
    tuple[Any, list[int]]
]  # arrays of all samples, one after the other, and their lengths


def _pack(samples: Sequence[Sample], index: Sequence[int]) -> Columns:
    """Samples as few plain arrays: tensors would be sent through shared memory, a file each."""
    rows = []
    for sample in (samples[k] for k in index):
        parts = [getattr(sample.graph, f.name) for f in fields(Graph)]
        rows.append([part.numpy() for part in (*parts, *sample.target.all().values(), sample.weights)])
    return [(np.concatenate(column), [len(x) for x in column]) for column in zip(*rows, strict=True)]


def _unpack(columns: Columns, names: Sequence[str]) -> list[Sample]:
    n, samples = len(fields(Graph)), []
    parts = [torch.split(torch.from_numpy(array), lengths) for array, lengths in columns]
    for tensors in zip(*parts, strict=True):
        energy, forces, stress, *others, weights = tensors[n:]
        targets = Targets(energy, forces, stress, dict(zip(names, others, strict=True)))
        samples.append(Sample(Graph(*tensors[:n]), targets, weights))
    return samples
