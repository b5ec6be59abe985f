"""The sets of a run: every element is trained on, and a structure in two sets is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from train.config import Config, Data, Fit
from train.sets import read_sets


def labelled(name: str, seed: int) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms = molecule(name)
    atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    forces = rng.normal(size=atoms.positions.shape)
    energy = -10.0 * len(atoms) + rng.normal(scale=0.1)
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
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
