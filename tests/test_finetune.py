"""Starting from a saved potential: what is kept, what is new, what is frozen, and what comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read, write

from potential import Potential, Statistics, build, from_atoms, load, predict, save
from potential.checkpoint import read as read_tensors
from potential.networks import LINEAR, NETWORKS
from train.batches import prepare
from train.cli import main
from train.config import Config, Data, Fit, Weights
from train.data.dataset import Frame
from train.finetune import begin, errors_before, extended, trainable, with_e0
from train.fit import Job, identity, prepare_job
from train.lowrank import LowRank, ordinary
from train.parallel import Ranks
from train.prepared.cli import main as prepare_set
from train.refit import NewData, refit_e0
from train.replay import lighter
from train.sets import Sets
from train.statistics import E0Fit

DATA = Path(__file__).parents[1] / "data"
E0 = (-13.6, -1030.0, -2040.0)
DIALS = {"channels": 12, "message_channels": 8, "vector_channels": 4, "cutoff": 3.0}


def small(elements: tuple[str, ...] = ("H", "C", "O"), network: str = "equivariant") -> Potential:
    config = {"network": network, **(DIALS if network == "equivariant" else {})}
    return build(config, Statistics(elements, E0[: len(elements)], 1.3, 9.0), 1, torch.float64)


def molecule(symbols: str = "COHHHH", seed: int = 0) -> Atoms:
    return Atoms(symbols, np.random.default_rng(seed).uniform(0, 2.5, (Atoms(symbols).positions.shape)))


def frames(potential: Potential, move: dict[str, float], symbols: tuple[str, ...]) -> list[Frame]:
    """Structures whose energies are those of a potential, moved by so much per atom of each element."""
    out = []
    for k, s in enumerate(symbols):
        atoms = molecule(s, k)
        energy = float(predict(potential, from_atoms(atoms, potential.cutoff)).energy)
        energy += sum(move.get(x, 0.0) for x in atoms.symbols)
        out.append(Frame(atoms, energy, None, None, "new.xyz", k))
    return out


@pytest.mark.parametrize("network", [n for n in NETWORKS if n not in LINEAR])
def test_new_elements_change_nothing_for_the_known_ones(network: str) -> None:
    start = small(network=network)
    wide = extended(start, ["C", "N", "S"])
    assert wide.statistics.elements == ("H", "C", "O", "N", "S")
    assert wide.statistics.scale == start.statistics.scale
    graph = from_atoms(molecule(), start.cutoff)
    one, two = predict(start, graph), predict(wide, graph)
    torch.testing.assert_close(one.energy, two.energy, rtol=0, atol=1e-10)
    torch.testing.assert_close(one.forces, two.forces, rtol=0, atol=1e-10)


def test_a_new_element_begins_as_the_mean_of_the_known_ones() -> None:
    start = small(("H", "C"))
    wide = with_e0(extended(start, ["N"]), {"H": 0.0, "C": 0.0, "N": 0.0})
    mix = wide.get_parameter("network.layers.0.density.couplings.0.mix").unflatten(1, (-1, 3))
    torch.testing.assert_close(mix[:, :, 2], mix[:, :, :2].mean(2))
    offset = wide.get_parameter("network.layers.1.product.offset").unflatten(0, (-1, 3))
    torch.testing.assert_close(offset[:, 2], offset[:, :2].mean(1))
    atoms = molecule("NHC")
    assert float(predict(wide, from_atoms(atoms, 3.0)).energy) != 0
    assert float(predict(wide, from_atoms(Atoms("N"), 3.0)).energy) == 0  # alone it has its E0


@pytest.mark.parametrize(
    ("how", "move", "expected"),
    [
        ("auto", {"H": 0.5, "C": -2.0, "O": 4.0}, {"H": 0.5, "C": -2.0, "O": 4.0}),  # another method
        ("auto", {"H": 0.01, "C": 0.02, "O": -0.01}, {}),  # the model's own errors
        ("always", {"H": 0.01, "C": 0.02, "O": -0.01}, {"H": 0.01, "C": 0.02, "O": -0.01}),
        ("never", {"H": 0.5, "C": -2.0, "O": 4.0}, {}),
    ],
)
def test_e0_moves_to_another_method(how: str, move: dict[str, float], expected: dict[str, float]) -> None:
    start = small()
    data = frames(start, move, ("COHHHH", "CCHH", "OOH", "COH", "HHHO", "CCCO"))
    found = refit_e0(start, NewData(data, [], {}), ("H", "C", "O"), Fit(refit_e0=how))
    for s, before in zip("HCO", E0, strict=True):
        assert found.e0[s] == pytest.approx(before + expected.get(s, 0.0), abs=2e-3), s
    given = refit_e0(start, NewData(data, [], {"O": -7.0}), ("H", "C", "O"), Fit(refit_e0="never"))
    assert given.e0 == {"H": E0[0], "C": E0[1], "O": -7.0}
    assert given.sources["O"] == "given"


def test_e0_of_a_new_element() -> None:
    """From least squares on what the others leave, or from an isolated atom; elements not in the new data stay."""
    wide = extended(small(), ["N"])
    truth = with_e0(extended(small(), ["N"]), {"H": E0[0], "C": E0[1], "O": E0[2], "N": -1480.0})
    data = frames(truth, {}, ("NHHH", "CNH", "NNHH"))
    found = refit_e0(wide, NewData(data, [], {}), ("H", "C", "O"), Fit())
    assert found.e0["N"] == pytest.approx(-1480.0, abs=0.01)
    assert found.e0["O"] == E0[2]
    assert found.sources == {
        "H": "starting model",
        "C": "starting model",
        "O": "starting model",
        "N": "least squares",
    }
    one = refit_e0(wide, NewData(frames(truth, {}, ("NHHH",) * 3), [], {}), ("H", "C", "O"), Fit())
    assert one.e0["N"] == pytest.approx(
        -1480.0, abs=0.01
    )  # a single composition leaves the known ones where they are
    assert one.e0["H"] == E0[0]
    moved = frames(truth, {"H": 1.0, "C": 1.0, "O": 1.0}, ("NHHH",) * 3 + ("CO",) * 2)
    both = refit_e0(
        wide, NewData(moved, [], {}), ("H", "C", "O"), Fit()
    )  # another method: only what cannot be N moves
    for s, expected in {"H": E0[0], "C": E0[1] + 1.0, "O": E0[2] + 1.0, "N": -1477.0}.items():
        assert both.e0[s] == pytest.approx(expected, abs=0.02), s
    atom = Frame(Atoms("N"), -1479.0, None, None, "atoms.xyz", 0)
    found = refit_e0(wide, NewData(data, [atom], {}), ("H", "C", "O"), Fit())
    assert found.e0["N"] == pytest.approx(-1479.0)
    assert found.sources["N"] == "isolated atoms"


def test_frozen_parts() -> None:
    potential, why = trainable(small(), Fit(freeze=("layers.0", "head.linear")))
    trains = {n for n, w in potential.named_parameters() if w.requires_grad}
    assert trains == {
        n for n, _ in potential.named_parameters() if not n.startswith(("network.layers.0.", "head.linear"))
    }
    assert why == ["frozen: layers.0, head.linear"]
    for wrong, words in (
        ("layer.0", "did you mean 'layers.0'"),
        ("layers.01", "did you mean"),
        ("lay", "'lay'"),
    ):
        with pytest.raises(ValueError, match=words):
            trainable(small(), Fit(freeze=(wrong,)))
    with pytest.raises(ValueError, match="leaves no weight"):
        trainable(small(), Fit(freeze=("layers", "head")))


def test_a_rank_too_high_for_every_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="lora_rank is 1000: no matrix has more numbers"):
        trainable(small(), Fit(lora_rank=1000))


def test_low_rank_updates_become_ordinary_weights(tmp_path: Path) -> None:
    start = small()
    before = {n: w.detach().clone() for n, w in start.named_parameters()}
    graph = from_atoms(molecule(), 3.0)
    one = predict(start, graph)
    potential, _ = trainable(start, Fit(lora_rank=2, freeze=("layers.1",)))
    assert isinstance(potential, LowRank)
    assert torch.equal(predict(potential, graph).forces, one.forces)  # it begins where it starts from
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for w in potential.up:
            w += torch.randn(w.shape, generator=generator, dtype=w.dtype)
    merged = ordinary(potential)
    torch.testing.assert_close(
        predict(merged, graph).forces, predict(potential, graph).forces, rtol=1e-9, atol=1e-9
    )
    change = (
        merged.get_parameter("network.layers.0.product.factors") - before["network.layers.0.product.factors"]
    )
    assert set(torch.linalg.matrix_rank(change).tolist()) == {2}
    assert torch.equal(merged.get_parameter("network.layers.1.update.0"), before["network.layers.1.update.0"])
    save(merged, tmp_path / "m.safetensors")
    assert torch.equal(predict(load(tmp_path / "m.safetensors"), graph).forces, predict(merged, graph).forces)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fitted model and its data; new data that hold another element, by another method."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("train.fit.seconds_per_step", lambda *_: 0.01)
    monkeypatch.setattr("train.finish.draw", lambda _: {})
    rows = read(DATA / "acac/train_300K.xyz.xz", ":18")
    for row in rows:
        row.info = {"energy": row.get_potential_energy()}
        row.arrays["forces"] = row.get_forces()
        row.calc = None
    write(tmp_path / "old.xyz", rows[:12])
    new = [row.copy() for row in rows[12:]]
    for k, row in enumerate(new):
        row.info["energy"] += 3.0 * len(row)
        if k % 2:
            row.symbols[list(row.symbols).index("O")] = "N"
    write(tmp_path / "new.xyz", new)
    save(with_e0(small().float(), dict(zip("HCO", E0, strict=True))), tmp_path / "start.safetensors")
    return tmp_path


Run = Callable[..., int]


def test_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """New element, replay, frozen and low-rank parts; errors before and after; resumed, it is the same."""
    tune = ["new.xyz", "--from", "start.safetensors", "--replay", "old.xyz", "--set", "fit.batch_size=4"]
    tune += ["--set", "fit.freeze=['layers.1.skip']", "--set", "fit.lora_rank=2", "--allow-missing"]
    whole = [*tune, "--test", "old.xyz"]
    assert main([*whole, "--epochs", "1"]) == 1  # a file in two sets
    assert "named twice" in capsys.readouterr().err
    write(folder / "test.xyz", read("old.xyz", ":3"))
    tune += ["--test", "test.xyz"]
    assert main([*tune, "--epochs", "4", "--output", "four"]) == 0
    text = capsys.readouterr().out
    assert "12 of 12 old frames mixed in with 6 new ones" in text
    assert "before, with start.safetensors" in text
    model = load("four/model.safetensors")
    assert model.statistics.elements == ("H", "C", "O", "N")
    old, new = (read_tensors(p)[1] for p in ("start.safetensors", "four/model.safetensors"))
    assert torch.equal(old["network.layers.1.skip.0"], new["network.layers.1.skip.0"])
    assert not torch.equal(old["head.linear"], new["head.linear"])
    summary = json.loads((folder / "four/summary.json").read_text())
    assert summary["no_errors_before"].startswith("no errors before on train (holds N), valid (holds N): ")
    assert summary["no_errors_before"] in text
    assert summary["e0_sources"]["N"] == "least squares"
    assert set(summary["errors"]) == {"train", "valid", "test"}
    assert set(summary["errors_before"]) >= {"test"}
    assert "start.safetensors" in "".join(summary["sessions"][0]["files"])
    assert main([*tune, "--epochs", "2", "--output", "two"]) == 0
    assert main(["--resume", "--epochs", "4", "--output", "two"]) == 0
    again = read_tensors("two/model.safetensors")[1]
    assert all(torch.equal(new[k], again[k]) for k in new)
    save(small(("C", "H", "O")).float(), folder / "start.safetensors")  # another one under its name
    assert main(["--resume", "--epochs", "6", "--output", "two"]) == 1
    assert "other starting model" in capsys.readouterr().err


def test_what_old_frames_count(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As if the files said it, bit for bit, from a prepared set as well; a weight of 1 is none."""
    rows = read("old.xyz", ":")
    for k, row in enumerate(rows):
        row.info["config_weight"] = 1.0 + k % 2
    write("old.xyz", rows)
    for row in rows:
        row.info["config_weight"] *= 0.25
    write("light.xyz", rows)
    assert prepare_set(["old.xyz", "--output", "old.h5"]) == 0
    tune = [
        "new.xyz",
        "--from",
        "start.safetensors",
        "--epochs",
        "2",
        "--set",
        "fit.batch_size=4",
        "--allow-missing",
    ]
    models = {}
    for name, more in (
        ("given", ["--replay", "old.xyz", "--replay-weight", "0.25"]),
        ("said", ["--replay", "light.xyz"]),
        ("prepared", ["--replay", "old.h5", "--replay-weight", "0.25"]),
        ("plain", ["--replay", "old.xyz"]),
        ("one", ["--replay", "old.xyz", "--replay-weight", "1"]),
    ):
        assert main([*tune, *more, "--output", name]) == 0, capsys.readouterr().err
        told = capsys.readouterr().out
        assert ("each old one counts 0.25, so that new ones are 65 % of what trains" in told) == (
            "0.25" in more
        )
        models[name] = read_tensors(f"{name}/model.safetensors")[1]
    for one, other, same in (
        ("given", "said", True),
        ("given", "prepared", True),
        ("plain", "one", True),
        ("given", "plain", False),
    ):
        assert all(torch.equal(models[one][k], models[other][k]) for k in models[one]) == same
    weights = json.loads(Path("given/summary.json").read_text())["weights"]
    assert {w["forces"]: w["frames"] for w in weights} == {1.0: 5, 0.25: 5, 0.5: 6}
    assert main(["--resume", "--output", "given", "--epochs", "3", "--replay-weight", "0.5"]) == 1
    assert "other weights" in capsys.readouterr().err
    assert main(["--resume", "--output", "given", "--epochs", "3"]) == 0
    assert main(["old.h5", "--from", "start.safetensors", "--replay", "light.xyz"]) == 1
    assert "the new ones are a prepared set" in capsys.readouterr().err
    assert main(["new.xyz", "--from", "start.safetensors", "--replay-weight", "0.5"]) == 1
    assert "no old frames are replayed" in capsys.readouterr().err


