"""potential-prepare and training from its files: content, weights and refusals as from the files themselves."""

from __future__ import annotations

import io
import json
import lzma
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read as ase_read
from ase.io import write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from potential import Statistics, build, from_atoms
from potential.checkpoint import read as read_tensors
from train.buckets import bounded, bucketed, epoch_batches
from train.cli import main as train
from train.columns import EACH, suspicious
from train.config import Config, Data, Fit, Weights
from train.data.dataset import Frame, read
from train.data.weights import weigh
from train.doctor.cli import main as doctor
from train.fit import prepare_job
from train.parallel import Ranks, predict_all
from train.prepared import sources
from train.prepared.cli import main as prepare
from train.prepared.read import open_prepared
from train.prepared.write import write_frames
from train.sets import read_sets
from train.stream import Stream, feeding

DATA = Path(__file__).parents[1] / "data"
QUICK = ["--preset", "tiny", "--set", "model.channels=8", "--set", "fit.batch_size=4"]


def acac(n: int) -> list[Atoms]:
    text = lzma.decompress((DATA / "acac/train_300K.xyz.xz").read_bytes()).decode()
    found: list[Atoms] = ase_read(io.StringIO(text), f":{n}", format="extxyz")
    return found


def mixed(n: int) -> list[Atoms]:
    """Crystals with stress, molecules without, isolated atoms; types, weights and other entries of info."""
    rng = np.random.default_rng(3)
    out = []
    for k in range(n):
        atoms = (bulk("Si", cubic=True), molecule("SiH4"), Atoms("H"))[k % 3]
        atoms.rattle(0.05, rng=rng)
        atoms.info = {
            "config_type": ("scan", "liquid")[k % 2],
            "run": k // 4,
            "config_weight": 1.0 + (k % 4 == 3),
        }
        labels: dict[str, Any] = {"energy": -3.0 * len(atoms) + rng.normal()}
        if len(atoms) > 1:
            labels["forces"] = rng.normal(size=(len(atoms), 3))
        if atoms.pbc.all():
            labels["stress"] = rng.normal(scale=0.01, size=6)
        atoms.calc = SinglePointCalculator(atoms, **labels)
        out.append(atoms)
    return out


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_same_frame(a: Frame, b: Frame) -> None:
    assert (a.config_type, a.weights) == (b.config_type, b.weights)
    for name in ("energy", "forces", "stress"):
        one, two = getattr(a, name), getattr(b, name)
        assert (one is None) == (two is None), name
        assert one is None or np.asarray(one).tobytes() == np.asarray(two).tobytes(), name
    for x, y in ((a.atoms.positions, b.atoms.positions), (a.atoms.cell.array, b.atoms.cell.array)):
        assert x.tobytes() == y.tobytes()
    np.testing.assert_array_equal(a.atoms.numbers, b.atoms.numbers)
    np.testing.assert_array_equal(a.atoms.pbc, b.atoms.pbc)


@pytest.mark.parametrize("name", ["a.xyz", "a.xyz.xz", "a.traj", "a.db", "a.h5"])
def test_every_kind_of_file_survives_bit_for_bit(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "FRAMES", 4)  # several parts
    structures = mixed(10)
    if name == "a.h5":
        write("a.xyz", structures)
        assert prepare(["a.xyz", "--output", name]) == 0  # a prepared set can be prepared again
    elif name == "a.xyz.xz":
        write("a.xyz", structures)
        Path(name).write_bytes(lzma.compress(Path("a.xyz").read_bytes()))
    else:
        write(name, structures)
    plain = list(open_prepared(name)) if name == "a.h5" else read(name)[0]
    assert prepare([name, "--output", "set.h5"]) == 0
    frames = open_prepared("set.h5")
    assert len(frames) == 10
    for got, wanted in zip(frames, weigh(plain, {})[0], strict=True):
        assert_same_frame(got, wanted)
        kept = {k: v for k, v in wanted.atoms.info.items() if isinstance(v, (str, int, float, np.generic))}
        assert got.atoms.info == kept
    assert not list(folder.glob(".*"))


