"""The rules of the house that a machine can keep: sizes, names, who may call what, quiet imports."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(p for package in ("potential", "train") for p in (ROOT / package).rglob("*.py"))
MAX_LINES, MAX_FUNCTION, MAX_PARAMETERS = 300, 60, 6

# All that a newcomer reads to follow a structure from Atoms to forces.
READING = [
    "potential/graph.py",
    "potential/radial.py",
    "potential/irreps.py",
    "potential/networks/equivariant.py",
    "potential/heads.py",
    "potential/model.py",
    "potential/physics.py",
]
MAX_READING = 1000

# name (everything below it included) -> files that may use it
RESERVED = {
    "torch.autograd.grad": {"potential/physics.py"},
    "matscipy": {"potential/graph.py"},
    "ase.neighborlist": set(),
    "ase.geometry.get_distances": set(),
    "scipy.spatial": set(),
    # files that execute code when they are read
    "pickle": set(),
    "dill": set(),
    "joblib": set(),
    "torch.load": set(),
    "torch.save": set(),
    # global state, which belongs to the user
    "os.environ": {"potential/analysis/contestants.py"},  # handed on to child processes, never changed
    "os.getenv": set(),
    "os.putenv": set(),
    "random.seed": set(),
    "numpy.random.seed": set(),
    "torch.seed": set(),
    "torch.manual_seed": set(),
    "torch.random.manual_seed": set(),
    "torch.random.seed": set(),
    "torch.cuda.manual_seed": set(),
    "torch.cuda.manual_seed_all": set(),
    "torch.set_num_threads": {"train/threads.py"},  # within a context, put back
    "torch.set_num_interop_threads": set(),
    "torch.set_default_dtype": set(),
    "torch.set_default_device": set(),
    "torch.set_default_tensor_type": set(),
    "torch.set_grad_enabled": set(),
    "torch.set_printoptions": set(),
    "torch.use_deterministic_algorithms": set(),
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def n_parameters(function: Function) -> int:
    a = function.args
    names = [p.arg for p in [*a.posonlyargs, *a.args, *a.kwonlyargs]]
    if names[:1] in (["self"], ["cls"]):
        names = names[1:]
    return len(names) + (a.vararg is not None) + (a.kwarg is not None)


def dotted_names(tree: ast.Module) -> set[str]:
    """Every module, attribute or function that a file names, written out.

    `from torch import load as l` gives `torch.load`, and so does `import torch as t; t.load(...)`.
    """
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                known[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    found = set(known.values())
    found |= {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    for node in ast.walk(tree):
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if parts and isinstance(node, ast.Name) and node.id in known:
            found.add(".".join([known[node.id], *reversed(parts)]))
    return found


def uses(tree: ast.Module, name: str) -> bool:
    return any(found == name or found.startswith(name + ".") for found in dotted_names(tree))


def imported_files(path: Path) -> set[str]:
    """Files of our own packages that a file imports, wherever in the file the import stands."""
    files = set()
    for node in ast.walk(tree_of(path)):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: relative import; write the full name"
            modules = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        for module in modules:
            if module.split(".")[0] in ("potential", "train"):
                stem = ROOT.joinpath(*module.split("."))
                candidates = (stem.with_suffix(".py"), stem / "__init__.py")
                files |= {name_of(file) for file in candidates if file.exists()}
    return files


def tracked_files() -> list[Path]:
    """Files that git tracks or would track; without git, all but what tools leave behind."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if (ROOT / ".git").exists():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return [p for p in (ROOT / name for name in done.stdout.split("\0") if name) if p.is_file()]
    skip = re.compile(r"^(\.(?!ci$|github$|git(ignore|attributes)$)|runs$|dist$|__pycache__$|.*\.egg-info$)")
    everything = (p for p in ROOT.rglob("*") if p.is_file())
    return [p for p in everything if not any(skip.match(part) for part in p.relative_to(ROOT).parts)]


