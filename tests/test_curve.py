"""potential-curve: plans, records, locks, engines; a study that is killed at any moment ends with the same table."""

from __future__ import annotations

import json
import lzma
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from train.curve import fitters, prepare, words
from train.curve.cli import main
from train.curve.contestants import contestants
from train.curve.engine import Where, run
from train.curve.frames import collect, errors_of, sums
from train.curve.fronts import points
from train.curve.ledger import Ledger, append, lines, locked
from train.curve.limits import limits
from train.curve.match import matched
from train.curve.prepare import resolved, subset
from train.curve.progress import time_left
from train.curve.protocol import length
from train.curve.published import labels
from train.curve.study import Job, Study, extended, read_study, save_study
from train.loop import VALIDATE_STEPS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames of acetylacetone for training and 6 at 600 K."""
    folder = tmp_path_factory.mktemp("pool")
    for name, file, n in (("pool", "train_300K", 40), ("hot", "test_MD_600K", 6)):
        text = lzma.decompress((ROOT / f"data/acac/{file}.xyz.xz").read_bytes()).decode().splitlines(True)
        (folder / f"{name}.xyz").write_text("".join(text[: 17 * n]))
    return folder


def command(pool: Path, output: Path, *more: str) -> list[str]:
    models = [] if "--models" in more else ["--models", "baseline"]
    small = ["--sizes", "10,20", "--seeds", "1", "--draws", "2", "--output", str(output)]
    return [str(pool / "pool.xyz"), "--test", str(pool / "hot.xyz"), *models, *small, *more]


def made_up(directory: Path, sizes: tuple[int, ...] = (10, 20), draws: int = 2) -> Study:
    """A study of the baseline without data."""
    fixed = {"tests": ["hot"], "protocol": "converged", "budget": 1.0, "settings": {}}
    study = Study(directory, sizes, draws, 1, {"baseline": {"fitter": "baseline", "asked": {}}}, fixed)
    directory.mkdir(parents=True, exist_ok=True)
    save_study(study)
    return study


# --- who and what -------------------------------------------------------------------------------------------


def test_contestants_are_networks_variants_and_others_with_dials() -> None:
    one, two, three = contestants(["equivariant-L0,baseline", "equivariant:n_layers=1:fit.ema=0.9"])
    assert one.sections() == {"model": {"network": "equivariant", "hidden_lmax": 0}}
    assert (two.fitter, two.sections()) == ("baseline", {})
    assert three.sections() == {"model": {"network": "equivariant", "n_layers": 1}, "fit": {"ema": 0.9}}
    assert three.name == "equivariant:n_layers=1:fit.ema=0.9"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("equivarant", "did you mean 'equivariant'"),
        ("equivariant:cutoff", "dial=value"),
        ("equivariant:data.train=x", "not of"),
        ("baseline,baseline", "twice"),
        ("", "no model"),
    ],
)
def test_contestants_that_cannot_be_are_refused(name: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        contestants([name])


def test_subsets_are_nested_and_differ_between_draws() -> None:
    small, large = set(subset(100, 10, 0)), set(subset(100, 50, 0))
    assert small < large
    assert len(small) == 10
    assert set(subset(100, 50, 1)) != large
    assert subset(100, 100, 0) == list(range(100))


def test_sizes() -> None:
    assert resolved([], 130) == (25, 50, 100, 130)
    for wrong, complaint in (("200", "has 130 frames"), ("ten", "expected"), ("2", "from 3")):
        with pytest.raises(ValueError, match=complaint):
            resolved([wrong], 130)


def test_whole_curves_come_first_and_every_fit_of_a_size_has_its_own_seed(tmp_path: Path) -> None:
    study = replace(made_up(tmp_path), seeds=2)
    jobs = study.jobs
    assert {job.size for job in jobs[:2]} == {10, 20}
    assert len({job.fit_seed for job in jobs if job.size == 10}) == 4
    assert read_study(tmp_path).jobs == replace(study, seeds=1).jobs


def test_studies_grow_but_never_change(tmp_path: Path) -> None:
    old = made_up(tmp_path)
    more = {"equivariant": {"fitter": "network", "asked": {}}, **old.models}
    grown = extended(old, replace(old, sizes=(5, 20), draws=3, seeds=1, models=more))
    assert grown.sizes == (5, 10, 20)
    assert (grown.draws, len(grown.models)) == (3, 2)
    with pytest.raises(ValueError, match="other budget"):
        extended(old, replace(old, fixed={**old.fixed, "budget": 2.0}))
    with pytest.raises(ValueError, match="other asked"):
        extended(old, replace(old, models={"baseline": {"fitter": "baseline", "asked": {"a": 1}}}))


def test_lengths_follow_the_protocol() -> None:
    assert length("equal-epochs", 200, 7, (1, 1))["epochs"] == 200
    steps = length("equal-steps", 1000, 8, (1, 1))
    assert steps["epochs"] == steps["patience"] == 125
    assert length("equal-time", 100.0, 10, (0.1, 0.5))["epochs"] == round(100 / (10 * 0.1 + 0.5 * 10 / 50))
    assert length("equal-time", 100.0, 100, (0.1, 0.5))["epochs"] == round(100 / 10.5)
    converged = length("converged", 1000, 10, (1, 1))
    assert (converged["epochs"], converged["schedule"]) == (100, "plateau")
    assert converged["plateau_patience"] < converged["patience"] < converged["epochs"]
    assert (
        length("converged", 20, 10, (1, 1))["patience"] * 10 >= 8 * VALIDATE_STEPS
    )  # a short one is validated too


def test_widths_are_matched_within_a_few_percent() -> None:
    def cost(dials: dict[str, int]) -> float:
        return float(dials["channels"] ** 2 + 5 * dials["message_channels"])

    model = {"network": "x", "channels": 64, "message_channels": 32, "n_layers": 2}
    dials, reached = matched(model, 900.0, cost)
    assert 0.95 < reached < 1.05
    assert dials["n_layers"] == 2
    assert cost(dials) / 900 == reached
    with pytest.raises(ValueError, match="number of channels"):
        matched({"network": "x", "n_layers": 2}, 1.0, cost)


def test_what_is_solved_at_once_has_no_step_to_match(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["--models", "ace:functions=20,baseline", "--match", "time"]
    assert main(command(pool, tmp_path / "ace", *both)) == 1
    assert "ace:functions=20, the reference, has none" in capsys.readouterr().err
    schnet = "schnet:channels=4:n_layers=1"
    words = ["--models", f"ace:functions=20,{schnet}", "--match", "time", "--reference", schnet]
    fits = ["--protocol", "equal-steps", "--budget", "1", "--quick"]
    assert main(command(pool, tmp_path / "both", *words, *fits)) == 0
    models = read_study(tmp_path / "both").models
    assert models["ace:functions=20"]["settings"]["model.functions"] == 20


# --- records ------------------------------------------------------------------------------------------------


def test_sums_of_known_errors() -> None:
    n_atoms = np.array([1, 3])
    forces, nothing = np.zeros((4, 3, 2)), np.full((2, 3, 3, 2), np.nan)
    forces[1:, :, 1] = 0.002
    found = sums(n_atoms, np.array([[0, 0.001], [0, 0.006]]), forces, nothing)
    assert found["energy/2"] == pytest.approx([1, 4])
    assert found["forces/1"] == pytest.approx([0, 18])
    assert found["forces/n"].tolist() == [3, 9]
    assert errors_of(found)["forces"] == pytest.approx({"rmse": np.sqrt(36 / 12), "mae": 1.5})
    assert "stress" not in errors_of(found)


def test_predictions_that_are_not_finite_fail_but_stress_without_periodicity_is_left_out() -> None:
    n_atoms, energy, forces = np.array([1, 1]), np.zeros((2, 2)), np.zeros((2, 3, 2))
    stress = np.zeros((2, 3, 3, 2))
    stress[0, :, :, 1] = np.nan
    assert sums(n_atoms, energy, forces, stress)["stress/n"].tolist() == [0, 9]
    forces[0, 0, 0] = np.nan  # no label
    assert sums(n_atoms, energy, forces, stress)["forces/n"].tolist() == [2, 3]
    for bad in (np.nan, np.inf):
        forces[1, 2, 1] = bad
        with pytest.raises(ValueError, match="forces of test frame 1 is predicted as"):
            sums(n_atoms, energy, forces, stress)


def test_half_a_line_is_passed_over_and_the_next_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append(path, {"job": "a", "x": 1})
    with path.open("a") as file:
        file.write('{"job": "b", "x"')
    append(path, {"job": "c"})
    assert [line["job"] for line in lines(path)] == ["a", "c"]


def test_lock_belongs_to_one(tmp_path: Path) -> None:
    with locked(tmp_path / "lock", wait=False) as mine, locked(tmp_path / "lock", wait=False) as other:
        assert (mine, other) == (True, False)
    with locked(tmp_path / "lock", wait=False) as again:
        assert again


def test_time_left_is_that_of_fits_like_those_to_come(tmp_path: Path) -> None:
    study = made_up(tmp_path)
    results = {"baseline-n10-d0-s0": {"model": "baseline", "size": 10, "wall": 2.0},
               "baseline-n20-d0-s0": {"model": "baseline", "size": 20, "wall": 6.0}}  # fmt: skip
    assert time_left(study, results, 2) == pytest.approx((2 + 6) / 2)
    assert time_left(study, {}, 1) is None


# --- whole studies ------------------------------------------------------------------------------------------


def test_study_is_done_once_and_grows(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    known = fitters.FITTERS["baseline"]

    def counted(study: Study, job: Job) -> fitters.Fit:
        calls.append(job.name)
        if len(calls) == 2:
            raise RuntimeError("bad luck")
        return known(study, job)

    monkeypatch.setitem(fitters.FITTERS, "baseline", counted)
    assert main(command(pool, tmp_path / "s")) == 0
    said = capsys.readouterr().out
    assert "4 of 4" in said
    assert "failed: baseline-n20-d0-s0: RuntimeError: bad luck" in said
    assert len(calls) == 5  # one of them twice
    before = (tmp_path / "s/results.jsonl").read_text()
    assert main(command(pool, tmp_path / "s")) == 0
    assert (tmp_path / "s/results.jsonl").read_text() == before
    assert main([*command(pool, tmp_path / "s"), "--sizes", "30"]) == 0
    assert len(Ledger(tmp_path / "s").results()) == 6
    assert main([*command(pool, tmp_path / "s"), "--budget", "7"]) == 1
    assert "other budget" in capsys.readouterr().err
    for name in ("analysis.json", "errors.csv", "curves.csv", "report.html"):
        assert (tmp_path / "s" / name).stat().st_size > 0
    study = read_study(tmp_path / "s")
    errors = collect(study, study.jobs, "hot", ("forces", "rmse"))
    assert errors is not None
    assert errors.sums.shape == (6, 6)
    blocks = collect(study, study.jobs, "hot", ("forces", "rmse"), block=4)
    assert blocks is not None
    assert blocks.counts.tolist() == [180, 90]
    assert blocks.sums.sum() == pytest.approx(errors.sums.sum())


def test_published_errors_stand_beside(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, file = tmp_path / "s", tmp_path / "published.csv"
    head = "label,test,quantity,measure,frames,error,source\n"
    file.write_text(head + "A,hoot,forces,rmse,50,17,x\n")
    assert main([*command(pool, study), "--published", str(file)]) == 1
    assert not study.exists()  # before anything is fitted
    rows = "A <b>,hot,forces,rmse,50,17.25,a paper\nB,hot,forces,mae,50,3,a paper\n"
    file.write_text(head + rows, encoding="utf-8-sig")  # as spreadsheets write it
    assert main([*command(pool, study), "--published", str(file)]) == 0, capsys.readouterr().err
    assert "published.csv: 1 rows of another measure than rmse left out" in capsys.readouterr().out
    page = (study / "report.html").read_text()
    assert "17.25" in page
    assert "A &lt;b&gt;" in page
    assert "A <b>" not in page
    (one,) = json.loads((study / "analysis.json").read_text())["published"]
    assert (one["frames"], one["error"]) == (50, 17.25)
    capsys.readouterr()
    for rows, complaint in {
        "A,hoot,forces,rmse,50,17,x": "published.csv:2: test 'hoot' is none of hot; did you mean 'hot'?",
        "A,hot,forces,rmse,50,-1,x": "published.csv:2: 50 frames, error -1.0; both must be positive",
        "A,hot,forces,rmse,fifty,1,x": "published.csv:2: invalid literal",
        "A,hot,forces": "measure None is none of rmse, mae",
    }.items():
        file.write_text(head + rows + "\n")
        assert main(["--report", "--output", str(study), "--published", str(file)]) == 1
        assert complaint in capsys.readouterr().err
    file.write_text("label,test\nA,hot\n")
    assert main(["--report", "--output", str(study), "--published", str(file)]) == 1
    assert "has no column quantity" in capsys.readouterr().err


def test_published_errors_that_are_close_share_a_line() -> None:
    points = (("a", 9, 1.0), ("b", 9, 1.1), ("c", 5, 1.0), ("d", 9, 3.0), ("e", 8, 1.1))
    rows = [{"label": name, "frames": n, "error": error} for name, n, error in points]
    assert labels(rows, (0.1, 10.0)) == ["", "b, e, a", "c", "d", ""]
    assert labels(rows, (0.9, 3.3)) == ["a", "b, e", "c", "d", ""]


def test_a_fit_that_always_fails_is_named_and_the_rest_is_done(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = fitters.FITTERS["baseline"]

    def broken(study: Study, job: Job) -> fitters.Fit:
        if job.size == 20 and job.draw == 1:
            raise ValueError("never works")
        return known(study, job)

    monkeypatch.setitem(fitters.FITTERS, "baseline", broken)
    assert main(command(pool, tmp_path)) == 1
    assert "baseline-n20-d1-s0 is not done: ValueError: never works" in capsys.readouterr().err
    assert len(Ledger(tmp_path).results()) == 3
    assert sum("failed" in line for line in lines(tmp_path / "attempts.jsonl")) == 2


def test_without_a_test_file_some_of_the_pool_are_held_out(pool: Path, tmp_path: Path) -> None:
    words = [str(pool / "pool.xyz"), "--models", "baseline", "--sizes", "all", "--draws", "1", "--seeds", "1"]
    assert main([*words, "--output", str(tmp_path)]) == 0
    study = read_study(tmp_path)
    assert study.sizes == (32,)
    assert study.fixed["tests"] == ["held_out"]


def test_groups_cannot_be_held_out_frame_by_frame(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(pool / "pool.xyz"), "--models", "baseline", "--set", "data.split=blocks"]
    assert main([*words, "--output", str(tmp_path)]) == 1
    assert "data.split = blocks, and no test file" in capsys.readouterr().err


def test_data_of_a_start_that_failed_are_not_used(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first start, of other files, is killed before study.json is written."""

    def killed(study: Study) -> None:
        raise KeyboardInterrupt

    output = tmp_path / "s"
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "save_study", killed)
        assert (
            main([str(pool / "hot.xyz"), "--models", "baseline", "--sizes", "3", "--output", str(output)])
            == 130
        )
    assert (output / "data/held_out.h5").is_file()
    assert main(command(pool, output)) == 0
    assert sorted(path.name for path in (output / "data").glob("*.h5")) == [
        "draw0-n10.h5", "draw0-n20.h5", "draw1-n10.h5", "draw1-n20.h5", "hot.h5"
    ]  # fmt: skip


