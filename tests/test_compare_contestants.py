"""potential-compare: what contestants give, what they fail to give, and those that never answer."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.calculators.emt import EMT

from potential.analysis.contestants import Contestant, ask, start
from potential.analysis.worker import Stage, evaluate
from train.compare import report, words
from train.compare.contestants import contestants
from train.compare.frames import predict_frames
from train.compare.physics.dimers import MOST, dimers
from train.compare.physics.dynamics import dynamics
from train.compare.physics.elastic import elastic
from train.compare.remote import Remote, described
from train.compare.run import Request, compare
from train.compare.subject import Subject
from train.data.dataset import Frame

COPPER = bulk("Cu", cubic=True)
SLOW = """
import time
from ase.calculators.emt import EMT

class Slow(EMT):
    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        if len(atoms) > 1:
            time.sleep(60)
        super().calculate(atoms, properties, system_changes)
"""


class Partial(Calculator):  # type: ignore[misc]
    """Two energies, forces, and a stress that fails."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        if "stress" in properties:
            raise RuntimeError("the mesh is too coarse")
        self.results = {"energy": 1.0, "free_energy": 2.0, "forces": np.zeros((len(self.atoms), 3))}


class Constant(Calculator):  # type: ignore[misc]
    """No energy wherever atoms are; one energy alone."""

    implemented_properties = ["energy"]  # noqa: RUF012

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0}


class Stressless(Partial):
    """Forces, but no stress."""

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012


class Here(Remote):
    """A remote calculator whose process is this one."""

    def __init__(self, calculator: Calculator):
        super().__init__(Contestant("here", "a:b"), 1, {}, contextlib.ExitStack(), np.inf)
        self.stage = Stage(calculator=calculator)

    def _ask(self, **order: Any) -> dict[str, Any]:
        return evaluate(self.stage, **order)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> type[Remote]:
    class Nobody:
        facts: dict[str, Any] = {}  # noqa: RUF012

    monkeypatch.setattr("train.compare.remote.start", lambda *how: Nobody())
    return Here


def test_a_property_that_fails_leaves_the_others(here: Any) -> None:
    remote = here(Partial())
    predicted, failures, gaps = predict_frames(remote, [Frame(COPPER, 2.0, None, None, "f.xyz", 0)], [""])
    assert failures == []
    assert [(gap["property"], gap["reason"]) for gap in gaps] == [
        ("stress", "RuntimeError: the mesh is too coarse")
    ]
    assert predicted.energy_predicted == pytest.approx([2.0])  # the one that forces are the slope of
    assert np.isfinite(predicted.forces_predicted).all()
    told = words.failure_lines({"frames": 1, "broken": {}, "failures": {"a": failures}, "gaps": {"a": gaps}})
    assert told == [
        "a failed to give stress on 1 of 1 frames: frame 0, counted from 0: RuntimeError: the mesh is too coarse"
    ]
    atoms = COPPER.copy()
    atoms.calc = remote
    assert atoms.get_potential_energy() == 2.0
    with pytest.raises(ValueError, match="too coarse"):
        atoms.get_stress()


def test_a_stress_that_fails_is_not_one_that_lacks(here: Any) -> None:
    subject = Subject([COPPER], ["a"], COPPER, COPPER, "given", relaxed=COPPER)
    with pytest.raises(ValueError, match="too coarse"):
        elastic(here(Partial()), subject)
    assert "does not give" in elastic(here(Stressless()), subject)["skipped"]


def test_what_a_calculator_lacks_is_no_failure(here: Any) -> None:
    atoms = COPPER.copy()
    atoms.calc = here(Constant())
    assert atoms.get_potential_energy() == 0.0
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_forces()
    assert atoms.calc.lacks == {"forces", "stress"}


def test_one_that_does_not_answer_is_stopped_and_named(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    with contextlib.ExitStack() as stack:
        one = start(Contestant("sloth", f"{tmp_path / 'slow.py'}:Slow"), 1, {}, stack)
        hurried = replace(one, limit=0.5)
        with pytest.raises(ValueError, match=r"sloth: no answer within 0.5 s; its process was stopped"):
            ask(hurried, do="evaluate", structure=described(COPPER), properties=["energy"])
        assert one.process.poll() is not None


def test_a_file_of_snap_is_a_snap(tmp_path: Path) -> None:
    path = tmp_path / "Si.snapcoeff"
    path.touch()
    (one,) = contestants([f"snap={path}"], [], [])
    assert one.calculator == "potential.linear.snap_calculator:SnapCalculator"
    assert one.options == {"model": str(path)}


def test_all_elements_of_the_test_set_meet_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [Frame(bulk(symbol), 0.0, None, None, "f.xyz", 0) for symbol in ("Cu", "Al", "Ag", "Au", "Ni")]

    def caught(frames: Any, request: Any, subject: Subject, tell: Any) -> None:
        raise ValueError(f"elements: {subject.elements}")

    monkeypatch.setattr("train.compare.run.ask_all", caught)
    with pytest.raises(ValueError, match=r"elements: \[13, 28, 29, 47, 79\]"):
        compare(frames, Request([], checks=[]), lambda text: None)


def test_pairs_left_out_are_named() -> None:
    subject = Subject([COPPER], ["a"], COPPER, None, "none", [1, 6, 7, 8, 9, 15, 16])
    found = dimers(Constant(), subject)
    assert found["values"]["pairs"] == MOST
    (note,) = found["notes"]
    assert note.startswith("7 of 28 pairs were left out: ")
    assert note.endswith("S-S")


def test_emt_does_not_drift() -> None:
    """By the limit of the check itself: a run long enough that its error does not excuse a drift."""
    start = bulk("Cu", cubic=True, a=3.59).repeat((2, 2, 1))
    found = dynamics(EMT(), Subject([start], ["a"], start, None, "none", temperature=600.0, steps=600))[
        "values"
    ]
    assert 3 * found["drift_error"] < 0.1
    assert abs(found["drift"]) < 0.05


def test_files_of_an_earlier_comparison_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("checks.png", "report.html", "mine.txt"):
        (tmp_path / name).write_text("old", encoding="utf-8")
    monkeypatch.setattr("train.compare.report.as_csv", lambda found: "")
    monkeypatch.setattr("train.compare.report.text", lambda found: [])
    monkeypatch.setattr("train.compare.page.page", lambda found, sets: "new")
    monkeypatch.setattr("train.compare.picture.draw", lambda found, sets, directory: [])
    report.report({}, [], tmp_path)
    assert not (tmp_path / "checks.png").exists()
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == "new"
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "old"
