"""The files a run leaves behind, read back as arrays; ARCHITECTURE.md, "The run directory", is the contract.

Nothing of the model is needed here: a report can be drawn without torch and without the training data.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from train.report import targets

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class PredictedSet:
    """One set of frames with its labels and the predictions; NaN where a label is absent.

    Energies are in eV [n_frames], forces in eV/Å [n, 3], stress in eV/Å³ [n_frames, n_components].
    """

    name: str
    source: str
    n_atoms: Integers
    frame: Integers
    energy_reference: Floats
    energy_predicted: Floats
    stress_reference: Floats
    stress_predicted: Floats
    atomic_numbers: Integers
    forces_reference: Floats
    forces_predicted: Floats
    config_type: NDArray[np.str_]  # of each frame; "" for none
    targets: dict[str, targets.PredictedTarget] = field(default_factory=dict)

    def only(self, frames: NDArray[np.bool_]) -> PredictedSet:
        """Some of the frames."""
        atoms = frames[self.system]
        per_atom = ("atomic_numbers", "forces_reference", "forces_predicted")
        names = [f.name for f in fields(self) if f.name not in ("name", "source", "targets")]
        parts: dict[str, Any] = {
            name: getattr(self, name)[atoms if name in per_atom else frames] for name in names
        }
        parts["targets"] = targets.only(self.targets, frames, atoms)
        return replace(self, **parts)

    @property
    def system(self) -> Integers:
        """Position of each atom's frame in this set [n]."""
        return np.repeat(np.arange(len(self.n_atoms)), self.n_atoms)

    @property
    def atom(self) -> Integers:
        """Index of each atom within its frame, counted from 0 as in ASE [n]."""
        first = np.cumsum(self.n_atoms) - self.n_atoms
        return np.arange(len(self.atomic_numbers)) - np.repeat(first, self.n_atoms)


@dataclass(frozen=True)
class Run:
    """All that a report says about a run."""

    summary: dict[str, Any]
    metrics: list[dict[str, float]]
    sets: list[PredictedSet]
    config: str
    worst: list[Atoms] = field(default_factory=list)  # of worst.xyz, the worst first

    def rows(self, key: str) -> dict[str, Any]:
        """A table of the summary, for example `errors` or `e0`; empty when the run left none."""
        return dict(self.summary.get(key) or {})

    @property
    def e0_is_isolated(self) -> bool:
        """Whether every E0 was calculated for an isolated atom; False where the run does not say."""
        sources = self.rows("e0_sources")
        return bool(sources) and all(sources.get(element) == "isolated atoms" for element in self.rows("e0"))

    @property
    def names(self) -> list[str]:
        """The sets in the order in which tables and legends name them."""
        known = [*self.rows("errors"), *(one.name for one in self.sets)]
        first = [name for name in ("train", "valid") if name in known]
        return list(dict.fromkeys([*first, *known]))


@dataclass(frozen=True)
class Pairs:
    """The labelled values of one quantity in one set, one entry per number compared [n]."""

    reference: Floats
    predicted: Floats
    frame: Integers
    atom: Integers
    element: NDArray[np.str_]

    @property
    def error(self) -> Floats:
        return self.predicted - self.reference


def read(directory: Path) -> Run:
    """Read a run directory; only `summary.json` has to be there.

    Raises:
        ValueError: a file is missing, is not valid, or contradicts itself.
    """
    path = directory / "summary.json"
    if not path.is_file():
        raise ValueError(
            f"{directory} holds no summary.json, expected the directory left by potential-train; "
            "name that directory, or let the training end"
        )
    config = directory / "config.toml"
    run = Run(
        summary=json.loads(path.read_text(encoding="utf-8")),
        metrics=read_metrics(directory / "metrics.jsonl"),
        sets=read_predictions(directory / "predictions.h5"),
        config=config.read_text(encoding="utf-8") if config.is_file() else "",
        worst=read_worst(directory / "worst.xyz"),
    )
    ordered = sorted(run.sets, key=lambda one: run.names.index(one.name))
    return replace(run, sets=ordered)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """One dictionary per validation; a last line cut short by an interruption is left out."""
    if not path.is_file():
        return []
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    metrics = []
    for number, line in enumerate(lines, start=1):
        try:
            metrics.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f"line {number} of {path} is no JSON ({error}); mend or remove it") from error
    return metrics


def read_predictions(path: Path) -> list[PredictedSet]:
    """The groups of `predictions.h5`, in the order of their names."""
    if not path.is_file():
        return []
    sets: list[PredictedSet] = []

    def collect(name: str, item: Any) -> None:
        if isinstance(item, h5py.Group) and "n_atoms" in item:
            sets.append(read_set(name, item))

    with h5py.File(path, "r") as file:
        file.visititems(collect)
    return sets