def test_units_and_keys_are_settled_once(folder: Path) -> None:
    structures = acac(3)
    for atoms in structures:
        atoms.info["mine"] = atoms.get_potential_energy()
        atoms.calc = None
    write("a.xyz", structures, format="extxyz")
    assert prepare(["a.xyz", "--output", "set.h5", "--energy-key", "mine", "--energy-unit", "Ha"]) == 0
    for frame, atoms in zip(open_prepared("set.h5"), structures, strict=True):
        assert frame.energy == pytest.approx(atoms.info["mine"] * 27.211386, rel=1e-6)
        assert "mine" not in frame.atoms.info


def weights(directory: str) -> dict[str, torch.Tensor]:
    return {
        f"{n} {k}": v
        for n in ("state", "model")
        for k, v in read_tensors(Path(directory, f"{n}.safetensors"))[1].items()
    }


def assert_same_weights(one: str, two: str) -> None:
    a, b = weights(one), weights(two)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_training_from_a_prepared_set_gives_the_same_bits(folder: Path) -> None:
    """In memory, streamed, streamed by processes; with weights, isolated atoms, gaps, and batches by atoms."""
    write("train.xyz", mixed(40))
    write("test.xyz", mixed(8))
    assert prepare(["train.xyz", "--output", "set.h5"]) == 0
    assert prepare(["test.xyz", "--output", "unseen.h5"]) == 0
    options = [
        *QUICK,
        "--epochs",
        "2",
        "--allow-missing",
        "--set",
        "weights.scan.forces=0.5",
        "--set",
        "weights.liquid.stress=0",
        "--batch-atoms",
        "20",
    ]
    assert train(["train.xyz", *options, "--test", "test.xyz", "--output", "memory"]) == 0
    assert train(["set.h5", *options, "--test", "unseen.h5", "--output", "stream"]) == 0
    assert train(["set.h5", *options, "--workers", "2", "--output", "workers"]) == 0
    assert_same_weights("memory", "stream")
    assert_same_weights("memory", "workers")
    memory, stream = (json.loads(Path(d, "summary.json").read_text()) for d in ("memory", "stream"))
    for key in ("e0", "weights", "parameters"):
        assert memory[key] == stream[key]
    assert list(memory["errors"].values()) == list(stream["errors"].values())
    splits = [json.loads(Path(d, "split.json").read_text()) for d in ("memory", "stream")]
    assert splits[0]["train"]["frames"] == splits[1]["train"]["frames"]
    assert splits[1]["train"]["files"] == ["set.h5"]
    with h5py.File("memory/predictions.h5") as a, h5py.File("stream/predictions.h5") as b:
        for name in ("frame", "forces_predicted", "energy_reference"):
            np.testing.assert_array_equal(a["valid"][name], b["valid"][name])


