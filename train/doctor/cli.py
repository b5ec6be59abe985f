"""potential-doctor: what is wrong with a data set. Nothing heavy is imported before the arguments are read."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from train.names import set_names
from train.options import add_descriptions, add_files, add_labels, data_settings, described, parse

EPILOG = """exit code:
  0  clean: nothing found, or notes only
  1  warnings: something that a person should look at
  2  errors: labels or files with which training is refused, or wrong arguments

examples:
  potential-doctor train.xyz
  potential-doctor train.xyz --valid valid.xyz --test 300K.xyz 600K.xyz --html doctor.html
  potential-doctor train.xyz --energy-unit kcal/mol --json doctor.json
  potential-doctor train.xyz --targets dipole --set targets.dipole.unit=Debye
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="potential-doctor",
        description="Look for faults in structures with energies, forces and stress: gaps, units, signs, outliers, "
        "duplicates, leaks between sets, cells. No model is needed and nothing is trained.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_files(p)
    p.add_argument("--json", metavar="FILE", help="write everything as JSON")
    p.add_argument("--html", metavar="FILE", help="write one page with plots, which opens without a network")
    add_labels(p)
    add_descriptions(p)
    return p


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code that --help explains."""
    args = parse(parser(), arguments)
    try:
        config = described(args, data_settings(args))
        data = config.data
        if not data.train:
            raise ValueError("no file; give one, for example: potential-doctor train.xyz")
        from train.data.keys import keys
        from train.doctor.examine import examine, to_dict
        from train.doctor.examine_text import text
        from train.prepared.found import completed

        paths = {"train": data.train, **({"valid": data.valid} if data.valid else {})}
        paths |= {name: (pattern,) for name, pattern in set_names(data.test, paths).items()}
        targets = completed(config.targets, [*data.train, *data.valid, *data.test])
        found = examine(paths, keys(data, targets), data.allow_missing)
        print(text(found))
        if args.json:
            from train.report.page import to_json

            Path(args.json).write_text(to_json(to_dict(found)) + "\n", encoding="utf-8")
        if args.html:
            from train.doctor.examine_page import page

            Path(args.html).write_text(page(found), encoding="utf-8")
    except ValueError as error:
        print(f"potential-doctor: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"potential-doctor: {error.filename}: {error.strerror}; give another file", file=sys.stderr)
        return 2
    return found.code