# --- sizes and names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_file_and_functions_are_short(path: Path) -> None:
    n_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert n_lines <= MAX_LINES, f"{name_of(path)} has {n_lines} lines; split it at {MAX_LINES}"
    for f in functions(path):
        length = (f.end_lineno or f.lineno) - f.lineno + 1
        where = f"{name_of(path)}:{f.lineno} {f.name}"
        assert length <= MAX_FUNCTION, f"{where} has {length} lines; at most {MAX_FUNCTION}"
        assert n_parameters(f) <= MAX_PARAMETERS, f"{where} has {n_parameters(f)} parameters; at most 6"


def test_every_module_is_named_after_what_it_holds() -> None:
    for path in tracked_files():
        if path.suffix == ".py":
            parts = {part.strip("_") for part in path.relative_to(ROOT).with_suffix("").parts}
            assert not parts & {"utils", "util", "helpers", "helper", "common", "misc"}, name_of(path)
            assert path.name != "train.py", f"{name_of(path)} would hide the package `train`"


@pytest.mark.parametrize("path", [p for p in SOURCES if "potential" in p.parts], ids=name_of)
def test_what_is_public_says_what_it_is(path: Path) -> None:
    tree = tree_of(path)
    assert path.name == "__init__.py" or ast.get_docstring(tree), f"{name_of(path)} has no docstring"
    for node in tree.body:
        if isinstance(
            node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        ) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name_of(path)}:{node.lineno} {node.name} has no docstring"


def test_atoms_to_forces_is_one_sitting() -> None:
    missing = [file for file in READING if not (ROOT / file).is_file()]
    assert not missing, f"not found: {missing}"
    total = sum(len((ROOT / file).read_text(encoding="utf-8").splitlines()) for file in READING)
    assert total <= MAX_READING, f"{total} lines from Atoms to forces; at most {MAX_READING}"


def test_atoms_to_forces_needs_no_other_file() -> None:
    """All that model, physics and graph import, followed to the end.

    The tables of contents (__init__), the architectures beside the flagship and the targets beside the energy are
    passed over: they are no step on the way.
    """
    todo, reached = {"potential/model.py", "potential/physics.py", "potential/graph.py"}, set()
    while todo:
        file = todo.pop()
        reached.add(file)
        assert (ROOT / file).is_file(), f"{file} not found"
        followed = imported_files(ROOT / file) - reached - {"potential/__init__.py", "potential/targets.py"}
        todo |= {
            f for f in followed if not f.startswith("potential/networks/") or f in READING or "__init__" in f
        }
    assert {file for file in reached if not file.endswith("__init__.py")} == set(READING)


# --- who may call what --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RESERVED)
def test_reserved_name_is_used_only_where_it_belongs(name: str) -> None:
    users = {name_of(path) for path in SOURCES if uses(tree_of(path), name)}
    assert users <= RESERVED[name], f"{name} is used in {sorted(users - RESERVED[name])}"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("import torch\ntorch.load('x')", "torch.load"),
        ("import torch as t\nt.load('x')", "torch.load"),
        ("from torch import load as read\nread('x')", "torch.load"),
        ("from torch import autograd\nautograd.grad(x, y)", "torch.autograd.grad"),
        ("from torch.autograd import grad", "torch.autograd.grad"),
        ("import torch.autograd\ntorch.autograd.grad(x, y)", "torch.autograd.grad"),
        ("def f():\n    from os import environ", "os.environ"),
        ("import os\nos.environ['A'] = 'b'", "os.environ"),
        ("import numpy as np\nnp.random.seed(0)", "numpy.random.seed"),
        ("import matscipy.neighbours", "matscipy"),
        ("from matscipy.neighbours import neighbour_list", "matscipy"),
        ("from ase import neighborlist", "ase.neighborlist"),
    ],
)
def test_no_spelling_escapes(code: str, name: str) -> None:
    assert uses(ast.parse(code), name)


