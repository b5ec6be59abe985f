"""Facts of all frames of a set as arrays: of frames in memory, or of a prepared set without reading its frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.config import Weights
from train.data.dataset import Frame
from train.data.labels import LABELS
from train.doctor.checks import fingerprint
from train.prepared.read import Prepared
from train.prepared.schema import BITS
from train.target import dimension

Integers = NDArray[np.int64]
SAMPLE = 20_000  # frames on which E0, scale and neighbors are measured, and which the doctor sees of a prepared set
EACH = 200  # of these at least, for every element (and fault that shows in the columns), if there are so many


@dataclass(frozen=True, eq=False)
class Names(Sequence[str]):
    """The frames by name, for error messages."""

    frames: Sequence[Frame]

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, at: Any) -> Any:
        frame = self.frames[int(at)]
        return f"{frame.source} frame {frame.index}"


def take(frames: Sequence[Frame], positions: Any) -> Sequence[Frame]:
    """The frames at these positions, still unread where they are."""
    return frames.take(positions) if isinstance(frames, Prepared) else [frames[int(k)] for k in positions]


def element_sets(frames: Sequence[Frame]) -> tuple[Integers, list[frozenset[str]]]:
    """For each frame the number of its set of elements, and these sets."""
    if isinstance(frames, Prepared):
        known = [frozenset(one) for one in frames.store.tables["element_sets"]]
        return frames.store.elements[frames.rows].astype(np.int64), known
    table: dict[frozenset[str], int] = {}
    rows = [table.setdefault(frozenset(f.atoms.symbols), len(table)) for f in frames]
    return np.array(rows, dtype=np.int64), list(table)


def symbols(frames: Sequence[Frame]) -> set[str]:
    """All elements."""
    rows, sets = element_sets(frames)
    return set().union(*(sets[k] for k in np.unique(rows)))


def sizes(frames: Sequence[Frame]) -> Integers:
    """(n_frames,) atoms."""
    if isinstance(frames, Prepared):
        return frames.n_atoms
    return np.array([len(f.atoms) for f in frames], dtype=np.int64)


def n_labels(frames: Sequence[Frame]) -> int:
    """Energies, components of forces, and of other targets."""
    if isinstance(frames, Prepared):
        energies, forces = ((frames.labels & BITS[name]) > 0 for name in ("energy", "forces"))
        of_targets = sum(
            int(entries[frames.has_target(n)].sum()) for n, entries in target_sizes(frames).items()
        )
        return int(energies.sum() + 3 * frames.n_atoms[forces].sum()) + of_targets
    others = sum(int(np.isfinite(x).sum()) for f in frames for x in f.targets.values())
    return others + sum(3 * len(f.atoms) * (f.forces is not None) + (f.energy is not None) for f in frames)


def target_sizes(frames: Prepared) -> dict[str, Integers]:
    """(n_frames,) numbers of each target in a frame that has it."""
    rows = {
        name: frames.n_atoms if t.per == "atom" else np.ones_like(frames.n_atoms)
        for name, t in frames.targets.items()
    }
    return {name: n * dimension(frames.targets[name].irreps) for name, n in rows.items()}


def labelled(frames: Sequence[Frame]) -> set[str]:
    """Labels that any frame has."""
    if isinstance(frames, Prepared):
        have = int(np.bitwise_or.reduce(frames.labels))
        more = {name for name in frames.targets if frames.has_target(name).any()}
        return more | {name for name in LABELS if have & BITS[name]}
    others = {name for f in frames for name, x in f.targets.items() if np.isfinite(x).any()}
    return others | {name for name in LABELS if any(getattr(f, name) is not None for f in frames)}


def kinds(frames: Sequence[Frame]) -> Counter[tuple[str | None, Weights]]:
    """Frames of every config_type and weights, in the order of their first frames."""
    if isinstance(frames, Prepared):
        values, first, counts = np.unique(frames.kind, return_index=True, return_counts=True)
        found: Counter[tuple[str | None, Weights]] = Counter()
        for k in np.argsort(first):
            config_type = frames.store.tables["kinds"][values[k]][0]
            found[config_type, frames.of_kind[values[k]]] += int(counts[k])
        return found
    return Counter((f.config_type, f.weights) for f in frames)


def prints(frames: Sequence[Frame]) -> NDArray[np.uint64]:
    """(n_frames,) equal for equal structures."""
    if isinstance(frames, Prepared):
        found: NDArray[np.uint64] = frames.store.column("fingerprint")[frames.rows]
        return found
    return np.array([int(fingerprint(f)[:16], 16) for f in frames], dtype=np.uint64)


def infos(frames: Sequence[Frame]) -> Any:
    """The info of each frame, one after the other."""
    if isinstance(frames, Prepared):
        return (frames.store.info(int(k)) for k in frames.rows)
    return (f.atoms.info for f in frames)


def trajectories(frames: Sequence[Frame]) -> list[tuple[Any, str | None]]:
    """For each frame what is the same for all of its trajectory: file, as it was prepared, and config_type."""
    if isinstance(frames, Prepared):
        types = [one[0] for one in frames.store.tables["kinds"]]
        sources = frames.store.column("source")[frames.rows].tolist()
        return [(s, types[k]) for s, k in zip(sources, frames.kind.tolist(), strict=True)]
    return [(f.source, f.config_type) for f in frames]


def places(frames: Sequence[Frame]) -> dict[str, Any]:
    """Files, and for each frame the number of its file and its own number there."""
    if isinstance(frames, Prepared):
        return {"files": [frames.store.path], "file": [0] * len(frames), "frames": frames.rows.tolist()}
    files = {source: k for k, source in enumerate(dict.fromkeys(f.source for f in frames))}
    return {
        "files": list(files),
        "file": [files[f.source] for f in frames],
        "frames": [f.index for f in frames],
    }


def spaced(n: int, most: int) -> Integers:
    """At most `most` of n positions, evenly spaced."""
    return np.arange(n) if n <= most else np.arange(most) * n // most


def representatives(frames: Sequence[Frame]) -> Integers:
    """Positions of all frames, or of `SAMPLE` evenly spaced ones and the first `EACH` that hold each element."""
    n = len(frames)
    if n <= SAMPLE:
        return np.arange(n)
    rows, sets = element_sets(frames)
    chosen = [spaced(n, SAMPLE)]
    for symbol in sorted(set().union(*sets)):
        holds = np.array([symbol in one for one in sets])
        chosen.append(np.flatnonzero(holds[rows])[:EACH])
    return np.unique(np.concatenate(chosen))


def suspicious(frames: Prepared) -> Integers:
    """Positions for the doctor: representatives, and frames that lack labels others have or that are not unique."""
    chosen = [representatives(frames)]
    labels = frames.labels.astype(np.int64)
    for k, name in enumerate(frames.targets):
        labels |= frames.has_target(name).astype(np.int64) << (len(LABELS) + k)
    for bits in np.unique(labels):
        chosen.append(np.flatnonzero(labels == bits)[:EACH])
    marks = prints(frames)
    values, first, counts = np.unique(marks, return_index=True, return_counts=True)
    again = np.flatnonzero(counts > 1)[:EACH]
    chosen.append(first[again])
    repeated = np.flatnonzero(np.isin(marks, values[again]))
    chosen.append(repeated[: 2 * EACH])
    return np.unique(np.concatenate(chosen))
