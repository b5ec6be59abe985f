"""Splits: each frame in exactly one fold, blocks of time stay whole, no group on two sides."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from train.config import Data
from train.data.dataset import Frame
from train.data.splits import check_split, folds, groups, validation


def frame(index: int = 0, source: str = "a.xyz", kind: str | None = None, **info: Any) -> Frame:
    return Frame(Atoms("H2", [[0, 0, 0], [0, 0, 0.7]], info=info), -1.0, None, None, source, index, kind)


def trajectories(*lengths: int) -> list[Frame]:
    return [frame(k, f"{t}.xyz") for t, n in enumerate(lengths) for k in range(n)]


def grouped(*sizes: int) -> list[Frame]:
    """Frames of groups g0, g1, ..., one of each in turn until all are used up."""
    names = [(k, f"g{g}") for g, n in enumerate(sizes) for k in range(n)]
    return [frame(i, mol=name) for i, (_, name) in enumerate(sorted(names))]


lengths = st.lists(st.integers(1, 30), min_size=1, max_size=6)
seeds = st.integers(0, 2**31)
WAYS = st.sampled_from([Data(), Data(split="blocks"), Data(group_key="mol")])


@settings(max_examples=150, deadline=None)
@given(sizes=lengths, n=st.integers(2, 7), way=WAYS, seed=seeds)
def test_every_frame_is_in_exactly_one_fold(sizes: list[int], n: int, way: Data, seed: int) -> None:
    frames = grouped(*sizes) if way.group_key else trajectories(*sizes)
    many = len(sizes) if way.group_key else len(frames)
    if many < n:
        with pytest.raises(ValueError, match=f"{many} .*cannot make {n} folds; give at most"):
            folds(frames, replace(way, folds=n), seed)
        return
    parts = [validation(frames, replace(way, folds=n, fold=k), seed) for k in range(n)]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(frames)))
    assert all(len(part) for part in parts)
    if not way.group_key:
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@settings(max_examples=100, deadline=None)
@given(sizes=lengths, n=st.integers(2, 7), seed=seeds)
def test_a_fold_of_blocks_is_one_stretch_of_each_trajectory(sizes: list[int], n: int, seed: int) -> None:
    frames = trajectories(*sizes)
    if len(frames) < n:
        return
    fold = folds(frames, Data(split="blocks", folds=n), seed)
    for source in {f.source for f in frames}:
        of_source = [int(k) for k, f in zip(fold, frames, strict=True) if f.source == source]
        stretches = [k for k, _ in groupby(of_source)]
        assert len(stretches) == len(set(stretches))
        assert len(stretches) == min(n, len(of_source))


@settings(max_examples=150, deadline=None)
@given(sizes=lengths, fraction=st.floats(0.01, 0.9), seed=seeds)
def test_blocks_of_a_fraction(sizes: list[int], fraction: float, seed: int) -> None:
    frames = trajectories(*sizes)
    if len(frames) < 2:
        return
    valid = validation(frames, Data(split="blocks", valid_fraction=fraction), seed)
    assert len(valid) == min(max(1, round(fraction * len(frames))), len(frames) - 1)
    for source in {f.source for f in frames}:
        index = [frames[i].index for i in valid if frames[i].source == source]
        assert not index or index == list(range(index[0], index[0] + len(index)))
        n = sum(f.source == source for f in frames)
        assert abs(len(index) - len(valid) * n / len(frames)) <= 1


def test_blocks_begin_anywhere_and_tell_config_types_apart() -> None:
    frames = trajectories(50)
    data = Data(split="blocks", valid_fraction=0.1)
    starts = {int(validation(frames, data, seed)[0]) for seed in range(60)}
    assert min(starts) < 10
    assert max(starts) > 35
    mixed = [frame(k, kind="hot" if k % 2 else "cold") for k in range(40)]
    valid = validation(mixed, replace(data, valid_fraction=0.25), 0)
    for kind in ("hot", "cold"):
        own = [int(i) for i in valid if mixed[i].config_type == kind]
        assert len(own) == 5
        assert own == list(range(own[0], own[0] + 10, 2))


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=8),
    fraction=st.floats(0.01, 0.9),
    seed=seeds,
    data=st.data(),
)
def test_no_group_is_on_two_sides(sizes: list[int], fraction: float, seed: int, data: Any) -> None:
    frames = grouped(*sizes)
    keep = data.draw(st.lists(st.integers(0, len(frames) - 1), max_size=2))
    valid = set(validation(frames, Data(group_key="mol", valid_fraction=fraction), seed, keep).tolist())
    names = groups(frames, "mol")
    sides = [{names[i] for i in valid}, {names[i] for i in set(range(len(frames))) - valid}]
    assert not sides[0] & sides[1]
    assert sides[1]
    assert sides[0] or len({names[i] for i in keep}) == len(sizes)
    assert not valid & set(keep)


def test_groups_come_near_the_fraction() -> None:
    frames = grouped(*[5] * 40)
    for seed in range(10):
        assert len(validation(frames, Data(group_key="mol", valid_fraction=0.2), seed)) == 40
    large = grouped(90, 5, 5)  # the large group is never taken for a tenth
    assert {len(validation(large, Data(group_key="mol"), seed)) for seed in range(20)} <= {5, 10}
    sizes = np.bincount(folds(frames, Data(group_key="mol", folds=4), 0))
    assert sizes.tolist() == [50] * 4


def test_a_seed_decides() -> None:
    for data in (Data(), Data(split="blocks"), Data(folds=3), Data(folds=3, split="blocks")):
        one, again, other = (validation(trajectories(40, 30), data, seed).tolist() for seed in (1, 1, 2))
        assert one == again
        assert one != other


def test_a_group_key_must_be_everywhere() -> None:
    frames = [frame(k, mol="a") for k in range(3)] + [frame(3, moll="b")]
    with pytest.raises(ValueError, match=r"a\.xyz, frame 3: no 'mol' in its info.*did you mean 'moll'"):
        groups(frames, "mol")
    with pytest.raises(ValueError, match="every frame has mol = a: one group cannot be split"):
        validation([frame(k, mol="a") for k in range(9)], Data(group_key="mol"), 0)
    assert groups([frame(mol=1), frame(mol=np.int64(1)), frame(mol="1")], "mol") == ["1", "1", "1"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data(split="block"), r"split is 'block'; did you mean 'blocks'"),
        (Data(split="blocks", group_key="mol"), r"group_key = 'mol' are both given"),
        (Data(folds=1), r"folds is 1; at least 2"),
        (Data(folds=-3), r"folds is -3"),
        (Data(folds=5, fold=5), r"fold is 5, but folds is 5: choose 0 to 4"),
        (Data(folds=5, fold=-1), r"fold is -1"),
        (Data(fold=1), r"fold is 1, but give folds too"),
        (Data(valid="v.xyz", folds=5), "validation files are given"),
        (Data(valid="v.xyz", group_key="mol"), "validation files are given"),
        (Data(valid="v.xyz", split="blocks"), "validation files are given"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(data: Data, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_split(data)