def read_set(name: str, group: Any) -> PredictedSet:
    """One group; a dataset that is absent reads as labels that are absent."""
    n_atoms = np.asarray(group["n_atoms"][()], dtype=np.int64).reshape(-1)
    n_frames, n = len(n_atoms), int(n_atoms.sum())

    def read_rows(key: str, n_rows: int, default: Any) -> Any:
        values = np.asarray(group[key][()]) if key in group else default
        if len(values) != n_rows:
            raise ValueError(
                f"'{key}' of set '{name}' has {len(values)} rows, expected {n_rows} from n_atoms; "
                "write predictions.h5 anew"
            )
        return values

    def read_floats(key: str, n_rows: int, n_columns: int) -> Floats:
        values = read_rows(key, n_rows, np.full((n_rows, n_columns), np.nan))
        return np.asarray(values, dtype=np.float64).reshape(n_rows, -1 if n_rows else n_columns)

    def text(value: Any) -> str:
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    source = group.attrs.get("source", "")
    return PredictedSet(
        name=name,
        source=", ".join(str(one) for one in source) if isinstance(source, np.ndarray) else str(source),
        n_atoms=n_atoms,
        frame=np.asarray(read_rows("frame", n_frames, np.arange(n_frames)), dtype=np.int64),
        energy_reference=read_floats("energy_reference", n_frames, 1)[:, 0],
        energy_predicted=read_floats("energy_predicted", n_frames, 1)[:, 0],
        stress_reference=read_floats("stress_reference", n_frames, 9),
        stress_predicted=read_floats("stress_predicted", n_frames, 9),
        atomic_numbers=np.asarray(read_rows("atomic_numbers", n, np.zeros(n)), dtype=np.int64),
        forces_reference=read_floats("forces_reference", n, 3),
        forces_predicted=read_floats("forces_predicted", n, 3),
        config_type=np.array(
            [text(kind) for kind in read_rows("config_type", n_frames, [""] * n_frames)], dtype=str
        ),
        targets=targets.read_targets(group),
    )


def read_worst(path: Path) -> list[Atoms]:
    """The frames of worst.xyz; none where there is no such file.

    Raises:
        ValueError: a damaged file.
    """
    from ase.io import read as read_frames

    if not path.is_file() or not path.stat().st_size:
        return []
    try:
        frames: list[Atoms] = read_frames(path, ":", format="extxyz")
        for atoms in frames:
            if {"set", "frame", "energy_reference", "energy_predicted"} - {*atoms.info}:
                raise ValueError("a frame does not say its set, number and energies")
            for label in ("forces_reference", "forces_predicted"):
                if np.shape(atoms.arrays.get(label)) != (len(atoms), 3):
                    raise ValueError(f"a frame has no {label}")
    except Exception as error:  # whatever a reader of text makes of a damaged file
        raise ValueError(f"{path} cannot be read ({error}); remove it to draw without it") from error
    return frames


def symbols(atomic_numbers: Integers) -> NDArray[np.str_]:
    found: NDArray[np.str_] = np.array(chemical_symbols)[atomic_numbers]
    return found


def energy_zero(run: Run) -> tuple[str, list[Floats]]:
    """What energies per atom are drawn relative to: its name, and its value per frame of each set in eV/atom.

    The sum of E0 where every element has one, otherwise the mean of all labels.
    """
    table = np.full(len(chemical_symbols), np.nan)
    for symbol, value in run.rows("e0").items():
        if symbol in chemical_symbols and value is not None:
            table[chemical_symbols.index(symbol)] = value
    zeros = []
    for one in run.sets:
        total = np.bincount(one.system, weights=table[one.atomic_numbers], minlength=len(one.n_atoms))
        zeros.append(total / np.maximum(one.n_atoms, 1))
    if all(np.isfinite(zero).all() for zero in zeros):
        return "sum of E0", zeros
    labels = [one.energy_reference / np.maximum(one.n_atoms, 1) for one in run.sets]
    known = np.concatenate(labels)[np.isfinite(np.concatenate(labels))]
    mean = float(known.mean()) if len(known) else 0.0
    return "mean label", [np.full(len(one.n_atoms), mean) for one in run.sets]


def energy_pairs(one: PredictedSet, zero: Floats) -> Pairs:
    """Energies per atom relative to `zero`, eV/atom; one entry per frame."""
    n = np.maximum(one.n_atoms, 1)
    reference, predicted = one.energy_reference / n - zero, one.energy_predicted / n - zero
    keep = np.isfinite(reference) & np.isfinite(predicted)
    nothing = np.full(int(keep.sum()), -1)
    return Pairs(reference[keep], predicted[keep], one.frame[keep], nothing, np.full(len(nothing), ""))


def force_pairs(one: PredictedSet) -> Pairs:
    """Components of the forces, eV/Å; three entries per atom."""
    keep = np.isfinite(one.forces_reference) & np.isfinite(one.forces_predicted)
    row = np.nonzero(keep)[0]
    return Pairs(
        one.forces_reference[keep],
        one.forces_predicted[keep],
        one.frame[one.system[row]],
        one.atom[row],
        symbols(one.atomic_numbers[row]),
    )


def stress_pairs(one: PredictedSet) -> Pairs:
    """Components of the stress, eV/Å³."""
    keep = np.isfinite(one.stress_reference) & np.isfinite(one.stress_predicted)
    frame = one.frame[np.nonzero(keep)[0]]
    nothing = np.full(len(frame), -1)
    reference, predicted = one.stress_reference[keep], one.stress_predicted[keep]
    return Pairs(reference, predicted, frame, nothing, np.full(len(frame), ""))


def rmse(error: Floats) -> float:
    """Root mean square; NaN without entries."""
    return float(np.sqrt(np.mean(np.square(error)))) if error.size else float("nan")
