"""The sets of a run: every element is trained on, and a structure in two sets is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from train.config import Config, Data, Fit, Weights
from train.data.dataset import read
from train.data.hdf5 import write_hdf5
from train.data.keys import Keys
from train.data.splits import folds
from train.names import set_name
from train.prepared.write import write_frames
from train.sets import read_sets, split_record


def labelled(name: str, seed: int, **info: object) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms = molecule(name)
    atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    forces = rng.normal(size=atoms.positions.shape)
    energy = -10.0 * len(atoms) + rng.normal(scale=0.1)
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    atoms.info |= info
    return atoms


def save(path: Path, structures: list[Atoms]) -> str:
    write(path, structures, format="extxyz")
    return str(path)


@pytest.mark.parametrize("seed", range(20))
def test_every_element_is_trained_on(tmp_path: Path, seed: int) -> None:
    """Two frames with a rare element, half of all frames for validation."""
    structures = [labelled("H2O", k) for k in range(8)]
    structures[3:5] = [labelled("SiH4", k) for k in (3, 4)]
    path = save(tmp_path / "rare.xyz", structures)
    sets = read_sets(Config(data=Data(train=path, valid_fraction=0.5), fit=Fit(seed=seed)))
    train, valid = sets.frames["train"], sets.frames["valid"]
    assert {s for f in train for s in f.atoms.symbols} == {"H", "O", "Si"}
    assert sorted(f.index for f in [*train, *valid]) == list(range(8))
    assert len(valid) >= 1
    assert ("always trained on" in sets.why[0]) == ("frame 3 for Si" in sets.why[0])


def test_a_sole_carrier_never_validates(tmp_path: Path) -> None:
    path = save(tmp_path / "rare.xyz", [*(labelled("H2O", k) for k in range(5)), labelled("SiH4", 5)])
    told = []
    for seed in range(20):
        sets = read_sets(Config(data=Data(train=path, valid_fraction=0.3), fit=Fit(seed=seed)))
        assert 5 in [f.index for f in sets.frames["train"]]
        told.append("frame 5 for Si" in sets.why[0])
    assert any(told)
    assert not all(told)


def test_no_frame_can_be_spared(tmp_path: Path) -> None:
    path = save(tmp_path / "two.xyz", [labelled("H2O", 0), labelled("SiH4", 1)])
    sets = read_sets(Config(data=Data(train=path)))
    assert len(sets.frames["train"]) == len(sets.frames["valid"]) == 2
    assert "no frame can be spared" in sets.why[0]


def test_structures_in_two_sets_are_named(tmp_path: Path) -> None:
    waters = [labelled("H2O", k) for k in range(12)]
    train = save(tmp_path / "train.xyz", waters[:6])
    valid = save(tmp_path / "valid.xyz", [waters[8], waters[2], waters[9]])
    test = save(tmp_path / "test.xyz", [waters[10], waters[9], waters[5], waters[2]])
    clean = save(tmp_path / "clean.xyz", [waters[11]])
    sets = read_sets(Config(data=Data(train=train, valid=valid, test=(test, clean))))
    assert len(sets.why) == 3
    assert f"1 of 3 valid structures are also train structures: {valid}, frame 1 (the first is" in sets.why[0]
    assert f"frame 2 of {train})" in sets.why[0]
    assert f"2 of 4 test structures are also train structures: {test}, frames 2, 3" in sets.why[1]
    assert "2 of 4 test structures are also valid structures" in sets.why[2]
    assert all(sentence.startswith("WARNING") for sentence in sets.why)
    assert read_sets(Config(data=Data(train=train, valid=clean))).why == ()


def test_duplicates_across_the_split_are_named(tmp_path: Path) -> None:
    path = save(tmp_path / "twice.xyz", [labelled("H2O", k // 2) for k in range(8)])
    sets = read_sets(Config(data=Data(train=path, valid_fraction=0.3)))
    assert "valid structures are also train structures" in sets.why[1]


def places(sets: list[object]) -> set[tuple[str, int]]:
    return {(f.source, f.index) for f in sets}  # type: ignore[attr-defined]


def test_nearly_equal_structures_in_files_of_two_sets_are_named(tmp_path: Path) -> None:
    """Turned, shifted and moved by a thousandth of an Å; not those of old and new frames, which train together."""
    rows = {
        "train": [labelled("CH3OH", k) for k in range(12)],
        "valid": [labelled("CH3OH", 50 + k) for k in range(4)],
    }
    rows |= {
        "test": [labelled("CH3OH", 70 + k) for k in range(6)],
        "old": [labelled("CH3OH", 90 + k) for k in range(5)],
    }

    def like(atoms: Atoms) -> Atoms:
        other = atoms.copy()
        other.rotate(40, "z")
        other.positions += np.random.default_rng(0).normal(scale=3e-4, size=other.positions.shape) + 1.0
        other.calc = SinglePointCalculator(other, energy=-61.0, forces=np.ones((len(atoms), 3)))
        return other

    rows["test"][2], rows["test"][3] = like(rows["train"][7]), rows["train"][8].copy()
    rows["test"][3].calc = rows["train"][8].calc
    rows["valid"][1], rows["old"][4] = like(rows["old"][0]), like(rows["train"][3])
    paths = {name: (save(tmp_path / f"{name}.xyz", some),) for name, some in rows.items()}
    why = read_sets(Config(data=Data(train=paths["train"], valid=paths["valid"], test=paths["test"]))).why
    (near,) = [text for text in why if "within 0.01 Å" in text]
    assert (
        f"1 of 6 test structures are within 0.01 Å of train structures: {paths['test'][0]}, frame 2 (the first"
        in near
    )
    (exact,) = [text for text in why if "are also train structures" in text]
    assert "frame 3" in exact
    data = Data(train=paths["train"], valid=paths["valid"], replay=paths["old"])
    (near,) = [text for text in read_sets(Config(data=data)).why if "within 0.01 Å" in text]
    assert "1 of 5 --replay structures are within 0.01 Å of valid structures" in near


def test_of_large_sets_evenly_spaced_frames_are_compared_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leak from the end of the training frames is seen, all of the smaller set is compared."""
    monkeypatch.setattr("train.leaks.COMPARED", 6)
    rows = [labelled("CH3OH", k) for k in range(12)]
    leak = rows[10].copy()
    leak.positions += np.random.default_rng(0).normal(scale=3e-4, size=leak.positions.shape)
    leak.calc = SinglePointCalculator(leak, energy=-61.0, forces=np.ones((len(leak), 3)))
    test = [*(labelled("CH3OH", 70 + k) for k in range(3)), leak]
    train, few = save(tmp_path / "train.xyz", rows), save(tmp_path / "few.xyz", rows[:3])
    data = Data(train=(train,), valid=(few,), test=(save(tmp_path / "test.xyz", test),))
    why = read_sets(Config(data=data)).why
    assert any("1 of 4 test structures are within 0.01 Å of train structures" in text for text in why)
    (limited,) = [text for text in why if "evenly spaced" in text]
    assert "looked for among 6 of 12 train frames, evenly spaced" in limited
    monkeypatch.setattr("train.leaks.COMPARED", 12)
    assert not [text for text in read_sets(Config(data=data)).why if "evenly spaced" in text]


