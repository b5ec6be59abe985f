"""Prepared sets: version 4 of our HDF5 format, read frame by frame. Labelled frames survive it bit for bit.

Everything is in eV, Å and what follows from them. Every dataset is cut into chunks, each compressed (gzip, bytes
shuffled) and with a checksum (Fletcher) that HDF5 verifies whenever it reads; its own structures carry checksums too.

Attributes of the file, texts of fixed length (others lie in a heap without a checksum):
    format, version      "equiv-potential frames", 4; sets of version 3, which have no targets, are read as well
    energy_unit, length_unit   "eV", "Ang"
    sha256               of the sha256 of all parts (`digest`), in order
    cutoff               Å, of n_edges; absent without it

Datasets, for n_frames structures with n atoms in all, one after the other:
    n_atoms        (n_frames,) int64
    atomic_numbers (n,) uint8
    positions      (n, 3) float64
    cell           (n_frames, 3, 3) float64, rows are lattice vectors; absent where all are zero
    pbc            (n_frames, 3) bool; absent where nothing is periodic
    energy         (n_frames,) float64; NaN where a frame has none; absent where no frame has one, as in the next two
    forces         (n, 3) float64
    stress         (n_frames, 3, 3) float64, ASE's sign
    labels         (n_frames,) uint8: 1 if it has an energy, plus 2 for forces, plus 4 for stress
    info           (n_bytes,) uint8, the JSON of every info as UTF-8, one after the other (empty: no info); absent
                   where all are empty
    info_size      (n_frames,) int64 bytes of each
    kind           (n_frames,) int32, a row of kinds
    elements       (n_frames,) int32, a row of element_sets
    n_edges        (n_frames,) int32, directed pairs of atoms within the cutoff; absent unless it was given
    fingerprint    (n_frames,) uint64, equal for equal structures (`checks.fingerprint`, its first 8 bytes)
    source, source_frame   (n_frames,) int32 and int64: row of files, number of the frame there
    tables         (n_bytes,) uint8, JSON: files (names), kinds ([config_type, config_weight]), element_sets (symbols),
                   targets ({name: {irreps, per, unit}}, in the units of `train.data.targets`)
    target_labels  (n_frames,) uint32: 1 if it has the first of the targets, plus 2 for the second ...; absent, as the
                   next, where there are none
    targets/<name> (n_frames or, where per is atom, n; dim) float64, NaN where a frame has none
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from train.data.dataset import Frame
from train.data.hdf5 import info_text
from train.data.labels import LABELS
from train.data.targets import target_table
from train.data.weights import config_weight
from train.doctor.checks import fingerprint
from train.target import Target, dimension

VERSION = 4  # 3: attribute texts of fixed length; 4: targets
READ = (3, VERSION)
SHAPES: dict[str, tuple[str, tuple[int, ...]]] = {  # type and shape of one entry
    "n_atoms": ("int64", ()),
    "atomic_numbers": ("uint8", ()),
    "positions": ("float64", (3,)),
    "cell": ("float64", (3, 3)),
    "pbc": ("bool", (3,)),
    "energy": ("float64", ()),
    "forces": ("float64", (3,)),
    "stress": ("float64", (3, 3)),
    "labels": ("uint8", ()),
    "info": ("uint8", ()),
    "info_size": ("int64", ()),
    "kind": ("int32", ()),
    "elements": ("int32", ()),
    "n_edges": ("int32", ()),
    "fingerprint": ("uint64", ()),
    "source": ("int32", ()),
    "source_frame": ("int64", ()),
}
BITS = {name: 1 << k for k, name in enumerate(LABELS)}
ABSENT = {"cell": 0.0, "pbc": False, "energy": np.nan, "forces": np.nan, "stress": np.nan, "n_edges": 0}
TABLES = ("files", "kinds", "element_sets")
MOST_TARGETS = 32  # bits of target_labels

Arrays = dict[str, Any]


def shapes(targets: Mapping[str, Target]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of one entry of each dataset of a set with these (resolved) targets."""
    if not targets:
        return SHAPES
    of_targets = {place(name): ("float64", (dimension(one.irreps),)) for name, one in targets.items()}
    return {**SHAPES, "target_labels": ("uint32", ()), **of_targets}


