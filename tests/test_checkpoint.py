"""Saving and loading: exact, readable without us, and no damage goes unnoticed."""

from __future__ import annotations

import json
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import potential.checkpoint as checkpoint
from potential import EquivCalculator, Potential, Statistics, build, from_atoms, load, predict, save
from potential.networks import NETWORKS

CONFIG = {
    "channels": 8,
    "message_channels": 4,
    "vector_channels": 4,
    "lmax": 2,
    "correlation": 2,
    "cutoff": 3.5,
}
STATISTICS = Statistics(("H", "C", "O"), (-13.61, -1029.3, -2041.8), scale=0.9, mean_neighbors=9.0)


def small(dtype: torch.dtype = torch.float32, seed: int = 1) -> Potential:
    return build(CONFIG, STATISTICS, seed=seed, dtype=dtype)


def structures() -> list[Atoms]:
    atoms = molecule("CH3COOH")
    crystal = bulk("C", "diamond", a=3.6, cubic=True)
    crystal.symbols[3] = "O"
    for a in (atoms, crystal):
        a.rattle(0.05, seed=3)
    return [atoms, crystal]


def numbers(model: Potential) -> list[bytes]:
    """Every bit of what the potential says of the structures."""
    found = []
    for atoms in structures():
        p = predict(model, from_atoms(atoms, model.cutoff))
        found += [t.numpy().tobytes() for t in (p.energy, p.node_energy, p.forces, p.virial)]
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save(small(), path)
    return path


