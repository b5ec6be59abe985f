"""Data files and checkpoints that are damaged in any way: an explanation, or exactly what stands in them."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from ase.data import chemical_symbols
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import potential.checkpoint as checkpoint
import train.doctor.cli
import train.fit
from potential import Statistics, build, load, save
from train.cli import main
from train.columns import kinds, places, prints, suspicious, trajectories
from train.config import Fit
from train.data.dataset import Found, read
from train.data.hdf5 import write_hdf5
from train.doctor.checks import GAPS
from train.doctor.inspection import inspect, require_clean
from train.prepared.cli import main as prepare
from train.prepared.found import found_in
from train.prepared.read import is_prepared, open_prepared
from train.run import load_state, save_state, start

WATER = np.array([[0.0, 0.0, 0.117], [0.0, 0.757, -0.471], [0.0, -0.757, -0.471]])
quiet = settings(
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def unless_refused(reader: Callable[[Path], Any], path: Path) -> Any:
    """What a reader returns; None after a ValueError that names the file and a remedy."""
    message = ""
    try:
        return reader(path)
    except ValueError as error:
        message = str(error)
    assert path.name in message
    assert ";" in message
    return None


def frame_text(k: int) -> str:
    """Water in a box, with every label; numbers in one format, as programs write them."""
    rng = np.random.default_rng(k)
    moved = WATER + rng.normal(size=(3, 3)) * 0.02
    forces = (WATER - moved) * 20
    rows = zip("OHH", moved + 4, forces - forces.mean(axis=0), strict=True)
    lines = [f"{s} " + " ".join(f"{x:.8f}" for x in (*p, *f)) for s, p, f in rows]
    comment = (
        'Lattice="9.0 0.0 0.0 0.0 9.0 0.0 0.0 0.0 9.0" Properties=species:S:1:pos:R:3:forces:R:3 '
        f'energy={-2080 + 0.01 * k:.6f} stress="{1e-3 + 1e-5 * k:.7f} 0 0 0 0.002 0 0 0 0.003" '
        f'config_type=md{k} pbc="T T T"'
    )
    return "\n".join(["3", comment, *lines]) + "\n"


TEXT = "".join(frame_text(k) for k in range(4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("files")
    (where / "sound.xyz").write_text(TEXT)
    write_hdf5(where / "sound.h5", read(where / "sound.xyz")[0])
    return where


# --- extended XYZ -------------------------------------------------------------------------------------------

values = st.sampled_from(
    ["nan", "inf", "-inf", "1e400", "1e300", "-1e200", "1e16", "1e-300", "", "text", "T", "1_5", "١", "1e", "--1",
     "0x10", "1,5", "1.5.5", "1D+02", "\\1", '1"', "{1}", "[1]", "'1'", "1 1", "0", "-1", "119", "999999999999"]
)  # fmt: skip
keys = st.sampled_from(
    ["", "energy", "forces", "stress", "virial", "free_energy", "Lattice", "Properties", "pbc", "config_type",
     "REF_energy", "dft_forces", "Energy", "enrgy", "pos", "species", "Z", "masses", "momenta", "uid", "x", "_"]
)  # fmt: skip
TOKENS = {
    "number": (r"(?<![\w.-])-?\d+(?:\.\d+)?(?![\w.])", values),
    "key": (r"\b[A-Za-z_]+(?==)", keys),
    "value": (r'(?<==)(?:"[^"]*"|\S+)', values),
    "name": (r"(?<=[=:])[a-z]+(?=:)", keys),
    "type": (r"(?<=:)[SR](?=:)", st.sampled_from(["S", "R", "I", "L", "X", ""])),
    "width": (r"(?<=:)\d(?=[: ])", st.sampled_from(["0", "1", "2", "3", "4", "-1", "9", "x", ""])),
    "count": (r"(?m)^3$", st.sampled_from(["0", "1", "2", "4", "8", "-3", "3.0", "", "1_0", "99999999999", "x"])),
    "symbol": (r"(?m)^[A-Z]\b", st.sampled_from(["X", "h", "Xx", "8", "", "He", "OH", "D", "-1"])),
    "mark": (r'["=: ]', st.sampled_from(["", " ", '"', "=", "'", "{", "\t", "\\", "==", " = ", ",", "\r", "\x1c"])),
}  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, text: str) -> str:
    """One place of a text cut, doubled, exchanged, or filled with something else."""
    lines = text.split("\n")
    k = draw(st.integers(0, len(lines) - 1))
    how = draw(st.sampled_from([*TOKENS, *TOKENS, "cut", "drop", "double", "swap", "columns", "character"]))
    if how in TOKENS:
        pattern, others = TOKENS[how]
        found = list(re.finditer(pattern, text))
        if not found:
            return text
        place = draw(st.sampled_from(found))
        return text[: place.start()] + draw(others) + text[place.end() :]
    if how == "cut":
        return text[: draw(st.integers(0, len(text)))]
    if how == "character" and text:
        at = draw(st.integers(0, len(text) - 1))
        return text[:at] + draw(st.characters(exclude_categories=["Cs"])) + text[at + 1 :]
    if how == "drop":
        del lines[k]
    elif how == "double":
        lines.insert(k, lines[k])
    elif how == "swap":
        j = draw(st.integers(0, len(lines) - 1))
        lines[k], lines[j] = lines[j], lines[k]
    elif how == "columns":
        tokens = lines[k].split(" ")
        i, j = (draw(st.integers(0, len(tokens) - 1)) for _ in range(2))
        tokens[i], tokens[j] = tokens[j], tokens[i]
        lines[k] = " ".join(tokens)
    return "\n".join(lines)


def plain(text: str, found: Found) -> Iterator[dict[str, Any]]:
    """What a person reads in extended XYZ, by the simplest means: symbols, positions, cell and labels of each frame."""
    names = {label: getattr(found, label) for label in ("energy", "forces", "stress")}
    names = {label: label if name == "calculator" else name for label, name in names.items()}
    lines = [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
    while lines:
        n, comment = int(lines.pop(0)), lines.pop(0)
        rows = [lines.pop(0).split() for _ in range(n)]
        pairs = re.findall(r"""([^\s="]+)\s*=\s*("[^"]*"|'[^']*'|\{[^}]*\}|\[[^]]*\]|\S+)""", comment)
        entries = {key: value.strip("\"'{}[]") for key, value in pairs}
        triples = entries["Properties"].split(":")
        columns, at = {}, 0
        for name, width in zip(triples[::3], map(int, triples[2::3]), strict=True):
            columns[name] = [row[at : at + width] for row in rows]
            at += width
        stress = re.split(r"[\s,]+", entries[names["stress"]].strip()) if names["stress"] in entries else None
        energy, forces = entries.get(names["energy"]), columns.get(names["forces"])
        lattice = re.split(r"[\s,]+", entries.get("Lattice", "0 " * 9).strip())
        yield {
            "symbols": [s.capitalize() for (s,) in columns.get("species", columns.get("Z", []))],
            "positions": np.array(columns["pos"], dtype=float),
            "cell": np.array(lattice, dtype=float).reshape(3, 3),
            "pbc": entries.get("pbc", "T" if "Lattice" in entries else "F"),
            "energy": None if energy is None else float(energy),
            "forces": None if forces is None else np.array(forces, dtype=float),
            "stress": None if stress is None else np.array(stress, dtype=float).reshape(3, 3),
        }


def check_frames(path: Path, text: str) -> bool:
    """Refused with the name of the file, or read exactly, every gap and every NaN told; True if read."""
    path.write_text(text, encoding="utf-8", newline="")
    got = unless_refused(read, path)
    report = unless_refused(lambda _: inspect(*got), path) if got else None
    if not got or not report:
        return False
    frames, found = got
    expected = list(plain(text, found))
    assert len(frames) == len(expected)
    for frame, true in zip(frames, expected, strict=True):
        assert [chemical_symbols[z] for z in frame.atoms.numbers] == true["symbols"]
        np.testing.assert_array_equal(frame.atoms.positions, true["positions"])
        np.testing.assert_array_equal(frame.atoms.cell.array, true["cell"])
        periodic = [p in ("T", "True", "true", "TRUE", "1") for p in true["pbc"].split()]
        np.testing.assert_array_equal(frame.atoms.pbc, periodic * (3 // len(periodic)))
        for label in ("energy", "forces"):
            assert same(getattr(frame, label), true[label]), (label, true)
        if frame.stress is not None and not str(found.stress).lower().startswith("virial"):
            stress = true["stress"]
            finite = np.isfinite(stress).all()
            np.testing.assert_allclose(
                frame.stress, (stress + stress.T) / 2 if finite else stress.T, rtol=1e-15
            )
        if frame.stress is None and true["stress"] is not None:
            assert "stress: ignored in" in report.text
    for label in ("energy", "forces", "stress"):
        have = [getattr(frame, label) is not None for frame in frames]
        if not all(have):
            told = any(f.check == GAPS and f" {label} " in f.text for f in report.findings)
            assert (
                told
                or f"{label}: ignored" in report.text
                or re.search(rf"{label} +0/\d+, not found", report.text)
            )
    numbers = [x for f in frames for x in (f.energy, f.forces, f.stress, f.atoms.positions) if x is not None]
    assert report.problems or all(np.isfinite(x).all() for x in numbers)
    return True


def same(a: Any, b: Any) -> bool:
    return (a is None) == (b is None) and (a is None or np.array_equal(a, b, equal_nan=True))


def test_the_text_is_sound(folder: Path) -> None:
    """Otherwise every damage below would be hidden by another, and nothing would be compared."""
    frames, found = read(folder / "sound.xyz")
    assert inspect(frames, found).problems == ()
    assert check_frames(folder / "fuzz.xyz", TEXT)


@given(st.data())
@settings(quiet, max_examples=900)
def test_extended_xyz(folder: Path, data: st.DataObject) -> None:
    text = TEXT
    for _ in range(data.draw(st.sampled_from([1, 1, 1, 2, 3]))):
        text = data.draw(damaged(text))
    check_frames(folder / "fuzz.xyz", text)


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("energy=-2079.99", "energy=-2079_99", "no number"),
        ("energy=-2079.99", "energy=-２079.99", "no number"),
        ("energy=-2079.99", "energy=1 energy=-2079.99", "twice"),
        ("energy=-2079.99", "note= energy=-2079.99", "no value after 'note='"),
        ("energy=-2079.99", 'note="a energy=-2079.99', "blank|not closed"),
        ("energy=-2079.99", 'note="a"energy=-2079.99', "no blank"),
        ("energy=-2079.99", "energy=-1e200 x=1", "nothing measures"),
        ('config_type=md1 pbc="T T T"', 'pbc="T T T" note="x', "not closed"),
        ('md1 pbc="T T T"', 'md1 pbc="T T X"', "expected T or F"),
        ('md1 pbc="T T T"', 'md1 pbc="2 0 0"', "expected T or F"),
        ('0.0010100 0 0 0 0.002', '0.0010100 nan 0 0 0.002', "not finite"),
        ('0.0010100 0 0 0 0.002', '0.0010100 9 0 0 0.002', "not symmetric"),
        ("\nO 4.0069", "\nX 4.0069", "no element"),
        ("\nO 4.0069", "\nO 4_0069", "column of type R"),
        ("\nO 4.00691168", "\nO 1e300", "nothing measures"),
        ("PROPERTIES", "species:S:1:pas:R:3:forces:R:3", "without pos"),
        ("PROPERTIES", "spacies:S:1:pos:R:3:forces:R:3", "without species|or without"),
        ("PROPERTIES", "species:S:1:pos:R:3:forces:L:3", "column of type L"),
        ("PROPERTIES", "species:S:1:pos:L:3:forces:R:3", "without pos"),
        ("PROPERTIES", "species:S:1:forces:R:3:positions:R:3:", "NAME:TYPE"),
        ("PROPERTIES", "species:S:1:pos:R:3:positions:R:3", "each name once"),
        ("Properties=", "Propertiez=", "without Properties there should be 4"),
        ("\n3\n", "\n３\n", "number of atoms"),
    ],
)  # fmt: skip
def test_what_was_once_read_in_silence(folder: Path, old: str, new: str, word: str) -> None:
    """In one of several frames, or in all of them where that is what it takes."""
    old = "species:S:1:pos:R:3:forces:R:3" if old == "PROPERTIES" else old
    assert old in TEXT
    path = folder / "fuzz.xyz"
    path.write_text(TEXT.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"fuzz\.xyz, frame \d(?s:.*)({word})"):
        require_clean(inspect(*read(path)))


def test_text_in_the_place_of_another_label_is_told(folder: Path) -> None:
    (folder / "fuzz.xyz").write_text(TEXT.replace("config_type=md3", "REF_energy=text"))
    assert any("'REF_energy' holds different values" in note for note in read(folder / "fuzz.xyz")[1].notes)


def test_cut_within_the_last_number_of_a_small_frame(folder: Path) -> None:
    (folder / "fuzz.xyz").write_text(TEXT[:-3])
    with pytest.raises(ValueError, match=r"fuzz\.xyz, frame 3: the file ends inside a number"):
        read(folder / "fuzz.xyz")


# --- HDF5 -----------------------------------------------------------------------------------------------


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes changed, cut off, doubled, exchanged or added; never what it was."""
    at = draw(st.integers(0, len(content) - 1))
    how = draw(st.sampled_from(["flip", "flip", "flips", "cut", "tail", "drop", "zeros", "double", "swap"]))
    to = draw(st.integers(at + 1, min(len(content), at + 600)))
    if how == "flip":
        new = content[:at] + bytes([content[at] ^ draw(st.integers(1, 255))]) + content[at + 1 :]
    elif how == "flips":
        new = content[:at] + draw(st.binary(min_size=1, max_size=8)) + content[at + 8 :]
    elif how == "cut":
        new = content[:at]
    elif how == "tail":
        new = content + draw(st.binary(min_size=1, max_size=9))
    elif how == "drop":
        new = content[:at] + content[to:]
    elif how == "zeros":
        new = content[:at] + b"\0" * (to - at) + content[to:]
    elif how == "double":
        new = content[:to] + content[at:]
    else:
        j = draw(st.integers(0, len(content) - 1))
        a, b = sorted((at, j))
        new = content[:a] + content[b : b + 1] + content[a + 1 : b] + content[a : a + 1] + content[b + 1 :]
    return new if new != content else content[:-1]


@given(st.data())
@settings(quiet, max_examples=300)
def test_hdf5(folder: Path, data: st.DataObject) -> None:
    """A changed byte is found before the HDF5 library sees the file: it can crash on one."""
    path = folder / "fuzz.h5"
    path.write_bytes(data.draw(damaged_bytes((folder / "sound.h5").read_bytes())))
    with pytest.raises(ValueError, match=r"fuzz\.h5: .*; "):
        read(path)


@pytest.fixture(scope="module")
def prepared(folder: Path) -> Path:
    """With targets of structures and of atoms; one frame has none of the first."""
    text = TEXT.replace("config_type", 'dipole="0.1 0.2 -0.3" config_type', 3)
    (folder / "targets.xyz").write_text(text)
    line = [str(folder / "targets.xyz"), "--output", str(folder / "sound-set.h5"), "--cutoff", "3"]
    line += ["--targets", "dipole", "--set", "targets.pull.irreps=1o", "--set", "targets.pull.per=atom"]
    assert prepare([*line, "--set", "targets.pull.key=forces"]) == 0
    return folder / "sound-set.h5"


def everything(path: Path) -> list[tuple[Any, ...]]:
    """All that training reads of a prepared set, to the last bit."""
    if not is_prepared(path):
        frames: Any = read(path)[0]
    else:
        frames = open_prepared(str(path))
        for column in (suspicious, trajectories, prints, places, kinds, found_in):
            column(frames)
        frames.n_edges(3.0)
    return [
        (
            repr(
                (
                    f.config_type,
                    f.weights,
                    f.energy,
                    f.atoms.info,
                    f.atoms.pbc.tolist(),
                    f.atoms.numbers.tolist(),
                )
            ),
            *(x if x is None else np.asarray(x).tobytes() for x in (f.forces, f.stress, f.atoms.cell.array)),
            *(x.tobytes() for x in f.targets.values()),
            f.atoms.positions.tobytes(),
        )
        for f in frames
    ]


@given(st.data())
@settings(quiet, max_examples=300)
def test_prepared_set(prepared: Path, data: st.DataObject) -> None:
    """Refused, or read as it was: HDF5 has checksums, and what has none is not read."""
    path = prepared.with_name("fuzz-set.h5")
    path.write_bytes(data.draw(damaged_bytes(prepared.read_bytes())))
    got = unless_refused(everything, path)
    assert got is None or got == everything(prepared)


def test_texts_that_have_no_checksum_are_not_read(prepared: Path) -> None:
    """Of variable length they lie in a heap; with zeros in the wrong place the HDF5 library never comes back."""
    path = prepared.with_name("fuzz-set.h5")
    shutil.copy(prepared, path)
    with h5py.File(path, "r+") as file:
        file.attrs["format"] = str(file.attrs["format"].decode())
    assert not is_prepared(path)
    with pytest.raises(ValueError, match="not a prepared set of this version"):
        open_prepared(str(path))


numbers = st.sampled_from([np.nan, np.inf, -1, 0, 1, 3, 7, 200, 2**31 - 1, -(2**31), 1e300])


@given(st.data())
@settings(quiet, max_examples=150)
def test_prepared_set_with_checksums_of_its_own(prepared: Path, data: st.DataObject) -> None:
    """Edited by a program, not damaged: refused, or frames that are finite and of the elements of the tables."""
    path, draw = prepared.with_name("fuzz-set.h5"), data.draw
    shutil.copy(prepared, path)
    with h5py.File(path, "r+") as file:
        targets = [f"targets/{name}" for name in file["targets"]]
        name = draw(st.sampled_from([*sorted(set(file) - {"targets"}), *targets, "tables", "tables"]))
        values, how = file[name][()], draw(st.sampled_from(["entry", "entry", "size", "remove", "type"]))
        if name == "tables":
            tables = {"tables": json.loads(values.tobytes())}
            changed(draw, tables)
            text = json.dumps(tables.get("tables", draw(junk)))
            del file[name]
            file[name] = np.frombuffer(text.encode(), dtype=np.uint8)
        elif how == "entry":
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values.reshape(-1)[draw(st.integers(0, values.size - 1))] = np.array(draw(numbers)).astype(
                    values.dtype
                )
            file[name][...] = values
        else:
            del file[name]
            if how == "size":
                file[name] = values[: draw(st.integers(0, len(values)))].repeat(
                    draw(st.integers(1, 2)), axis=0
                )
            elif how == "type":
                file[name] = values.astype(draw(st.sampled_from(["float32", "int16", "S3"])))
    if unless_refused(everything, path) is None:
        return
    frames, sound = open_prepared(str(path)), open_prepared(str(prepared))
    assert len(frames) == len(sound) or name == "n_atoms"
    for frame in frames:
        values = [
            x for x in (frame.energy, frame.forces, frame.stress, frame.atoms.positions) if x is not None
        ]
        values += [x for x in frame.targets.values() if not np.isnan(x).all()]
        assert all(np.isfinite(x).all() for x in values)
        assert set(frame.atoms.symbols) in map(set, frames.store.tables["element_sets"])


# --- npz ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    moved = WATER + rng.normal(size=(4, 3, 3)) * 0.02
    energy = -2080 + rng.normal(size=4) * 0.01
    return {"z": np.array([8, 1, 1]), "R": moved, "E": energy, "F": (WATER - moved) * 20, "e_unit": np.array("eV"),
            "r_unit": np.array("Ang"), "config_type": np.array(["md", "md", "x", "x"])}  # fmt: skip


def check_npz(path: Path, wanted: dict[str, Any]) -> bool:
    """Refused, told, or exactly what the arrays are; True if read."""
    got = unless_refused(read, path)
    report = unless_refused(lambda _: inspect(*got), path) if got else None
    if not got or not report or report.problems:
        return False
    for k, frame in enumerate(got[0]):
        for name, value in (("E", frame.energy), ("F", frame.forces), ("R", frame.atoms.positions)):
            if value is None:
                assert re.search({"E": "energy", "F": "forces"}[name] + r" +0/\d+, not found", report.text)
            else:
                np.testing.assert_array_equal(
                    value, np.asarray(wanted[name], dtype=np.float64)[k].reshape(np.shape(value))
                )
                assert np.isfinite(value).all()
        assert frame.atoms.numbers.tolist() == wanted["z"].tolist()
    return True


@given(st.data())
@settings(quiet, max_examples=300)
def test_npz(folder: Path, arrays: dict[str, Any], data: st.DataObject) -> None:
    path, packed = folder / "fuzz.npz", io.BytesIO()
    data.draw(st.sampled_from([np.savez, np.savez_compressed]))(packed, **arrays)
    path.write_bytes(packed.getvalue())
    assert check_npz(path, arrays)
    path.write_bytes(data.draw(damaged_bytes(packed.getvalue())))
    check_npz(path, arrays)


@given(st.data())
@settings(quiet, max_examples=200)
def test_npz_with_checksums_of_its_own(folder: Path, arrays: dict[str, Any], data: st.DataObject) -> None:
    """Arrays of other names, types, shapes and values."""
    path, draw, content = folder / "fuzz.npz", data.draw, {k: v.copy() for k, v in arrays.items()}
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(content)))
        values = content[name]
        how = draw(st.sampled_from(["entry", "entry", "rename", "remove", "type", "shape", "cut", "text"]))
        if how == "entry" and values.dtype.kind in "if" and values.size:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values.reshape(-1)[draw(st.integers(0, values.size - 1))] = np.array(draw(numbers)).astype(
                    values.dtype
                )
        elif how == "rename":
            content[
                draw(st.sampled_from(["e", "F_", "energies", "forces", "coords", "lattice", "energy"]))
            ] = content.pop(name)
        elif how == "remove":
            del content[name]
        elif how == "type":
            kind = draw(
                st.sampled_from(
                    ["float32", "float16", "complex128", "int64", "S4", "U4", "O", "bool", "M8[s]"]
                )
            )
            with (
                np.errstate(all="ignore"),
                warnings.catch_warnings(),
                contextlib.suppress(ValueError, TypeError),
            ):
                warnings.simplefilter("ignore")
                content[name] = values.astype(kind)
        elif how == "shape":
            content[name] = draw(
                st.sampled_from([values[None], values.reshape(-1), values[..., None], values.T])
            )
        elif how == "cut" and values.ndim:
            content[name] = values[: draw(st.integers(0, len(values)))]
        elif how == "text":
            content[name] = np.array(draw(st.sampled_from(["eV", "", "kcal/mol", "Bohr", "nonsense", "1.5"])))
        if not content:
            return
    np.savez(path, **content)
    same_units = all(
        content.get(u, np.array("")).tolist() == arrays[u].tolist() for u in ("e_unit", "r_unit")
    )
    if same_units and {"z", "R"} <= content.keys() and "coords" not in content:
        check_npz(path, content)
    else:
        unless_refused(read, path)


# --- checkpoints --------------------------------------------------------------------------------------------


def bits(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[Any, ...]]:
    return {name: (t.dtype, t.shape, t.numpy().tobytes()) for name, t in tensors.items()}


@pytest.fixture(scope="module")
def saved(folder: Path) -> Path:
    sizes = {"channels": 4, "message_channels": 4, "vector_channels": 4, "cutoff": 3.0}
    save(build(sizes, Statistics(("H", "O"), (-13.0, -2040.0), 1.0, 2.0)), folder / "sound.safetensors")
    return folder / "sound.safetensors"


@given(st.data())
@settings(quiet, max_examples=400)
def test_checkpoint(saved: Path, data: st.DataObject) -> None:
    """Blanks between the parts of the header may differ, nothing else."""
    content = saved.read_bytes()
    tensors = 8 + int.from_bytes(content[:8], "little")
    damaged_one = data.draw(damaged_bytes(content))
    path = saved.with_name("fuzz.safetensors")
    path.write_bytes(damaged_one)
    back = unless_refused(load, path)
    if back is None:
        return
    sound = load(saved)
    assert damaged_one[tensors:] == content[tensors:]
    assert bits(back.state_dict()) == bits(sound.state_dict())
    assert back.statistics == sound.statistics
    assert checkpoint.read(path)[0] == checkpoint.read(saved)[0]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every key and every entry in nested dicts and lists."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield (*path, key)
        yield from leaves(one, (*path, key))


junk = st.sampled_from(
    [None, True, -1, 0, 3, 2.5, -1e30, float("nan"), float("inf"), "", "x", "float64", [], [1], {}]
)


def changed(draw: Callable[..., Any], header: dict[str, Any]) -> None:
    """One entry somewhere in a header replaced, renamed or removed."""
    *way, last = draw(st.sampled_from(list(leaves(header))))
    holder: Any = header
    for key in way:
        holder = holder[key]
    how = draw(st.sampled_from(["replace", "replace", "remove", "rename"]))
    value = holder[last]
    if how == "replace":
        holder[last] = draw(junk)
        return
    del holder[last]
    if how == "rename" and isinstance(holder, dict):
        holder[f"{last}s"] = value


@given(st.data())
@settings(quiet, max_examples=80)
def test_header_with_a_checksum_of_its_own(saved: Path, data: st.DataObject) -> None:
    """Made by another program, not damaged: refused, or the same predictions as the self-test of the file."""
    header, tensors = checkpoint.read(saved)
    changed(data.draw, header)
    path = saved.with_name("fuzz.safetensors")
    checkpoint.write(path, header, tensors)
    back = unless_refused(load, path)
    if back is None:
        return
    assert bits(back.state_dict()) == bits(load(saved).state_dict())


@pytest.fixture(scope="module")
def run_directory(folder: Path) -> Path:
    sizes = ["channels=4", "message_channels=4", "vector_channels=4", "lmax=1", "hidden_lmax=1", "cutoff=3.0"]
    dials = [f"--set=model.{size}" for size in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.fit, "finish", lambda *_: {})
        code, said, _ = answer(
            patch, main, [str(folder / "sound.xyz"), "--epochs=1", f"--output={folder / 'run'}", *dials]
        )
    assert (code, said) == (0, "")
    return folder / "run"


def answer(
    patch: pytest.MonkeyPatch, program: Callable[[list[str]], int], arguments: list[str]
) -> tuple[int, str, str]:
    """Exit code, complaint and report of a program; trial steps, which take all the time, are left out."""
    for name, value in {"_estimate": "", "costs": [], "budget_text": ""}.items():
        patch.setattr(train.fit, name, lambda *_, value=value: value)
    said, report = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(report):
        code = program(arguments)
    return code, said.getvalue(), report.getvalue()


@given(st.data())
@settings(quiet, max_examples=150)
def test_state_of_a_run(folder: Path, data: st.DataObject) -> None:
    def new(seed: int) -> Any:
        sizes = {
            "channels": 2,
            "message_channels": 2,
            "vector_channels": 2,
            "lmax": 1,
            "hidden_lmax": 1,
            "cutoff": 3.0,
        }
        model = build(sizes, Statistics(("H",), (-13.0,), 1.0, 2.0), seed=seed)
        return start(model, Fit(batch_size=1, epochs=1, optimizer="adamw"))

    sound, path = folder / "state.safetensors", folder / "fuzz-state.safetensors"
    if not sound.exists():
        save_state(new(1), sound)
    path.write_bytes(data.draw(damaged_bytes(sound.read_bytes())))
    run = new(2)
    if unless_refused(lambda path: load_state(run, path) or run, path):
        assert bits(run.potential.state_dict()) == bits(new(1).potential.state_dict())


# --- through the programs -----------------------------------------------------------------------------------


def explained(name: str, code: int, said: str, _: str) -> None:
    """A clean exit without complaint, or one complaint that names the file."""
    assert "Traceback" not in said
    assert (code == 0) == (said == ""), said
    assert code == 0 or name in said, said


@given(st.data())
@settings(quiet, max_examples=40)
def test_programs_on_extended_xyz(folder: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    path = folder / "programs.xyz"
    path.write_text(data.draw(damaged(TEXT)), encoding="utf-8", newline="")
    before = {p.name for p in folder.iterdir()}
    explained(path.name, *answer(monkeypatch, main, [str(path), "--dry-run", "--preset=tiny"]))
    code, said, report = answer(monkeypatch, train.doctor.cli.main, [str(path)])
    assert code in (0, 1, 2)
    assert path.name in said + report  # what cannot be read is a finding, too
    assert said == "" or (code == 2 and said.startswith("potential-doctor: "))
    assert {p.name for p in folder.iterdir()} == before


@given(st.data())
@settings(quiet, max_examples=15)
def test_programs_on_hdf5(folder: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    path = folder / "programs.h5"
    path.write_bytes(data.draw(damaged_bytes((folder / "sound.h5").read_bytes())))
    for program, expected in ((main, 1), (train.doctor.cli.main, 2)):
        arguments = [str(path), *(["--dry-run"] if program is main else [])]
        code, said, report = answer(monkeypatch, program, arguments)
        assert code == expected
        assert path.name in said + report


@pytest.mark.parametrize("name", ["state.safetensors", "trunk.safetensors", "metrics.jsonl", "sessions.json"])
def test_resume_from_damaged_files(
    name: str, run_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The states are refused; records that only people read may be cut, the run goes on or says what is wrong."""
    monkeypatch.setattr(train.fit, "finish", lambda *_: {})
    sound = (run_directory / name).read_bytes()

    @given(damaged_bytes(sound))
    @settings(quiet, max_examples=12)
    def check(content: bytes) -> None:
        run = tmp_path / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(run_directory, run)
        (run / name).write_bytes(content)
        explained(name, *answer(monkeypatch, main, ["--resume", f"--output={run}"]))

    check()