def test_pool_tests_and_labels_belong_to_the_study(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another order of files, files in other roles and other labels are another study; a reference of nothing not."""
    lines = (pool / "pool.xyz").read_text().splitlines(True)
    for name, part in (("a", lines[: 17 * 20]), ("b", lines[17 * 20 :])):
        (tmp_path / f"{name}.xyz").write_text("".join(part))
    a, b, hot = (str(path) for path in (tmp_path / "a.xyz", tmp_path / "b.xyz", pool / "hot.xyz"))
    small = [
        "--sizes",
        "5",
        "--seeds",
        "1",
        "--draws",
        "1",
        "--models",
        "baseline",
        "--output",
        str(tmp_path / "s"),
    ]
    assert main([a, b, "--test", hot, *small]) == 0
    for files in ([b, a, "--test", hot], [a, hot, "--test", b]):
        assert main([*files, *small]) == 1
        assert "other files" in capsys.readouterr().err
    assert main([a, b, "--test", hot, *small, "--forces-key", "none"]) == 1
    assert "other labels" in capsys.readouterr().err
    old = read_study(tmp_path / "s")
    assert extended(old, replace(old, fixed={**old.fixed, "reference": "painn"})).fixed == old.fixed
    with pytest.raises(ValueError, match="other match"):
        extended(old, replace(old, fixed={**old.fixed, "reference": "painn", "match": "time"}))


def test_frames_of_a_test_in_the_pool_are_refused(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (pool / "pool.xyz").read_text().splitlines(True)
    (tmp_path / "leak.xyz").write_text("".join(lines[17:34]))
    assert main([*command(pool, tmp_path / "s"), "--test", str(tmp_path / "leak.xyz")]) == 1
    assert "1 frames of the test leak are in the pool too" in capsys.readouterr().err


def test_subsets_without_an_element_of_the_test_are_refused(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only_first = next(k for k in subset(40, 10, 0) if k not in subset(40, 10, 1))
    for name, frame in (("pool", only_first), ("hot", 0)):
        lines = (pool / f"{name}.xyz").read_text().splitlines(True)
        own = slice(17 * frame, 17 * (frame + 1))
        lines[own] = ["N" + line[1:] if line.startswith("O ") else line for line in lines[own]]
        (tmp_path / f"{name}.xyz").write_text("".join(lines))
    assert main(command(tmp_path, tmp_path / "s")) == 1
    assert " of draw 1 has no N, which the test hot has" in capsys.readouterr().err
    with (tmp_path / "pool.xyz").open("a") as f:  # an isolated atom is no frame that a fit learns from
        f.write('1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1480.0 pbc="F F F"\nN 0 0 0 0 0 0\n')
    assert main(command(tmp_path, tmp_path / "t")) == 1
    assert " of draw 1 has no N, which the test hot has" in capsys.readouterr().err


def test_the_split_that_no_fit_takes_is_not_told_of(pool: Path, tmp_path: Path) -> None:
    lines = (pool / "pool.xyz").read_text().splitlines(True)
    (tmp_path / "pool.xyz").write_text("".join(lines * 2))
    (tmp_path / "hot.xyz").write_text((pool / "hot.xyz").read_text())
    assert main(command(tmp_path, tmp_path / "s")) == 0
    assert not [text for text in read_study(tmp_path / "s").facts["warnings"] if "also train" in text]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--set", "fit.epochs=3"], "follow from"),
        (["--models", "baseline,painn:fit.epochs=3"], "painn:fit.epochs=3: fit.epochs: seeds"),
        (["--set", "fit.schedule=cosine"], "follow from"),
        (["--workers", "8"], "--engine process"),
        (["--reference", "painn"], "none of the --models"),
        (["--draws", "0"], "must be positive"),
        (["--sizes", "1000"], "has 40 frames"),
    ],
)
def test_wrong_words_are_refused(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], complaint: str
) -> None:
    assert main(command(pool, tmp_path / "s", *more)) == 1
    assert complaint in capsys.readouterr().err
    assert main(["--report", "--output", str(tmp_path / "none")]) == 1


TOY = """
import sys, time
from pathlib import Path
import numpy as np
from train.curve import fitters, words
from train.curve.engine import Where, run
from train.curve.study import read_study

def toy(study, job):
    begun = study.run_directory(job)
    begun.mkdir(parents=True, exist_ok=True)
    time.sleep(0.004)
    rng = np.random.default_rng([job.size, job.draw, job.seed])
    found = {"forces/2": rng.gamma(2.0, size=5) / job.size, "forces/1": np.ones(5), "forces/n": np.full(5, 3.0)}
    return fitters.Fit({"hot": found}, {"seconds": 0.0, "ended": "solved"})

fitters.FITTERS["baseline"] = toy
print("ready", flush=True)
sys.exit(bool(run(read_study(Path(sys.argv[1])), Where(retries=20), lambda text: print(text, flush=True))))
"""


def toy(directory: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", TOY, str(directory)]
    return subprocess.Popen(words, cwd=ROOT, text=True, stdout=subprocess.PIPE)


def outcome(directory: Path) -> dict[str, tuple[str, list[float]]]:
    """Errors of every job, and what the bootstrap gets."""
    study = read_study(directory)
    errors = collect(study, study.jobs, "hot", ("forces", "rmse"))
    assert errors is not None
    results = Ledger(directory).results()
    return {
        job.name: (json.dumps(results[job.name]["errors"]), errors.sums[k].tolist())
        for k, job in enumerate(study.jobs)
    }


def test_killed_ten_times_the_table_is_the_same(tmp_path: Path) -> None:
    rng = random.Random(0)
    sizes, draws = tuple(range(10, 31)), 7
    made_up(tmp_path / "whole", sizes, draws)
    assert toy(tmp_path / "whole").communicate()[0].count(" of 147: ") == 147
    study = made_up(tmp_path / "killed", sizes, draws)
    for kill in range(10):
        process = toy(study.directory)
        assert process.stdout
        for _ in range(rng.randrange(1, 12)):
            process.stdout.readline()
        time.sleep(rng.random() * 0.01)
        process.kill()
        process.communicate()
        done = len(Ledger(study.directory).results())
        assert done < 147, f"done before kill {kill}"
    last = toy(study.directory)
    last.communicate()
    assert last.returncode == 0
    assert outcome(study.directory) == outcome(tmp_path / "whole")


def test_losing_a_worker_loses_only_its_job(pool: Path, tmp_path: Path) -> None:
    """Two processes; one is killed at its first job."""
    assert main(command(pool, tmp_path, "--sizes", "10")) == 0
    study = replace(read_study(tmp_path), sizes=(10, 20), draws=2, seeds=6)
    small = tmp_path / "data/draw0-n10.h5"
    for job in study.jobs:
        study.subset(job).write_bytes(small.read_bytes())
    save_study(study)
    said: list[str] = []
    failed: dict[str, str] = {}
    where = Where("process", workers=2, retries=2)
    thread = threading.Thread(target=lambda: failed.update(run(study, where, said.append)))
    old = len(lines(tmp_path / "attempts.jsonl"))
    thread.start()
    until(lambda: len(lines(tmp_path / "attempts.jsonl")) > old)
    victim = lines(tmp_path / "attempts.jsonl")[-1]["pid"]
    os.kill(victim, signal.SIGKILL)
    thread.join(120)
    assert failed == {}
    assert any("a worker was lost" in text for text in said)
    assert {job.name for job in study.jobs} <= Ledger(tmp_path).results().keys()
    pids = {line["pid"] for line in lines(tmp_path / "attempts.jsonl")[old:] if "pid" in line}
    assert len(pids) >= 2


def until(what: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_workers_that_cannot_start_stop_the_study(tmp_path: Path) -> None:
    study = made_up(tmp_path)
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(ValueError, match="before they begin"):
        run(study, Where("process"), print)


def test_submitit_runs_workers(pool: Path, tmp_path: Path) -> None:
    more = ["--engine", "submitit", "--engine-option", "cluster=local", "--engine-option", "timeout_min=5"]
    assert main(command(pool, tmp_path, *more)) == 0
    assert len(Ledger(tmp_path).results()) == 4
    assert list((tmp_path / "logs/submitit").iterdir())


def test_networks_killed_in_a_fit_end_with_the_same_errors(pool: Path, tmp_path: Path) -> None:
    """Real fits: SIGKILL while one trains, after its first save."""
    small = [
        "--models",
        "equivariant:channels=4:message_channels=4:vector_channels=2:cutoff=3.0",
        "--draws",
        "1",
    ]
    words = ["--sizes", "10", "--protocol", "equal-steps", "--budget", "240", *small]
    code = "import sys; from train.curve.cli import main; sys.exit(main(sys.argv[1:]))"
    assert main(command(pool, tmp_path / "whole", *words)) == 0
    killed = tmp_path / "killed"
    begin = ["env", "OMP_NUM_THREADS=1", sys.executable, "-c", code, *command(pool, killed, *words)]

    def kill_when(name: str) -> None:
        process = subprocess.Popen(begin, cwd=ROOT, stdout=subprocess.DEVNULL)
        until(lambda: bool(list(killed.glob(f"fits/*/{name}"))) or process.poll() is not None)
        process.kill()
        process.wait()

    kill_when("trunk.safetensors")
    assert main(command(pool, killed, *words)) == 0
    assert outcome(killed) == outcome(tmp_path / "whole")
    begun = [line for line in lines(killed / "attempts.jsonl") if "failed" not in line]
    assert len(begun) >= 2


# --- what is said -------------------------------------------------------------------------------------------


def test_front_is_what_nothing_beats() -> None:
    models = {"a": {"sizes": [10, 20], "errors": [[5.0], [3.0]]}, "b": {"sizes": [10], "errors": [[4.0]]}}
    fits = [{"model": "a", "size": 10, "cpu_seconds": 1.0, "us_per_atom": 2.0}]
    fits += [{"model": "a", "size": 20, "cpu_seconds": 3.0, "us_per_atom": 4.0}]
    fits += [{"model": "b", "size": 10, "cpu_seconds": 4.0, "us_per_atom": 1.0}]
    found = {"tests": {"t": {"forces": {"models": models}}}, "fits": fits, "study": {"sizes": [10, 20]}}
    training = {(p.model, p.size): p.best for p in points(found, "t", "forces", "cpu_seconds")}
    assert training == {("a", 10): True, ("a", 20): True, ("b", 10): False}
    found["fits"] = [{**fit, "cpu_seconds": 0.0 if fit["model"] == "b" else 1.0} for fit in fits]
    assert ("b", 10) in {(p.model, p.size) for p in points(found, "t", "forces", "cpu_seconds")}  # a fast one
    use = {(p.model, p.size): p.time for p in points(found, "t", "forces", "us_per_atom")}
    assert use == {("a", 10): 3.0, ("a", 20): 3.0, ("b", 10): 1.0}


def test_batches_are_said_of_each_model_where_they_differ() -> None:
    network = {"fitter": "network", "settings": {}}
    models = {"a": network, "zero": {"fitter": "baseline"}}
    study = {"fixed": {"settings": {"fit": {"batch_size": 5, "batch_atoms": 0}}}, "models": models}
    assert words.batches(study) == "Batches of at most 5 structures at every size."
    models["b"] = network | {"settings": {"fit.batch_size": 2}}
    assert words.batches(study) == "Batches of at most 5 structures (a); 2 structures (b) at every size."


def test_numbers_are_said_with_their_bounds() -> None:
    assert words.value([3.14, 2.6, 3.9], relative=True) == "3.14x [2.6, 3.9]"
    assert words.value([12.0, 3.0, np.inf], "meV/Å") == "12 meV/Å [3, no bound]"
    assert words.value([5.0, np.nan, np.nan]) == "5 [interval not known]"
    assert words.value([np.inf, np.inf, np.inf]) == "never"


def test_what_no_curve_reaches_is_not_put_into_numbers() -> None:
    needs = {"a": 50.0, "b": 300.0, "c": 1e9, "d": 1e9}
    rows = [
        {"model": m, "needed": [n, 1.0, np.inf], "more": [max(0.0, n - 100), 0.0, np.inf]}
        for m, n in needs.items()
    ]
    for row in rows:
        row |= {"first": 25.0, "last": 100.0, "inside": row["model"] == "a", "falls": row["model"] != "d"}
    ratios = [{"one": "a", "other": m, "ratio": [6.0, 2.0, 9.0]} for m in "bc"]
    said = words.findings({"targets": [{"error": 20.0, "models": rows, "ratios": ratios}] * 2}, "meV/Å")
    each = [
        "b needs 6x [2, 9] as many frames as a for 20 meV/Å (extrapolated).",
        "To reach 20 meV/Å, b needs 200 [0, no bound] more calculations.",
        "c does not come to 20 meV/Å within 1000 times its data.",
    ]
    assert said == [*each, *each, "Errors of d do not fall with N: nothing can be forecast of them."]


def test_limits_of_what_was_fitted() -> None:
    """Fits that did not converge, models that are not as large as was asked for, leaks."""
    models = {
        "painn": {"parameters": 1000},
        "egnn": {"parameters": 1300, "matched": 1.3},
        "schnet": {"parameters": 1010, "matched": 1.01},
        "snap": {"parameters": 56},
        "baseline": {},
    }
    fixed = {
        "protocol": "converged",
        "pool": 100,
        "match": "parameters",
        "reference": "painn",
        "tests": ["hot"],
    }
    study = {
        "sizes": [10],
        "draws": 3,
        "models": models,
        "fixed": fixed,
        "facts": {"warnings": ["2 are equal"]},
    }
    one = {"frames": 80, "hidden": {"of": 0}}
    found = {
        "study": study,
        "tests": {"hot": {"forces": one}},
        "block": 10,
        "failed": {},
        "fits": [{"ended": "bound"}, {"ended": "converged"}, {}],
    }
    said = limits(found)
    assert said[1].endswith("here it was not checked on hidden sizes.")
    assert said[2].startswith(
        "1 of 2 trainings were stopped by the bound before their validation error had settled."
    )
    assert said[3:] == [
        "Not as large as the reference: egnn (130 % in parameters), snap (56 parameters); differences may be of "
        "capacity.",
        "Of the data: 2 are equal.",
    ]
    fixed["match"] = "time"  # of which one that is solved has none
    assert limits(found)[3].startswith("Not as large as the reference: egnn (130 % in the time of a step); ")
    fixed |= {"protocol": "equal-steps", "match": "none"}
    one["hidden"] = {"of": 4}
    said = limits(found)
    assert said[1].endswith("beside the forecasts stands how it did on hidden sizes.")
    assert not any("bound" in line or "reference" in line for line in said)
