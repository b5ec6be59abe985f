"""Weights: a label of weight 0 is not used, doubling a weight is the frame twice, metrics stay as they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from potential import Statistics, build, predict
from train.batches import Sample, batch, normalized, prepare
from train.columns import kinds
from train.config import Config, Fit, Weights, check
from train.data.dataset import Frame
from train.data.weights import check_weights, weigh, weights_record
from train.loss import differences, penalties, spread, total
from train.run import start
from train.toml import to_toml, tomllib, update

CUTOFF = 4.0


def types(rows: list[Frame]) -> set[str | None]:
    return {f.config_type for f in rows}


def frames(n: int = 4) -> list[Frame]:
    """Crystals and molecules in turn, with all labels a frame of their kind can have."""
    rng = np.random.default_rng(6)
    out = []
    for k in range(n):
        atoms = bulk("Si", cubic=True) if k % 2 else molecule("SiH4")
        atoms.rattle(0.05, rng=rng)
        stress = np.diag(rng.normal(scale=0.01, size=3)) if k % 2 else None
        forces = rng.normal(size=(len(atoms), 3))
        kind = "crystal" if k % 2 else "molecule"
        out.append(Frame(atoms, -5.0 * len(atoms) + rng.normal(), forces, stress, "s.xyz", k, kind))
    return out


def potential() -> Any:
    dials = {"channels": 4, "message_channels": 4, "vector_channels": 4, "cutoff": CUTOFF}
    return build(dials, Statistics(("H", "Si"), (-1.0, -5.0), 1.0, 4.0), dtype=torch.float64)


def loss(model: Any, samples: list[Sample], fit: Fit) -> float:
    b = batch(samples, "cpu")
    difference = differences(predict(model, b.graph), b.graph, b.target)
    return total(penalties(difference, fit, 1.0, spread(b.weights, b.graph)), fit).item()


def weighted(frame: Frame, energy: float, forces: float, stress: float) -> Frame:
    return replace(frame, weights=Weights(energy, forces, stress))


factors = st.floats(0.05, 20.0)


@settings(max_examples=10, deadline=None)
@given(
    w=st.lists(st.tuples(factors, factors, factors), min_size=4, max_size=4),
    kind=st.sampled_from(["mse", "huber"]),
)
def test_doubling_a_weight_is_the_frame_twice(w: list[tuple[float, float, float]], kind: str) -> None:
    model, fit = potential(), Fit(loss=kind)
    rows = [weighted(f, *x) for f, x in zip(frames(), w, strict=True)]
    doubled = [
        weighted(f, *(2 * v for v in x)) if k == 1 else f
        for k, (f, x) in enumerate(zip(rows, w, strict=True))
    ]
    twice = [*rows, rows[1]]
    one, two = (loss(model, normalized(prepare(x, CUTOFF)), fit) for x in (doubled, twice))
    assert one == pytest.approx(two, rel=1e-12)
    assert one != pytest.approx(loss(model, normalized(prepare(rows, CUTOFF)), fit), rel=1e-4)


def test_the_loss_of_a_set_is_the_weighted_mean() -> None:
    """Against sums written out, frame by frame."""
    model, fit = potential(), Fit(energy_weight=1.5, forces_weight=0.7, stress_weight=0.2)
    rows = [weighted(f, 1.0 + k, 0.5 * (k + 1), 3.0 - k) for k, f in enumerate(frames(3))]
    sums, weights = np.zeros(3), np.zeros(3)
    for row in rows:
        (sample,) = prepare([row], CUTOFF)
        difference = differences(predict(model, sample.graph), sample.graph, sample.target)
        for j, name in enumerate(("energy", "forces", "stress")):
            d, known = difference[name]
            w = getattr(row.weights, name)
            sums[j] += w * d.square().sum().item()
            weights[j] += w * int(known.sum())
    expected = float(np.dot([1.5, 0.7, 0.2], sums / weights))
    assert loss(model, normalized(prepare(rows, CUTOFF)), fit) == pytest.approx(expected, rel=1e-12)


def test_a_frame_alone_in_its_batch_has_its_weight() -> None:
    """The mean over batches of one frame is the loss of the set, so that a weight matters at any batch size."""
    model, fit = potential(), Fit(forces_weight=0.0, stress_weight=0.0)
    samples = normalized(prepare([weighted(f, k + 1.0, 1.0, 1.0) for k, f in enumerate(frames())], CUTOFF))
    alone = [loss(model, [s], fit) for s in samples]
    assert np.mean(alone) == pytest.approx(loss(model, samples, fit), rel=1e-12)
    plain = [loss(model, [replace(s, weights=torch.ones(1, 3, dtype=torch.float64))], fit) for s in samples]
    np.testing.assert_allclose(np.array(alone) / plain, [0.4, 0.8, 1.2, 1.6])


def test_equal_weights_are_no_weights() -> None:
    model = potential()
    plain = prepare(frames(), CUTOFF)
    for w in (1.0, 8.0):
        same = normalized(prepare([weighted(f, w, w, w) for f in frames()], CUTOFF))
        assert all(torch.equal(s.weights, torch.ones(1, 3, dtype=torch.float64)) for s in same)
        b = batch(plain, "cpu")
        difference = differences(predict(model, b.graph), b.graph, b.target)
        assert loss(model, same, Fit()) == total(penalties(difference, Fit(), 1.0), Fit()).item()  # every bit


def test_metrics_stay_unweighted() -> None:
    from train.step import train_step

    sums = []
    for w in (1.0, 5.0):
        run = start(potential(), Fit())
        rows = [weighted(f, w, w, w) if k else f for k, f in enumerate(frames())]
        train_step(run, normalized(prepare(rows, CUTOFF)), Fit(), 1e-6)
        sums.append(run.sums)
    for name in ("energy", "forces", "stress"):
        assert sums[0][name] == sums[1][name]
    assert sums[0]["loss"] != sums[1]["loss"]


def test_weights_of_types_and_frames_multiply() -> None:
    rows = frames()
    rows[1].atoms.info["config_weight"] = np.float64(3.0)
    rows[2].atoms.info["config_weight"] = 2
    got, notes = weigh(rows, {"crystal": Weights(0.5, 2.0, 1.0)})
    assert [f.weights for f in got] == [
        Weights(),
        Weights(1.5, 6.0, 3.0),
        Weights(2, 2, 2),
        Weights(0.5, 2, 1),
    ]
    assert notes == [
        "config_weight: 2 to 3 in 2 frames, 1 in the others",
        "weights of config_type 'crystal' (2 frames): energy 0.5, forces 2, stress 1",
    ]
    assert rows[1].weights == Weights()
    assert {r["config_type"]: r["frames"] for r in weights_record(kinds(got[2:]))} == {
        "molecule": 1,
        "crystal": 1,
    }
    assert weights_record(kinds(rows)) == []


def test_a_weight_of_zero_is_no_label() -> None:
    rows = frames()
    rows[0].atoms.info["config_weight"] = 0.0
    got, notes = weigh(rows, {"crystal": Weights(forces=0.0, stress=0.0)})
    assert [f.index for f in got] == [1, 2, 3]
    assert [f.forces is None for f in got] == [True, False, True]
    assert all(f.stress is None for f in got)
    assert all(f.energy is not None for f in got)
    assert "1 frames in which every weight is 0 are left out" in notes
    assert notes[-1].endswith("energy 1, forces not used, stress not used")
    with pytest.raises(ValueError, match=r"s\.xyz: every weight is 0 in every frame"):
        weigh(rows[:1], {})


def test_tests_keep_every_label() -> None:
    """There a weight of 0 only explains why a label is missing: errors are over all that the file holds."""
    rows = frames()
    rows[0].atoms.info["config_weight"] = 0.0
    got, _ = weigh(rows, {"crystal": Weights(forces=0.0)}, keep=True)
    assert len(got) == len(rows)
    for one, other in zip(got, rows, strict=True):
        assert (one.energy, one.forces is None) == (other.energy, other.forces is None)
    assert [f.weights.forces for f in got] == [0.0, 0.0, 1.0, 0.0]


def test_a_type_of_which_nothing_is_used_is_left_out() -> None:
    nothing = Weights(energy=0.0, forces=0.0, stress=0.0)
    assert {f.config_type for f in weigh(frames(), {"crystal": nothing})[0]} == {"molecule"}


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, "2", True, None, [1.0, 2.0]])
def test_a_config_weight_is_a_number(value: Any) -> None:
    rows = frames()
    rows[2].atoms.info["config_weight"] = value
    with pytest.raises(ValueError, match=r"s\.xyz, frame 2: config_weight is .*at least 0"):
        weigh(rows, {})


def test_weights_must_belong_to_a_type() -> None:
    check_weights({"crystal": Weights(), "molecule": Weights()}, types(frames()))
    with pytest.raises(ValueError, match=r"weights\.crystall\].*did you mean 'crystal'.*crystal, molecule"):
        check_weights({"crystall": Weights()}, types(frames()))
    with pytest.raises(ValueError, match=r"weights\.crystal\] forces is -1"):
        check_weights({"crystal": Weights(forces=-1.0)}, types(frames()))
    bare = [replace(f, config_type=None) for f in frames()]
    with pytest.raises(ValueError, match="there are none: set config_type"):
        check_weights({"crystal": Weights()}, types(bare))


def test_weights_and_e0_in_toml() -> None:
    config = update(Config(), {"weights": {"a b": {"energy": 0}}, "e0": {"H": -13.6}})
    config = update(config, {"weights": {"a b.forces": 2}})
    config = update(config, {"weights": {"x.y.stress": 0.5}})
    assert config.weights == {"a b": Weights(0.0, 2.0, 1.0), "x.y": Weights(stress=0.5)}
    assert config.e0 == {"H": -13.6}
    check(config)
    assert update(Config(), tomllib.loads(to_toml(config))) == config
    for changes, message in (
        ({"weights": {"a": {"enrgy": 1}}}, r"weights\.a\] has no setting 'enrgy'; did you mean 'energy'"),
        ({"weights": {"energy": 1}}, r"\[weights\] energy is 1; expected \[weights\.energy\]"),
        ({"weights": {"a": {"energy": "much"}}}, r"weights\.a\] energy is 'much'; expected a number"),
        ({"e0": {"Hx": 1}}, r"\[e0\] 'Hx' is no chemical symbol"),
        ({"e0": {"X": 1}}, r"\[e0\] 'X' is no chemical symbol"),
        ({"e0": {"H": float("nan")}}, r"\[e0\] H is nan"),
        ({"e0": -13.6}, r"expected a section \[e0\]"),
        ({"weight": {}}, r"no section \[weight\]; did you mean 'weights'"),
        ({"seed": 3}, r"\[seed\], and it stands in none; there are data, model, fit, weights, e0"),
    ):
        with pytest.raises(ValueError, match=message):
            update(Config(), changes)  # type: ignore[arg-type]
