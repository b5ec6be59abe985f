"""Targets beside the energy in prepared sets: kept bit for bit, and trained on as from the files themselves."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from potential.checkpoint import read as read_tensors
from train.cli import main as train
from train.columns import labelled, n_labels, suspicious
from train.config import Config, Data, Weights
from train.data.dataset import Frame, read
from train.data.hdf5 import FORMAT
from train.data.keys import Keys
from train.prepared import sources
from train.prepared.cli import main as prepare
from train.prepared.read import is_prepared, open_prepared
from train.prepared.write import write_frames
from train.sets import read_sets
from train.target import Target, resolved

QUICK = [
    "--preset",
    "tiny",
    "--set",
    "model.channels=8",
    "--set",
    "fit.batch_size=4",
    "--set",
    "model.cutoff=4.0",
]
ASKED = [
    "--targets",
    "dipole",
    "polarizability",
    "--set",
    "targets.q.irreps=0e",
    "--set",
    "targets.q.per=atom",
]
KEYS = ["--set", "targets.q.key=charges", "--set", "targets.dipole.unit=Debye"]
TARGETS = {
    "dipole": Target(unit="Debye"),
    "polarizability": Target(),
    "q": Target(key="charges", irreps="0e", per="atom", unit="e"),
}


def molecules(n: int) -> list[Atoms]:
    """Molecules in all directions with targets, some of which every third or fourth lacks; and isolated atoms."""
    rng, frames = np.random.default_rng(0), []
    for k in range(n):
        atoms = molecule(("H2O", "NH3")[k % 2]) if k % 9 else Atoms("H")
        atoms.rattle(0.1, rng=rng)
        results: dict[str, Any] = {"energy": -5.0 * len(atoms) + rng.normal()}
        results["forces"] = rng.normal(size=(len(atoms), 3))
        atoms.info = {"config_type": ("scan", "liquid")[k % 3 > 0], "config_weight": 1.0 + (k % 4 == 3)}
        if len(atoms) > 1 and k % 4:
            results["dipole"] = rng.normal(size=3)
        if len(atoms) > 1 and k % 3:
            a = rng.normal(size=(3, 3))
            atoms.info["polarizability"] = a @ a.T
            atoms.arrays["charges"] = rng.normal(size=len(atoms))
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    return frames


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("a.xyz", molecules(40))
    return tmp_path


def assert_same_targets(one: Any, two: Any) -> None:
    for a, b in zip(one, two, strict=True):
        assert list(a.targets) == list(b.targets)
        assert all(a.targets[name].tobytes() == b.targets[name].tobytes() for name in a.targets)
        assert (a.energy, a.config_type) == (b.energy, b.config_type)


def test_targets_survive_bit_for_bit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several parts, prepared once and again; what is asked for of them, and what a set does not hold."""
    monkeypatch.setattr(sources, "FRAMES", 7)
    plain = read("a.xyz", Keys(targets=resolved(TARGETS)))[0]
    assert prepare(["a.xyz", "--output", "set.h5", *ASKED, *KEYS, "--set", "targets.q.unit=e"]) == 0
    assert prepare(["set.h5", "--output", "again.h5", "--cutoff", "3", "--workers", "1"]) == 0
    for name in ("set.h5", "again.h5"):
        frames = open_prepared(name)
        assert_same_targets(frames, plain)
        assert frames.store.targets == {
            "dipole": Target(unit="e*Ang", irreps="1o", per="structure"),
            "polarizability": Target(unit="Ang^3", irreps="tensor", per="structure"),
            "q": Target(unit="e", irreps="0e", per="atom"),
        }
        assert n_labels(frames) == n_labels(plain)
        assert labelled(frames) == labelled(plain)
        assert not any("charges" in f.atoms.info or "charges" in f.atoms.arrays for f in frames)
    asked = resolved({"q": TARGETS["q"], "spin": Target(irreps="2x0e")})
    some = replace(open_prepared("set.h5"), targets=asked)[5]
    assert some.targets["q"].shape == (4, 1)
    assert np.isfinite(some.targets["q"]).all()
    assert some.targets["spin"].shape == (1, 2)
    assert np.isnan(some.targets["spin"]).all()


