"""potential-doctor: what is wrong with a data set. Nothing heavy is imported before the arguments are read."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EPILOG = """exit code:
  0  clean: nothing found, or notes only
  1  warnings: something that a person should look at
  2  errors: labels or files with which training is refused, or wrong arguments

examples:
  potential-doctor train.xyz
  potential-doctor train.xyz --valid valid.xyz --test 300K.xyz 600K.xyz --html doctor.html
  potential-doctor train.xyz --energy-unit kcal/mol --json doctor.json
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="potential-doctor",
        description="Look for faults in structures with energies, forces and stress: gaps, units, signs, outliers, "
        "duplicates, leaks between sets, cells. No model is needed and nothing is trained.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("train", help="structures: extxyz or anything ase.io reads, also .xz, .gz, .bz2")
    p.add_argument("--valid", metavar="FILE", help="validation structures")
    p.add_argument("--test", metavar="FILE", action="extend", nargs="+", default=[], help="test structures")
    p.add_argument("--json", metavar="FILE", help="write everything as JSON")
    p.add_argument("--html", metavar="FILE", help="write one page with plots, which opens without a network")
    labels = p.add_argument_group("labels (found and assumed eV, Å unless given)")
    for key in ("energy", "forces", "stress"):
        labels.add_argument(
            f"--{key}-key", metavar="NAME", help=f"name of the {key} in the file; 'none': not read"
        )
    labels.add_argument(
        "--energy-unit", metavar="UNIT", default="eV", help="eV, meV, Ha, Ry, kcal/mol or kJ/mol"
    )
    labels.add_argument("--length-unit", metavar="UNIT", default="Ang", help="Ang or Bohr")
    labels.add_argument(
        "--forces-unit", metavar="UNIT", help="such as Ha/Bohr (default: from the other units)"
    )
    labels.add_argument(
        "--stress-unit", metavar="UNIT", help="such as GPa or kbar (default: from the other units)"
    )
    labels.add_argument("--allow-missing", action="store_true", help="gaps are warnings instead of errors")
    return p


def set_names(args: argparse.Namespace) -> dict[str, str]:
    """Name of each set -> file; tests are called after their files, as in a training."""
    paths = {"train": args.train, **({"valid": args.valid} if args.valid else {})}
    for path in args.test:
        name = Path(path).name.split(".")[0]
        paths[name if name not in paths else f"{name} ({len(paths)})"] = path
    return paths


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code that --help explains."""
    args = parser().parse_args(arguments)
    from train.examine import examine, to_dict
    from train.examine_text import text
    from train.keys import Keys

    try:
        keys = Keys(
            energy=args.energy_key,
            forces=args.forces_key,
            stress=args.stress_key,
            energy_unit=args.energy_unit,
            length_unit=args.length_unit,
            forces_unit=args.forces_unit,
            stress_unit=args.stress_unit,
        )
        found = examine(set_names(args), keys, args.allow_missing)
        print(text(found))
        if args.json:
            from train.report import to_json

            Path(args.json).write_text(to_json(to_dict(found)) + "\n", encoding="utf-8")
        if args.html:
            from train.examine_page import page

            Path(args.html).write_text(page(found), encoding="utf-8")
    except ValueError as error:
        print(f"potential-doctor: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"potential-doctor: {error.filename}: {error.strerror}; give another file", file=sys.stderr)
        return 2
    return found.code
