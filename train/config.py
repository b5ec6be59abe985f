"""The settings of a run: plain dataclasses, TOML, --set section.key=value, errors that suggest the right name."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"channels": 16, "message_channels": 16, "vector_channels": 8, "lmax": 2, "correlation": 2},
    "small": {"channels": 64, "message_channels": 32, "vector_channels": 16, "lmax": 2},
    "medium": {"channels": 128, "message_channels": 64, "vector_channels": 32, "lmax": 2},
    "large": {"channels": 192, "message_channels": 96, "vector_channels": 48, "lmax": 3, "hidden_lmax": 2},
}


@dataclass(frozen=True)
class Data:
    """[data]: which files, and where their labels are."""

    train: tuple[str, ...] = ()  # files with the training frames; may hold patterns such as runs/*.xyz
    valid: tuple[str, ...] = ()  # files with validation frames; empty: split off the training frames
    test: tuple[str, ...] = ()  # files to report errors on, one set for each entry
    isolated_atoms: tuple[str, ...] = ()  # files with isolated atoms, for E0
    valid_fraction: float = 0.1  # part of the training frames kept for validation
    folds: int = (
        0  # instead of valid_fraction: parts for cross-validation, of which part number `fold` validates
    )
    fold: int = 0  # from 0 to folds - 1
    split: str = (
        "random"  # random, or blocks: whole stretches of each trajectory (file and config_type) validate
    )
    group_key: str = ""  # entry of info that names groups, which are never torn apart
    energy_key: str = ""  # name of the energy in the file; empty: find it
    forces_key: str = ""
    stress_key: str = ""
    energy_unit: str = (
        ""  # eV, meV, Ha, Ry, kcal/mol or kJ/mol; empty: what the file says, for ASE's formats eV
    )
    length_unit: str = ""  # Ang or Bohr; empty: what the file says, for ASE's formats Ang
    forces_unit: str = ""  # such as Ha/Bohr; empty: energy_unit / length_unit
    stress_unit: str = ""  # such as GPa, kbar; empty: energy_unit / length_unit^3
    allow_missing: bool = False  # accept frames without a label that other frames have

    def __post_init__(self) -> None:
        for name in ("train", "valid", "test", "isolated_atoms"):  # one name is a list of one
            value = getattr(self, name)
            if isinstance(value, str):
                object.__setattr__(self, name, (value,) if value else ())


@dataclass(frozen=True)
class Weights:
    """[weights.<config_type>]: factors of that type's squared errors; 0: the label is not used."""

    energy: float = 1.0
    forces: float = 1.0
    stress: float = 1.0


@dataclass(frozen=True)
class Fit:
    """[fit]: how to train. Weights multiply mean squared errors in units of the force RMS."""

    epochs: int = 0  # 0: from `minutes`, or chosen from the data
    minutes: float = 0.0  # wall time of training; 0: from `epochs`
    batch_size: int = 0  # structures per step; 0: chosen from the data
    optimizer: str = "soap"  # soap or adamw
    learning_rate: float = 0.005
    weight_decay: float = 0.0
    warmup_steps: int = 100  # at most one epoch, so that it does not depend on the length of the run
    decay: float = 0.6  # last part of the run, over which the learning rate falls to zero
    loss: str = "mse"  # mse or huber
    huber_delta: float = 0.01  # in units of the scale
    energy_weight: float = 1.0  # of the energy per atom
    forces_weight: float = 1.0
    stress_weight: float = 0.1  # of the virial per atom
    clip: float = 10.0  # largest norm of the gradient
    ema: float = 0.99  # decay of the moving average of the weights
    max_skipped: int = (
        5  # steps in a row without a finite loss or gradient that stop the run; fewer are skipped
    )
    on_oom: str = "stop"  # where a batch does not fit into memory: stop, or shrink: take it in parts
    patience: int = 200  # epochs without a better validation error before stopping
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"


@dataclass(frozen=True)
class Config:
    data: Data = field(default_factory=Data)
    model: Mapping[str, Any] = field(default_factory=dict)  # preset, network and its dials
    fit: Fit = field(default_factory=Fit)
    weights: Mapping[str, Weights] = field(default_factory=dict)  # of each config_type that has its own
    e0: Mapping[str, float] = field(default_factory=dict)  # symbol -> eV of the isolated atom, where given


SECTIONS = ("data", "model", "fit", "weights", "e0")


def set_name(pattern: str) -> str:
    """What the frames of a file or pattern are called.

    >>> set_name("data/test_300K.xyz.xz"), set_name("runs/md_*.xyz"), set_name("runs/*.xyz")
    ('test_300K', 'md_*', 'runs')
    """
    path = Path(pattern)
    parts = [part.split(".")[0] for part in (path.name, *reversed(path.parent.parts))]
    return next((part for part in parts if part.strip("*?/")), path.name)


