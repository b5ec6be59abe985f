"""Options that the commands share: which files, and where their labels are."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Any

from train.config import Config
from train.option import suggest
from train.toml import parse_assignment, read_toml, update

LABEL_OPTIONS = (
    "energy_key",
    "forces_key",
    "stress_key",
    "energy_unit",
    "length_unit",
    "forces_unit",
    "stress_unit",
)


def parse(p: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """`p.parse_intermixed_args`, which says what an unknown option may have been meant to be."""
    args, unknown = p.parse_known_intermixed_args(arguments)
    if unknown:
        options = re.findall(r"--[a-z-]+", p.format_usage())
        wrong = next((word for word in unknown if word.startswith("--")), "").partition("=")[0]
        p.error(f"unrecognized arguments: {' '.join(unknown)}{suggest(wrong, options) if wrong else ''}")
    return args


def add_files(p: argparse.ArgumentParser) -> None:
    """Files or patterns for training, validation and tests."""
    p.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="training structures, files or quoted patterns: extxyz, all that ase.io reads, npz, HDF5; also packed",
    )
    several: dict[str, Any] = {"metavar": "FILE", "action": "extend", "nargs": "+"}
    p.add_argument("--train", help="the same, by name", **several)
    p.add_argument(
        "--valid", help="validation structures; without them, training keeps a tenth of its own", **several
    )
    p.add_argument("--test", help="test structures, a set for each file or pattern", **several)


def add_start(p: argparse.ArgumentParser) -> None:
    """The model a run starts from, and the data it came from."""
    p.add_argument("--from", dest="start", metavar="MODEL", help="start from this saved potential")
    p.add_argument(
        "--replay",
        metavar="FILE",
        action="extend",
        nargs="+",
        help="with --from: old frames, not to be forgotten",
    )
    p.add_argument(
        "--replay-weight",
        type=float,
        metavar="W",
        help="what an old frame counts beside a new one (default: 1)",
    )


def add_feeding(p: argparse.ArgumentParser) -> None:
    """How frames come to a step of training."""
    p.add_argument("--batch-atoms", type=int, metavar="N", help="most atoms per step (default: no limit)")
    p.add_argument("--batch-edges", type=int, metavar="N", help="most edges per step (default: no limit)")
    p.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that read a prepared set (default: 1 if a core is left)",
    )


def add_labels(p: argparse.ArgumentParser, gaps: bool = True) -> None:
    """Names and units of the labels, and with `gaps` whether some frames may lack them."""
    labels = p.add_argument_group("labels (found; in eV and Å unless the file or you say otherwise)")
    for key in ("energy", "forces", "stress"):
        labels.add_argument(
            f"--{key}-key", metavar="NAME", help=f"name of the {key} in the file; 'none' to leave it out"
        )
    labels.add_argument("--energy-unit", metavar="UNIT", help="eV, meV, Ha, Ry, kcal/mol or kJ/mol")
    labels.add_argument("--length-unit", metavar="UNIT", help="Ang or Bohr")
    labels.add_argument(
        "--forces-unit", metavar="UNIT", help="such as Ha/Bohr (default: from the other units)"
    )
    labels.add_argument(
        "--stress-unit", metavar="UNIT", help="such as GPa or kbar (default: from the other units)"
    )
    if gaps:
        labels.add_argument(
            "--allow-missing", action="store_true", help="accept labels that only some frames have"
        )


def add_targets(p: argparse.ArgumentParser) -> None:
    """What to predict beside the energy."""
    p.add_argument(
        "--targets",
        nargs="+",
        default=[],
        metavar="NAME",
        help="labels beside energy, forces and stress: dipole, polarizability, or one described by [targets.NAME]",
    )


def add_descriptions(p: argparse.ArgumentParser) -> None:
    """As `add_targets`, with what else is to be said of them where no run is set up."""
    add_targets(p)
    p.add_argument(
        "--set",
        metavar="targets.NAME.KEY=VALUE",
        action="append",
        default=[],
        help="say more of a target: key, unit, irreps or per, for example targets.dipole.unit=Debye",
    )
    p.add_argument(
        "--config", metavar="FILE", help="TOML with sections [data] and [targets], as of potential-train"
    )


def described(args: argparse.Namespace, data: Mapping[str, Any]) -> Config:
    """Files, labels and targets: of the TOML file, then `data` (of the options), then --set.

    Raises:
        ValueError: no such file, unknown settings, or others than those of targets in --set.
    """
    config = update(Config(), read_toml(args.config)) if args.config else Config()
    config = update(config, {"data": data, "targets": {name: {} for name in args.targets}})
    for text in args.set:
        section, key, value = parse_assignment(text)
        if section != "targets":
            raise ValueError(
                f"--set {text}: only targets can be described here, for example targets.dipole.unit=Debye; labels have "
                "options, such as --energy-key"
            )
        config = update(config, {section: {key: value}})
    return config


def data_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the options say of [data]; only what was given."""
    given = {
        "train": [*args.files, *(args.train or [])] or None,
        "valid": args.valid,
        "test": args.test,
        **{name: getattr(args, name) for name in LABEL_OPTIONS},
        "allow_missing": args.allow_missing or None,
    }
    return {name: value for name, value in given.items() if value is not None}