def test_facts_of_samples_are_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a set larger than the samples, in memory and streamed; and other than those of all frames."""
    write("train.xyz", mixed(60))
    assert prepare(["train.xyz", "--output", "set.h5"]) == 0
    facts = []
    for file, most in (("train.xyz", 10), ("set.h5", 10), ("set.h5", 100)):
        monkeypatch.setattr("train.columns.SAMPLE", most)
        monkeypatch.setattr("train.columns.EACH", 2)
        config = Config(data=Data(train=(file,), allow_missing=True), model={"preset": "tiny"})
        job = prepare_job(config, folder, Ranks())
        facts.append((job.potential.statistics, job.e0.e0))
        sampled = any("measured on" in why for why in job.why)
        assert sampled == (most == 10)
    assert facts[0] == facts[1]
    assert facts[1] != facts[2]


def test_predictions_of_large_sets_are_sampled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of test frames are over all of them, however many are held at a time; predictions are of a few."""
    write_frames(Path("set.h5"), many(27))
    graphs = {
        "train": Stream(open_prepared("set.h5"), 6.0),
        "test": Stream(open_prepared("set.h5").take(range(20)), 6.0),
    }
    facts = Statistics(("H", "N", "F"), (0.0, 0.0, 0.0), 1.0, 2.0)
    potential = build({"channels": 16, "cutoff": 6.0}, facts)
    whole, _, nothing = predict_all(Ranks(), potential, graphs, "cpu")
    assert nothing == []
    monkeypatch.setattr("train.parallel.PREDICTED", 7)
    monkeypatch.setattr("train.evaluate.EVALUATION_ATOMS", 4)
    monkeypatch.setattr("train.evaluate.evaluate_parts.__defaults__", (8,))
    errors, predictions, told = predict_all(Ranks(), potential, graphs, "cpu")
    assert errors["test"]["frames"] == 20
    for key, value in whole["test"].items():
        assert errors["test"][key] == (None if value is None else pytest.approx(value, rel=1e-5)), key
    assert errors["train"]["frames"] == 7
    assert (
        "train: predictions of 7 of 27 frames, evenly spaced, are kept, and its errors are over these" in told
    )
    assert predictions["test"][1].tolist() == [0, 2, 5, 8, 11, 14, 17]
    assert len(predictions["test"][0].forces) == 7 * 2


@pytest.mark.parametrize(
    "how", [["data.split=blocks"], ["data.group_key=run"], ["data.folds=3", "data.fold=1"]]
)
def test_splits_are_the_same(folder: Path, how: list[str]) -> None:
    write("a.xyz", mixed(20))
    write("b.xyz", mixed(12)[::-1])
    assert prepare(["a.xyz", "b.xyz", "--output", "set.h5"]) == 0
    given: dict[str, Any] = {k.split(".")[1].split("=")[0]: k.split("=")[1] for k in how}
    given = {k: int(v) if v.isdigit() else v for k, v in given.items()}
    found = []
    for files in (("a.xyz", "b.xyz"), ("set.h5",)):
        sets = read_sets(Config(data=Data(train=files, allow_missing=True, **given)))
        found.append([[f.energy for f in sets.frames[name]] for name in ("train", "valid")])
    assert found[0] == found[1]


def test_resume_from_a_prepared_set_is_exact_and_knows_its_data(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("train.xyz", acac(20))
    assert prepare(["train.xyz", "--output", "set.h5"]) == 0
    options = ["set.h5", *QUICK]
    assert train([*options, "--epochs", "4", "--output", "four"]) == 0
    assert train([*options, "--epochs", "2", "--output", "two"]) == 0
    assert train(["--resume", "--output", "two", "--epochs", "4", "--workers", "1"]) == 0
    assert_same_weights("four", "two")
    write("other.xyz", acac(21)[1:])
    Path("set.h5").unlink()
    assert prepare(["other.xyz", "--output", "set.h5"]) == 0
    capsys.readouterr()
    assert train(["--resume", "--output", "two", "--epochs", "6"]) == 1
    assert "made with other training and validation frames" in capsys.readouterr().err


# --- interrupted and damaged --------------------------------------------------------------------------------


def prepare_command(*arguments: str) -> list[str]:
    code = "import sys; from train.prepared import sources; sources.FRAMES = 5\n"
    code += "from train.prepared.cli import main\nsys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", code, *arguments]