def header_of(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    return header


def start_of_tensors(data: bytes) -> int:
    return 8 + int(struct.unpack("<Q", data[:8])[0])


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change our header and write the file again in every other respect as it was."""
    header, tensors = checkpoint.read(path)
    change(header)
    checkpoint.write(path, header, tensors)


def refused(path: Path, *words: str) -> str:
    """The message of the ValueError that names the file."""
    with pytest.raises(ValueError, match=re.escape(path.name)) as caught:
        load(path)
    for word in words:
        assert word in str(caught.value)
    assert ";" in str(caught.value)  # a remedy follows the fact
    return str(caught.value)


# --- what was saved comes back ------------------------------------------------------------------------------


@pytest.mark.parametrize("network", list(NETWORKS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_bit_comes_back(network: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = build({"network": network, "cutoff": 3.5}, STATISTICS, seed=2, dtype=dtype)
    save(model, tmp_path / "model.safetensors")
    back = load(tmp_path / "model.safetensors")
    assert back.dtype == dtype
    assert back.statistics == model.statistics
    assert numbers(back) == numbers(model)
    assert numbers(back) != numbers(
        build({"network": network, "cutoff": 3.5}, STATISTICS, seed=3, dtype=dtype)
    )


@pytest.mark.parametrize(
    "dials",
    [
        {},
        {"lmax": 1, "hidden_lmax": 0, "n_layers": 1, "correlation": 1},
        {"lmax": 3, "hidden_lmax": 2, "n_layers": 3, "correlation": 4, "n_radial": 5},
    ],
    ids=str,
)
def test_every_dial_comes_back(dials: dict[str, int], tmp_path: Path) -> None:
    model = build({**CONFIG, **dials}, STATISTICS)
    save(model, tmp_path / "m")
    assert numbers(load(tmp_path / "m")) == numbers(model)


def test_saving_again_gives_the_same_file(file: Path, tmp_path: Path) -> None:
    for _ in range(5):
        save(load(file), tmp_path / "again.safetensors")
        assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("saved", [torch.float32, torch.float64])
@pytest.mark.parametrize("wanted", [torch.float32, torch.float64])
def test_load_in_another_precision(saved: torch.dtype, wanted: torch.dtype, tmp_path: Path) -> None:
    model = small(saved)
    save(model, tmp_path / "m")
    back = load(tmp_path / "m", dtype=wanted)
    assert {p.dtype for p in back.parameters()} == {wanted}
    for atoms in structures():
        one, two = (predict(m, from_atoms(atoms, 3.5)) for m in (model, back))
        size = float(one.forces.abs().max())
        assert float((one.forces - two.forces).abs().max()) < 1e-5 * size


def test_energies_of_any_size(tmp_path: Path) -> None:
    """The self-test is not confused by large e0, by zero e0, nor by a model that says next to nothing."""
    for e0, scale in [((-1e6, 0.0, 3.0), 1.0), ((0.0, 0.0, 0.0), 1e-6), ((0.0, 0.0, 0.0), 1e4)]:
        model = build(CONFIG, Statistics(("H", "C", "O"), e0, scale, 9.0))
        save(model, tmp_path / "m")
        assert numbers(load(tmp_path / "m")) == numbers(model)
    model = small()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    save(model, tmp_path / "m")
    assert numbers(load(tmp_path / "m")) == numbers(model)


def test_load_leaves_the_random_state_alone(file: Path) -> None:
    before = torch.get_rng_state().clone()
    load(file)
    assert torch.equal(torch.get_rng_state(), before)


def test_readable_by_safetensors_alone(file: Path) -> None:
    with safetensors.safe_open(file, framework="np") as f:
        header = json.loads(f.metadata()["potential"])
        tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 - not a dict
    assert header["kind"] == "potential"
    assert header["format"] == checkpoint.FORMAT
    assert header["version"]
    assert header["dtype"] == "float32"
    assert header["statistics"]["elements"] == ["H", "C", "O"]
    assert header["statistics"]["e0"] == [-13.61, -1029.3, -2041.8]
    assert header["config"]["cutoff"] == 3.5
    assert header["config"]["network"] == "equivariant"
    assert header["units"] == {"energy": "eV", "length": "Å", "forces": "eV/Å", "stress": "eV/Å^3"}
    model = small()
    assert set(tensors) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert np.array_equal(tensors[name], tensor.numpy())


def test_notes_travel_along(tmp_path: Path) -> None:
    save(small(), tmp_path / "m", notes={"epoch": 7})
    assert checkpoint.read(tmp_path / "m")[0]["notes"] == {"epoch": 7}


# --- damage -------------------------------------------------------------------------------------------------


def test_missing_file_and_directory(tmp_path: Path) -> None:
    refused(tmp_path / "nothing.safetensors", "no such file", "potential.save")
    (tmp_path / "folder.safetensors").mkdir()
    refused(tmp_path / "folder.safetensors", "potential.save")


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"H 0 0 0\n" * 30, bytes(range(256)) * 20, b"\xff" * 64, struct.pack("<Q", 4) + b"null"],
    ids=["empty", "one byte", "text", "bytes", "huge header", "header is null"],
)
@pytest.mark.parametrize("name", ["model.safetensors", "model.xyz"])
def test_other_content(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, "not a potential file")


def test_foreign_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(safetensors.torch.save({"a": torch.ones(3)}))
    refused(path, "not a potential file")
    path.write_bytes(safetensors.torch.save({"a": torch.ones(3)}, metadata={"potential": "[1, 2]"}))
    refused(path)
    path.write_bytes(safetensors.torch.save({"a": torch.ones(3)}, metadata={"potential": "[" * 100_000}))
    refused(path)
    path.write_bytes(safetensors.torch.save({"a": torch.ones(3)}, metadata={"potential": "{}"}))
    refused(path)


class Trap:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: str):
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (self.trace, "w")


def test_a_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Trap(str(trace))))
    refused(tmp_path / "model.safetensors", "not a potential file")
    torch.save({"model": Trap(str(trace))}, tmp_path / "model.pt")
    refused(tmp_path / "model.pt", "not a potential file")
    assert not trace.exists()
    pickle.loads((tmp_path / "model.safetensors").read_bytes()).close()
    assert trace.exists()  # the trap does work


@pytest.mark.parametrize("part", [0.01, 0.3, 0.7, 0.999])
def test_truncated(file: Path, part: float) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * part)])
    refused(file)


def test_longer_than_it_was(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0" * 8)
    refused(file)


def test_lowest_bit_of_a_weight(file: Path) -> None:
    """Too small a change for any energy to show, and still not what was saved."""
    data = bytearray(file.read_bytes())
    for at in (start_of_tensors(data), len(data) - 4):
        flipped = bytearray(data)
        flipped[at] ^= 1
        file.write_bytes(flipped)
        refused(file, "damaged")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"-2041.8", b"-2041.9"),
        (b"3.5", b"3.6"),
        (b"-13.61", b"-13.62"),
        (b"eV", b"Ha"),
        (b"head.out", b"head.owt"),
    ],
)
def test_a_header_edited_by_hand(file: Path, old: bytes, new: bytes) -> None:
    """Editing the text of the header leaves the checksum behind."""
    data = file.read_bytes()
    assert old in data[: start_of_tensors(data)]
    file.write_bytes(data.replace(old, new, 1))
    refused(file, "damaged")


def test_without_checksum(file: Path) -> None:
    header, tensors = checkpoint.read(file)
    file.write_bytes(safetensors.torch.save(tensors, metadata={"potential": json.dumps(header)}))
    refused(file, "sha256")


def test_swapped_tensors(file: Path) -> None:
    """Weights of the same shape under each other's name."""
    _, tensors = checkpoint.read(file)
    data = file.read_bytes()
    start = start_of_tensors(data)
    table = {k: v["data_offsets"] for k, v in header_of(file).items() if k != "__metadata__"}
    a, b = next(
        (a, b)
        for a in table
        for b in table
        if a < b and tensors[a].shape == tensors[b].shape and not torch.equal(tensors[a], tensors[b])
    )
    changed = bytearray(data)
    (a0, a1), (b0, b1) = table[a], table[b]
    changed[start + a0 : start + a1], changed[start + b0 : start + b1] = (
        data[start + b0 : start + b1],
        data[start + a0 : start + a1],
    )
    file.write_bytes(changed)
    refused(file, "damaged")


def outcome(path: Path) -> list[bytes] | None:
    """What the potential in the file says, or None when it is refused as it should be."""
    try:
        return numbers(load(path))
    except ValueError as error:
        if path.name in str(error):
            return None
        raise


@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    where=st.floats(0, 1, exclude_max=True),
    in_header=st.booleans(),
    change=st.one_of(st.integers(1, 255), st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128])),
)
def test_no_byte_changes_silently(file: Path, where: float, in_header: bool, change: int) -> None:
    """Any byte flipped anywhere: refused, or the predictions are those of before, to the last bit."""
    save(small(), file)
    data = bytearray(file.read_bytes())
    start = start_of_tensors(data)
    at = int(where * start) if in_header else start + int(where * (len(data) - start))
    data[at] ^= change
    file.write_bytes(data)
    assert outcome(file) in (None, numbers(small()))


