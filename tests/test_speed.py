"""potential-bench on models so small that the numbers mean nothing: what it promises in form and order."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT as EMT_class

from potential import Statistics, build, save
from potential.analysis import speed
from potential.analysis.cli import main, parser
from potential.analysis.contestants import Contestant, environment, parse_calculator
from potential.analysis.split import PARTS
from potential.analysis.systems import build_system, elements_of, relabel, standard
from potential.analysis.tasks import dynamics, structures_of, together
from potential.graph import from_atoms
from potential.model import configuration, presets
from train.contestant import factory

ROOT = Path(__file__).parents[1]
EMT = "ase.calculators.emt:EMT"


@dataclass(frozen=True)
class Outcome:
    code: int
    output: str
    lines: list[dict[str, Any]]
    directory: Path

    def one(self, **wanted: Any) -> dict[str, Any]:
        (line,) = [line for line in self.lines if all(line[key] == value for key, value in wanted.items())]
        return line


def bench(directory: Path, *arguments: str) -> Outcome:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = main([*arguments, "--threads", "1", "--rounds", "3", "--output", str(directory)])
    text = (directory / "speed.jsonl").read_text(encoding="utf-8")
    return Outcome(code, output.getvalue(), [json.loads(line) for line in text.splitlines()], directory)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Our tiny network beside ASE's EMT, which knows copper but not silicon."""
    arguments = ["--preset", "tiny", "--calculator", EMT, "--systems", "Cu32", "Si8"]
    return bench(tmp_path_factory.mktemp("bench"), *arguments)


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


# --- what it leaves ------------------------------------------------------------------------------------------


def test_every_task_of_every_contestant_has_a_line(outcome: Outcome) -> None:
    assert outcome.code == 0
    measured = [(line["contestant"], line["task"], line["system"]) for line in outcome.lines]
    systems = ("Si8", "Cu32")  # from small to large
    expected = [(name, "forces", system) for system in systems for name in ("tiny", "EMT")]
    expected += [("tiny", task, system) for task in ("evaluation", "training") for system in systems]
    assert measured == expected


def test_lines_hold_times_memory_and_where_they_come_from(outcome: Outcome) -> None:
    for line in outcome.lines:
        if "error" in line:
            continue
        for kind in ("cpu", "wall"):
            low, high = line[f"{kind}_quartiles"]
            assert 0 < low <= line[f"{kind}_ms"] <= high
        assert line["rounds"] == 3
        assert line["peak_mib"] >= line["base_mib"] > 10
        assert line["threads"] == 1
        assert {"date", "machine", "commit", "load", "structures"} <= set(line)
        assert {"python", "ase", "numpy"} <= set(line["versions"])
    ours = outcome.one(contestant="tiny", task="forces", system="Cu32")
    assert (ours["dtype"], ours["cutoff"]) == ("float32", 5.0)
    assert ours["edges"] == len(from_atoms(Atoms(**build_system("Cu32").structures[0]), 5.0).center)
    assert ours["parameters"] > 1000
    assert {"torch", "equiv-potential"} <= set(ours["versions"])
    assert outcome.one(contestant="EMT", system="Cu32")["dtype"] == "own"


def test_ratios_are_taken_to_the_first(outcome: Outcome) -> None:
    ours, other = (outcome.one(contestant=n, task="forces", system="Cu32") for n in ("tiny", "EMT"))
    assert "reference" not in ours
    assert other["reference"] == "tiny"
    low, high = other["cpu_ratio_quartiles"]
    assert low <= other["cpu_ratio"] <= high
    assert other["cpu_ratio"] == pytest.approx(other["cpu_ms"] / ours["cpu_ms"], rel=0.5)


def test_split_sums_to_about_the_total(outcome: Outcome) -> None:
    line = outcome.one(contestant="tiny", task="forces", system="Cu32")
    assert tuple(line["split"]) == PARTS
    assert all(part > 0 for part in line["split"].values())
    assert 0.5 < sum(line["split"].values()) / line["wall_ms"] < 2.5  # the profiler adds, a busy machine too


def test_one_that_fails_does_not_stop_the_others(outcome: Outcome) -> None:
    failed = outcome.one(contestant="EMT", system="Si8")
    assert "EMT" in failed["error"]
    assert "Si" in failed["error"]
    assert "cpu_ms" in outcome.one(contestant="tiny", system="Si8", task="forces")
    assert failed["error"] in outcome.output


