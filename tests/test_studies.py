"""The committed studies: their published errors can be drawn, and one of them runs from the command to its results."""

import json
from pathlib import Path

import pytest

from bench.studies import run
from train.curve.contestants import contestants
from train.curve.published import read_published
from train.names import set_name

TESTS = {name: [set_name(test) for test in plan.tests] for name, plan in run.STUDIES.items()}


@pytest.mark.parametrize("name", run.STUDIES)
def test_published_errors_belong_to_the_tests(name: str) -> None:
    plan = run.STUDIES[name]
    tests = [f"{Path(plan.pool).stem}_test"] if plan.split else TESTS[name]
    measure = "mae" if "mae" in plan.options else "rmse"
    rows, _ = read_published(run.HERE / f"{name}.csv", tests, measure)
    assert {row["test"] for row in rows} == set(tests)
    assert all(row["source"] for row in rows)


@pytest.mark.parametrize("name", run.STUDIES)
def test_models_of_studies_are_contestants(name: str) -> None:
    found = [one.name for one in contestants(run.STUDIES[name].models)]
    assert found == list(run.STUDIES[name].models)
    assert "ace" in found
    assert {"snap", "qsnap"} <= set(found) or run.STUDIES[name].models is run.NETWORKS


@pytest.mark.parametrize("name", ["Li", "Mo", "Si", "Cu"])
def test_rounded_errors_say_so(name: str) -> None:
    rows, _ = read_published(run.HERE / f"{name}.csv", TESTS[name], "mae")
    rounded = {row["label"] for row in rows if "rounded to 10 meV" in row["source"]}
    assert rounded == {"GAP", "MTP"}
    assert all(row["quantity"] == "forces" for row in rows if "rounded" in row["source"])


def test_a_study_leaves_what_is_said_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "ROOT", tmp_path)
    data = Path(__file__).parents[1] / "data"
    words = ["run", "acac", "--data", str(data), "--runs", str(tmp_path / "runs"), "--quick", "--draws", "2"]
    monkeypatch.setattr("sys.argv", [*words, "--models", "baseline"])
    run.main()
    kept = tmp_path / "docs/results/studies/acac-equal-time-quick"
    about = json.loads((kept / "study.json").read_text())
    assert (about["done"], about["of"], about["study"]) == (10, 10, "acac-equal-time-quick")
    assert str(tmp_path) not in (kept / "study.json").read_text()
    assert {file.name for file in kept.iterdir()} == {*run.KEPT, "study.json"}