# --- headers that say something else ------------------------------------------------------------------------


def test_older_format(file: Path) -> None:
    """Models of another network are refused by name, not by numbers that differ."""
    rewrite(file, lambda h: h.update(format=1, version="0.1.0"))
    refused(file, "format 1", "0.1.0", "train again")


def test_newer_format(file: Path) -> None:
    rewrite(file, lambda h: h.update(format=checkpoint.FORMAT + 1, version="99.0"))
    refused(file, f"format {checkpoint.FORMAT + 1}", "99.0", "a newer equiv-potential")


@pytest.mark.parametrize("value", [None, 0, -1, "1", [1], 1.5])
def test_format_that_is_none(file: Path, value: object) -> None:
    rewrite(file, lambda h: h.update(format=value))
    refused(file, "format")


def test_another_kind_of_file(file: Path) -> None:
    rewrite(file, lambda h: h.update(kind="training state"))
    refused(file, "training state", "model.safetensors")


TAMPERING: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "unknown network": (lambda h: h["config"].update(network="equivariante"), "did you mean 'equivariant'"),
    "unknown dial": (lambda h: h["config"].update(lmaxx=2), "did you mean 'lmax'"),
    "other dial": (lambda h: h["config"].update(channels=9), ""),
    "dial out of range": (lambda h: h["config"].update(lmax=12), "lmax is 12"),
    "dial of another type": (lambda h: h["config"].update(cutoff="far"), ""),
    "other cutoff": (lambda h: h["config"].update(cutoff=3.6), "self-test"),
    "no cutoff": (lambda h: h["config"].pop("cutoff"), ""),
    "config is a list": (lambda h: h.update(config=[]), ""),
    "no config": (lambda h: h.pop("config"), "config"),
    "other scale": (lambda h: h["statistics"].update(scale=0.91), ""),
    "negative scale": (lambda h: h["statistics"].update(scale=-1.0), "scale"),
    "NaN scale": (lambda h: h["statistics"].update(scale=float("nan")), "scale"),
    "other e0": (lambda h: h["statistics"].update(e0=[-13.6, -1029.3, -2041.8]), ""),
    "one e0 too few": (lambda h: h["statistics"].update(e0=[-13.61, -1029.3]), "e0"),
    "e0 is a word": (lambda h: h["statistics"].update(e0=["a", "b", "c"]), ""),
    "other elements": (lambda h: h["statistics"].update(elements=["H", "C", "N"]), ""),
    "permuted elements": (lambda h: h["statistics"].update(elements=["C", "H", "O"]), ""),
    "invented element": (lambda h: h["statistics"].update(elements=["H", "C", "Xy"]), ""),
    "other mean_neighbors": (lambda h: h["statistics"].update(mean_neighbors=9.5), ""),
    "no statistics": (lambda h: h.pop("statistics"), "statistics"),
    "other dtype": (lambda h: h.update(dtype="float64"), ""),
    "unknown dtype": (lambda h: h.update(dtype="float8"), ""),
    "no dtype": (lambda h: h.pop("dtype"), ""),
    "no self-test": (lambda h: h.pop("self_test"), "self_test"),
    "self-test of other forces": (
        lambda h: h["self_test"]["forces"][0].__setitem__(0, h["self_test"]["forces"][0][0] + 0.1),
        "",
    ),
    "self-test of fewer forces": (lambda h: h["self_test"]["forces"].pop(), ""),
    "NaN in the self-test": (lambda h: h["self_test"].update(energy=[float("nan")]), ""),
    "self-test of one atom": (lambda h: h["self_test"].update(numbers=[1], positions=[[0, 0, 0]]), ""),
    "self-test of nothing": (lambda h: h["self_test"].update(numbers=[], positions=[]), ""),
    "self-test far out": (lambda h: h["self_test"]["positions"][0].__setitem__(0, float("inf")), ""),
    "self-test is a word": (lambda h: h.update(self_test="passed"), ""),
}


