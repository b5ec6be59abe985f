"""README.md does what it says: every block runs, in order, in a fresh directory.

```python blocks share one namespace. ```sh, ```bash and ```console blocks are run line by line (in console
blocks the lines after `$ `). What a reader would wait for is cut short: training to one epoch, MD to five
steps. Lines that install something or leave the directory are only checked: make targets and example files
they name must exist.
"""

from __future__ import annotations

import io
import lzma
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import pytest

ROOT = Path(__file__).parents[1]
SHELL = ("sh", "bash", "console")
NOT_RUN = ("make", "git", "cd", "pip", "python", "python3", "source", ".", "curl", "torchrun")


@dataclass(frozen=True)
class Block:
    tag: str
    line: int  # of the first line inside, counted from 1
    text: str


def blocks(markdown: str) -> list[Block]:
    found = []
    for match in re.finditer(r"^```(\w+)[^\n]*\n(.*?)^```\s*$", markdown, re.MULTILINE | re.DOTALL):
        line = markdown.count("\n", 0, match.start(2)) + 1
        found.append(Block(match[1], line, match[2]))
    return found


def commands(block: Block) -> list[str]:
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.tag == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    lines = [line.removeprefix("$ ").strip() for line in lines]
    return [line for line in lines if line and not line.startswith("#")]


def shorten_command(command: str) -> str:
    """One epoch in place of what the README asks of potential-train."""
    command = re.sub(r"\s+#\s.*$", "", command)
    if not command.startswith("potential-train") or re.search(
        r"--(help|version|dry-run|print-config)\b", command
    ):
        return command
    command, n = re.subn(r"--(minutes|epochs)[ =]\S+", "--epochs 1", command)
    return command if n else command + " --epochs 1"


def shorten_python(text: str) -> str:
    """Five steps in place of a molecular dynamics run."""
    return re.sub(r"\.run\((steps=)?[\d_]+\)", ".run(5)", text)


def targets() -> set[str]:
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    return {m[1] for line in lines if (m := re.match(r"([a-z][\w-]*)\s*:(?!=)", line))}


def check_not_run(command: str) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        named = {word for word in words[1:] if "=" not in word and not word.startswith("-")}
        assert named <= targets(), f"`{command}`: the Makefile has {sorted(targets())}"
    for word in words:
        if word.startswith("examples/"):
            assert (ROOT / word).exists(), f"`{command}`: {word} does not exist"


def make_data(folder: Path) -> None:
    """train.xyz and test.xyz, as a reader has them, and the repository's data folder."""
    for name, source, n in (("train.xyz", "train_300K.xyz.xz", 20), ("test.xyz", "test_MD_300K.xyz.xz", 10)):
        text = lzma.decompress((ROOT / "data" / "acac" / source).read_bytes()).decode()
        frames = ase.io.read(io.StringIO(text), f":{n}", format="extxyz")
        ase.io.write(folder / name, frames, format="extxyz")
    (folder / "data").symlink_to(ROOT / "data")


def make_scripts(folder: Path) -> dict[str, str]:
    """Console scripts of this checkout, whatever else is installed; the environment that finds them."""
    folder.mkdir()
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name, module, function in re.findall(
        r'^(potential-[\w-]+) = "([\w.]+):(\w+)"', project, re.MULTILINE
    ):
        script = folder / name
        script.write_text(
            f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"
        )
        script.chmod(0o755)
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}


def run_blocks(markdown: str, folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Every block of the text in order; the namespace that its Python blocks leave."""
    namespace: dict[str, Any] = {"__name__": "readme"}
    for block in blocks(markdown):
        if block.tag == "python":
            text = "\n" * (block.line - 1) + shorten_python(block.text)
            exec(compile(text, "README.md", "exec"), namespace)
        elif block.tag in SHELL:
            for command in commands(block):
                if command.split()[0] in NOT_RUN:
                    check_not_run(command)
                    continue
                done = subprocess.run(
                    shorten_command(command),
                    shell=True,
                    cwd=folder,
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                where = f"README.md:{block.line}: `{command}` gave exit code {done.returncode}"
                assert done.returncode == 0, f"{where}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return namespace


@pytest.mark.timeout(900)  # 300 s have been too few on a busy core
def test_every_block_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    markdown = (ROOT / "README.md").read_text(encoding="utf-8")
    tags = [block.tag for block in blocks(markdown)]
    assert "python" in tags
    assert set(tags) & set(SHELL)
    environment = make_scripts(tmp_path / "bin")
    folder = tmp_path / "reader"
    folder.mkdir()
    make_data(folder)
    monkeypatch.chdir(folder)
    run_blocks(markdown, folder, environment)


def test_files_the_readme_points_to_exist() -> None:
    markdown = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", markdown):
        if "://" not in target and not target.startswith("mailto:"):
            assert (ROOT / target).exists(), f"README.md links to {target}, which does not exist"


SAMPLE = """# Title
```sh
make quickstart   # all of it
potential-train train.xyz \\
    --minutes 5 --test test.xyz
```
text
```python
steps = []
class Dynamics:
    def run(self, n):
        steps.append(n)
Dynamics().run(10_000)
```
```console
$ ls
train.xyz
```
```text
rm -rf nothing
```
```python
steps.append(len("two blocks"))
```
"""


def test_reading_of_blocks() -> None:
    assert [(b.tag, b.line) for b in blocks(SAMPLE)] == [
        ("sh", 3),
        ("python", 9),
        ("console", 16),
        ("text", 20),
        ("python", 23),
    ]
    shell = [c for b in blocks(SAMPLE) if b.tag in SHELL for c in commands(b)]
    assert [" ".join(c.split()) for c in shell] == [
        "make quickstart # all of it",
        "potential-train train.xyz --minutes 5 --test test.xyz",
        "ls",
    ]


@pytest.mark.parametrize(
    ("asked", "run"),
    [
        ("potential-train train.xyz", "potential-train train.xyz --epochs 1"),
        ("potential-train a.xyz --minutes 5 --seed 1", "potential-train a.xyz --epochs 1 --seed 1"),
        ("potential-train a.xyz --epochs=50", "potential-train a.xyz --epochs 1"),
        ("potential-train a.xyz --minutes 5  # a while", "potential-train a.xyz --epochs 1"),
        ("potential-train --help", "potential-train --help"),
        ("ls", "ls"),
    ],
)
def test_training_is_cut_short(asked: str, run: str) -> None:
    assert shorten_command(asked) == run


def test_blocks_share_a_namespace_and_md_is_cut_short(tmp_path: Path) -> None:
    sample = SAMPLE.replace("potential-train", "echo")
    assert run_blocks(sample, tmp_path, dict(os.environ))["steps"] == [5, 10]


@pytest.mark.parametrize(
    ("markdown", "complaint"),
    [
        ("```sh\nmake nonsense\n```\n", "the Makefile has"),
        ("```sh\npython examples/99_nonsense.py\n```\n", "does not exist"),
        ("```sh\nls nonsense\n```\n", "README.md:2: `ls nonsense` gave exit code"),
    ],
)
def test_a_broken_readme_is_found(markdown: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=re.escape(complaint)):
        run_blocks(markdown, tmp_path, dict(os.environ))


def test_readers_files(tmp_path: Path) -> None:
    make_data(tmp_path)
    assert len(ase.io.read(tmp_path / "train.xyz", ":")) == 20
    frames = ase.io.read(tmp_path / "test.xyz", ":")
    assert len(frames) == 10
    assert all(set(atoms.calc.results) == {"energy", "forces"} for atoms in frames)
