"""Settings that are damaged in any way: an explanation and an exit code, never a traceback, nothing left behind."""

from __future__ import annotations

import contextlib
import io
import lzma
import re
from pathlib import Path

import pytest
from ase.io import read, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import train.fit
from train.cli import main
from train.config import FLAT, Config, Weights
from train.manual import commented, model_options
from train.option import options
from train.target import Target

DATA = Path(__file__).parents[1] / "data"
NAMES = [(name, o) for name, section in FLAT.items() for o in options(section)]
NAMES += [("model", o) for o in model_options()]
NAMES += [("weights.md", o) for o in options(Weights)]
NAMES += [("targets.dipole", o) for o in options(Target)]
FULL = re.sub(r"^# (?=\[(weights|e0|targets)|\w+ = )", "", commented(Config()), flags=re.MULTILINE).replace(
    "weights.liquid", "weights.md"
)
FULL = FULL.replace("lmax_out = 0", "lmax_out = 1")  # which the dipole of the example needs


scalars = st.one_of(
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.booleans(),
    st.text(max_size=8),
    st.sampled_from(
        ["", "none", "nan", "inf", "1e400", "1979-05-27", "07:32:00", "0x1F", "[]", "{}", "[1, 'a']"]
    ),
    st.sampled_from(
        ["{a = 1}", "[[1]]", "'''x'''", "\x00", "a\nb = 1", "..", "/", "*", "train.xyz", "cuda", "meta"]
    ),
)
known = st.sampled_from([f"{s}.{o.name}" for s, o in NAMES])
keys = st.integers(0, 9).flatmap(lambda k: known if k else st.text(max_size=12))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("fuzz")
    text = lzma.decompress((DATA / "acac/train_300K.xyz.xz").read_bytes()).decode()
    frames = read(io.StringIO(text), ":4", format="extxyz")
    for atoms in frames:
        atoms.info |= {"config_type": "md", "dipole": [0.0, 0.0, 1.0]}
    write(where / "train.xyz", frames)
    return where


def answer(folder: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Exit code and complaint of a dry run; its trial steps, which take all the time, are left out."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(train.fit, "_estimate", lambda *_: "")
    monkeypatch.setattr(train.fit, "costs", lambda *_: [])
    monkeypatch.setattr(train.fit, "budget_text", lambda *_: "")
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main([*arguments, "--dry-run"])
        except SystemExit as stop:  # argparse
            code = int(stop.code or 0)
    return code, said.getvalue()


def check(folder: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = {p.name for p in folder.iterdir()}
    code, said = answer(folder, arguments, monkeypatch)
    assert code in (0, 1, 2)
    assert (code == 0) == (said == ""), said
    if code:
        assert said.startswith(("potential-train: ", "usage: ")), said
    assert {p.name for p in folder.iterdir()} == before


quiet = settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@given(st.lists(st.tuples(keys, scalars), min_size=1, max_size=2))
@quiet
def test_assignments(folder: Path, monkeypatch: pytest.MonkeyPatch, pairs: list[tuple[str, object]]) -> None:
    check(folder, ["train.xyz", *(f"--set={key}={value}" for key, value in pairs)], monkeypatch)


def test_the_whole_file_is_sound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise every damage below would be hidden by another."""
    (folder / "c.toml").write_text(FULL, encoding="utf-8")
    assert answer(folder, ["train.xyz", "--config", "c.toml"], monkeypatch) == (0, "")


def mutate(draw: st.DrawFn, text: str) -> str:
    """One place of a text cut, doubled, exchanged, or filled with something else."""
    lines = text.splitlines()
    k = draw(st.integers(0, len(lines) - 1))
    how = draw(st.sampled_from([*["value"] * 6, "drop", "double", "cut", "character", "swap", "key"]))
    name, equals, _ = lines[k].partition(" = ")
    if how == "value" and equals:
        lines[k] = f"{name} = {draw(scalars)}"
    elif how == "key" and equals:
        lines[k] = lines[k].replace(name, draw(st.text(min_size=1, max_size=6)))
    elif how == "drop":
        del lines[k]
    elif how == "double":
        lines.insert(k, lines[k])
    elif how == "cut":
        return text[: draw(st.integers(0, len(text)))]
    elif how == "character":
        at = draw(st.integers(0, len(text) - 1))
        return text[:at] + draw(st.characters(exclude_categories=["Cs"])) + text[at + 1 :]
    elif how == "swap":
        j = draw(st.integers(0, len(lines) - 1))
        lines[k], lines[j] = lines[j], lines[k]
    return "\n".join(lines)


@given(st.data())
@quiet
def test_files(folder: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    text = FULL
    for _ in range(data.draw(st.integers(1, 3))):
        text = data.draw(st.composite(mutate)(text or "\n"))
    (folder / "c.toml").write_text(text, encoding="utf-8")
    check(folder, ["train.xyz", "--config", "c.toml"], monkeypatch)


@given(st.binary(max_size=60))
@settings(quiet, max_examples=60)
def test_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    (folder / "c.toml").write_bytes(content)
    check(folder, ["train.xyz", "--config", "c.toml"], monkeypatch)
