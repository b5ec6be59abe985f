"""Faults written into files of real data: potential-doctor names each, and the frames if they are not all; unchanged,
the files are clean."""

from __future__ import annotations

import io
import json
import lzma
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write

from train.doctor.cli import main

DATA = Path(__file__).parents[1] / "data"
KCAL, HARTREE, BOHR = 23.060548, 27.211386, 0.529177
Rows = list[Atoms]
HALF = list(range(1, 60, 2))  # every other frame
FIRST = list(range(30))
THIRD = list(range(0, 60, 3))


@cache
def _read(name: str) -> tuple[Atoms, ...]:
    rows: Rows = read(io.StringIO(lzma.decompress((DATA / name).read_bytes()).decode()), ":", format="extxyz")
    for atoms in rows:
        found = dict(atoms.calc.results)
        atoms.calc, atoms.info = None, {k: v for k, v in atoms.info.items() if k in ("config_type", "group")}
        atoms.info |= {"energy": found["energy"]}
        atoms.arrays["forces"] = found["forces"]
        if "stress" in found:
            xx, yy, zz, yz, xz, xy = found["stress"]
            atoms.info["stress"] = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    return tuple(rows)


def acac(n: int = 60) -> Rows:
    """Frames of a molecule at 300 K."""
    return [atoms.copy() for atoms in _read("acac/train_300K.xyz.xz")[:n]]


def silicon() -> Rows:
    """Strained cells, and 32 frames of simulations."""
    rows = [a for a in _read("mlearn/Si_train.extxyz.xz") if a.info["group"] == "AIMD-NVT"][::3][:28]
    return [
        a.copy()
        for a in (*(a for a in _read("mlearn/Si_train.extxyz.xz") if a.info["group"] == "Elastic"), *rows)
    ]


def holder(atoms: Atoms, label: str) -> dict[str, Any]:
    found: dict[str, Any] = atoms.arrays if label == "forces" else atoms.info
    return found


def renamed(rows: Rows, label: str, name: str, which: Iterable[int]) -> Rows:
    for k in which:
        holder(rows[k], label)[name] = holder(rows[k], label).pop(label)
    return rows


def removed(rows: Rows, label: str, which: Iterable[int]) -> Rows:
    for k in which:
        del holder(rows[k], label)[label]
    return rows


def times(rows: Rows, which: Iterable[int], **factors: float) -> Rows:
    for k in which:
        for label, factor in factors.items():
            holder(rows[k], label)[label] = factor * holder(rows[k], label)[label]
    return rows


def not_a_number(rows: Rows, label: str, which: Iterable[int]) -> Rows:
    for k in which:
        value = np.array(holder(rows[k], label)[label], dtype=float)
        value.reshape(-1)[-1] = np.nan
        holder(rows[k], label)[label] = float(value) if value.ndim == 0 else value
    return rows


def exchanged(rows: Rows, label: str, a: int, b: int) -> Rows:
    one, other = holder(rows[a], label), holder(rows[b], label)
    one[label], other[label] = other[label], one[label]
    return rows


def with_atoms(rows: Rows, energies: dict[str, float]) -> Rows:
    return [*rows, *(Atoms(s, info={"energy": e}) for s, e in energies.items())]


def shuffled(rows: Rows) -> Rows:
    energies = np.random.default_rng(0).permutation([a.info["energy"] for a in rows])
    for atoms, energy in zip(rows, energies, strict=True):
        atoms.info["energy"] = float(energy)
    return rows


