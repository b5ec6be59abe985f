"""Fine-tuning that adds targets to a model or drops them: what it predicts otherwise does not change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from potential import Potential, Statistics, build, collate, from_atoms, load, predict, save
from potential.checkpoint import read as read_tensors
from potential.targets import TargetFacts
from train.cli import main
from train.config import Config, Fit
from train.data.dataset import Frame
from train.finetune import begin, trainable
from train.lowrank import LowRank
from train.new_targets import added, with_targets
from train.run import fit_settings, load_state, save_state, start
from train.sets import Sets
from train.target import Target
from train.target_facts import told_of_isolated

DIALS = {"channels": 12, "message_channels": 8, "vector_channels": 4, "cutoff": 4.0}
CHARGES = {"O": -0.8, "H": 0.4}
DIPOLE = TargetFacts("dipole", "1o", "structure", "e*Ang", (0.5,), ((), ()))
GAP = TargetFacts("gap", "0e", "mean", "eV", (0.3,), ((1.0,), (2.0,)))
Q = {"q": Target(irreps="0e", per="atom", unit="e")}


def waters(n: int, seed: int = 0) -> list[Atoms]:
    """Distorted molecules with the dipole of fixed charges, and made-up energies and forces."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(n):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(scale=0.1, size=(3, 3))
        charges = np.array([CHARGES[s] for s in atoms.symbols])
        atoms.calc = SinglePointCalculator(
            atoms, energy=-14 + rng.normal(), forces=rng.normal(size=(3, 3)), dipole=charges @ atoms.positions
        )
        atoms.arrays["q"] = charges
        rows.append(atoms)
    return rows


def frames(n: int = 6) -> list[Frame]:
    return [
        Frame(a, None, None, None, "w.xyz", k,
              targets={"dipole": np.array([a.get_dipole_moment()]), "q": a.arrays["q"][:, None]})
        for k, a in enumerate(waters(n))
    ]  # fmt: skip


def small(targets: tuple[TargetFacts, ...] = (), dtype: Any = torch.float32, **dials: Any) -> Potential:
    given = {**DIALS, **dials} if dials.get("network", "equivariant") == "equivariant" else dials
    return build(given, Statistics(("H", "O"), (-1.0, -2.0), 1.3, 3.0, targets), 1, dtype)


def both(one: Potential, other: Potential) -> tuple[Any, Any]:
    graph = collate([from_atoms(a, 4.0) for a in waters(3, seed=4)])
    return predict(one, graph), predict(other, graph)


def changed(model: Potential, targets: dict[str, Target], drop: tuple[str, ...] = ()) -> Potential:
    return with_targets(
        model, frames(), Config(targets=targets, fit=Fit(start="m", drop_targets=drop, seed=3))
    )


@pytest.mark.parametrize("network", ["equivariant", "painn", "schnet", "mace"])
def test_a_new_head_changes_no_bit_of_energies_and_forces(network: str) -> None:
    model = small(network=network)
    other = changed(model, Q)
    before, after = both(model, other)
    assert torch.equal(before.energy, after.energy)
    assert torch.equal(before.forces, after.forces)
    assert torch.equal(before.virial, after.virial)
    assert after.targets["q"].shape == (9, 1)
    (facts,) = other.statistics.targets
    assert np.array(facts.offset)[:, 0] == pytest.approx([0.4, -0.8], abs=1e-3)