def test_killed_again_and_again_it_ends_with_the_same_file(folder: Path) -> None:
    """SIGKILL to the whole of it after a different number of parts each time; then it goes on from there."""
    write("a.xyz", acac(60))
    subprocess.run(prepare_command("a.xyz", "--output", "whole.h5"), check=True, capture_output=True)
    parts = folder / ".set.h5.parts"
    kept: dict[str, int] = {}
    for wanted in (2, 5, 9):
        process = subprocess.Popen(prepare_command("a.xyz", "--output", "set.h5"), stdout=subprocess.DEVNULL)
        while len(list(parts.glob("part-*"))) < wanted and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for name, when in kept.items():
            assert (parts / name).stat().st_mtime_ns == when  # not made again
        kept = {p.name: p.stat().st_mtime_ns for p in parts.glob("part-*")}
        assert not (folder / "set.h5").exists()
    subprocess.run(prepare_command("a.xyz", "--output", "set.h5"), check=True, capture_output=True)
    assert Path("set.h5").read_bytes() == Path("whole.h5").read_bytes()
    assert not parts.exists()


def test_parts_of_other_files_are_not_used(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("a.xyz", acac(2))
    (folder / ".set.h5.parts").mkdir()
    (folder / ".set.h5.parts/plan.json").write_text("{}")
    assert prepare(["a.xyz", "--output", "set.h5"]) == 1
    assert "other files or settings" in capsys.readouterr().err


def use_everything(path: str) -> None:
    frames = open_prepared(path)
    suspicious(frames)
    _ = [frames.store.column(name) for name in ("source", "source_frame", "elements")], list(frames)


@pytest.fixture(scope="module")
def set_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("set")
    write(folder / "a.xyz", mixed(12))
    assert prepare([str(folder / "a.xyz"), "--output", str(folder / "set.h5")]) == 0
    return (folder / "set.h5").read_bytes()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_changes_nothing(
    tmp_path: Path, set_bytes: bytes, place: float, bit: int
) -> None:
    whole, path = set_bytes, tmp_path / "set.h5"
    at = int(place * len(whole))
    path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :])
    (tmp_path / "whole.h5").write_bytes(whole)
    try:
        use_everything(str(path))
        got = list(open_prepared(str(path)))
    except ValueError:
        return
    for a, b in zip(got, open_prepared(str(tmp_path / "whole.h5")), strict=True):
        assert_same_frame(a, b)
        assert a.atoms.info == b.atoms.info


def test_a_cut_file_is_refused(tmp_path: Path, set_bytes: bytes) -> None:
    for part in (0.1, 0.5, 0.99):
        (tmp_path / "set.h5").write_bytes(set_bytes[: int(part * len(set_bytes))])
        with pytest.raises(ValueError, match=r"set\.h5: .*(damaged|not a prepared set)"):
            use_everything(str(tmp_path / "set.h5"))


def test_damage_met_while_training_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("a.xyz", acac(30))
    assert prepare(["a.xyz", "--output", "set.h5"]) == 0
    with h5py.File("set.h5") as file:
        begin = file["forces"].id.get_chunk_info(0).byte_offset
    with Path("set.h5").open("r+b") as file:
        file.seek(begin + 100)
        byte = file.read(1)
        file.seek(begin + 100)
        file.write(bytes([byte[0] ^ 1]))
    assert train(["set.h5", *QUICK, "--epochs", "1", "--output", "run"]) == 1
    assert "set.h5: forces 0 to 15 cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.xyz", "--output", "set.h5"], "none.xyz: does not exist"),
        (["a.xyz", "--output", "set.xyz"], "must be named"),
        (["a.xyz", "--output", "no/set.h5"], "there is no directory no"),
        (["a.xyz", "--output", "a.h5"], "a.h5 exists"),
        (["a.xyz", "--output", "set.h5", "--energy-key", "Energie"], "no frame of any file has the energy key"),
        (["cut.xyz", "--output", "set.h5"], "cut.xyz, frame 2 .*truncated"),
        (["nan.xyz", "--output", "set.h5"], "nan.xyz, frame 1: energy not finite"),
        (["two.xyz", "--output", "set.h5"], "under 'calculator' from frame 0 on but under 'REF_energy' from frame 2"),
        (["bare.xyz", "--output", "set.h5"], "neither energy nor forces found"),
        (["empty.xyz", "--output", "set.h5"], "the file is empty"),
        (["a.xyz", "--output", "set.h5", "--workers", "-1"], "cannot be negative"),
    ],
)  # fmt: skip
def test_what_cannot_be_prepared(
    folder: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sources, "FRAMES", 2)
    structures = acac(3)
    write("a.xyz", structures)
    text = Path("a.xyz").read_text()
    Path("a.h5").write_bytes(b"")
    Path("empty.xyz").write_bytes(b"")
    Path("cut.xyz").write_text("\n".join(text.splitlines()[:-3]))
    lines = text.splitlines()
    begin = lines[18].index(" energy=")
    lines[18] = lines[18][:begin] + " energy=nan " + lines[18][begin + 8 :].split(" ", 1)[1]
    Path("nan.xyz").write_text("\n".join(lines))
    third = text.rindex(" energy=")
    Path("two.xyz").write_text(text[:third] + " REF_energy=" + text[third + 8 :])
    for atoms in structures:
        atoms.calc = None
    write("bare.xyz", structures)
    assert prepare(arguments) == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not Path("set.h5").exists()


