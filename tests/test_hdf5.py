"""Our HDF5 format: bit for bit there and back; damage, other versions and other kinds are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from train.data.dataset import Frame, read
from train.data.hdf5 import NAMES, _digest, write_hdf5
from train.data.keys import Keys

numbers = st.floats(-1e6, 1e6, allow_nan=False)


@st.composite
def frames(draw: Any) -> Frame:
    n, periodic = draw(st.integers(1, 4)), draw(st.booleans())
    atoms = Atoms(
        draw(st.lists(st.integers(1, 118), min_size=n, max_size=n)),
        positions=draw(arrays(np.float64, (n, 3), elements=numbers)),
        cell=draw(arrays(np.float64, (3, 3), elements=numbers)),
        pbc=periodic,
    )
    kind = draw(st.none() | st.text(max_size=5))
    keys = st.text(max_size=4).filter(lambda k: k not in ("config_type", "E", "F", "Etot", "etot"))
    atoms.info = draw(st.dictionaries(keys, numbers | st.text(max_size=5) | st.booleans(), max_size=3))
    if kind is not None:
        atoms.info["config_type"] = kind
    lower = draw(arrays(np.float64, (3, 3), elements=numbers))
    return Frame(
        atoms,
        energy=draw(numbers),
        forces=draw(st.none() | arrays(np.float64, (n, 3), elements=numbers)),
        stress=draw(st.sampled_from([None, np.tril(lower) + np.tril(lower, -1).T])) if periodic else None,
        source="made",
        index=0,
        config_type=kind,
    )


def same_bits(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    return np.asarray(a, dtype=np.float64).tobytes() == np.asarray(b, dtype=np.float64).tobytes()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=st.lists(frames(), min_size=1, max_size=4))
def test_round_trip_is_bit_exact(tmp_path: Path, written: list[Frame]) -> None:
    write_hdf5(tmp_path / "a.h5", written)
    got, found = read(tmp_path / "a.h5")
    assert len(got) == len(written)
    for a, b in zip(got, written, strict=True):
        assert a.config_type == b.config_type
        assert a.atoms.info == b.atoms.info
        np.testing.assert_array_equal(a.atoms.numbers, b.atoms.numbers)
        np.testing.assert_array_equal(a.atoms.pbc, b.atoms.pbc)
        for name in ("energy", "forces", "stress"):
            assert same_bits(getattr(a, name), getattr(b, name)), name
        assert same_bits(a.atoms.positions, b.atoms.positions)
        assert same_bits(a.atoms.cell.array, b.atoms.cell.array)
    assert found.units == "eV, Ang: as the file says"


def from_elsewhere(path: Path) -> Path:
    """As a program that knows only HDF5 writes it: without the user block."""
    data = path.read_bytes()
    assert data.startswith(b"equiv-potential frames sha256 ")
    path.write_bytes(data[512:])
    return path


def waters(n: int = 3) -> list[Frame]:
    rng = np.random.default_rng(5)
    out = []
    for k in range(n):
        atoms = Atoms("OH2", rng.normal(size=(3, 3)) * 2)
        atoms.info = {"config_weight": np.float64(0.5), "run": np.int64(k), "REF_energy": -1.0, "energy": 7.0}
        out.append(Frame(atoms, -2080.0 - k, rng.normal(size=(3, 3)), None, "w.xyz", k, "water"))
    return out


def test_what_is_kept_of_info(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", waters())
    (frame, *_), found = read(tmp_path / "a.h5")
    assert frame.atoms.info == {"config_weight": 0.5, "run": 0, "config_type": "water"}
    assert found.notes == ()
    unlabelled = [Frame(f.atoms, None, f.forces, None, "w.xyz", 0) for f in waters()]
    write_hdf5(tmp_path / "b.h5", unlabelled)  # an energy that was not read does not come back
    assert read(tmp_path / "b.h5")[0][0].energy is None


def test_a_label_under_a_key_of_its_own_does_not_keep_its_old_unit(tmp_path: Path) -> None:
    """In info it would still be in Ha, in a file that says eV."""
    atoms = waters(1)[0].atoms
    atoms.info = {"my_energy": -76.4, "charge": 0.0}
    atoms.arrays["forces"] = np.ones((3, 3))
    write(tmp_path / "a.xyz", atoms, format="extxyz")
    (frame,), _ = read(tmp_path / "a.xyz", Keys(energy="my_energy", energy_unit="Ha"))
    assert frame.energy == pytest.approx(-76.4 * 27.211386, rel=1e-6)
    write_hdf5(tmp_path / "a.h5", [frame])
    (again,), _ = read(tmp_path / "a.h5")
    assert again.energy == frame.energy
    assert again.atoms.info == {"charge": 0.0}
    with pytest.raises(ValueError, match="my_energy"):
        read(tmp_path / "a.h5", Keys(energy="my_energy"))


def test_given_units_are_for_files_that_say_none(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", waters())
    keys = Keys(energy_unit="Ha", length_unit="Bohr", forces_unit="Ha/Bohr")
    (frame, *_), found = read(tmp_path / "a.h5", keys)
    assert frame.energy == -2080.0
    np.testing.assert_array_equal(frame.forces, waters()[0].forces)
    assert "the given Ha is for files that say nothing" in found.units


def test_other_units_in_the_file(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", waters())
    from_elsewhere(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.attrs["energy_unit"] = "kcal/mol"
    assert read(tmp_path / "a.h5")[0][0].energy == pytest.approx(-2080.0 / 23.060548, rel=1e-6)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.attrs["energy_unit"] = "cal"
    with pytest.raises(ValueError, match=r"a\.h5: energy_unit is 'cal'; expected one of eV"):
        read(tmp_path / "a.h5")


@pytest.mark.parametrize(
    "name", ["positions", "forces", "energy", "atomic_numbers", "pbc", "n_atoms", "cell"]
)
@pytest.mark.parametrize("block", [True, False])
def test_every_changed_bit_is_noticed(tmp_path: Path, name: str, block: bool) -> None:
    write_hdf5(tmp_path / "a.h5", waters())
    if not block:
        from_elsewhere(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        values = file[name][()]
        file[name].write_direct(
            np.where(np.arange(values.size).reshape(values.shape) == 1, values + 1, values).astype(
                values.dtype
            )
        )
    with pytest.raises(ValueError, match=r"a\.h5: .*content does not match its checksum.*damaged"):
        read(tmp_path / "a.h5")


def test_sizes_that_contradict_each_other(tmp_path: Path) -> None:
    """With a checksum of its own, from another program: no frame or atom may be left out."""
    for name in ("positions", "energy", "forces", "pbc", "info", "n_atoms"):
        write_hdf5(tmp_path / "a.h5", waters())
        with h5py.File(from_elsewhere(tmp_path / "a.h5"), "r+") as file:
            content = {n: file[n].asstr()[()] if n == "info" else file[n][()] for n in NAMES}
            content[name] = content[name][:-1]
            del file[name]
            file.create_dataset(
                name, data=content[name], dtype=None if name != "info" else h5py.string_dtype()
            )
            file.attrs["sha256"] = _digest(content)
        with pytest.raises(ValueError, match=r"a\.h5: .*has shape"):
            read(tmp_path / "a.h5")


def test_damaged_other_version_and_other_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_hdf5(path, waters(200))
    data = path.read_bytes()
    for cut in (data[: len(data) // 2], b"no HDF5", data[:100], data[1:], data + b"\0"):
        path.write_bytes(cut)
        with pytest.raises(ValueError, match=r"a\.h5: no HDF5 file, or .*checksum.*damaged, truncated"):
            read(path)
    data = data[512:]
    for cut in (data[: len(data) // 2], data[:100]):
        path.write_bytes(cut)
        with pytest.raises(ValueError, match=r"a\.h5: cannot be read as HDF5 .*damaged or truncated"):
            read(path)
    path.write_bytes(data)
    with h5py.File(path, "r+") as file:
        del file["forces"]
    with pytest.raises(ValueError, match=r"a\.h5: cannot be read as HDF5 .*forces"):
        read(path)
    path.write_bytes(data)
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 2
    with pytest.raises(ValueError, match=r"a\.h5: version 2 of the format, this program reads versions 1"):
        read(path)
    with h5py.File(path, "w") as file:
        file["coordinates"] = np.ones(3)
    with pytest.raises(ValueError, match=r"a\.h5: an HDF5 file of another kind .*it holds coordinates"):
        read(path)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no frames to write"):
        write_hdf5(tmp_path / "a.h5", [])
    bad = Frame(Atoms("H"), np.nan, None, None, "h.xyz", 3)
    with pytest.raises(ValueError, match=r"h\.xyz, frame 3: energy is not finite"):
        write_hdf5(tmp_path / "a.h5", [bad])
    assert list(tmp_path.iterdir()) == []
