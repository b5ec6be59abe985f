"""Settings as text: TOML files and --set section.key=value, read into a Config and written from one."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from train.config import SECTIONS, Config, Weights
from train.option import checked, suggest
from train.target import Target

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


# Sections of tables, each with a name of its own: the settings of a table, and what they are.
TABLES: dict[str, tuple[Any, str]] = {
    "weights": (Weights, "energy, forces or stress"),
    "targets": (Target, "key, unit, irreps, per or weight"),
}


def read_toml(path: str) -> dict[str, Any]:
    """Sections of a TOML file.

    Raises:
        ValueError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{path}: there is no such configuration file; give the path of a TOML file"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a TOML file: {error}") from error


def parse_assignment(text: str) -> tuple[str, str, Any]:
    """`model.channels=64` -> ("model", "channels", 64); values are written as in TOML, quotes may be left out."""
    name, equals, value = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not equals or not dot:
        raise ValueError(f"--set {text}: expected section.key=value, for example --set model.channels=64")
    try:
        return section, key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return section, key, value.strip()


def update(config: Config, changes: Mapping[str, Mapping[str, Any]]) -> Config:
    """The configuration with `changes` ({section: {key: value}}) made.

    Raises:
        ValueError: an unknown section or key, with the nearest known one, or a value of another type.
    """
    sections: dict[str, Any] = {name: getattr(config, name) for name in SECTIONS}
    for section, values in changes.items():
        if section not in SECTIONS:
            names = ", ".join(SECTIONS)
            hint = suggest(section, SECTIONS) if isinstance(values, Mapping) else ", and it stands in none"
            raise ValueError(f"there is no section [{section}]{hint}; there are {names}")
        if not isinstance(values, Mapping):
            raise ValueError(f"{section} is {values!r}; expected a section [{section}] with settings")
        if section == "model":
            sections["model"] = {**sections["model"], **values}
        elif section in TABLES:
            sections[section] = _with_tables(section, sections[section], values)
        elif section == "e0":
            sections["e0"] = {**sections["e0"], **{s: _e0_value(s, v) for s, v in values.items()}}
        else:
            settings = sections[section]
            sections[section] = replace(
                settings, **{k: checked(section, settings, k, v) for k, v in values.items()}
            )
    return Config(**sections)


def _with_tables(section: str, tables: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` are tables as in TOML, {name: {key: value}}, or {"name.key": value}."""
    out = dict(tables)
    kind, example = TABLES[section]
    for name, value in changes.items():
        table, _, key = (name, "", "") if isinstance(value, Mapping) else name.rpartition(".")
        if not table:
            raise ValueError(f"[{section}] {name} is {value!r}; expected [{section}.{name}] with {example}")
        old = out.get(table, kind())
        given = value if isinstance(value, Mapping) else {key: value}
        out[table] = replace(old, **{k: checked(f"{section}.{table}", old, k, v) for k, v in given.items()})
    return out


def _e0_value(symbol: str, value: Any) -> float:
    from ase.data import atomic_numbers  # needed only where E0 is given

    elements = [s for s in atomic_numbers if s != "X"]
    if symbol not in elements:
        raise ValueError(f"[e0] {symbol!r} is no chemical symbol{suggest(symbol, elements)}; write H = -13.6")
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(
            f"[e0] {symbol} is {value!r}; expected the energy of the isolated atom in eV, such as -13.6"
        )
    return float(value)


def as_sections(config: Config) -> dict[str, Any]:
    """The configuration as plain tables that `update` takes back unchanged."""
    return tomllib.loads(to_toml(config))


def to_toml(config: Config) -> str:
    """The configuration as TOML text that `read_toml` and `update` take back unchanged."""
    import tomli_w

    sections = asdict(config)
    return tomli_w.dumps({k: v for k, v in sections.items() if v or k not in (*TABLES, "e0")})