# --- reading ------------------------------------------------------------------------------------------------


def test_the_set_is_alone_and_keeps_its_keys(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("a.xyz", acac(12))
    assert prepare(["a.xyz", "--output", "set.h5"]) == 0
    write("b.xyz", acac(13)[12:])
    assert train(["set.h5", "b.xyz", "--dry-run"]) == 1
    assert "a prepared set is the only file of its set" in capsys.readouterr().err
    assert train(["set.h5", "--forces-key", "F", "--dry-run"]) == 1
    assert "choose keys when the set is prepared" in capsys.readouterr().err
    assert train(["set.h5", "--forces-key", "none", "--dry-run"]) == 0
    assert "0/12, not found" in capsys.readouterr().out
    assert (
        read_sets(Config(data=Data(train=("set.h5",), forces_key="none"))).frames["train"][0].forces is None
    )


def many(n: int) -> list[Frame]:
    """Small frames; every thousandth has an element of its own, one lacks forces, two are the same."""
    rng = np.random.default_rng(0)
    out = []
    for k in range(n):
        atoms = Atoms("NF" if k % 1000 == 17 else "HF", [[0, 0, 0], rng.normal(size=3) + 5])
        forces = None if k == 4321 else rng.normal(size=(2, 3))
        out.append(Frame(atoms, -5.0 + rng.normal(), forces, None, "made", k))
    if n > 777:
        out[777] = replace(out[5], index=777)
    return out


def test_a_large_set_is_sampled_and_its_faults_are_found(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.columns.SAMPLE", 500)
    write_frames(Path("set.h5"), many(5000))
    rows = suspicious(open_prepared("set.h5"))
    assert {5, 777, 4321, *range(17, 5000, 1000)} <= set(rows.tolist())
    assert len(rows) < 500 + 6 * EACH
    assert train(["set.h5", "--dry-run"]) == 1
    assert "frame 4321: no forces" in capsys.readouterr().err
    assert train(["set.h5", "--dry-run", "--allow-missing", *QUICK]) == 0
    said = capsys.readouterr().out
    assert "5000 frames" in said
    assert "1 of all repeat an earlier structure" in said
    assert "frame 777: the same structure as set.h5, frame 5" in said
    assert "E0, scale and neighbors measured on" in said
    assert doctor(["set.h5"]) == 2
    assert "no forces" in capsys.readouterr().out


def test_shared_structures_are_found_in_prepared_sets(folder: Path) -> None:
    write_frames(Path("set.h5"), many(50))
    write_frames(Path("test.h5"), many(60)[44:])
    sets = read_sets(Config(data=Data(train=("set.h5",), test=("test.h5",), allow_missing=True)))
    assert any("test structures are also train structures: test.h5" in text for text in sets.why)


def test_weights_of_types_as_in_memory(folder: Path) -> None:
    write("a.xyz", mixed(16))
    assert prepare(["a.xyz", "--output", "set.h5"]) == 0
    given = {"scan": Weights(energy=0.0, forces=0.0, stress=0.0), "liquid": Weights(stress=0.0)}
    sets = [
        read_sets(Config(data=Data(train=f, allow_missing=True), weights=given))
        for f in (("a.xyz",), ("set.h5",))
    ]
    for name in ("train", "valid"):
        for a, b in zip(*(s.frames[name] for s in sets), strict=True):
            assert_same_frame(a, b)
    assert "8 frames in which every weight is 0 are left out" in sets[1].labels
    assert "config_weight: 2 to 2 in 4 frames" in sets[1].labels


# --- batches ------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=300),
    atoms=st.integers(1, 100),
    structures=st.integers(1, 40),
    seed=st.integers(0, 5),
)
def test_every_epoch_holds_every_frame_once(sizes: list[int], atoms: int, structures: int, seed: int) -> None:
    n = np.array(sizes)
    epochs = [bucketed([(n, atoms)], structures, seed, epoch) for epoch in range(3)]
    for batches in epochs:
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(n)))
        assert all(len(b) == 1 or (n[b].sum() <= atoms and len(b) <= structures) for b in batches)
        assert len(batches) == len(epochs[0])  # the schedule counts on it
    again = bucketed([(n, atoms)], structures, seed, 1)
    assert [b.tolist() for b in again] == [b.tolist() for b in epochs[1]]