def test_targets_of_old_frames_count_as_much_less() -> None:
    atoms = molecule()
    atoms.info["config_weight"] = 2.0
    frame = Frame(
        atoms, 0.0, None, None, "old.xyz", 0, weights=Weights(2.0, 2.0, 0.0), targets={"q": np.ones((6, 1))}
    )
    (sample,) = prepare([lighter(frame, 0.1)], 3.0)
    assert sample.weights.tolist() == [[0.2, 0.2, 0.0, 0.2]]
    assert atoms.info["config_weight"] == 2.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "model.channels=16"], ["channels is 16", "has 12", "leave it out"]),
        (["--preset", "small"], ["preset is 'small'", "none"]),
        (["--set", "model.chanels=12"], ["'chanels'", "did you mean 'channels'"]),
        (["--set", "fit.freeze=layer.0"], ["'layer.0'", "did you mean 'layers.0'"]),
        (["--set", "fit.refit_e0=sometimes"], ["refit_e0", "auto"]),
        (["--from", "."], [". is a directory", "--from model.safetensors"]),
        (["--from", "none.safetensors"], ["none.safetensors", "no such file"]),
        (["--replay", "new.xyz"], ["new.xyz, frame 1: holds N", "H, C, O", "--replay is for"]),
        (["--from", "", "--replay", "new.xyz"], ["need a model to start from", "--from"]),
    ],
)
def test_what_does_not_fit_is_refused(
    folder: Path, arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(p.name for p in folder.iterdir())
    assert main(["old.xyz", "--from", "start.safetensors", *arguments]) == 1
    message = capsys.readouterr().err
    for word in words:
        assert word in message
    assert sorted(p.name for p in folder.iterdir()) == before


def test_a_dry_run_advises_no_other_network(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.budget.SECONDS", 0.0)
    assert main(["old.xyz", "--from", "start.safetensors", "--minutes", "9", "--dry-run"]) == 0
    table = capsys.readouterr().out.partition("What it costs")[2]
    assert "own*" in table
    assert "large" not in table
    assert "--preset" not in table


METHOD = {"H": 0.5, "C": -2.0, "O": 4.0}  # eV by which the new method differs


@pytest.mark.parametrize(("move", "said"), [({}, True), (METHOD, False)])
def test_a_test_set_of_the_old_method_is_named(move: dict[str, float], said: bool) -> None:
    start, names = small(), ("COHHHH", "CCHH", "OOH", "COH", "HHHO", "CCCO")
    new = frames(start, METHOD, names)
    of_test = {"train": new, "valid": new, "test": frames(start, move, names)}
    _, e0, _ = begin(start, Sets(dict(of_test), "", (), [], []), Config())
    assert ("WARNING: energies of test agree with the E0 of the starting model" in e0.text) == said
    same = {**of_test, "train": frames(start, {}, names)}  # nothing moves
    assert "WARNING" not in begin(start, Sets(dict(same), "", (), [], []), Config())[1].text


@pytest.fixture
def job(folder: Path) -> Callable[[], Job]:
    """Makes ready a run whose old frames have the energies of the starting model, the new ones 3 eV/atom more."""
    start = load("start.safetensors")
    for name, rows, more in (("old", read("old.xyz", ":"), 0.0), ("new", read("old.xyz", ":6"), 3.0)):
        for row in rows:
            row.calc = None
            row.rattle(0.01, seed=int(more))
            label = predict(start, from_atoms(row, start.cutoff))
            row.info["energy"] = float(label.energy) + more * len(row)
            row.arrays["forces"] = label.forces.numpy()
        write(f"{name}.xyz", rows)
    data = Data(train="new.xyz", valid="new2.xyz", replay="old.xyz", valid_fraction=0.5)
    write("new2.xyz", [row for row in read("new.xyz", ":") if row.rattle(0.001, seed=5) is None])
    config = Config(data=data, fit=Fit(start="start.safetensors", epochs=1, dtype="float64"))
    return lambda: prepare_job(config, folder / "run", Ranks())


def test_errors_before_are_those_on_the_labels_that_were_read(job: Callable[[], Job]) -> None:
    """12 old frames without an error and 12 new ones that are 3 eV/atom off."""
    made = job()
    assert made.before is not None
    table, without = errors_before(made.before, made.sets.frames, made.original, Ranks())
    assert without == ""
    rows = [f for frames in made.sets.frames.values() for f in frames if f.source == "old.xyz"]
    assert len(rows) == 12
    assert max(abs(made.e0.e0[s] - e) for s, e in zip("HCO", E0, strict=True)) > 1
    assert table["train"]["energy_rmse"] == pytest.approx(3000 / np.sqrt(2), rel=1e-3)
    assert table["replay"]["energy_rmse"] == pytest.approx(0, abs=1e-2)


def test_given_validation_files_stay_as_they_are(job: Callable[[], Job]) -> None:
    """Old frames train; some of them are a set of their own, whose energies move along with E0."""
    made = job()
    assert [f.source for f in made.sets.frames["valid"]] == ["new2.xyz"] * 6
    assert {f.source for f in made.sets.frames["train"]} == {"new.xyz", "old.xyz"}
    kept_out = made.sets.frames["replay"]
    assert [f.source for f in kept_out] == ["old.xyz"] * 6
    assert not {f.index for f in kept_out} & {
        f.index for f in made.sets.frames["train"] if f.source == "old.xyz"
    }
    for moved, original in zip(made.samples["replay"], made.original["replay"], strict=True):
        assert float(moved.target.energy - original.target.energy) > 1
    assert any("6 of them kept out as the set replay" in text for text in made.why)


def test_a_run_is_known_by_the_energies_that_were_read(
    job: Callable[[], Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """E0 that another device rounds otherwise is the same run; another label is another run, of isolated atoms too."""
    one = job()

    def rounded(*given: Any) -> E0Fit:
        e0 = refit_e0(*given)
        return replace(e0, e0={s: e + 1e-9 for s, e in e0.e0.items()})

    with monkeypatch.context() as patch:
        patch.setattr("train.finetune.refit_e0", rounded)
        other = job()
    assert other.samples["train"][-1].target.energy != one.samples["train"][-1].target.energy
    assert identity(other) == identity(one)
    atom = Atoms("H", info={"energy": -13.0})
    for path, more, added in (("old.xyz", 0.5, []), ("new.xyz", 0.0, [atom])):
        before, rows = identity(job()), read(path, ":")
        for r in rows:
            r.arrays["forces"], r.info["energy"], r.calc = (
                r.get_forces(),
                r.get_potential_energy() + more,
                None,
            )
        write(path, [*rows, *added])
        assert identity(job()) != before