def test_innocent_code_is_not_accused() -> None:
    code = (
        "import os, torch, json\nos.replace(a, b)\njson.load(f)\ntorch.random.fork_rng()\nx.seed\nload('x')"
    )
    assert not [name for name in RESERVED if uses(ast.parse(code), name)]


def unguarded_generator(node: ast.AST, forked: bool = False) -> list[int]:
    """Lines that touch torch's shared generator outside `with torch.random.fork_rng(...)`."""
    if isinstance(node, ast.With):
        forked = forked or any("fork_rng" in ast.unparse(item) for item in node.items)
    if isinstance(node, ast.Attribute) and node.attr == "default_generator" and not forked:
        return [node.lineno]
    return [line for child in ast.iter_child_nodes(node) for line in unguarded_generator(child, forked)]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_shared_generator_is_seeded_only_inside_fork_rng(path: Path) -> None:
    """Weights drawn from torch's own generator need it seeded: allowed where fork_rng puts it back.

    `torch.manual_seed` is not, even there: it also seeds the generators of accelerators, which stay seeded.
    Write `torch.default_generator.manual_seed(seed)`.
    """
    lines = unguarded_generator(tree_of(path))
    assert not lines, f"{name_of(path)}:{lines} uses torch's shared generator outside fork_rng"


def test_unguarded_generator_is_seen() -> None:
    seed = "torch.default_generator.manual_seed(0)"
    code = f"with torch.random.fork_rng(devices=[]):\n    {seed}\ndef f():\n    {seed}\nwith a:\n    {seed}\n"
    assert unguarded_generator(ast.parse(code)) == [4, 6]


def test_potential_never_imports_train() -> None:
    for path in SOURCES:
        if name_of(path).startswith("potential/"):
            assert not uses(tree_of(path), "train"), name_of(path)


def test_no_path_of_somebodys_machine() -> None:
    pattern = re.compile(r"(?<![\w./~$}-])/(work|root|home|tmp)\b")
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # compressed data, pictures
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            assert not pattern.search(line), (
                f"{name_of(path)}:{number} names a path of one machine: {line.strip()}"
            )


# --- importing does nothing but define ----------------------------------------------------------------------


def run(code: str) -> dict[str, object]:
    """The JSON that a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_import_potential_does_nothing_but_define() -> None:
    code = """
import json, os, random, sys, threading, time, warnings
def state():
    return dict(os.environ), random.getstate(), list(warnings.filters), threading.active_count(), os.getcwd()
before, start = state(), time.perf_counter()
import potential
seconds = time.perf_counter() - start
heavy = sorted({"torch", "e3nn", "ase", "numpy", "scipy", "matscipy", "h5py"} & set(sys.modules))
print(json.dumps({"seconds": seconds, "heavy": heavy, "same": before == state()}))
"""
    answers = [run(code) for _ in range(3)]
    for answer in answers:
        assert answer["heavy"] == []
        assert answer["same"] is True
    assert min(float(str(answer["seconds"])) for answer in answers) < 0.5


def test_importing_every_module_leaves_global_state_alone() -> None:
    modules = [
        ".".join(p.relative_to(ROOT).with_suffix("").parts) for p in SOURCES if p.name != "__init__.py"
    ]
    code = f"""
import json, os, random
import ase.calculators.calculator, e3nn.o3, h5py, matscipy.neighbours, numpy, safetensors.torch
import scipy.integrate, torch, torch_ema
from importlib import import_module
def state():
    generators = str(random.getstate()), str(numpy.random.get_state()), torch.get_rng_state().tolist()
    torchs = str(torch.get_default_dtype()), torch.get_num_threads(), torch.is_grad_enabled()
    return generators, torchs, dict(os.environ), str(numpy.geterr()), str(torch.get_default_device())
before = state()
changed = []
for module in {modules!r}:
    import_module(module)
    if state() != before:
        changed.append(module)
        before = state()
print(json.dumps({{"changed": changed}}))
"""
    assert run(code) == {"changed": []}