def test_batches_are_full_of_similar_structures_and_change() -> None:
    sizes = np.random.default_rng(1).integers(3, 30, size=5000)
    first, second = (bucketed([(sizes, 200)], 10**6, 0, epoch) for epoch in (0, 1))
    assert sizes.sum() / (200 * len(first)) > 0.9
    assert max(np.ptp(sizes[b]) for b in first) <= 3
    together = [{tuple(sorted(b.tolist())) for b in batches} for batches in (first, second)]
    assert len(together[0] & together[1]) < 0.05 * len(first)


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 900)), min_size=1, max_size=200),
    limits=st.tuples(st.integers(1, 100), st.integers(1, 2000)),
    fit=st.builds(Fit, batch_size=st.sampled_from([0, 1, 7]), seed=st.integers(0, 5)),
)
def test_batches_are_within_all_bounds(
    sizes: list[tuple[int, int]], limits: tuple[int, int], fit: Fit
) -> None:
    """By edges alone, and by atoms and edges; what is beyond a bound by itself is alone."""
    atoms, edges = np.array(sizes).T
    for bounding in (
        replace(fit, batch_edges=limits[1]),
        replace(fit, batch_atoms=limits[0], batch_edges=limits[1]),
    ):
        bounds = bounded(atoms, bounding, edges)
        epochs = [epoch_batches(atoms, bounding, epoch, edges) for epoch in (0, 1, 0)]
        for batches in epochs:
            assert sorted(np.concatenate(batches).tolist()) == list(range(len(atoms)))
            for b in batches:
                assert len(b) == 1 or all(counts[b].sum() <= limit for counts, limit in bounds)
                assert len(b) <= (fit.batch_size or len(atoms))
        assert len(epochs[0]) == len(epochs[1])
        assert [b.tolist() for b in epochs[0]] == [b.tolist() for b in epochs[2]]


def test_what_is_beyond_a_bound_does_not_thin_the_rest() -> None:
    sizes = np.array([10] * 60 + [900])
    batches = bucketed([(sizes, 80)], 10**6, 0, 0)
    assert sorted(len(b) for b in batches) == [1, 4, *[8] * 7]