def place(target: str) -> str:
    """The dataset of a target."""
    return f"targets/{target}"


def of_atoms(targets: Mapping[str, Target]) -> list[str]:
    """The datasets with an entry for each atom."""
    return [
        "atomic_numbers",
        "positions",
        "forces",
        *(place(n) for n, t in targets.items() if t.per == "atom"),
    ]


def encode(
    frames: Sequence[Frame], cutoff: float = 0.0, targets: Mapping[str, Target] | None = None
) -> tuple[Arrays, dict[str, Any]]:
    """The datasets of some frames of one file, and their tables; edges are counted within a `cutoff` (Å) above 0.

    Raises:
        ValueError: a label, position or cell that is not finite, a config_weight that is no weight, or a structure
            without a graph.
    """
    targets = targets or {}
    kinds: dict[tuple[str | None, float], int] = {}
    sets: dict[tuple[str, ...], int] = {}
    rows: dict[str, list[Any]] = {name: [] for name in shapes(targets)}
    for frame in frames:
        atoms = frame.atoms
        _refuse_not_finite(frame)
        text = info_text(frame).encode() if frame.atoms.info else b""
        of_frame = {
            "n_atoms": len(atoms),
            "cell": atoms.cell.array,
            "pbc": atoms.pbc,
            "energy": np.nan if frame.energy is None else frame.energy,
            "stress": np.full((3, 3), np.nan) if frame.stress is None else frame.stress,
            "labels": sum(bit for name, bit in BITS.items() if getattr(frame, name) is not None),
            "info_size": len(text),
            "kind": kinds.setdefault((frame.config_type, config_weight(frame)), len(kinds)),
            "elements": sets.setdefault(tuple(sorted(set(atoms.symbols))), len(sets)),
            "n_edges": _n_edges(frame, cutoff) if cutoff else 0,
            "fingerprint": int(fingerprint(frame)[:16], 16),
            "source": 0,
            "source_frame": frame.index,
            "atomic_numbers": atoms.numbers,
            "positions": atoms.positions,
            "forces": np.full((len(atoms), 3), np.nan) if frame.forces is None else frame.forces,
            "info": np.frombuffer(text, dtype=np.uint8),
            **{place(name): frame.targets[name] for name in targets},
        }
        if targets:
            has = [np.isfinite(frame.targets[name]).all() for name in targets]
            of_frame["target_labels"] = sum(1 << k for k, there in enumerate(has) if there)
        for name, value in of_frame.items():
            rows[name].append(value)
    joined = {"info", *of_atoms(targets), *map(place, targets)}
    arrays = {
        name: (np.concatenate(rows[name]) if name in joined else np.array(rows[name])).astype(dtype)
        for name, (dtype, _) in shapes(targets).items()
    }
    tables: dict[str, Any] = {"kinds": [list(k) for k in kinds], "element_sets": [list(s) for s in sets]}
    return arrays, tables | ({"targets": target_table(targets)} if targets else {})


def _n_edges(frame: Frame, cutoff: float) -> int:
    from potential.graph import from_atoms  # with torch, which nothing else here needs

    try:
        return len(from_atoms(frame.atoms, cutoff).center)
    except ValueError as error:
        raise ValueError(f"{frame.name}: {error}") from error


def _refuse_not_finite(frame: Frame) -> None:
    values = {name: getattr(frame, name) for name in LABELS}
    values |= {"positions": frame.atoms.positions, "cell": frame.atoms.cell.array}
    values |= {name: value for name, value in frame.targets.items() if not np.isnan(value).all()}
    bad = [name for name, value in values.items() if value is not None and not np.isfinite(value).all()]
    if bad:
        raise ValueError(
            f"{frame.name}: {' and '.join(bad)} not finite (NaN or infinite); the calculation failed or the file is "
            "damaged: remove this frame"
        )


def digest(arrays: Mapping[str, Any], tables: Mapping[str, Any]) -> str:
    """sha256 of the content of one part, counted edges left out: they follow from it."""
    found = hashlib.sha256(json.dumps(tables).encode())
    for name in (name for name in arrays if name != "n_edges"):
        found.update(f"{name} {arrays[name].shape}".encode())
        found.update(np.ascontiguousarray(arrays[name]).tobytes())
    return found.hexdigest()