def test_kept_heads_are_the_same_bits_wherever_they_stand() -> None:
    """One dropped, one kept, one new before it; the facts of the kept one are its own, not those of new frames."""
    model = small((GAP, DIPOLE), lmax_out=1)
    other = changed(model, {**Q, "dipole": Target()}, ("gap",))
    before, after = both(model, other)
    assert [one.name for one in other.statistics.targets] == ["q", "dipole"]
    assert other.statistics.targets[1] == DIPOLE
    assert torch.equal(before.forces, after.forces)
    assert torch.equal(before.targets["dipole"], after.targets["dipole"])
    bare = changed(model, {}, ("gap", "dipole"))
    assert bare.statistics.targets == ()
    assert torch.equal(both(model, bare)[1].energy, before.energy)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_orders_that_the_network_lacks(dtype: torch.dtype) -> None:
    """Vectors need a finer grid on the sphere: the same to rounding."""
    model = small(dtype=dtype)
    other = changed(model, {"dipole": Target()})
    assert other.network.config.lmax_out == 1
    before, after = both(model, other)
    close = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(before.energy, after.energy, rtol=close, atol=close)
    torch.testing.assert_close(before.forces, after.forces, rtol=close, atol=close)


def test_a_network_of_other_weights_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"dipole: .*\(m, mace\) would need other weights .*model.lmax_out=1"
    ):
        changed(small(network="mace"), {"dipole": Target()})


@pytest.mark.parametrize(
    ("targets", "drop", "words"),
    [
        ({}, (), r"dipole is not asked for; give --targets dipole gap, or say .*drop_targets=dipole"),
        ({"dipole": Target(per="mean")}, ("gap",), "dipole is asked for as 1o per mean; give"),
        ({"dipole": Target()}, ("gap", "dipole"), "dipole is asked for as well"),
        ({"dipole": Target()}, ("gab",), "gab is none of the model; did you mean 'gap'"),
    ],
)
def test_no_target_is_forgotten(targets: dict[str, Target], drop: tuple[str, ...], words: str) -> None:
    model = small((DIPOLE, GAP) if not targets else (GAP, DIPOLE), lmax_out=1)
    with pytest.raises(ValueError, match=words):
        added(model, Config(targets=targets, fit=Fit(start="m", drop_targets=drop)))


def test_new_weights_are_neither_frozen_nor_of_low_rank() -> None:
    model = small()
    other = changed(model, {"dipole": Target()})
    potential, _ = trainable(other, Fit(freeze=("layers", "head")), model)
    trains = {n for n, w in potential.named_parameters() if w.requires_grad}
    assert {n for n in trains if not n.startswith("targets.0.")} == {
        "network.layers.1.update.1", "network.layers.1.skip.1", "network.layers.1.skip_scale.1"
    }  # fmt: skip
    low, _ = trainable(changed(model, Q), Fit(lora_rank=1), model)
    assert isinstance(low, LowRank)
    assert low.names
    assert not any(name.startswith("targets.") for name in low.names)
    assert all(w.requires_grad for n, w in low.named_parameters() if n.startswith("targets."))
    with pytest.raises(ValueError, match="'targets' names nothing but new weights"):
        trainable(changed(model, Q), Fit(freeze=("targets",)), model)


def test_a_setting_that_came_later_has_its_default(tmp_path: Path) -> None:
    """A run that was saved before there was a setting goes on, unless the setting is given."""
    for given, words in (
        (Fit(), ""),
        (Fit(drop_targets=("dipole",)), r"other fit settings \(drop_targets\)"),
    ):
        old = {k: v for k, v in fit_settings(Fit()).items() if k != "drop_targets"}
        save_state(start(small(), Fit(), {"fit settings": old}), tmp_path / "state")
        run = start(small(), given, {"fit settings": fit_settings(given)})
        if words:
            with pytest.raises(ValueError, match=words):
                load_state(run, tmp_path / "state")
        else:
            load_state(run, tmp_path / "state")


# --- the command --------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model without targets, and data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("train.fit.seconds_per_step", lambda *_: 0.01)
    monkeypatch.setattr("train.finish.draw", lambda _: {})
    write(tmp_path / "w.xyz", waters(12))
    write(tmp_path / "test.xyz", waters(4, seed=2))
    save(small(), tmp_path / "start.safetensors")
    return tmp_path


TUNE = ["w.xyz", "--set", "fit.batch_size=4", "--test", "test.xyz"]