def set_names(patterns: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """A name of its own for each test set -> its file or pattern.

    >>> set_names(["a/300K.xyz", "b/300K.xyz"], ["train", "valid"])
    {'300K': 'a/300K.xyz', '300K (3)': 'b/300K.xyz'}
    """
    names = list(taken)
    out: dict[str, str] = {}
    for pattern in patterns:
        name = set_name(pattern)
        name = name if name not in names else f"{name} ({len(names)})"
        names.append(name)
        out[name] = pattern
    return out


def suggest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'cutoff'?`, or nothing."""
    from potential.model import suggestion  # heavy, and needed only for an error

    return suggestion(word, known)


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
        elif section == "weights":
            sections["weights"] = _with_weights(sections["weights"], values)
        elif section == "e0":
            sections["e0"] = {**sections["e0"], **{s: _e0_value(s, v) for s, v in values.items()}}
        else:
            settings = sections[section]
            checked = {k: _checked(section, settings, k, v) for k, v in values.items()}
            sections[section] = replace(settings, **checked)
    return Config(**sections)


def _with_weights(weights: Mapping[str, Weights], changes: Mapping[str, Any]) -> dict[str, Weights]:
    """`changes` are tables as in TOML, {config_type: {label: number}}, or {"config_type.label": number}."""
    out = dict(weights)
    for name, value in changes.items():
        kind, _, label = (name, "", "") if isinstance(value, Mapping) else name.rpartition(".")
        if not kind:
            raise ValueError(
                f"[weights] {name} is {value!r}; expected [weights.{name}] with energy, forces or stress"
            )
        old = out.get(kind, Weights())
        given = value if isinstance(value, Mapping) else {label: value}
        out[kind] = replace(old, **{k: _checked(f"weights.{kind}", old, k, v) for k, v in given.items()})
    return out


def _e0_value(symbol: str, value: Any) -> float:
    from ase.data import atomic_numbers  # needed only where E0 is given

    if symbol not in atomic_numbers or symbol == "X":
        raise ValueError(
            f"[e0] {symbol!r} is no chemical symbol{suggest(symbol, atomic_numbers)}; write H = -13.6"
        )
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(
            f"[e0] {symbol} is {value!r}; expected the energy of the isolated atom in eV, such as -13.6"
        )
    return float(value)


def _checked(section: str, settings: Any, key: str, value: Any) -> Any:
    known = {f.name: getattr(settings, f.name) for f in fields(settings)}
    if key not in known:
        raise ValueError(
            f"[{section}] has no setting {key!r}{suggest(key, known)}; it has {', '.join(known)}"
        )
    wanted = type(known[key])
    if wanted is float and type(value) is int:
        return float(value)
    if wanted is tuple and isinstance(value, str):
        return (value,) if value else ()
    if wanted is tuple and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return tuple(value)
    if type(value) is not wanted:
        kind = {"tuple": "list of strings", "str": "string", "float": "number", "int": "whole number"}
        name = kind.get(wanted.__name__, wanted.__name__)
        raise ValueError(f"[{section}] {key} is {value!r}; expected a {name} such as {known[key]!r}")
    return value


CHOICES = {
    "optimizer": ("soap", "adamw"),
    "loss": ("mse", "huber"),
    "dtype": ("float32", "float64"),
    "on_oom": ("stop", "shrink"),
}


def check(config: Config) -> None:
    """Refuse values that cannot work together.

    Raises:
        ValueError: naming the setting, what it was and what it may be.
    """
    fit = config.fit
    for key, allowed in CHOICES.items():
        value = getattr(fit, key)
        if value not in allowed:
            raise ValueError(
                f"[fit] {key} is {value!r}{suggest(value, allowed)}; it must be one of {', '.join(allowed)}"
            )
    if fit.epochs and fit.minutes:
        raise ValueError(
            f"both epochs = {fit.epochs} and minutes = {fit.minutes} are given; give one, the other follows"
        )
    for key in ("epochs", "minutes", "batch_size", "weight_decay", "warmup_steps", "energy_weight", "forces_weight",
                "stress_weight", "patience"):  # fmt: skip
        if not getattr(fit, key) >= 0:
            raise ValueError(f"[fit] {key} is {getattr(fit, key)}; it cannot be negative")
    if not max(fit.energy_weight, fit.forces_weight) > 0:
        raise ValueError(
            "[fit] energy_weight and forces_weight are both 0: nothing to learn; raise one of them"
        )
    for key in ("learning_rate", "huber_delta", "clip", "max_skipped"):
        if not getattr(fit, key) > 0:
            raise ValueError(f"[fit] {key} is {getattr(fit, key)}; it must be positive")
    for section, key, high in (("fit", "ema", 1.0), ("fit", "decay", 1.0), ("data", "valid_fraction", 0.9)):
        value = getattr(getattr(config, section), key)
        if not 0 < value <= high:
            raise ValueError(f"[{section}] {key} is {value}; it must be above 0 and at most {high}")
    preset = config.model.get("preset", "small")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ValueError(
            f"there is no preset {preset!r}{suggest(str(preset), PRESETS)}; there are {', '.join(PRESETS)}"
        )


def to_toml(config: Config) -> str:
    """The configuration as TOML text that `read_toml` and `update` take back unchanged."""
    import tomli_w

    sections = asdict(config)
    return tomli_w.dumps({k: v for k, v in sections.items() if v or k not in ("weights", "e0")})
