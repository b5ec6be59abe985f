"""A prepared set as a sequence of Frames, each read when it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from train.config import Weights
from train.data.dataset import Frame
from train.data.hdf5 import SIGNATURE
from train.data.labels import LABELS
from train.data.targets import absent
from train.prepared.check import Tables, attributes, check_file, check_frame, ours, require
from train.prepared.schema import BITS, place, shapes
from train.target import Target

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Store:
    """An open file: what is read of it frame by frame, and in memory 25 bytes per frame."""

    path: str

    @cached_property
    def _opened(self) -> tuple[dict[str, Any], dict[str, Any], Tables]:
        """Attributes, datasets and tables of the file, which agree with each other."""
        import h5py

        try:
            file = h5py.File(self.path, "r")
            known = attributes(file)
            if ours(known):
                tables = check_file(file, known)
                names = shapes(tables["targets"])
                return known, {name: file[name] for name in names if name in file}, tables
        except Exception as error:  # the HDF5 library raises whatever it makes of a damaged file
            raise _damaged(self.path, "the set", error) from error
        raise ValueError(f"{self.path}: not a prepared set of this version; make one with potential-prepare")

    @property
    def _datasets(self) -> dict[str, Any]:
        return self._opened[1]

    @property
    def tables(self) -> Tables:
        """files, kinds, element_sets and targets."""
        return self._opened[2]

    @property
    def targets(self) -> dict[str, Target]:
        """The targets that the set holds."""
        found: dict[str, Target] = self.tables["targets"]
        return found

    @cached_property
    def _target_labels(self) -> NDArray[np.uint32]:
        found: NDArray[np.uint32] = self.column("target_labels")
        return found

    def has_target(self, name: str, rows: Any) -> NDArray[np.bool_]:
        """Which of these frames have a target."""
        if name not in self.targets:
            return np.zeros(np.shape(rows), dtype=bool)
        found: NDArray[np.bool_] = self._target_labels[rows] >> list(self.targets).index(name) & 1 > 0
        return found

    def column(self, name: str, rows: slice = slice(None)) -> Any:
        """Some rows of a dataset.

        Raises:
            ValueError: a damaged file.
        """
        try:
            return self._datasets[name][rows]
        except Exception as error:  # see above
            what = f"{name} {rows.start or 0} to {rows.stop or 'the end'}"
            raise _damaged(self.path, what, error) from error

    @cached_property
    def sha256(self) -> str:
        return str(self._opened[0]["sha256"])

    @cached_property
    def ends(self) -> Integers:
        """(n_frames + 1,) where the atoms of each frame begin and end."""
        return np.concatenate([[0], np.cumsum(self.column("n_atoms"))])

    @cached_property
    def _info_ends(self) -> Integers:
        return np.concatenate([[0], np.cumsum(self.column("info_size"))])

    @cached_property
    def labels(self) -> NDArray[np.uint8]:
        """(n_frames,) which labels are there, as bits."""
        found: NDArray[np.uint8] = self.column("labels")
        return found

    def n_edges(self, cutoff: float) -> Integers | None:
        """(n_frames,) edges of each within a cutoff (Å); None where others or none were counted."""
        if "n_edges" not in self._datasets or self._opened[0].get("cutoff") != cutoff:
            return None
        counts: Integers = self.column("n_edges").astype(np.int64)
        return counts

    @cached_property
    def kind(self) -> NDArray[np.int32]:
        found: NDArray[np.int32] = self.column("kind")
        return found

    @cached_property
    def elements(self) -> NDArray[np.int32]:
        """(n_frames,) row of the tables of elements."""
        found: NDArray[np.int32] = self.column("elements")
        return found

    def info(self, k: int) -> dict[str, Any]:
        """The info of one frame.

        Raises:
            ValueError: a damaged file.
        """
        begin, end = self._info_ends[k : k + 2]
        text = self.column("info", slice(begin, end)).tobytes() if end > begin else b"{}"
        try:
            found = json.loads(text)
            require(isinstance(found, dict), "no JSON object")
        except (ValueError, RecursionError) as error:
            raise _damaged(self.path, f"info of frame {k}", error) from error
        return dict(found)

    def frame(self, k: int, targets: Mapping[str, Target]) -> Frame:
        """One frame with these targets, without weights.

        Raises:
            ValueError: a damaged file.
        """
        one, of_atoms = slice(k, k + 1), slice(*self.ends[k : k + 2])
        bits, has = int(self.labels[k]), self._datasets
        atoms = Atoms(
            numbers=self.column("atomic_numbers", of_atoms),
            positions=self.column("positions", of_atoms),
            cell=self.column("cell", one)[0] if "cell" in has else None,
            pbc=self.column("pbc", one)[0] if "pbc" in has else None,
            info=self.info(k),
        )
        labels = {
            name: self.column(name, of_atoms) if name == "forces" else self.column(name, one)[0]
            for name in LABELS
            if bits & BITS[name]
        }
        have = {n: t for n, t in targets.items() if self.has_target(n, k)}
        others = {n: self.column(place(n), of_atoms if t.per == "atom" else one) for n, t in have.items()}
        try:
            check_frame(atoms, {**labels, **others}, self.tables["element_sets"][self.elements[k]])
        except ValueError as error:
            raise _damaged(self.path, f"frame {k}", error) from error
        return Frame(
            atoms,
            energy=float(labels["energy"]) if "energy" in labels else None,
            forces=labels.get("forces"),
            stress=labels.get("stress"),
            source=self.path,
            index=k,
            config_type=self.tables["kinds"][self.kind[k]][0],
            targets={n: others[n] if n in others else absent(t, len(atoms)) for n, t in targets.items()},
        )

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:  # another process opens the file itself
        return Store, (self.path,)


@dataclass(frozen=True, eq=False)
class Prepared(Sequence[Frame]):
    """Some frames of a prepared set, with their weights."""

    store: Store
    rows: Integers  # which frames of the file
    weights: Mapping[str, Weights] = field(default_factory=dict)
    keep: bool = True  # labels of weight 0
    unread: tuple[str, ...] = ()  # labels that were asked to be left out
    targets: Mapping[str, Target] = field(default_factory=dict)  # those that are read, resolved

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> Frame: ...
    @overload
    def __getitem__(self, at: slice) -> list[Frame]: ...
    def __getitem__(self, at: int | slice) -> Frame | list[Frame]:
        if isinstance(at, slice):
            return [self[k] for k in range(*at.indices(len(self)))]
        k = int(self.rows[at])
        kind = self.store.kind[k]
        unused: dict[str, Any] = {label: None for label in LABELS if not self._used[kind] & BITS[label]}
        return replace(self.store.frame(k, self.targets), weights=self.of_kind[kind], **unused)

    def __iter__(self) -> Iterator[Frame]:
        return (self[k] for k in range(len(self)))

    @cached_property
    def of_kind(self) -> tuple[Weights, ...]:
        """The weights of each kind of frame."""
        found = []
        for config_type, factor in self.store.tables["kinds"]:
            of_type = asdict(self.weights.get(config_type or "", Weights()))
            found.append(Weights(**{label: factor * value for label, value in of_type.items()}))
        return tuple(found)

    @cached_property
    def kind(self) -> Integers:
        """(n_frames,) row of the tables of kinds."""
        return self.store.kind[self.rows].astype(np.int64)

    @cached_property
    def labels(self) -> NDArray[np.uint8]:
        """(n_frames,) bits of the labels that are used."""
        used: NDArray[np.uint8] = self.store.labels[self.rows] & self._used[self.kind]
        return used

    def has_target(self, name: str) -> NDArray[np.bool_]:
        """(n_frames,) which have a target that is read."""
        return self.store.has_target(name, self.rows)

    @cached_property
    def _used(self) -> NDArray[np.uint8]:
        """For each kind the bits of the labels that are used."""
        masks = [
            sum(BITS[label] for label, w in asdict(weights).items()
                if label not in self.unread and (w != 0 or self.keep))
            for weights in self.of_kind
        ]  # fmt: skip
        return np.array(masks, dtype=np.uint8)

    @cached_property
    def n_atoms(self) -> Integers:
        return self.store.ends[self.rows + 1] - self.store.ends[self.rows]

    def n_edges(self, cutoff: float) -> Integers | None:
        """(n_frames,) edges within a cutoff (Å), if they were counted for it when the set was made."""
        counts = self.store.n_edges(cutoff)
        return None if counts is None else counts[self.rows]

    def take(self, positions: Any) -> Prepared:
        """The frames at these positions."""
        return replace(self, rows=self.rows[np.asarray(positions, dtype=np.int64)])

    def __reduce__(self) -> Any:  # nothing that can be read again travels to another process
        return Prepared, (
            self.store,
            self.rows,
            dict(self.weights),
            self.keep,
            self.unread,
            dict(self.targets),
        )


def is_prepared(path: str | Path) -> bool:
    """Whether the file says that it is a prepared set."""
    import h5py

    try:
        if not Path(path).is_file():
            return False
        with Path(path).open("rb") as raw:  # a file of version 1 has a user block: its checksum comes first
            if raw.read(len(SIGNATURE)) != SIGNATURE:
                return False
        with h5py.File(path, "r") as file:
            return ours(attributes(file))
    except Exception:  # the HDF5 library raises whatever it makes of a damaged file
        return False


def open_prepared(path: str) -> Prepared:
    """All frames of a file, with all targets.

    Raises:
        ValueError: a damaged file, or of another kind.
    """
    store = Store(path)
    return Prepared(store, np.arange(len(store.labels)), targets=store.targets)


def _damaged(path: str, what: str, error: Exception) -> ValueError:
    return ValueError(
        f"{path}: {what} cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:160]}); the file is "
        "damaged or truncated: copy it again, or prepare it again"
    )
