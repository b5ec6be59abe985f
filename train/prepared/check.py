"""Whether an open prepared set is what its schema says: types, sizes and tables that agree, for whoever reads on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from train.data.hdf5 import FORMAT
from train.data.targets import unit_used
from train.prepared.schema import ABSENT, BITS, MOST_TARGETS, READ, TABLES, of_atoms, shapes
from train.target import Target, resolved

Tables = dict[str, Any]


def attributes(file: Any) -> dict[str, Any]:
    """What the file says of itself; but for texts of variable length: they lie in a heap without a checksum, on whose
    damage the HDF5 library may never end."""
    found = {}
    for name in file.attrs:
        if file.attrs.get_id(name).dtype.kind != "O":
            value = file.attrs[name]
            found[name] = value.decode() if isinstance(value, bytes) else value
    return found


def ours(known: Mapping[str, Any]) -> bool:
    """Whether attributes are those of a prepared set of a version that is read."""
    return bool(known.get("format") == FORMAT and known.get("version") in READ)


def check_file(file: Any, known: Mapping[str, Any]) -> Tables:
    """The tables of a set whose datasets agree with each other.

    Raises:
        ValueError: what does not.
    """
    require(isinstance(known.get("sha256"), str), "it has no sha256")
    tables = check_tables(json.loads(file["tables"][()].tobytes()))
    targets = tables["targets"]
    known_shapes = shapes(targets)
    columns = {name: file[name] for name in known_shapes if name in file}
    lacking = [name for name in known_shapes if name not in columns and name not in (*ABSENT, "info")]
    require(not lacking, f"it holds no {', '.join(lacking)}")
    for name, column in columns.items():
        kind, shape = known_shapes[name]
        require(column.dtype == np.dtype(kind) and column.shape[1:] == shape, f"{name} is no {kind} {shape}")
    n_atoms, rows = columns["n_atoms"][()], len(columns["atomic_numbers"])
    require(len(n_atoms) > 0, "it holds no frames")
    require(n_atoms.min() > 0 and n_atoms.max() <= rows, "n_atoms is not what atoms there are")
    info_size, n_bytes = columns["info_size"][()], len(columns["info"]) if "info" in columns else 0
    require(info_size.min() >= 0 and info_size.max() <= n_bytes, "info_size is not what info there is")
    lengths = {"info": int(info_size.sum())}
    lengths |= dict.fromkeys(of_atoms(targets), int(n_atoms.sum()))
    for name, column in columns.items():
        n = lengths.get(name, len(n_atoms))
        require(len(column) == n, f"{name} has {len(column)} entries instead of {n}")
    there = sum(bit for name, bit in BITS.items() if name in columns)
    require(not (columns["labels"][()] & ~np.uint8(there)).any(), "labels names some that are not there")
    if targets:
        most = (1 << len(targets)) - 1
        require(not (columns["target_labels"][()] & ~np.uint32(most)).any(), "target_labels names others")
    for name, table in (("kind", "kinds"), ("elements", "element_sets"), ("source", "files")):
        values = columns[name][()]
        require(
            values.min() >= 0 and values.max() < len(tables[table]), f"{name} has rows that {table} has not"
        )
    return tables


def check_tables(found: Any) -> Tables:
    """files, kinds, element_sets and targets.

    Raises:
        ValueError: other entries than names, weights, elements and targets.
    """
    require(isinstance(found, dict) and all(isinstance(found.get(name), list) for name in TABLES), "tables")
    require(all(isinstance(name, str) for name in found["files"]), "files are no names")
    for one in found["kinds"]:
        require(isinstance(one, list) and len(one) == 2, "kinds are no pairs")
        config_type, factor = one
        weight = type(factor) in (int, float) and 0 <= factor < math.inf
        require((config_type is None or isinstance(config_type, str)) and weight, "kinds hold no weights")
    for one in found["element_sets"]:
        symbols = isinstance(one, list) and all(isinstance(s, str) and atomic_numbers.get(s) for s in one)
        require(symbols, "element_sets hold no elements")
    return {**{name: found[name] for name in TABLES}, "targets": _targets(found.get("targets", {}))}


def _targets(found: Any) -> dict[str, Target]:
    require(isinstance(found, dict) and len(found) <= MOST_TARGETS, "targets are no table")
    for name, one in found.items():
        texts = isinstance(one, dict) and sorted(one) == ["irreps", "per", "unit"]
        require(texts and all(isinstance(text, str) for text in one.values()), "targets are not described")
        require(one["per"] in ("structure", "mean", "atom"), f"{name} is of no {one['per']}")
        require(unit_used(name) in ("", one["unit"]), f"{name} is in {one['unit']}")
    return resolved({name: Target(**one) for name, one in found.items()})


def check_frame(atoms: Atoms, labels: dict[str, NDArray[np.float64]], symbols: list[str]) -> None:
    """Refuse a frame whose numbers are not finite, or whose elements are not those that the tables say.

    Raises:
        ValueError: what is wrong.
    """
    values = {"positions": atoms.positions, "cell": atoms.cell.array, **labels}
    bad = [name for name, value in values.items() if not np.isfinite(value).all()]
    require(not bad, f"{' and '.join(bad)} not finite")
    numbers = {atomic_numbers[s] for s in symbols}
    require(set(atoms.numbers.tolist()) == numbers, f"its elements are not {', '.join(symbols)}")


def require(holds: Any, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
