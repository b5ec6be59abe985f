"""potential-bench: how fast a potential is, beside others. Nothing heavy is imported before the arguments are read."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potential.analysis.contestants import Contestant, distinct, parse_calculator
from potential.analysis.systems import System, build_system, relabel, standard
from potential.analysis.worker import TASKS, suggestion

if TYPE_CHECKING:
    from potential.analysis.speed import Settings

SAVED, PRESET = (
    "train.contestant:saved",
    "train.contestant:factory",
)  # named: they run in the contestant's process
DTYPES = ("float32", "float64")
EXAMPLES = """examples:
  potential-bench model.safetensors
  potential-bench --preset small medium --max-atoms 4096 --threads 1
  potential-bench --preset medium --calculator examples/compare/mace.py:factory --python mace-env/bin/python
  potential-bench --preset small --calculator ase.calculators.emt:EMT --systems Cu108 Cu864
"""


class _AddCalculator(argparse.Action):
    """--calculator adds a contestant."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        namespace.calculator = [*namespace.calculator, (values, "")]


class _SetPython(argparse.Action):
    """--python belongs to the --calculator before it."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        if not namespace.calculator:
            parser.error("--python PATH stands after the --calculator that it belongs to")
        namespace.calculator = [*namespace.calculator[:-1], (namespace.calculator[-1][0], values)]


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(
        prog="potential-bench",
        description="Measure energy and forces, with and without the neighbor list, and training steps: time, memory, "
        "growth with the number of atoms. Contestants run in processes of their own and take turns, so that "
        "their ratios hold on a busy machine too.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("model", nargs="*", help="files written by potential-train or potential.save")
    p.add_argument(
        "--preset",
        nargs="+",
        default=[],
        metavar="NAME",
        help="untrained networks: tiny, small, ...; painn-tiny, ...",
    )
    p.add_argument(
        "--calculator", action=_AddCalculator, default=[], metavar="[NAME=]MODULE:FACTORY",
        help="any ASE calculator, or FILE.py:FACTORY, such as those of examples/compare; may be repeated",
    )  # fmt: skip
    p.add_argument(
        "--python",
        action=_SetPython,
        metavar="PATH",
        help="Python of the environment of the --calculator before it",
    )
    _add_measurement(p, os.cpu_count() or 1)
    p.add_argument("--output", default="speed-run", metavar="DIR", help="for speed.jsonl and speed.png")
    return p


def _add_measurement(p: argparse.ArgumentParser, cores: int) -> None:
    """What is measured, and how."""
    p.add_argument(
        "--systems", nargs="+", metavar="NAME",
        help="'molecules' (5 of 27 atoms), crystals such as Si64 or Cu108, or files of structures (the first 5)",
    )  # fmt: skip
    p.add_argument(
        "--max-atoms", type=int, default=512, metavar="N", help="largest crystal of the standard series"
    )
    p.add_argument(
        "--tasks",
        nargs="+",
        default=[task for task in TASKS if task != "dynamics"],
        metavar="TASK",
        help="forces, dynamics, evaluation, training (default: all but dynamics)",
    )
    p.add_argument("--dtype", nargs="+", default=["float32"], metavar="TYPE", help="float32, float64")
    p.add_argument(
        "--threads", nargs="+", type=int, default=sorted({1, cores}), metavar="N",
        help="1: CPU time on one pinned thread; more: wall time (default: 1 and all)",
    )  # fmt: skip
    p.add_argument(
        "--cutoff", type=float, default=5.0, metavar="Å", help="of untrained networks (default: 5)"
    )
    p.add_argument(
        "--skin",
        type=float,
        default=0.0,
        metavar="Å",
        help="of calculators that can keep their neighbors (default: 0)",
    )
    p.add_argument(
        "--device", default="cpu", help="of calculators that can be told: cpu (default), cuda, cuda:1"
    )
    p.add_argument(
        "--rounds", type=int, default=15, metavar="N", help="turns of every contestant (default: 15)"
    )
    p.add_argument(
        "--seconds",
        type=float,
        default=30.0,
        metavar="S",
        help="begin no new round after this time (default: 30)",
    )


def contestants(args: argparse.Namespace) -> list[Contestant]:
    """All that were asked for; the preset `small` if none was.

    Raises:
        ValueError: a calculator that names no factory, or two contestants of one name.
    """
    found = [Contestant(Path(path).stem, SAVED, options={"model": path}) for path in args.model]
    presets = args.preset or ([] if args.model or args.calculator else ["small"])
    found += [Contestant(name, PRESET, options={"preset": name}) for name in presets]
    found += [replace(parse_calculator(text), python=python) for text, python in args.calculator]
    distinct(found)
    return found


def systems(args: argparse.Namespace) -> list[System]:
    """What was asked for, or the standard series; in elements that all given models know.

    Raises:
        ValueError: an unknown system, a file without a model, or models that have no element in common.
    """
    built = [build_system(name) for name in args.systems or standard(args.max_atoms)]
    if args.model:
        from potential.checkpoint import read

        known = [read(path)[0]["statistics"]["elements"] for path in args.model]
        common = [symbol for symbol in known[0] if all(symbol in others for others in known)]
        if not common:
            raise ValueError(f"{', '.join(args.model)} have no element in common; measure them one by one")
        built = [relabel(system, common) for system in built]
    return built


def settings(args: argparse.Namespace) -> Settings:
    """The arguments, checked; a device is checked by whoever is to use it.

    Raises:
        ValueError: naming the option, what it was and what it may be.
    """
    from potential.analysis.speed import Settings

    for option, values, known in (("--tasks", args.tasks, TASKS), ("--dtype", args.dtype, DTYPES)):
        for value in values:
            if value not in known:
                raise ValueError(
                    f"{option} {value}: there is no such choice{suggestion(value, known)}; "
                    f"there are {', '.join(known)}"
                )
    cores = os.cpu_count() or 1
    if not all(1 <= n <= cores for n in args.threads):
        raise ValueError(f"--threads {' '.join(map(str, args.threads))}: give numbers from 1 to {cores}")
    if not args.skin >= 0:
        raise ValueError(f"--skin {args.skin}: it cannot be negative")
    for option in ("rounds", "seconds", "cutoff", "max_atoms"):
        if not getattr(args, option) > 0:
            raise ValueError(f"--{option.replace('_', '-')} {getattr(args, option)}: it must be positive")
    return Settings(
        systems=systems(args),
        tasks=[task for task in TASKS if task in args.tasks],
        dtypes=args.dtype,
        threads=args.threads,
        cutoff=args.cutoff,
        skin=args.skin,
        device=args.device,
        rounds=args.rounds,
        seconds=args.seconds,
    )


def run(args: argparse.Namespace) -> int:
    """Measure, print, write.

    Raises:
        ValueError: anything a user can put right.
    """
    from potential.analysis.speed import measure
    from potential.analysis.tables import append_line, draw, latest, number, table

    who, what = contestants(args), settings(args)
    directory = Path(args.output)
    directory.mkdir(parents=True, exist_ok=True)

    lines = []
    for line in measure(who, what):
        append_line(directory / "speed.jsonl", line)
        lines.append(line)
        time = f"{number(line['wall_ms'])} ms" if "wall_ms" in line else line["error"]
        case = ", ".join(str(line[key]) for key in ("system", "task", "dtype", "threads"))
        print(f"{line['contestant']}, {case} threads: {time}", file=sys.stderr)
    draw(latest(directory / "speed.jsonl"), directory / "speed.png")
    print(table(lines))
    print(f"\nwritten: {directory / 'speed.jsonl'}, {directory / 'speed.png'}")
    return 0 if any("error" not in line for line in lines) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 measured, 1 an error that was explained, 130 stopped by Ctrl-C."""
    args = parser().parse_args(arguments)
    try:
        return run(args)
    except ValueError as error:
        print(f"potential-bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"potential-bench: stopped; what was measured is in {args.output}", file=sys.stderr)
        return 130
