"""The committed studies: their published errors can be drawn, and one of them runs from the command to its results."""

import json
import lzma
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from bench.studies import run
from bench.studies.qm9 import drawn
from train.curve.contestants import contestants
from train.curve.published import read_published
from train.names import set_name

TESTS = {name: [set_name(test) for test in plan.tests] for name, plan in run.STUDIES.items()}


@pytest.mark.parametrize("name", run.STUDIES)
def test_published_errors_belong_to_the_tests(name: str) -> None:
    plan = run.STUDIES[name]
    tests = [f"{Path(plan.pool).stem}_test"] if plan.split else TESTS[name]
    tests = [f"qm9_{plan.drawn}_test"] if plan.drawn else tests
    measure = "mae" if "mae" in plan.options else "rmse"
    rows, _ = read_published(
        run.HERE / f"{name}.csv", tests, measure, ("energy", "forces", "dipole magnitude")
    )
    assert {row["test"] for row in rows} == set(tests)
    assert all(row["source"] for row in rows)


@pytest.mark.parametrize("name", run.STUDIES)
def test_models_of_studies_are_contestants(name: str) -> None:
    found = [one.name for one in contestants(run.STUDIES[name].models)]
    assert found == list(run.STUDIES[name].models)
    plan = run.STUDIES[name]
    assert "ace" in found or plan.drawn
    assert {"snap", "qsnap"} <= set(found) or plan.models in (run.NETWORKS, run.MOLECULES)


@pytest.mark.parametrize("name", ["Li", "Mo", "Si", "Cu"])
def test_rounded_errors_say_so(name: str) -> None:
    rows, _ = read_published(run.HERE / f"{name}.csv", TESTS[name], "mae")
    rounded = {row["label"] for row in rows if "rounded to 10 meV" in row["source"]}
    assert rounded == {"GAP", "MTP"}
    assert all(row["quantity"] == "forces" for row in rows if "rounded" in row["source"])


@pytest.mark.parametrize(("label", "study"), [("energy", "qm9-u0"), ("mu", "qm9-dipole")])
def test_molecules_of_qm9_are_drawn_once(tmp_path: Path, label: str, study: str) -> None:
    """Pool and test are apart, the same at every call, in the units of the file."""
    n, rng = np.array([2, 3, 1, 2, 3, 2]), np.random.default_rng(0)
    table = {"InternalEnergy_0K_au": -np.arange(6.0), "Dipole_debye": np.arange(6.0)}
    buffer = BytesIO()
    np.savez(buffer, n_atoms=n, Z=np.ones(13, int), R=rng.normal(size=(13, 3)).astype("f4"), **table)
    source = tmp_path / "qm9.npz.xz"
    source.write_bytes(lzma.compress(buffer.getvalue()))
    assert run.STUDIES[study].drawn == label
    files = drawn(source, label, tmp_path, (3, 2))
    before = [file.read_bytes() for file in files]
    pool, test = (read(file, ":") for file in files)
    values = [a.info["mu"] if label == "mu" else -a.get_potential_energy() for a in [*pool, *test]]
    assert (len(pool), len(test), len(set(values))) == (3, 2, 5)
    assert [len(a) for a in [*pool, *test]] == [n[int(v)] for v in values]
    assert [file.read_bytes() for file in drawn(source, label, tmp_path, (3, 2))] == before


def test_a_study_leaves_what_is_said_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "ROOT", tmp_path)
    data = Path(__file__).parents[1] / "data"
    words = ["run", "acac", "--data", str(data), "--runs", str(tmp_path / "runs"), "--quick", "--draws", "2"]
    monkeypatch.setattr("sys.argv", [*words, "--models", "baseline"])
    run.main()
    kept = tmp_path / "docs/results/studies/acac-equal-time-quick"
    about = json.loads((kept / "study.json").read_text())
    assert (about["done"], about["of"], about["study"]) == (6, 6, "acac-equal-time-quick")
    assert str(tmp_path) not in (kept / "study.json").read_text()
    assert {file.name for file in kept.iterdir()} == {*run.KEPT, "study.json"}