def test_several_files_are_one_set(tmp_path: Path) -> None:
    """Patterns and files of three formats; the label report speaks of each where they differ."""
    for part in range(2):
        save(tmp_path / f"part{part}.xyz", [labelled("H2O", 10 * part + k) for k in range(6)])
    single = save(tmp_path / "single.xyz", [labelled("CH4", k, REF_energy=1.0) for k in range(4)])
    frames, _ = read(single)
    write_hdf5(tmp_path / "more.h5", frames)
    Path(single).unlink()
    for k in (1, 2):
        save(tmp_path / f"t{k}.xyz", [labelled("H2O", 50 + k)])
    data = Data(
        train=(f"{tmp_path}/part*.xyz", f"{tmp_path}/more.h5"),
        test=(f"{tmp_path}/t?.xyz", f"{tmp_path}/t2*"),
    )
    with pytest.raises(ValueError, match=r"t2\.xyz: named twice"):
        read_sets(Config(data=data))
    sets = read_sets(Config(data=Data(train=data.train, test=data.test[:1], valid_fraction=0.25)))
    assert set(sets.frames) == {"train", "valid", "t?"}
    assert len(sets.frames["t?"]) == 2
    everything = [*sets.frames["train"], *sets.frames["valid"]]
    expected = {(f"{tmp_path}/part{p}.xyz", k) for p in range(2) for k in range(6)}
    assert places(everything) == expected | {(f"{tmp_path}/more.h5", k) for k in range(4)}
    assert len(everything) == 16
    report = sets.labels.split("Label report")[1]
    assert f"16/16, {tmp_path}/part0.xyz and 1 more: under 'calculator', taken as eV; " in report
    assert f"{tmp_path}/more.h5: eV, Ang: as the file says" in report
    record = split_record(sets, Config(data=data))
    for name in ("train", "valid"):
        found = record[name]
        assert [(found["files"][f], k) for f, k in zip(found["file"], found["frames"], strict=True)] == [
            (f.source, f.index) for f in sets.frames[name]
        ]


