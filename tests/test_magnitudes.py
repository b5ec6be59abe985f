"""Vectors of which only the length is known: read, measured, learned by any network, told of by their name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.io import write
from scipy.spatial.transform import Rotation

from potential import EquivCalculator, Statistics, build, collate, from_atoms, load, predict
from potential.targets import MAGNITUDE, TargetFacts, as_labelled
from train import target as setting
from train.batches import prepare
from train.cli import main
from train.config import Fit
from train.data.dataset import Frame, read
from train.data.keys import Keys
from train.doctor.targets import odd_targets, outliers
from train.loss import differences, penalties
from train.loss import units as units_of
from train.run import start
from train.step import gradient
from train.target import Target, dimension, order, resolved
from train.target_facts import target_facts

CHARGES = {"O": -0.8, "H": 0.4}
ASKED = resolved({"dipole": Target(irreps=MAGNITUDE)})
QUICK = ["--preset", "tiny", "--set", "fit.batch_size=8", "--set", "model.cutoff=4.0"]


def waters(n: int, seed: int = 0, unit: float = 1.0) -> list[Atoms]:
    """Distorted molecules in all directions, and the length of the dipole of fixed charges, as QM9 gives it."""
    rng, frames = np.random.default_rng(seed), []
    for _ in range(n):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(scale=0.08, size=(3, 3))
        atoms.positions = atoms.positions @ Rotation.random(random_state=rng).as_matrix().T
        charges = np.array([CHARGES[s] for s in atoms.symbols])
        atoms.info["mu"] = float(np.linalg.norm(charges @ atoms.positions) / unit)
        frames.append(atoms)
    return frames


def frames_of(rows: list[Atoms]) -> list[Frame]:
    return [
        Frame(a, None, None, None, "w", k, targets={"dipole": np.array([[a.info["mu"]]])})
        for k, a in enumerate(rows)
    ]


# --- what it is ---------------------------------------------------------------------------------------------


def test_a_label_is_one_number_of_a_vector(tmp_path: Path) -> None:
    assert (dimension(MAGNITUDE), order(ASKED), setting.MAGNITUDE) == (1, 1, MAGNITUDE)
    write(tmp_path / "w.xyz", waters(4, unit=units.Debye))
    asked = Keys(targets=resolved({"dipole": Target(irreps=MAGNITUDE, unit="Debye")}))
    frames, found = read(tmp_path / "w.xyz", asked)
    assert found.targets == {"dipole": "mu"}
    for frame, atoms in zip(frames, waters(4), strict=True):
        assert frame.targets["dipole"] == pytest.approx(np.array([[atoms.info["mu"]]]), rel=1e-6)


@pytest.mark.parametrize(
    ("mu", "irreps", "words"),
    [
        (-0.1, MAGNITUDE, "never negative"),
        (1.2, "", r"targets\.dipole\.irreps=magnitude"),
        ([1.0, 0.0, 0.0], MAGNITUDE, "shape"),
    ],
)
def test_what_is_no_length_is_refused(tmp_path: Path, mu: Any, irreps: str, words: str) -> None:
    write(tmp_path / "w.xyz", Atoms("H2", [[0, 0, 0], [0, 0, 0.8]], info={"mu": mu, "energy": -1.0}))
    with pytest.raises(ValueError, match=words):
        read(tmp_path / "w.xyz", Keys(targets=resolved({"dipole": Target(irreps=irreps)})))


def test_facts_are_those_of_the_vectors() -> None:
    """The scale is that of a component, the loss of a model that says nothing is 1, as for vectors."""
    rows = waters(40)
    vectors = [
        replace(f, targets={"dipole": np.array([[CHARGES[s] for s in f.atoms.symbols]]) @ f.atoms.positions})
        for f in frames_of(rows)
    ]
    (of_lengths,) = target_facts(frames_of(rows), ("H", "O"), ASKED)
    (of_vectors,) = target_facts(vectors, ("H", "O"), resolved({"dipole": Target()}))
    assert of_lengths.scale == pytest.approx(of_vectors.scale)
    assert of_lengths.spread == pytest.approx(3**0.5 * of_vectors.spread)
    assert (of_lengths.unit, of_lengths.dim, of_lengths.title) == ("e*Ang", 3, "dipole magnitude")
    samples = prepare(frames_of(rows), 4.0)
    graph = collate([s.graph for s in samples])
    nothing = predict(
        build({"lmax_out": 1}, Statistics(("H", "O"), (0.0, 0.0), 1.0, 3.0, (of_lengths,))), graph
    )
    nothing = replace(nothing, targets={"dipole": torch.zeros(40, 1)})
    label = torch.cat([s.target.others["dipole"] for s in samples])
    nan = torch.full((40,), torch.nan)
    target = replace(samples[0].target, energy=nan, forces=torch.full((120, 3), torch.nan),
                     stress=torch.full((40, 3, 3), torch.nan), others={"dipole": label})  # fmt: skip
    loss, n = penalties(
        differences(nothing, graph, target), Fit(), 1.0, None, units_of((of_lengths,), graph)
    )["dipole"]
    assert float(loss / n) == pytest.approx(1.0)


def test_isolated_atoms_of_a_length_have_a_direction_that_they_cannot_have() -> None:
    from train.target_facts import told_of_isolated, with_more

    alone = Frame(Atoms("H"), -1.0, None, None, "i", 0, targets={"dipole": np.array([[0.5]])})
    (facts,) = target_facts(frames_of(waters(4)), ("H", "O"), ASKED, [alone])
    (told,) = told_of_isolated([alone], Statistics(("H", "O"), (0.0, 0.0), 1.0, 3.0, (facts,)))
    assert "dipole of isolated H has a direction" in told
    assert with_more(facts, ["C"], [alone]).offset == ((), (), ())


# --- laws ---------------------------------------------------------------------------------------------------

FACTS = (TargetFacts("dipole", MAGNITUDE, "structure", "e*Ang", (0.3,), ((), ())),)


@pytest.mark.parametrize("network", ["equivariant", "painn", "nequip", "schnet", "egnn"])
def test_a_length_does_not_turn_and_its_vector_does(network: str) -> None:
    dials = {"equivariant": {"lmax_out": 1}, "nequip": {"lmax_out": 1, "channels": 4}}.get(
        network, {"channels": 8}
    )
    facts = Statistics(("H", "O"), (0.0, 0.0), 1.0, 2.0, FACTS)
    model = build({"network": network, "cutoff": 4.0, **dials}, facts, dtype=torch.float64)
    atoms = waters(1)[0]
    q = -Rotation.random(random_state=0).as_matrix()
    turned = Atoms(atoms.numbers, atoms.positions @ q.T)
    one, two = (predict(model, from_atoms(a, 4.0)).targets for a in (atoms, turned))
    assert float(one["dipole"].norm()) > 1e-4
    torch.testing.assert_close(two["dipole"], one["dipole"] @ torch.from_numpy(q.T), rtol=1e-9, atol=1e-12)
    lengths = [as_labelled(x, FACTS)["dipole"] for x in (one, two)]
    torch.testing.assert_close(lengths[0], lengths[1], rtol=1e-9, atol=0)
    torch.testing.assert_close(lengths[0], one["dipole"].norm(dim=1, keepdim=True))


def test_charges_of_an_invariant_network_are_neutral_and_times_positions() -> None:
    """m summed over atoms is sum q r with q_i = sum_j f (g_j - g_i) / reach, wherever the origin is."""
    from potential.radial import envelope

    facts = Statistics(("H", "O"), (0.0, 0.0), 1.0, 2.0, (replace(FACTS[0], scale=(1.0,)),))
    model = build({"network": "schnet", "channels": 8, "cutoff": 4.0}, facts, dtype=torch.float64)
    graph = from_atoms(waters(1)[0], 4.0)
    vectors, (head,) = graph.edge_vectors(), model.targets
    species = model.species_of[graph.atomic_numbers]
    g = head(model.network(vectors, species, graph.center, graph.neighbor)).squeeze(1).detach()
    fade = envelope(vectors.norm(dim=1), 4.0) / 4.0
    charges = torch.zeros(3).double().index_add(0, graph.center, fade * (g[graph.neighbor] - g[graph.center]))
    assert float(charges.abs().max()) > 1e-3
    assert float(charges.sum()) == pytest.approx(0, abs=1e-12)
    expected = charges @ (graph.positions + 7.0)
    torch.testing.assert_close(predict(model, graph).targets["dipole"][0], expected)


def test_the_gradient_is_finite_where_the_vector_is_zero() -> None:
    """An atom alone, and a molecule whose symmetry leaves no direction, beside one that has one."""
    linear = Atoms("H2", [[0, 0, -0.4], [0, 0, 0.4]], info={"mu": 0.3})
    rows = frames_of([Atoms("O", info={"mu": 0.2}), linear, *waters(1)])
    facts = Statistics(("H", "O"), (0.0, 0.0), 1.0, 2.0, FACTS, has_energy=False)
    model = build({"lmax_out": 1, "cutoff": 4.0, "channels": 8, "vector_channels": 4}, facts)
    run = start(model, Fit(batch_size=3), targets=ASKED)
    loss, sums = gradient(run, prepare(rows, 4.0), Fit(energy_weight=0.0, forces_weight=0.0))
    assert np.isfinite(loss)
    assert sums["dipole"][1] == 3
    grads = [p.grad for p in run.weights if p.grad is not None]
    assert all(bool(g.isfinite().all()) for g in grads)
    assert any(bool(g.any()) for g in grads)


# --- the doctor ---------------------------------------------------------------------------------------------


def test_a_wrong_unit_and_an_outlier_are_seen() -> None:
    right, wrong = frames_of(waters(40)), frames_of(waters(40, unit=units.Debye))
    assert not list(odd_targets(right, ASKED))
    (finding,) = odd_targets(wrong, ASKED)
    assert "targets.dipole.unit" in finding.text
    right[3].targets["dipole"][:] = 60.0
    ((_, text, frame),) = outliers(right, ASKED)
    assert (frame.index, "length" in text) == (3, True)


# --- training -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["equivariant", "schnet"])
def test_lengths_are_learned(network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                             monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name, n in (("train", 60), ("test", 20)):
        write(f"{name}.xyz", waters(n, seed=n, unit=units.Debye))
    line = [
        "train.xyz",
        "--test",
        "test.xyz",
        "--targets",
        "dipole",
        "--set",
        f"targets.dipole.irreps={MAGNITUDE}",
    ]
    line += [
        "--set",
        "targets.dipole.unit=Debye",
        "--network",
        network,
        "--epochs",
        "30",
        "--output",
        "run",
        *QUICK,
    ]
    assert main(line) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "60/60 under 'mu', taken as Debye, magnitude of each structure" in said
    assert "dipole magnitude RMSE 10^-3 e*Ang" in said
    found = json.loads(Path("run/summary.json").read_text())["errors"]["test"]
    assert found["dipole_rmse"] < 0.4 * found["dipole_deviation"]
    model, errors = load("run/model.safetensors"), []
    for atoms in waters(20, seed=20):
        atoms.calc = EquivCalculator(model)
        errors.append(np.linalg.norm(atoms.get_dipole_moment()) - atoms.info["mu"])
        assert atoms.get_dipole_moment().shape == (3,)
    assert 1e3 * np.sqrt(np.mean(np.square(errors))) == pytest.approx(found["dipole_rmse"], rel=1e-3)
    with h5py.File("run/predictions.h5") as file:
        group = file["test/targets/dipole"]
        assert dict(group.attrs) == {"irreps": MAGNITUDE, "per": "structure", "unit": "e*Ang"}
        assert group["predicted"].shape == (20, 1)
    page = Path("run/report.html").read_text()
    assert "dipole magnitude" in page
    assert "dipole component" not in page


def test_prepared_sets_hold_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, and a run has only to name the target."""
    from train.prepared.cli import main as prepare_set

    monkeypatch.chdir(tmp_path)
    write("train.xyz", waters(24, unit=units.Debye))
    asked = [
        "--targets",
        "dipole",
        "--set",
        f"targets.dipole.irreps={MAGNITUDE}",
        "--set",
        "targets.dipole.unit=Debye",
    ]
    assert prepare_set(["train.xyz", *asked, "--output", "set.h5"]) == 0
    for pool, more in (("train.xyz", asked), ("set.h5", asked[:2])):
        assert main([pool, *more, "--epochs", "2", "--output", f"run-{pool[:3]}", *QUICK]) == 0
    one, two = (json.loads(Path(f"run-{name}/summary.json").read_text())["errors"] for name in ("tra", "set"))
    assert one == two