@pytest.mark.parametrize(("change", "word"), TAMPERING.values(), ids=TAMPERING.keys())
def test_tampered_header(file: Path, change: Callable[[dict[str, Any]], object], word: str) -> None:
    rewrite(file, change)
    refused(file, word)


def test_tensors_of_another_model(file: Path) -> None:
    header, tensors = checkpoint.read(file)
    for name in ("head.linear", "head.out"):
        checkpoint.write(file, header, {k: t for k, t in tensors.items() if k != name})
        refused(file)
    checkpoint.write(file, header, {**tensors, "stranger": torch.ones(1)})
    refused(file)
    checkpoint.write(file, header, {**tensors, "head.out": torch.ones(3, 1)})
    refused(file)
    checkpoint.write(file, header, dict(small(seed=8).state_dict()))
    refused(file)


def test_the_calculator_refuses_with_the_same_words(file: Path) -> None:
    rewrite(file, lambda h: h["statistics"].update(scale=0.91))
    with pytest.raises(ValueError, match=re.escape(file.name)):
        EquivCalculator(file)


# --- writing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_in_the_middle_leaves_the_old_file(
    file: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = file.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        if step == "fsync":
            patch.setattr(checkpoint.os, "fsync", fail)
        else:
            patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="no space left"):
            save(small(seed=9), file)
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_a_new_file_replaces_the_old_one(file: Path) -> None:
    save(small(seed=9), file)
    assert numbers(load(file)) == numbers(small(seed=9))
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_notes_that_are_no_json_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        save(small(), tmp_path / "m", notes={"model": object()})
    assert not list(tmp_path.iterdir())


def test_saving_changes_nothing_in_the_model(tmp_path: Path) -> None:
    model = small().train()
    before = {k: t.clone() for k, t in model.state_dict().items()}
    save(model, tmp_path / "m")
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())
