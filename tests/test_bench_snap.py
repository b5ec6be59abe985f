"""The benchmark of SNAP: what it needs is said at the start; its errors and ratios are known answers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from bench.snap import errors, main, missing, ratio
from bench.snap import tested as compared  # pytest would take its name for a test
from potential.linear.snap_calculator import Prediction
from train.compare.errors import Deviations
from train.data.dataset import Frame

DATA = Path(__file__).parents[1] / "data"


def test_what_the_data_of_the_project_has_is_used() -> None:
    assert missing("Si", "SNAP", DATA) == []
    assert missing("Si", "qSNAP", DATA) == ["mlearn/published_Si_qsnap.snapcoeff"]
    assert len(missing("Li", "SNAP", DATA)) == 3
    assert len(missing("Nb-Mo-Ta-W", "SNAP", DATA)) == 2


def test_without_data_nothing_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["snap", "--data", str(tmp_path), "--results", str(tmp_path / "r.json")])
    with pytest.raises(SystemExit, match="2"):
        main()
    told = capsys.readouterr()
    assert "mlearn/Li_train.extxyz.xz" in told.out
    assert "give the folder that holds mlearn/ and nbmotaw/ with --data" in told.err
    assert not (tmp_path / "r.json").exists()


def test_errors_and_ratios() -> None:
    """An energy of 0 is a label; frames that are wrong by the same factor leave nothing to an interval."""
    atoms, random = bulk("Si"), np.random.default_rng(0)
    frames = [Frame(atoms, 0.0, np.zeros((2, 3)), None, "made up", k) for k in range(20)]
    forces, energies = random.normal(size=(20, 2, 3)), random.normal(size=20)

    def wrong_by(factors: list[float]) -> dict[str, Deviations]:
        found = [
            Prediction(np.full(2, k * e), k * f, np.eye(3))
            for k, e, f in zip(factors, energies, forces, strict=True)
        ]
        return compared(frames, found)

    one, other, mixed = (wrong_by(factors) for factors in ([3.0] * 20, [1.0] * 20, [3.0, 1.0] * 10))
    found = errors(other)
    assert found["energy_mae"] == pytest.approx(1e3 * np.abs(energies).mean(), abs=1e-3)
    assert found["forces_rmse"] == pytest.approx(1e3 * np.sqrt(np.square(forces).mean()), abs=1e-3)
    assert "stress_mae" not in found
    for values in ratio(one, other).values():
        assert values == [3.0, 3.0, 3.0]
    value, low, high = ratio(mixed, other)["forces_mae"]
    assert 1 < low < value < high < 3
