"""potential-compare: any ASE calculators on one test set, one report. Nothing heavy is imported before the arguments
are read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from potential.analysis.worker import suggestion
from train.compare.checks import CHECKS
from train.compare.contestants import contestants
from train.names import set_name
from train.options import add_labels, data_settings, parse

if TYPE_CHECKING:
    from train.compare.run import Request

LEAST_STEPS = 100  # of dynamics: in fewer, the first vibrations look like a drift
EXAMPLES = """examples:
  potential-compare test.xyz --calculator ours=run/model.safetensors --calculator emt=ase.calculators.emt:EMT
  potential-compare test.xyz --calculator run/model.safetensors --calculator mace=mace.calculators:MACECalculator \\
      --option mace.model_paths=mace.model --option mace.device=cpu --python mace=mace-env/bin/python
  potential-compare test.xyz --calculator xtb=tblite.ase:TBLite --option xtb.method=GFN2-xTB --align always
  potential-compare test.xyz --calculator run/model.safetensors --crystal Si --known a0=5.469 --known B0=88.5

The first calculator is the one that others are compared with. Each runs in a process of its own, on one thread.
"""


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(
        prog="potential-compare",
        description="Compare any ASE calculators on a test set: errors with intervals, speed, memory, and the physics "
        "that errors do not show. A terminal table, JSON, CSV, pictures and one page.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="the test set: files or quoted patterns, as for potential-train",
    )
    p.add_argument(
        "--calculator", action="append", default=[], metavar="[NAME=]WHAT",
        help="model of potential-train, SNAP (NAME.snapcoeff), preset, MODULE:FACTORY or FILE.py:FACTORY; repeat it",
    )  # fmt: skip
    p.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="Python of the environment of a calculator",
    )
    p.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME.KEY=VALUE",
        help="argument of a calculator's factory",
    )
    p.add_argument(
        "--output", metavar="DIR", help="for all that is written (default: name of the test set + '-compare')"
    )
    add_errors(p)
    add_checks(p)
    add_speed(p)
    add_labels(p)
    p.set_defaults(train=None, valid=None, test=None)
    return p


def add_errors(p: argparse.ArgumentParser) -> None:
    """How errors are told."""
    g = p.add_argument_group("errors")
    g.add_argument(
        "--align", choices=("auto", "always", "never"), default="auto",
        help="shift energies by element before comparing them: where zeros differ, or as you say (default: auto)",
    )  # fmt: skip
    g.add_argument(
        "--group-key",
        default="config_type",
        metavar="NAME",
        help="entry of a frame's info to group errors by",
    )
    g.add_argument(
        "--measure", choices=("rmse", "mae"), default="rmse", help="of differences (default: rmse)"
    )
    g.add_argument(
        "--block",
        type=int,
        default=1,
        metavar="N",
        help="neighboring frames resampled together, for trajectories",
    )
    g.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default="float64",
        help="of errors and checks (default: float64)",
    )
    g.add_argument(
        "--cutoff", type=float, default=5.0, metavar="Å", help="of untrained networks (default: 5)"
    )


def add_checks(p: argparse.ArgumentParser) -> None:
    """What is asked beside the errors."""
    g = p.add_argument_group("physical checks")
    g.add_argument(
        "--checks",
        default="all",
        metavar="NAME,...",
        help=f"all, none, or some of {', '.join(CHECKS)} (default: all)",
    )
    g.add_argument(
        "--crystal", default="", metavar="WHAT",
        help="file, or NAME:STRUCTURE:A such as Cu:fcc:3.6, or none (default: found in the test set)",
    )  # fmt: skip
    g.add_argument(
        "--known",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="value to print beside: a0, B0, C11, vacancy, ...",
    )
    g.add_argument(
        "--limit",
        type=float,
        default=600.0,
        metavar="S",
        help="longest time of one answer of a calculator, which is stopped after it (default: 600)",
    )
    g.add_argument("--steps", type=int, default=400, metavar="N", help="of dynamics (default: 400)")
    g.add_argument("--temperature", type=float, default=300.0, metavar="K", help="of dynamics (default: 300)")
    g.add_argument("--seed", type=int, default=0, help="of rotations, directions, velocities (default: 0)")


def add_speed(p: argparse.ArgumentParser) -> None:
    """What is timed."""
    g = p.add_argument_group("speed and memory")
    g.add_argument(
        "--systems", nargs="+", default=[], metavar="NAME",
        help="as for potential-bench, or none (default: the largest test frame, also repeated to about 500 atoms)",
    )  # fmt: skip
    g.add_argument(
        "--speed-dtype", choices=("float32", "float64"), help="of the clock (default: that of --dtype)"
    )
    g.add_argument(
        "--rounds", type=int, default=15, metavar="N", help="turns of every contestant (default: 15)"
    )
    g.add_argument(
        "--seconds", type=float, default=30.0, metavar="S", help="no new round after this time (default: 30)"
    )
    g.add_argument(
        "--skin", type=float, default=0.0, metavar="Å", help="of calculators that keep their neighbors"
    )


def request(args: argparse.Namespace) -> Request:
    """The arguments, checked.

    Raises:
        ValueError: naming the option, what it was and what it may be.
    """
    from train.compare.run import Request

    wanted = {"all": list(CHECKS), "none": []}.get(args.checks, args.checks.split(","))
    for name in wanted:
        if name not in CHECKS:
            raise ValueError(
                f"--checks {name}: there is no such check{suggestion(name, CHECKS)}; there are {', '.join(CHECKS)}"
            )
    for option in ("block", "limit", "rounds", "seconds", "cutoff", "steps", "temperature"):
        if not 0 < getattr(args, option) < 1e9:
            raise ValueError(f"--{option} {getattr(args, option)}: it must be positive")
    if args.steps < LEAST_STEPS:
        raise ValueError(f"--steps {args.steps}: a drift needs {LEAST_STEPS} or more")
    if not args.skin >= 0:
        raise ValueError(f"--skin {args.skin}: it cannot be negative")
    keys = [key for check in CHECKS.values() for key in check.values]
    values = {}
    for text in args.known:
        name, _, number = text.partition("=")
        if name not in keys:
            raise ValueError(
                f"--known {text}: no check gives {name!r}{suggestion(name, keys)}; there are {', '.join(keys)}"
            )
        try:
            values[name] = float(number)
        except ValueError:
            raise ValueError(f"--known {text}: expected a number after {name}=") from None
    same = ("crystal", "group_key", "align", "measure", "block", "dtype", "limit", "systems", "rounds", "seconds",
            "cutoff", "skin", "steps", "temperature", "seed")  # fmt: skip
    who = contestants(args.calculator, args.python, args.option)
    more = {name: getattr(args, name) for name in same}
    return Request(who, wanted, known=values, speed_dtype=args.speed_dtype or args.dtype, **more)


def run(args: argparse.Namespace) -> int:
    """Compare, print, write; 1 where a contestant predicted nothing.

    Raises:
        ValueError: anything a user can put right.
    """
    if not args.files:
        raise ValueError(
            "no test set; give files, for example: potential-compare test.xyz --calculator model.safetensors"
        )
    what = request(args)
    from train.compare.frames import read_frames
    from train.compare.report import report
    from train.compare.run import compare

    directory = Path(args.output or f"{set_name(args.files[0])}-compare")
    directory.mkdir(parents=True, exist_ok=True)
    frames, labels = read_frames(args.files, data_settings(args))
    found, sets = compare(frames, what, lambda text: print(text, file=sys.stderr, flush=True))
    for line in report({**found, "labels": labels}, sets, directory):
        print(line)
    lost = dict(found["broken"])
    lost |= {name: one[0]["reason"] for name, one in found["failures"].items() if len(one) == len(frames)}
    for name, reason in lost.items():
        print(f"potential-compare: {name} could not be compared: {reason}", file=sys.stderr)
    return 1 if lost else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 1 an error that was explained, 130 stopped by Ctrl-C."""
    args = parse(parser(), arguments)
    try:
        return run(args)
    except ValueError as error:
        print(f"potential-compare: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"potential-compare: {error.filename}: {error.strerror}; give another file or directory",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("potential-compare: stopped; nothing was written", file=sys.stderr)
        return 130