def test_a_file_belongs_to_one_set(tmp_path: Path) -> None:
    path = save(tmp_path / "a.xyz", [labelled("H2O", k) for k in range(4)])
    for data in (
        Data(train=path, valid=path), Data(train=path, test=path), Data(train=(path, path)),
        Data(train=path, isolated_atoms=path), Data(train=f"{tmp_path}/*.xyz", test=path),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"a\.xyz: named twice, by"):
            read_sets(Config(data=data))
    with pytest.raises(ValueError, match=r"\*\.db: no file matches this pattern"):
        read_sets(Config(data=Data(train=path, test=f"{tmp_path}/*.db")))


def test_folds_share_out_all_frames_and_lose_no_element(tmp_path: Path) -> None:
    path = save(tmp_path / "a.xyz", [labelled("SiH4" if k % 4 == 0 else "H2O", k) for k in range(12)])
    valid = []
    for fold in range(3):
        config = Config(data=Data(train=path, folds=3, fold=fold), fit=Fit(seed=1))
        sets = read_sets(config)
        assert not places(sets.frames["train"]) & places(sets.frames["valid"])  # type: ignore[arg-type]
        assert len(sets.frames["train"]) == 8
        valid += [f.index for f in sets.frames["valid"]]
        assert f"fold {fold} of 3, made with seed 1" in sets.why[0]
        assert split_record(sets, config)["how"] == {"split": "random", "folds": 3, "fold": fold}
    assert sorted(valid) == list(range(12))
    rare = save(tmp_path / "rare.xyz", [*(labelled("H2O", k) for k in range(5)), labelled("SiH4", 5)])
    frames, _ = read(rare)
    fold = int(folds(frames, Data(folds=3), 0)[5])
    with pytest.raises(ValueError, match=f"fold {fold} of 3 takes every frame with Si away from training"):
        read_sets(Config(data=Data(train=rare, folds=3, fold=fold)))
    read_sets(Config(data=Data(train=rare, folds=3, fold=(fold + 1) % 3)))


def test_groups_stay_together_and_are_recorded(tmp_path: Path) -> None:
    names = ["a", "b", "b", "c", "d", "d", "d", "e"]
    path = save(tmp_path / "a.xyz", [labelled("H2O", k, mol=name) for k, name in enumerate(names)])
    config = Config(data=Data(train=path, group_key="mol", valid_fraction=0.4))
    sets = read_sets(config)
    how = split_record(sets, config)["how"]
    sides = how["groups"]
    assert not set(sides["train"]) & set(sides["valid"])
    assert sorted(sides["train"] + sides["valid"]) == ["a", "b", "c", "d", "e"]
    assert {names[f.index] for f in sets.frames["valid"]} == set(sides["valid"])
    assert "whole groups of 5 by mol" in sets.why[0]
    lone = save(
        tmp_path / "b.xyz",
        [labelled("SiH4" if k < 2 else "H2O", k, mol="s" if k < 2 else str(k)) for k in range(6)],
    )
    for seed in range(8):  # the only group with Si trains, as a whole
        train = read_sets(
            Config(data=Data(train=lone, group_key="mol", valid_fraction=0.5), fit=Fit(seed=seed))
        ).frames["train"]
        assert {0, 1} <= {f.index for f in train}


def scan_and_dynamics(folder: Path) -> str:
    """Ten frames with forces, four of a scan without, two with forces only."""
    frames = [labelled("H2O", k, config_type="dynamics") for k in range(10)]
    for k in range(10, 14):
        frames.append(labelled("H2O", k, config_type="scan"))
        del frames[-1].calc.results["forces"]
    for k in range(14, 16):
        frames.append(labelled("H2O", k, config_type="pulled"))
        del frames[-1].calc.results["energy"]
    return save(folder / "mixed.xyz", frames)


