"""Names of contestants: models of ours, presets, and factories of any calculators, with their Pythons and options."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from potential.analysis.contestants import Contestant, distinct, parse_calculator
from potential.analysis.worker import suggestion
from train.config import PRESETS
from train.toml import parse_assignment

SNAP = "potential.linear.snap_calculator:SnapCalculator"
SAVED, PRESET = (
    "train.contestant:saved",
    "train.contestant:factory",
)  # named: they run in the contestant's process


def contestant(text: str) -> Contestant:
    """A model file, a SNAP, a preset or a factory, each with its name or without.

    Raises:
        ValueError: none of these.
    """
    name, equals, what = text.partition("=")
    if not equals:
        name, what = "", text
    if Path(what).is_file() and not what.endswith(".py"):
        factory = SNAP if what.endswith(".snapcoeff") else SAVED
        return Contestant(name or Path(what).stem, factory, options={"model": what})
    if what.rpartition("-")[2] in PRESETS:
        return Contestant(name or what, PRESET, options={"preset": what})
    if ":" not in what:
        kind = "there is no such file" if Path(what).suffix else "no such file or preset"
        raise ValueError(
            f"--calculator {text}: {kind}{suggestion(what, PRESETS)}; give a model file, a preset "
            f"({', '.join(PRESETS)}), or module:factory such as ase.calculators.emt:EMT"
        )
    return parse_calculator(text)


def contestants(
    calculators: Sequence[str], pythons: Sequence[str], options: Sequence[str]
) -> list[Contestant]:
    """All that were asked for, with their Pythons and options.

    Raises:
        ValueError: none, two of one name, or an option of an unknown one.
    """
    found = [contestant(text) for text in calculators]
    if not found:
        raise ValueError("no calculator; give at least one: --calculator model.safetensors")
    distinct(found)
    named = {one.name: one for one in found}
    for text in pythons:
        name, _, path = text.partition("=")
        known(name, named, f"--python {text}", "NAME=PATH")
        named[name] = replace(named[name], python=path)
    for text in options:
        name, dot, rest = text.partition(".")
        known(name if dot else "", named, f"--option {text}", "NAME.KEY=VALUE")
        if "=" not in rest:
            raise ValueError(f"--option {text}: expected NAME.KEY=VALUE, such as xtb.method=GFN2-xTB")
        _, key, value = parse_assignment(f"option.{rest}")
        named[name] = replace(named[name], options={**named[name].options, key: value})
    return list(named.values())


def known(name: str, names: Collection[str], option: str, form: str) -> None:
    """Refuse what is said of nobody.

    Raises:
        ValueError: naming those there are.
    """
    if name not in names:
        raise ValueError(
            f"{option}: expected {form} with the name of a calculator{suggestion(name, names)}; there are "
            f"{', '.join(names)}"
        )
