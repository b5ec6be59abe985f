"""potential-train: from a data file to a potential. Nothing heavy is imported before the arguments are read."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from train.config import NETWORK, TUNING, Config, check
from train.memory import is_out_of_memory
from train.names import set_name
from train.options import add_feeding, add_files, add_labels, add_start, add_targets, data_settings, parse
from train.toml import parse_assignment, read_toml, update

OF_DATA = ("folds", "fold", "replay", "replay_weight")
EXAMPLES = """examples:
  potential-train train.xyz
  potential-train train.xyz --test test.xyz --minutes 10 --output water
  potential-train train.xyz --preset medium --epochs 200 --set model.cutoff=6.0
  potential-train 'runs/*.xyz' more.db --valid last.traj --output water
  potential-train rmd17.npz --energy-unit kcal/mol --length-unit Ang --folds 5 --fold 0
  potential-train new.xyz --from water/model.safetensors --replay old.xyz --test old_test.xyz
  potential-train train.xyz --targets dipole polarizability --set targets.dipole.unit=Debye
  potential-train --resume --output water
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="potential-train",
        description="Train an equivariant interatomic potential on structures with energies and forces. "
        "Labels, settings and the length of the run are found from the data; every option is optional.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_files(p)
    p.add_argument("--folds", type=int, metavar="N", help="split for cross-validation: N parts, and ...")
    p.add_argument("--fold", type=int, metavar="K", help="... part number K, from 0, validates")
    add_start(p)
    p.add_argument(
        "--minutes", type=float, help="time to train for, of the clock on the wall (see fit.clock)"
    )
    p.add_argument("--epochs", type=int, help="passes over the training frames, instead of --minutes")
    p.add_argument(
        "--preset", help="size of the network: tiny, small, medium or large (default: from the data)"
    )
    p.add_argument("--network", metavar="NAME", help=f"architecture (default: {NETWORK}; see docs/CONFIG.md)")
    add_feeding(p)
    p.add_argument("--seed", type=int, help="of weights, split and shuffling (default: 0)")
    p.add_argument("--device", help="cpu or cuda (default: cpu)")
    p.add_argument(
        "--dtype", help="float32 or float64, of the network (default: float32; mixed is another name of it)"
    )
    p.add_argument(
        "--on-oom", metavar="HOW", help="where memory ends: stop, or shrink: batches in parts (default: stop)"
    )
    p.add_argument(
        "--output", metavar="DIR", help="run directory (default: the name of the training file + '-run')"
    )
    what = p.add_mutually_exclusive_group()
    what.add_argument(
        "--resume", action="store_true", help="continue the run in --output; more --epochs make it longer"
    )
    what.add_argument(
        "--dry-run",
        action="store_true",
        help="check the labels, show every choice and what each preset costs, stop",
    )
    what.add_argument(
        "--find-lr",
        action="store_true",
        help="suggest a learning rate from steps with ever higher ones, stop",
    )
    add_settings(p)
    add_labels(p)
    add_targets(p)
    return p


def add_settings(p: argparse.ArgumentParser) -> None:
    """Settings from a file or one by one, where metrics go, and the settings explained."""
    p.add_argument(
        "--config",
        metavar="FILE",
        help="TOML with sections [data], [model], [fit], [weights], [e0], as in config.toml of a run",
    )
    p.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="e.g. model.channels=64, fit.ema=0.999",
    )
    p.add_argument(
        "--log",
        nargs="+",
        metavar="TOOL",
        help="send metrics to tensorboard, wandb or both (settings: [log])",
    )
    p.add_argument(
        "--print-config",
        action="store_true",
        help="print every setting with its meaning, as a file for --config, and stop",
    )