def test_a_type_may_be_without_a_label_by_purpose(tmp_path: Path) -> None:
    path = scan_and_dynamics(tmp_path)
    with pytest.raises(ValueError, match=r"no energy in this .*--set weights\.pulled\.energy=0"):
        read_sets(Config(data=Data(train=path)))
    scan, pulled = {"scan": Weights(forces=0.0)}, {"pulled": Weights(energy=0.0)}
    for weights, word in ((scan, "no energy"), (pulled, "no forces")):
        with pytest.raises(ValueError, match=word):
            read_sets(Config(data=Data(train=path), weights=weights))
    sets = read_sets(Config(data=Data(train=path), weights={**scan, **pulled}))
    assert "weights of config_type 'scan' (4 frames): energy 1, forces not used, stress 1" in sets.labels
    assert "no forces in" not in sets.labels
    record = split_record(sets, Config())["weights"]
    assert {"config_type": "scan", "energy": 1.0, "forces": 0.0, "stress": 1.0} in [
        {k: v for k, v in row.items() if k != "frames"} for row in record
    ]
    with pytest.raises(ValueError, match=r"weights\.scn\]: no training frame .*did you mean 'scan'"):
        read_sets(Config(data=Data(train=path), weights={"scn": Weights()}))
    assert "no energy" in read_sets(Config(data=Data(train=path, allow_missing=True))).labels


def test_isolated_atoms_of_a_file(tmp_path: Path) -> None:
    path = save(tmp_path / "a.xyz", [labelled("H2O", k, REF_energy=-500.0) for k in range(4)])
    atoms = [Atoms("H"), Atoms("O")]
    for a, e in zip(atoms, (-13.6, -2040.0), strict=True):
        a.info = {"REF_energy": e}
    iso = save(tmp_path / "iso.xyz", atoms)
    sets = read_sets(
        Config(data=Data(train=path, isolated_atoms=iso, energy_key="REF_energy", forces_key="forces"))
    )
    assert [f.energy for f in sets.isolated_given] == [-13.6, -2040.0]
    assert f"isolated atoms: 2 of {iso}, energies under 'REF_energy', eV, Ang: assumed" in sets.why[1]
    write_frames(tmp_path / "iso.h5", read(iso, Keys(energy="REF_energy"))[0])
    plain = save(tmp_path / "b.xyz", [labelled("H2O", k) for k in range(4)])
    prepared = read_sets(Config(data=Data(train=plain, isolated_atoms=str(tmp_path / "iso.h5"))))
    assert [f.energy for f in prepared.isolated_given] == [-13.6, -2040.0]
    atoms[1].info = {}
    save(tmp_path / "iso.xyz", atoms)
    with pytest.raises(ValueError, match=r"iso\.xyz, frame 1: an isolated atom without an energy"):
        read_sets(Config(data=Data(train=path, isolated_atoms=iso)))


def test_names_of_sets() -> None:
    assert [set_name(p) for p in ("a/test_300K.xyz.xz", "runs/md_*.xyz", "runs/*.xyz", "x/**/*.db", "*.xyz")] == [
        "test_300K", "md_*", "runs", "x", "*.xyz",
    ]  # fmt: skip


def test_a_given_key_may_be_in_one_of_the_files(tmp_path: Path) -> None:
    """Crystals with a stress under a name of their own, and molecules without."""
    rng = np.random.default_rng(0)
    crystals = [bulk("Si", cubic=True) for _ in range(4)]
    for k, atoms in enumerate(crystals):
        atoms.rattle(0.05, rng=rng)
        energy, forces = -43.0 - 0.01 * k, rng.normal(size=(8, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        atoms.info["pull"] = np.diag([0.01, 0.02, 0.03])
    one = save(tmp_path / "crystals.xyz", crystals)
    two = save(tmp_path / "molecules.xyz", [labelled("SiH4", k) for k in range(4)])
    sets = read_sets(Config(data=Data(train=(two, one), stress_key="pull")))
    everything = [*sets.frames["train"], *sets.frames["valid"]]
    assert {f.source for f in everything if f.stress is not None} == {one}
    assert f"4/8, {two}: not found; {one}: under 'pull'" in sets.labels
    for train in ((two, one), two):
        with pytest.raises(ValueError, match="no frame has the stress key 'pul'"):
            read_sets(Config(data=Data(train=train, stress_key="pul")))


def test_weights_of_a_type_that_only_old_frames_have(tmp_path: Path) -> None:
    new = save(tmp_path / "new.xyz", [labelled("H2O", k, config_type="new") for k in range(4)])
    old = save(tmp_path / "old.xyz", [labelled("H2O", k, config_type="old") for k in range(4, 8)])
    data = Data(train=new, replay=old)
    sets = read_sets(Config(data=data, weights={"old": Weights(energy=0.5)}))
    found = {f.config_type: f.weights.energy for f in sets.frames["train"]}
    assert found == {"new": 1.0, "old": 0.5}
    with pytest.raises(ValueError, match=r"no training frame has config_type 'odd'.*new, old"):
        read_sets(Config(data=data, weights={"odd": Weights()}))