@pytest.mark.parametrize(
    "bounds", [["--batch-edges", "300"], ["--batch-edges", "300", "--batch-atoms", "40"]]
)
def test_batches_by_edges_train_the_same_from_memory_and_streamed(
    folder: Path, bounds: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """From frames in memory, a set whose edges are stored for this cutoff, one with those of another, one without."""
    structures = acac(20)
    big = structures[3].repeat((2, 1, 1))  # of a molecule in no cell: two in one place, moved apart below
    big.positions[15:] += 5.0
    big.calc = SinglePointCalculator(
        big, energy=2 * structures[3].get_potential_energy(), forces=np.zeros((30, 3))
    )
    write("train.xyz", [*structures, big])
    for name, more in (("stored", ["--cutoff", "5"]), ("other", ["--cutoff", "4.5"]), ("none", [])):
        assert prepare(["train.xyz", "--output", f"{name}.h5", *more]) == 0
    options = [
        "--preset",
        "tiny",
        "--set",
        "model.channels=8",
        "--set",
        "model.cutoff=5",
        *bounds,
        "--epochs",
        "1",
    ]
    said = {}
    for name in ("train.xyz", "stored.h5", "other.h5", "none.h5"):
        capsys.readouterr()
        assert train([name, *options, "--output", name.split(".")[0]]) == 0
        said[name] = capsys.readouterr().out
    assert "300 edges: " in said["train.xyz"]
    assert (
        "by themselves: 1, each a batch of its own; the largest is train.xyz frame 20: " in said["train.xyz"]
    )
    for name in ("stored", "other", "none"):
        assert_same_weights("train", name)
        counted = f"edges of {name}.h5 within 5 Å counted in" in said[f"{name}.h5"]
        assert counted == (name != "stored")


def test_edges_that_are_stored_are_those_of_the_graphs(folder: Path) -> None:
    write("a.xyz", mixed(9))
    for name, more in (("a.h5", ["--cutoff", "3.5"]), ("b.h5", [])):
        assert prepare(["a.xyz", "--output", name, *more]) == 0
    one, two = open_prepared("a.h5"), open_prepared("b.h5")
    counts = one.take([7, 0, 2]).n_edges(3.5)
    assert counts is not None
    assert counts.tolist() == [len(from_atoms(one[k].atoms, 3.5).center) for k in (7, 0, 2)]
    assert counts.max() > 0
    assert one.n_edges(4.0) is two.n_edges(3.5) is None
    assert one.store.sha256 == two.store.sha256  # a run may go on with either


def test_batches_by_atoms_train(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("train.xyz", acac(20))
    assert (
        train(["train.xyz", "--preset", "tiny", "--batch-atoms", "45", "--epochs", "2", "--output", "run"])
        == 0
    )
    assert "batches of at most 45 atoms: 6 an epoch, 100 % full" in capsys.readouterr().out
    assert [json.loads(line)["step"] for line in Path("run/metrics.jsonl").read_text().splitlines()][-1] == 12


# --- processes ----------------------------------------------------------------------------------------------


def test_batches_of_processes_are_those_of_this_one(folder: Path) -> None:
    write_frames(Path("set.h5"), many(40))
    samples = Stream(open_prepared("set.h5"), 4.0)
    batches = [np.array(b) for b in ([3, 1], [4], [0, 9, 8], [2, 7], [5])]
    with feeding(samples, 0) as fetch:
        wanted = list(fetch(batches))
    with feeding(samples, 2) as fetch:
        for _ in range(2):  # of two epochs
            for parts, got in zip(wanted, fetch(batches), strict=True):
                for a, b in zip(parts, got, strict=True):
                    assert all(
                        torch.equal(getattr(a.graph, n), getattr(b.graph, n)) for n in ("positions", "center")
                    )
                    assert torch.equal(a.target.forces, b.target.forces)
        stream = fetch(batches)  # given up, then begun anew
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert torch.equal(next(fetch(batches))[0].graph.positions, wanted[0][0].graph.positions)