EVERY = range(60)
# Fault -> files ("train", and perhaps "test") with it, a pattern of what is said, and the frames that must be listed.
FAULTS: dict[str, tuple[Callable[[], dict[str, Rows]], str, list[int]]] = {
    "energy renamed": (
        lambda: {"train": renamed(acac(), "energy", "enrgy", EVERY)},
        "did you mean 'enrgy'",
        [],
    ),
    "forces renamed": (
        lambda: {"train": renamed(acac(), "forces", "force_vector", EVERY)},
        "'force_vector'",
        [],
    ),
    "stress renamed": (lambda: {"train": renamed(silicon(), "stress", "strss", range(83))}, "'strss'", []),
}
for _label, _rows in (("energy", acac), ("forces", acac), ("stress", silicon)):
    FAULTS |= {
        f"{_label} renamed in half": (
            lambda f=_label, r=_rows: {"train": renamed(r(), f, f"my_{f}", HALF)},
            rf"frame 1: no {_label} .*'my_{_label}', in 30 of \d+ \(frames 1, 3, 5, 7, 9, 11, 13, 15, ...\)", [],
        ),
        f"{_label} removed in half": (
            lambda f=_label, r=_rows: {"train": removed(r(), f, HALF)}, f"no {_label}", HALF,
        ),
        f"{_label} NaN": (lambda f=_label, r=_rows: {"train": not_a_number(r(), f, [7, 40])},
                           f"{_label} not finite", [7, 40]),
        f"{_label} of zero": (lambda f=_label, r=_rows: {"train": times(r(), FIRST, **{f: 0.0})},
                               "exactly", FIRST),
    }  # fmt: skip
FAULTS |= {
    "stress sign flipped": (lambda: {"train": times(silicon(), range(83), stress=-1.0)}, "sign is flipped", []),
    "stress in kbar": (lambda: {"train": times(silicon(), range(83), stress=1602.1766)}, "kbar", []),
    "forces sign flipped": (lambda: {"train": times(acac(), EVERY, forces=-1.0)}, "energy gradients", []),
    "kcal/mol": (lambda: {"train": times(acac(), EVERY, energy=KCAL, forces=KCAL)}, "--energy-unit kcal/mol", []),
    "kcal/mol in a third": (lambda: {"train": times(acac(), THIRD, energy=KCAL)}, "kcal/mol and eV", THIRD),
    "Ha": (lambda: {"train": times(acac(), EVERY, energy=1 / HARTREE, forces=BOHR / HARTREE)}, "--energy-unit Ha", []),
    "Ha in a third": (lambda: {"train": times(acac(), THIRD, energy=1 / HARTREE)}, "Ha and eV|eV and Ha", THIRD),
    "shared by two sets": (
        lambda: {"train": acac(), "test": acac()[10:20]}, "10 of 10 test structures are also", list(range(10)),
    ),
    "isolated atoms of another method": (
        lambda: {"train": with_atoms(acac(), {"H": -10.7, "C": -48.8, "O": -113.0})}, "another method", [60, 61, 62],
    ),
    "forces of two frames exchanged": (
        lambda: {"train": exchanged(acac(), "forces", 20, 41)}, "another frame", [20, 41],
    ),
    "energies shuffled": (lambda: {"train": shuffled(acac(150))}, "do not follow the forces", []),
    "one energy wrong": (lambda: {"train": times(acac(), [33], energy=1.0001)}, "frame 33", [33]),
}  # fmt: skip


def examined(folder: Path, sets: dict[str, Rows]) -> tuple[int, list[dict[str, Any]]]:
    """Exit code of the command on files of these sets, and its findings that are more than notes."""
    for name, rows in sets.items():
        write(folder / f"{name}.xyz", rows, format="extxyz")
    tests = ["--test", str(folder / "test.xyz")] if "test" in sets else []
    code = main([str(folder / "train.xyz"), *tests, "--json", str(folder / "found.json")])
    found: list[dict[str, Any]] = json.loads((folder / "found.json").read_text())["findings"]
    return code, [one for one in found if one["level"] != "note"]


@pytest.mark.parametrize("rows", [acac, silicon])
def test_the_unchanged_files_are_clean(rows: Callable[[], Rows], tmp_path: Path) -> None:
    assert examined(tmp_path, {"train": rows()}) == (0, [])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_file_is_named_with_its_frames(fault: str, tmp_path: Path) -> None:
    make, said, frames = FAULTS[fault]
    sets = make()
    code, found = examined(tmp_path, sets)
    assert code in (1, 2)
    named = [one for one in found if re.search(said, one["text"])]
    assert named, [one["text"] for one in found]
    if frames:
        path = str(tmp_path / f"{'test' if 'test' in sets else 'train'}.xyz")
        listed = {frame for one in named for frame in one["frames"].get(path, [])}
        assert listed == set(frames), named