def test_table_lines_up_with_the_lines(outcome: Outcome) -> None:
    blocks = outcome.output.split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("| system")]
    assert len(tables) == 4  # three tasks and the split
    for rows in tables:
        assert len({len(row) for row in rows}) == 1, "columns line up"
        assert len({len(cells(row)) for row in rows}) == 1
    rows = [cells(row) for row in tables[0][2:]]
    assert [(row[0], row[3]) for row in rows[:2]] == [("Si8", "tiny"), ("Si8", "EMT (own precision)")]
    ours = outcome.one(contestant="tiny", task="forces", system="Cu32")
    assert float(rows[2][4]) == pytest.approx(ours["cpu_ms"], rel=0.01)
    assert (outcome.directory / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_dynamics_moves_atoms_and_keeps_their_energy() -> None:
    (copper,) = structures_of(list(build_system("Cu32").structures))
    calculator, start = EMT_class(), copper.positions.copy()
    step = dynamics(calculator, [copper])
    before = copper.get_total_energy()
    for _ in range(20):
        step()
    assert abs(copper.get_total_energy() - before) < 1e-3 * len(copper)
    assert 0.01 < np.abs(copper.positions - start).max() < 0.5


def test_dynamics_is_measured_with_a_skin(tmp_path: Path) -> None:
    done = bench(tmp_path, "--preset", "tiny", "--systems", "Cu32", "--tasks", "dynamics", "--skin", "0.5")
    assert [line["task"] for line in done.lines] == ["dynamics"]
    assert done.one(contestant="tiny")["skin"] == 0.5


def test_a_saved_model_is_measured_whatever_its_elements(tmp_path: Path) -> None:
    model = tmp_path / "water.safetensors"
    dials = {
        "channels": 4,
        "message_channels": 4,
        "vector_channels": 2,
        "lmax": 1,
        "hidden_lmax": 1,
        "cutoff": 4.0,
    }
    save(build(dials, Statistics(("H", "O"), (-13.0, -2042.0), 1.0, 10.0)), model)
    done = bench(tmp_path / "new", str(model), "--systems", "molecules", "--tasks", "evaluation")
    (line,) = done.lines
    assert (line["contestant"], line["atoms"], line["structures"]) == ("water", 135, 5)
    assert line["cutoff"] == 4.0


# --- turns ---------------------------------------------------------------------------------------------------


def test_contestants_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(one: Any, **order: Any) -> dict[str, float]:
        assert order["do"] == "clock"
        asked.append(one.name)
        if one.name == "C" and len(asked) > 3:
            raise ValueError("C: out of memory")
        return {"cpu_ms": 1.0 if one.name == "A" else 3.0, "wall_ms": 2.0}

    monkeypatch.setattr(speed, "ask", ask)
    ready: Any = {name: SimpleNamespace(name=name) for name in "ABC"}
    times = speed.take_turns(ready, speed.Settings(systems=(), rounds=4))
    assert "".join(asked) == "ABCABCABAB"
    assert times["C"]["error"] == "C: out of memory"
    assert speed.ratios(times["B"]["rounds"], times["A"]["rounds"], "A")["cpu_ratio"] == 3.0


def test_no_round_begins_after_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "ask", lambda one, **order: {"cpu_ms": 1.0, "wall_ms": 1.0})
    ready: Any = {"A": None}
    times = speed.take_turns(ready, speed.Settings(systems=(), rounds=100, seconds=0.0))
    assert len(times["A"]["rounds"]) == speed.MIN_ROUNDS


def test_median_and_quartiles() -> None:
    assert speed.spread([5.0, 1.0, 2.0, 4.0, 3.0]) == (2.0, 3.0, 4.0)
    assert speed.spread([7.0]) == (7.0, 7.0, 7.0)


# --- systems -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "atoms", "structures"), [("molecules", 135, 5), ("Si512", 512, 1), ("W54", 54, 1)]
)
def test_systems(name: str, atoms: int, structures: int) -> None:
    system = build_system(name)
    assert (system.name, system.n_atoms, len(system.structures)) == (name, atoms, structures)
    assert build_system(name) == system, "the same atoms every time"


def test_molecule_is_a_molecule() -> None:
    system = build_system("molecules")
    assert elements_of([system]) == ["H", "C", "N", "O"]
    for one in system.structures:
        atoms = Atoms(**one)
        assert atoms.get_chemical_formula() == "C12H12N2O"
        distances = atoms.get_all_distances()[np.triu_indices(27, 1)]
        assert (distances < 1.6).sum() >= 27
        assert distances.min() > 0.85


def test_crystals_are_as_cubic_as_can_be() -> None:
    sides = [math.dist(row, (0, 0, 0)) for row in build_system("Si128").structures[0]["cell"]]
    assert sorted(round(side / 5.43) for side in sides) == [2, 2, 4]


def test_molecules_together_do_not_meet() -> None:
    molecules = structures_of(list(build_system("molecules").structures))
    (joined,) = together(molecules)
    assert joined.pbc.all()
    assert len(joined) == 135
    n_apart = sum(len(from_atoms(atoms, 14.0).center) for atoms in molecules)
    assert len(from_atoms(joined, 14.0).center) == n_apart
    assert together(molecules[:1]) == molecules[:1]


def test_a_file_gives_its_first_structures(tmp_path: Path) -> None:
    from ase.build import molecule
    from ase.io import write

    write(tmp_path / "water.xyz", [molecule("H2O")] * 7)
    system = build_system(str(tmp_path / "water.xyz"))
    assert (system.name, system.n_atoms, len(system.structures)) == ("water", 15, 5)
    assert relabel(system, ["Si"]).elements == {"Si"}