def test_units_of_a_set_are_not_converted_again(folder: Path) -> None:
    """Nor are its labels lost where the key of another file is given."""
    assert prepare(["a.xyz", "--output", "set.h5", *ASKED, *KEYS]) == 0
    rows = molecules(3)
    for atoms in rows:
        atoms.info["mine"] = atoms.calc.results.pop("energy")
    write("b.xyz", rows[1:])
    line = ["set.h5", "b.xyz", "--output", "both.h5", *ASKED, *KEYS, "--energy-key", "mine"]
    assert prepare(line) == 0
    both, first = open_prepared("both.h5"), open_prepared("set.h5")
    assert_same_targets(both[:40], first)
    assert both[41].energy == rows[2].info["mine"]
    expected = read("b.xyz", Keys(energy="mine", targets=resolved(TARGETS)))[0]
    assert_same_targets(both[40:], expected)


def weights(directory: str) -> dict[str, torch.Tensor]:
    return {
        f"{n} {k}": v
        for n in ("state", "model")
        for k, v in read_tensors(Path(directory, f"{n}.safetensors"))[1].items()
    }


def test_training_streams_the_same_bits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In memory, streamed, by processes: weights of types and frames, gaps, batches by atoms, a second stage."""
    write("a.xyz", molecules(22))
    write("test.xyz", molecules(8))
    assert prepare(["a.xyz", "--output", "set.h5", *ASKED, *KEYS]) == 0
    assert prepare(["test.xyz", "--output", "unseen.h5"]) == 0  # without targets
    options = [*QUICK, "--epochs", "2", "--batch-atoms", "14", "--set", "weights.scan.forces=0.5"]
    options += [
        "--set",
        "weights.liquid.energy=0",
        "--set",
        "weights.liquid.forces=0",
        "--set",
        "fit.stage_two=0.4",
    ]
    options += [
        "--set",
        "targets.q.stage_two_weight=3.0",
        "--set",
        "weights.liquid.stress=0",
        "--allow-missing",
    ]
    options += ["--set", "data.valid_fraction=0.3"]
    assert train(["a.xyz", *options, *ASKED, *KEYS, "--test", "test.xyz", "--output", "memory"]) == 0
    told = capsys.readouterr().out
    named = ["--targets", "dipole", "polarizability", "q"]  # the set says the rest
    assert train(["set.h5", *options, *named, "--test", "unseen.h5", "--output", "stream"]) == 0
    said = capsys.readouterr().out
    assert train(["set.h5", *options, *named, "--workers", "2", "--output", "workers"]) == 0
    for name in ("stream", "workers"):
        a, b = weights("memory"), weights(name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(" targets.2." in k for k in a)
    memory, stream = (json.loads(Path(d, "summary.json").read_text()) for d in ("memory", "stream"))
    for key in ("e0", "weights", "parameters", "targets"):
        assert memory[key] == stream[key]
    for name in ("train", "valid"):
        assert memory["errors"][name] == stream["errors"][name]
    assert memory["errors"]["test"]["dipole_rmse"] > 0
    assert stream["errors"]["unseen"]["dipole_rmse"] is None
    for text, unit in ((told, "Debye"), (said, "e*Ang")):
        assert f"under 'dipole', taken as {unit}, 1o of each structure" in text
    with h5py.File("memory/predictions.h5") as x, h5py.File("stream/predictions.h5") as y:
        for name in ("valid/targets/q/predicted", "valid/targets/polarizability/reference"):
            np.testing.assert_array_equal(x[name], y[name])
    assert train(["--resume", "--output", "stream", "--epochs", "2"]) == 0, capsys.readouterr().err


def test_frames_without_energies_of_weight_are_kept_for_their_targets(folder: Path) -> None:
    assert prepare(["a.xyz", "--output", "set.h5", *ASKED, *KEYS]) == 0
    nothing = {"scan": Weights(energy=0.0, forces=0.0, stress=0.0)}
    sets = [
        read_sets(
            Config(data=Data(train=(file,), allow_missing=True), weights=nothing, targets=resolved(targets))
        )
        for file, targets in (("a.xyz", TARGETS), ("set.h5", open_prepared("set.h5").store.targets))
    ]
    for name in ("train", "valid"):
        assert_same_targets(*(s.frames[name] for s in sets))
    assert "frames in which every weight is 0 are left out" in sets[1].labels
    assert any(f.config_type == "scan" for f in sets[1].frames["train"])


def test_every_combination_of_labels_is_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.columns.SAMPLE", 3)
    monkeypatch.setattr("train.columns.EACH", 1)
    frames = [
        Frame(Atoms("HF", [[0, 0, 0], [0, 0, 1 + 0.01 * k]]), -1.0, None, None, "made", k,
              targets={"dipole": np.full((1, 3), np.nan if k == 17 else 1.0)})
        for k in range(30)
    ]  # fmt: skip
    write_frames(Path("made.h5"), frames, targets=resolved({"dipole": Target()}))
    assert 17 in suspicious(open_prepared("made.h5")).tolist()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--targets", "polarizability"], "no frame has the target polarizability .*prepare the set again with"),
        (["--targets", "dipole", "--set", "targets.dipole.key=mu"], "targets.dipole.key is 'mu'; choose keys when"),
        (["--set", "targets.q.irreps=1o", "--set", "targets.q.per=atom"],
         "holds q as 0e of each atom, but .* says 1o of each atom"),
        (["--targets", "spin"], "nothing is known of spin"),
    ],
)  # fmt: skip
def test_other_targets_than_those_of_the_set(
    folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    asked = ["--targets", "dipole", "--set", "targets.q.irreps=0e", "--set", "targets.q.per=atom"]
    assert prepare(["a.xyz", "--output", "set.h5", *asked, "--set", "targets.q.key=charges"]) == 0
    assert train(["set.h5", *QUICK, "--epochs", "1", "--output", "run", *more]) == 1
    told = capsys.readouterr().err
    assert re.search(words, told), told
    told = read_sets(Config(data=Data(train=("set.h5",), allow_missing=True))).labels
    assert "q: in 26 of 40 frames, not used; --targets q uses it" in told


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--targets", "spin"], "nothing is known of spin"),
        (
            ["--targets", "dipole", "--set", "targets.dipole.key=mu"],
            "no frame of any file has the target dipole under 'mu'",
        ),
        (["--set", "targets.s.irreps=0e"], r"the target s under a usual name \(s, .*--set targets.s.key="),
        (["--targets", "dipole", "--set", "targets.dipole.unit=D"], "unit is 'D'; expected one of"),
        (["--targets", "dipole", "--set", "fit.epochs=3"], "only targets can be described here"),
        (["--config", "other.toml"], r"\[targets.dipole\] has no setting 'units'; did you mean 'unit'"),
    ],
)
def test_what_cannot_be_prepared(
    folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    Path("other.toml").write_text("[targets.dipole]\nunits = 'Debye'\n")
    assert prepare(["a.xyz", "--output", "set.h5", *more]) == 1
    told = capsys.readouterr().err
    assert re.search(words, told), told
    assert not Path("set.h5").exists()


def test_half_a_target_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = molecules(3)
    rows[1].calc.results["dipole"][2] = np.nan
    write("nan.xyz", rows)
    assert prepare(["nan.xyz", "--output", "set.h5", "--targets", "dipole"]) == 1
    assert "nan.xyz, frame 1: dipole not finite" in capsys.readouterr().err


# --- versions -----------------------------------------------------------------------------------------------


def of_version(path: Path, number: int) -> None:
    """The file as it was written before there were targets."""
    with h5py.File(path, "r+") as file:
        tables = json.loads(file["tables"][()].tobytes())
        assert tables.pop("targets") == {}
        del file["tables"]
        text = np.frombuffer(json.dumps(tables).encode(), np.uint8)
        file.create_dataset("tables", data=text, chunks=True, fletcher32=True)
        file.attrs["version"] = number
        assert file.attrs["format"].decode() == FORMAT


def test_sets_of_earlier_versions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of version 3 are read, and have no targets; older ones are refused by name."""
    for name in ("new.h5", "three.h5", "two.h5"):
        assert prepare(["a.xyz", "--output", name]) == 0
    of_version(folder / "three.h5", 3)
    of_version(folder / "two.h5", 2)
    three, new = open_prepared("three.h5"), open_prepared("new.h5")
    assert three.store.sha256 == new.store.sha256  # a run goes on with either
    assert_same_targets(three, new)
    assert not is_prepared("two.h5")
    assert train(["two.h5", "--dry-run"]) == 1
    assert "version 2 of the format" in capsys.readouterr().err
    assert train(["three.h5", "--dry-run", "--targets", "dipole"]) == 1
    assert "prepare the set again with --targets dipole" in capsys.readouterr().err