def test_added_and_dropped_by_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dipole for a model of energies; resumed; dropped again; and learned while the energies keep every bit."""
    line = [*TUNE, "--from", "start.safetensors", "--targets", "dipole"]
    assert main([*line, "--epochs", "4", "--output", "four"]) == 0, capsys.readouterr().err
    text = capsys.readouterr().out
    assert "targets dipole: added to the starting model" in text
    assert "lmax_out 1 instead of 0: for dipole" in text
    summary = json.loads(Path("four/summary.json").read_text())
    assert summary["errors"]["test"]["dipole_rmse"] > 0
    assert "dipole_rmse" not in summary["errors_before"]["test"]
    assert summary["errors_before"]["test"]["forces_rmse"] > 0
    assert main([*line, "--epochs", "2", "--output", "two"]) == 0
    assert main(["--resume", "--epochs", "4", "--output", "two"]) == 0, capsys.readouterr().err
    four, two = (read_tensors(f"{d}/state.safetensors")[1] for d in ("four", "two"))
    assert all(torch.equal(four[k], two[k]) for k in four)
    assert load("four/model.safetensors").statistics.targets[0].name == "dipole"
    again = [*TUNE, "--from", "four/model.safetensors", "--epochs", "1", "--output", "less"]
    assert main(again) == 1
    assert "--set fit.drop_targets=dipole" in capsys.readouterr().err
    assert main([*again, "--set", "fit.drop_targets=dipole"]) == 0, capsys.readouterr().err
    assert "targets dipole: dropped" in capsys.readouterr().out
    assert load("less/model.safetensors").statistics.targets == ()
    bare = waters(12, seed=5)
    for atoms in bare:
        atoms.calc.results = {"dipole": atoms.calc.results["dipole"]}
    write("bare.xyz", bare)
    alone = ["bare.xyz", *line[1:3], "--from", "start.safetensors", "--targets", "dipole", "--set"]
    assert main([*alone, "fit.freeze=['layers', 'head']", "--epochs", "3", "--output", "bare"]) == 0
    model = load("bare/model.safetensors")
    before, after = both(changed(load("start.safetensors"), {"dipole": Target()}), model)
    assert torch.equal(before.energy, after.energy)
    assert torch.equal(before.forces, after.forces)
    assert not torch.equal(before.targets["dipole"], after.targets["dipole"])


def test_what_needs_a_starting_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TUNE, "--epochs", "1", "--set", "fit.drop_targets=dipole"]) == 1
    assert "drop_targets and replay need a model to start from" in capsys.readouterr().err


def test_isolated_atoms_of_new_elements_and_of_known_ones() -> None:
    """A kept charge: sodium alone is +1 as labelled, not the mean of the others; hydrogen stays, and that is said."""
    charge = TargetFacts("q", "0e", "atom", "e", (0.3,), ((0.4,), (-0.8,)))
    start = small((charge,))
    alone = [
        Frame(Atoms(s), -1.0, None, None, "a.xyz", k, targets={"q": np.array([[q]])})
        for k, (s, q) in enumerate((("Na", 1.0), ("H", 0.1), ("Xe", 0.0)))
    ]
    salt = Frame(
        Atoms("NaO", [[0, 0, 0], [2.0, 0, 0]]), -3.0, None, None, "a.xyz", 9, targets={"q": np.zeros((2, 1))}
    )
    sets = Sets({"train": [*frames(), salt], "valid": frames()}, "", (), alone[:2], alone[2:])
    wide, _, _ = begin(start, sets, Config(targets=Q, fit=Fit(start="m")))
    assert wide.statistics.elements == ("H", "O", "Na")
    found = predict(wide, collate([from_atoms(Atoms(s), 4.0) for s in ("H", "O", "Na")])).targets["q"]
    torch.testing.assert_close(found.flatten(), torch.tensor([0.4, -0.8, 1.0], dtype=found.dtype))
    assert told_of_isolated(sets.alone, wide.statistics, start.statistics) == [
        "q of isolated Na: what the model gives an atom alone",
        "q of isolated H: not used, the starting model keeps what it gives an atom alone",
    ]