def configuration(args: argparse.Namespace) -> tuple[Config, Path]:
    """Defaults, then the run's or the given TOML file, then options, then --set.

    Raises:
        ValueError: no training file, unknown settings, a resumed run that is not there.
    """
    config = update(Config(), {"fit": TUNING}) if args.start else Config()
    train = [*args.files, *(args.train or [])]
    refuse_runs(train)
    if args.resume:
        directory = Path(args.output or (f"{set_name(train[0])}-run" if train else "."))
        if not (directory / "config.toml").is_file():
            raise ValueError(f"{directory} holds no run (no config.toml); give its directory with --output")
        config = update(config, read_toml(str(directory / "config.toml")))
    if args.config:
        given = read_toml(args.config)
        if update(config, given).fit.start and not args.start and not args.resume:
            config = update(config, {"fit": TUNING})
        config = update(config, given)
    for name in ("network", "preset"):
        if getattr(args, name) and args.resume:
            raise ValueError(
                f"--{name} with --resume: a run keeps its network; start a new run in another --output"
            )
    if (args.network or args.preset) and config.model:
        config = replace(config, model=_without_preset(config.model))
    for name in ("epochs", "minutes"):
        if getattr(args, name) is not None and not getattr(args, name) > 0:
            raise ValueError(f"--{name} is {getattr(args, name)}; it must be positive")
    length = (
        {"epochs": args.epochs or 0, "minutes": args.minutes or 0.0} if args.epochs or args.minutes else {}
    )
    options: dict[str, dict[str, Any]] = {
        "data": {**data_settings(args), **{name: getattr(args, name) for name in OF_DATA}},
        "model": {"preset": args.preset, "network": args.network},
        "log": {"to": args.log},
        "targets": {name: {} for name in args.targets},
        "fit": {
            "seed": args.seed,
            "device": args.device,
            "dtype": args.dtype,
            "on_oom": args.on_oom,
            "start": args.start,
            "batch_atoms": args.batch_atoms,
            "batch_edges": args.batch_edges,
            "workers": args.workers,
            **length,
        },
    }
    config = update(
        config, {s: {k: v for k, v in values.items() if v is not None} for s, values in options.items()}
    )
    for text in args.set:
        section, key, value = parse_assignment(text)
        config = update(config, {section: {key: value}})
    if not config.data.train and not args.print_config:
        raise ValueError("no training file; give one, for example: potential-train train.xyz")
    return config, Path(args.output or f"{set_name(next(iter(config.data.train), ''))}-run")


def _without_preset(model: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the model, of a given TOML file, without dials that its preset set and those left as they are."""
    from potential.model import presets, settings  # heavy, and rarely needed

    network = model.get("network", NETWORK)
    of_presets = {k for dense in (False, True) for dials in presets(network, dense).values() for k in dials}
    usual = asdict(settings({"network": network})[1])
    kept = {k: v for k, v in model.items() if k not in of_presets}
    return {k: v for k, v in kept.items() if k == "cutoff" or k not in usual or v != usual[k]}


def refuse_runs(files: list[str]) -> None:
    """Raises ValueError where the directory of a run stands in the place of a data file."""
    for name in files:
        if (Path(name) / "config.toml").is_file():
            raise ValueError(
                f"{name} is the directory of a run, not a data file; go on with it by --resume --output {name}, or "
                f"train its model on new files: potential-train new.xyz --from {Path(name) / 'model.safetensors'}"
            )


def explained(error: Exception, directory: Path) -> str:
    """What a user is told of an error.

    Raises:
        RuntimeError: one that no user can cause.
    """
    if isinstance(error, ValueError):
        return str(error)
    if is_out_of_memory(error):
        told = (
            f"out of memory outside the gradient of a step ({str(error) or 'MemoryError'}); take a smaller --preset "
            "or fewer frames"
        )
        saved = (directory / "state.safetensors").exists()
        return told + f"; --resume --output {directory} goes on from what was saved" * saved
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}; give another file or directory"
    if isinstance(error, ImportError):
        return str(error)
    raise error


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 1 an error that was explained, 130 stopped by Ctrl-C and saved."""
    args = parse(parser(), arguments)
    directory = Path(args.output or ".")
    try:
        config, directory = configuration(args)
        check(config)
        if args.print_config:
            from train.manual import commented

            print(commented(config), end="")
            return 0
        from train.fit import fit

        only = "dry run" if args.dry_run else "find lr" if args.find_lr else ""
        result = fit(config, directory, args.resume, only)
    except (ValueError, ImportError, OSError, MemoryError, RuntimeError) as error:
        print(f"potential-train: {explained(error, directory)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        begun = (directory / "state.safetensors").exists()
        what = (
            f"what was trained is saved in {directory}, finish with --resume"
            if begun
            else "nothing was trained"
        )
        print(f"potential-train: interrupted; {what}", file=sys.stderr)
        return 130
    return 130 if result.get("outcome") == "stopped" else 0