def test_standard_series_grows_with_max_atoms() -> None:
    assert standard(512) == ["molecules", "Si64", "Si512"]
    assert standard(5000) == ["molecules", "Si64", "Si512", "Si1728", "Si4096"]


# --- contestants ---------------------------------------------------------------------------------------------


def test_calculators_by_name() -> None:
    assert parse_calculator(EMT) == Contestant("EMT", EMT)
    assert parse_calculator("compare/mace.py:factory") == Contestant("mace", "compare/mace.py:factory")
    assert parse_calculator(f"metal={EMT}") == Contestant("metal", EMT)


def test_python_belongs_to_the_calculator_before_it() -> None:
    args = parser().parse_args(
        ["--calculator", "a:b", "--calculator", "c:d", "--python", "p", "--calculator", "e:f"]
    )
    assert args.calculator == [("a:b", ""), ("c:d", "p"), ("e:f", "")]


def test_another_python_does_not_see_our_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "ours")
    assert environment(Contestant("a", EMT), 2)["PYTHONPATH"] == "ours"
    other = environment(Contestant("a", EMT, python="python3"), 2)
    assert "PYTHONPATH" not in other
    assert other["OMP_NUM_THREADS"] == "2"


def test_worker_needs_only_the_standard_library_and_ase() -> None:
    files = [ROOT / "potential/analysis" / name for name in ("worker.py", "tasks.py")]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    names = [a.name for node in nodes if isinstance(node, ast.Import) for a in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    roots = {name.split(".")[0] for name in names}
    assert roots - set(sys.stdlib_module_names) == {"ase", "numpy"}  # numpy comes with ase


ADAPTER = """
import os
from ase.calculators.emt import EMT
def factory():
    print("hello")  # must not disturb the answers
    return EMT()
def evaluation(calculator, structures):
    return lambda: os._exit(3)
"""


def test_a_process_that_ends_is_reported(tmp_path: Path) -> None:
    (tmp_path / "dying.py").write_text(ADAPTER, encoding="utf-8")
    arguments = ["--calculator", f"{tmp_path / 'dying.py'}:factory", "--systems", "Cu4", "Cu32"]
    done = bench(tmp_path, *arguments, "--tasks", "forces", "evaluation")
    assert [line["task"] for line in done.lines] == ["forces", "forces", "evaluation"]
    assert "dying: its process ended with code 3" in done.lines[-1]["error"]


# --- what a user can get wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--calculator", "ase.calculators.emt:EMTT"],
            "ase.calculators.emt has no 'EMTT'; did you mean 'EMT'?",
        ),
        (["--calculator", "emt"], "--calculator emt: expected module:factory"),
        (["--calculator", "nowhere.at:all"], "No module named 'nowhere'"),
        (["--calculator", "nowhere.py:all"], "nowhere.py: there is no such file"),
        (
            ["--calculator", EMT, "--python", "nowhere/python"],
            "--python nowhere/python: there is no such program",
        ),
        (["--calculator", EMT, "--calculator", EMT], "two contestants are called 'EMT'"),
        (["--tasks", "force"], "--tasks force: there is no such choice; did you mean 'forces'?"),
        (["--dtype", "float16"], "did you mean 'float"),
        (["--threads", "0"], "--threads 0: give numbers from 1 to"),
        (["--systems", "molecule"], "there is no system 'molecule'; did you mean 'molecules'?"),
        (["--systems", "Si65"], "the cubic cell of Si holds 8 atoms; give a multiple, such as Si64"),
        (["--systems", "Xx8"], "Xx8: ASE knows no cubic crystal of Xx"),
        (["--rounds", "0"], "--rounds 0: it must be positive"),
        (["nowhere.safetensors"], "nowhere.safetensors: there is no such file"),
        (["--preset", "tinny", "--systems", "Si8"], "there is no preset 'tinny'; did you mean 'tiny'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_explained(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--output", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("potential-bench: ")
    assert message in error
    assert "Traceback" not in error


def test_help_answers_without_loading_anything_heavy() -> None:
    code = """
import sys
from potential.analysis.cli import parser
parser().format_help()
print(sorted({"torch", "ase", "numpy", "matplotlib", "e3nn"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_presets_of_other_networks() -> None:
    for preset, network in (("tiny", "equivariant"), ("painn-tiny", "painn"), ("mace-tiny", "mace")):
        calculator = factory(["Si"], "float32", 4.0, preset=preset)
        assert configuration(calculator.potential)["network"] == network
        assert calculator.potential.cutoff == 4.0
    dense = configuration(factory(["Si"], "float32", 4.0, preset="dense-small").potential)
    assert dense.items() >= presets("equivariant", dense=True)["small"].items()
    for preset, said in (("pain-tiny", "did you mean 'painn'"), ("painn-tinny", "did you mean 'tiny'")):
        with pytest.raises(ValueError, match=said):
            factory(["Si"], "float32", 4.0, preset=preset)
