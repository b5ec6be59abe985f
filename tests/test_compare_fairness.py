"""potential-compare: errors, rankings and zeros that nobody gains from by failing, by few frames, or by precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from train.compare import words
from train.compare.cli import parser, request
from train.compare.errors import errors_of, pairs_of, ranking_of
from train.compare.page import speed_section
from train.compare.panels import trade
from train.compare.shift import align, doubts, fitted
from train.report.run_directory import PredictedSet


def predicted(name: str = "a", n_frames: int = 12, seed: int = 0) -> PredictedSet:
    """Frames of silicon whose predictions are exact."""
    rng = np.random.default_rng(seed)
    n_atoms = rng.integers(2, 6, n_frames)
    n = int(n_atoms.sum())
    energy, stress, forces = (
        rng.normal(size=n_frames),
        rng.normal(size=(n_frames, 9)),
        rng.normal(size=(n, 3)),
    )
    return PredictedSet(name, "f", n_atoms, np.arange(n_frames), energy, energy.copy(), stress, stress.copy(),
                        np.full(n, 14), forces, forces.copy(), np.full(n_frames, ""))  # fmt: skip


def off(one: PredictedSet, sizes: np.ndarray) -> PredictedSet:
    """Energies and forces that are off by a size in each frame (eV/atom, eV/Å)."""
    one.energy_predicted[:] += one.n_atoms * sizes
    one.forces_predicted[:] += sizes[one.system][:, None]
    return one


def lost(one: PredictedSet, frames: list[int]) -> PredictedSet:
    """One that failed on some frames."""
    one.energy_predicted[frames] = np.nan
    one.forces_predicted[np.isin(one.system, frames)] = np.nan
    return one


def found(*sets: PredictedSet, block: int = 1) -> dict[str, Any]:
    """The parts of a comparison that errors are told from."""
    return {
        "frames": len(sets[0].n_atoms),
        "errors": {one.name: errors_of(one, block) for one in sets},
        "ranking": ranking_of(sets, block),
        "pairs": pairs_of(sets, "rmse", block),
        "contestants": {one.name: {} for one in sets},
        "settings": {"measure": "rmse", "dtype": "float64", "speed_dtype": "float32"},
    }


@pytest.mark.parametrize("block", [1, 3])
def test_a_lost_frame_is_lost_to_both_whatever_the_block(block: int) -> None:
    sizes = np.array([0.01] * 11 + [5.0])  # the last frame is hard
    one, other = off(predicted("a"), sizes), lost(off(predicted("b"), 2 * sizes), [11])
    (row,) = [row for row in pairs_of([one, other], "rmse", block) if row["quantity"] == "forces"]
    assert row["ratio"] == pytest.approx([2, 2, 2])


def test_a_pair_is_each_pair_once_and_nobody_with_itself() -> None:
    sets = [off(predicted(name), np.full(12, size)) for name, size in (("a", 0.01), ("b", 0.02), ("c", 0.03))]
    pairs = [(row["one"], row["other"]) for row in pairs_of(sets, "rmse", 1) if row["quantity"] == "forces"]
    assert pairs == [("a", "b"), ("a", "c"), ("b", "c")]


def test_who_fails_on_hard_frames_is_not_ranked_first() -> None:
    sizes = np.array([0.01] * 9 + [1.0] * 3)
    told = found(off(predicted("whole"), sizes), lost(off(predicted("lazy"), 2 * sizes), [9, 10, 11]))
    assert told["errors"]["lazy"]["forces"]["rmse"][0] < told["errors"]["whole"]["forces"]["rmse"][0]
    (line,) = [line for line in words.findings(told) if line.startswith("forces")]
    assert "on 9 of 12 frames, those that all predicted: whole has an RMSE of 10" in line
    line = {"system": "s", "atoms": 10, "cpu_ms": 1.0}
    told["speed"] = [{**line, "contestant": name} for name in ("whole", "lazy")]
    (panel,) = trade(told)
    assert {line.name: line.y[0] for line in panel.lines} == pytest.approx({"whole": 10, "lazy": 20})
    assert (panel.x, panel.y) == ("µs per atom (float32)", "forces RMSE (meV/Å, float64, 9 of 12 frames)")


def test_nobody_is_ranked_without_a_common_frame() -> None:
    sizes = np.full(12, 0.01)
    told = found(
        lost(off(predicted("a"), sizes), list(range(6))), lost(off(predicted("b"), sizes), list(range(6, 12)))
    )
    assert words.findings(told)[1] == "forces: nobody is ranked: no frame was predicted by all"


def test_of_one_frame_nothing_is_said() -> None:
    told = found(*(off(predicted(name, 1), np.full(1, size)) for name, size in (("a", 0.01), ("b", 0.02))))
    text = " ".join(words.findings(told))
    assert "one frame: nothing can be said" in text
    assert "no difference is shown" not in text


def test_cosines_have_intervals_below_one() -> None:
    one = predicted(n_frames=4)
    one.forces_predicted[0] += 1.0
    estimate, low, high = errors_of(one, 1)["forces"]["cosine"]
    assert -1 <= low < estimate < high < 1


# --- zeros of energies ---------------------------------------------------------------------------------------


def test_errors_of_few_frames_are_not_fitted_away() -> None:
    one = off(predicted(n_frames=1), np.array([0.3]))
    sets, shifts = align([one], "auto")
    assert (sets, shifts) == ([one], {})
    assert doubts([one]) == ["a"]
    told = words.zero_lines({"shifts": {}, "doubtful_zeros": ["a"]})
    assert "Whether a has another zero or errors" in told[1]
    _, shifts = align([one], "always")
    shown = {name: {**vars(shift), "needed": shift.is_needed} for name, shift in shifts.items()}
    assert "leave 0 degrees of freedom" in words.zero_lines({"shifts": shown})[1]


def test_noise_of_varied_compositions_is_no_other_zero() -> None:
    """Ten frames of four elements: the fit halves errors that are noise in one set of many; corrected, seldom."""
    naive = needed = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        one = predicted(n_frames=12, seed=seed)
        one.atomic_numbers[:] = rng.choice([6, 7, 8, 14], len(one.atomic_numbers))
        one.energy_predicted[:] += one.n_atoms * rng.normal(0, 0.3, 12)
        shift = fitted(one)
        assert shift is not None
        naive += shift.after < 0.5 * shift.before
        needed += shift.is_needed
    assert naive > 5 * needed
    assert needed <= 6


# --- one precision --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "speed"),
    [([], "float64"), (["--dtype", "float32"], "float32"), (["--speed-dtype", "float32"], "float32")],
)
def test_the_clock_has_the_precision_of_the_errors_unless_told(arguments: list[str], speed: str) -> None:
    args = parser().parse_args(["x.xyz", "--calculator", "ase.calculators.emt:EMT", *arguments])
    assert request(args).speed_dtype == speed


def test_ratios_name_the_contestant_they_are_taken_to() -> None:
    line = {
        "system": "s",
        "atoms": 10,
        "cpu_ms": 1.0,
        "cpu_quartiles": [0.9, 1.1],
        "peak_mib": 9.0,
        "dtype": "own",
    }
    ratio = {"reference": "second", "cpu_ratio": 2.0, "cpu_ratio_quartiles": [1.9, 2.1]}
    told = found(off(predicted("second"), np.full(12, 0.01)), off(predicted("third"), np.full(12, 0.01)))
    told |= {"contestants": {"broken": {}, "second": {}, "third": {}}, "checks": {}}
    told["speed"] = [{**line, "contestant": "second"}, {**line, **ratio, "contestant": "third"}]
    page = speed_section(told, {"second": "#111", "third": "#222"}, {})
    assert "ratios (to second)" in page
    assert "times second" in page
    assert "broken" not in page
