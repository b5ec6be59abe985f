"""potential-curve: how the error of several models falls with the number of reference calculations.

Nothing heavy is imported before the arguments are read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from train.config import Config, check
from train.names import set_name, set_names
from train.options import add_labels, add_targets, data_settings, parse
from train.target import resolved
from train.toml import parse_assignment, read_toml, update

PROTOCOLS = ("converged", "equal-steps", "equal-time", "equal-epochs")
QUICK = 10  # times shorter fits, one seed
EXAMPLES = """examples:
  potential-curve data.xyz --test test.xyz --sizes 25,50,100,all --models equivariant,painn
  potential-curve data.xyz --test 300K.xyz 600K.xyz --models equivariant-L0,equivariant-L1 --match parameters
  potential-curve data.xyz --models painn,schnet:channels=64 --protocol equal-time --budget 60
  potential-curve data.xyz --models painn,schnet --engine process --workers 8
  potential-curve data.xyz --models painn --engine submitit --workers 20 --engine-option slurm_partition=gpu
  potential-curve molecules.xyz --targets dipole --set targets.dipole.unit=Debye --models painn,schnet
  potential-curve --report --output data-curve --reach 20

A fit that is done is not done again: the same command continues a study; more sizes, draws, seeds and models extend it.
Fits say most when each has a subset of its own: --draws 10 --seeds 1 gives narrower intervals than --draws 2 --seeds 5.
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="potential-curve",
        description="Learning curves with intervals: fit models on nested random subsets of one pool, test all on the "
        "same frames, say how the error falls with their number, which model needs fewer, and what more would bring.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    several: dict[str, Any] = {"metavar": "FILE", "action": "extend", "nargs": "+"}
    p.add_argument(
        "files", nargs="*", metavar="FILE", help="the pool: files or quoted patterns, as for potential-train"
    )
    p.add_argument("--train", help="the same, by name", **several)
    p.add_argument("--test", help="external tests, a set for each; without, a fifth of the pool", **several)
    p.add_argument(
        "--sizes",
        metavar="N,N,...",
        help="frames, validation included; all: the pool (default: 25,50,...,all)",
    )
    p.add_argument(
        "--models", metavar="NAME,...", nargs="+", default=["equivariant"],
        help="networks, variants (equivariant-L0), snap, qsnap, baseline; with dials: painn:channels=64:n_layers=2",
    )  # fmt: skip
    p.add_argument("--draws", type=int, default=3, help="random subsets of each size (default: 3)")
    p.add_argument("--seeds", type=int, help="fits on each of them (default: 5; quick: 1)")
    p.add_argument(
        "--protocol", choices=PROTOCOLS, default="converged", help="how long a fit is (default: converged)"
    )
    p.add_argument(
        "--budget",
        type=float,
        help="of a fit: steps, CPU seconds of training, or epochs, as the protocol says",
    )
    p.add_argument(
        "--match", choices=("none", "parameters", "time"), default="none", help="make all as large as the ..."
    )
    p.add_argument("--reference", metavar="NAME", help="... reference (default: the first of --models)")
    p.add_argument(
        "--quick",
        action="store_true",
        help=f"preset tiny, one seed, a budget {QUICK} times smaller; unless given",
    )
    p.add_argument(
        "--output", metavar="DIR", help="directory of the study (default: name of the pool + '-curve')"
    )
    p.add_argument(
        "--config", metavar="FILE", help="TOML with settings of all models: [model], [fit], [weights], [e0]"
    )
    p.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="the same one by one: fit.ema=0.999"
    )
    add_engine(p)
    add_report(p)
    add_labels(p)
    add_targets(p)
    p.set_defaults(valid=None)  # validation frames are part of a subset
    return p


def add_engine(p: argparse.ArgumentParser) -> None:
    """Where fits are done."""
    g = p.add_argument_group("where")
    g.add_argument(
        "--engine", choices=("local", "process", "submitit"), default="local",
        help="this process, processes of this machine, or jobs of a cluster (default: local)",
    )  # fmt: skip
    g.add_argument("--workers", type=int, default=1, help="at the same time (default: 1)")
    g.add_argument("--threads", type=int, default=1, help="of each worker; process, submitit (default: 1)")
    g.add_argument(
        "--retries", type=int, default=1, help="of a fit that failed or lost its worker (default: 1)"
    )
    g.add_argument("--keep", action="store_true", help="keep models, predictions and reports of all fits")
    g.add_argument(
        "--engine-option", metavar="KEY=VALUE", action="append", default=[],
        help="of submitit, such as slurm_partition=gpu, timeout_min=600, cluster=local",
    )  # fmt: skip


def add_report(p: argparse.ArgumentParser) -> None:
    """What is said."""
    g = p.add_argument_group("report")
    g.add_argument("--report", action="store_true", help="only report what is done in --output")
    g.add_argument(
        "--reach",
        metavar="ERROR",
        type=float,
        action="append",
        default=[],
        help="error of the forces in meV/Å (without forces, of the first quantity, in its unit): frames it takes",
    )
    g.add_argument("--measure", choices=("rmse", "mae"), default="rmse", help="of errors (default: rmse)")
    g.add_argument(
        "--energy-per",
        choices=("atom", "structure"),
        default="atom",
        help="errors of energies (default: atom)",
    )
    g.add_argument(
        "--published", metavar="FILE",
        help="errors from the literature to draw beside: CSV with label,test,quantity,measure,frames,error,source",
    )  # fmt: skip
    g.add_argument(
        "--block", type=int, default=1, metavar="N",
        help="neighboring test frames that are resampled together, for tests that are trajectories (default: 1)",
    )  # fmt: skip


def configuration(args: argparse.Namespace) -> Config:
    """Settings of all models, pool and tests.

    Raises:
        ValueError: unknown settings, or such that belong to a study.
    """
    given: dict[str, Any] = {"data": data_settings(args), "targets": {name: {} for name in args.targets}}
    config = update(Config(), given | ({"model": {"preset": "tiny"}} if args.quick else {}))
    if args.config:
        config = update(config, read_toml(args.config))
    for text in args.set:
        section, key, value = parse_assignment(text)
        config = update(config, {section: {key: value}})
    fit, data = config.fit, config.data
    require_free(
        {f"fit.{name}" for name, x in vars(Config().fit).items() if getattr(fit, name) != x}, args.protocol
    )
    if data.valid or data.replay or data.isolated_atoms:
        raise ValueError(
            "a study has no files for validation, replay or isolated atoms; put frames into the pool"
        )
    if not data.train:
        raise ValueError("no pool; give files, for example: potential-curve train.xyz --test test.xyz")
    from train.prepared.found import completed

    return replace(config, targets=resolved(completed(config.targets, data.train)))


def require_free(given: Collection[str], protocol: str, model: str = "") -> None:
    """Refuse settings that a study decides on, given to all models or to one.

    Raises:
        ValueError: one of them is among those given, as "fit.name".
    """
    lasting = ("schedule", "plateau_patience") if protocol == "converged" else ()
    for name in ("epochs", "minutes", "seed", "start", "patience", *lasting):
        if f"fit.{name}" in given:
            raise ValueError(
                f"{model + ': ' if model else ''}fit.{name}: seeds and lengths follow from --seeds and --protocol "
                f"{protocol}; leave it out"
            )


def directory_of(args: argparse.Namespace) -> Path:
    """--output, or the name of the pool with -curve."""
    pool = [*args.files, *(args.train or [])]
    if not args.output and not pool:
        raise ValueError("which study? give its directory with --output")
    return Path(args.output or f"{set_name(pool[0])}-curve")


def fit_all(args: argparse.Namespace, directory: Path) -> dict[str, str]:
    """Make the study and do its jobs; name of a job that is not done -> why."""
    from train.curve.contestants import contestants, require_able
    from train.curve.engine import Where, run
    from train.curve.frames import units_of
    from train.curve.prepare import Request, prepare
    from train.curve.published import read_published
    from train.curve.study import PROTOCOLS as BUDGETS

    config = configuration(args)
    check(config)
    models = contestants(args.models)
    require_able(models, config.targets)
    names = [model.name for model in models]
    for model in models:
        require_free(model.settings, args.protocol, model.name)
    if args.engine == "local" and (args.workers, args.threads) != (1, 1):
        raise ValueError(
            "--workers and --threads are for --engine process or submitit, local is this process: add --engine process"
        )
    reference = args.reference or names[0]
    if reference not in names:
        raise ValueError(
            f"--reference {reference} is none of the --models {', '.join(names)}; give one of them"
        )
    seeds = args.seeds if args.seeds is not None else 1 if args.quick else 5
    budget = (
        args.budget if args.budget is not None else BUDGETS[args.protocol][0] / (QUICK if args.quick else 1)
    )
    for name, value in {
        "draws": args.draws,
        "seeds": seeds,
        "budget": budget,
        "workers": args.workers,
    }.items():
        if not 0 < value < 1e9:
            raise ValueError(f"--{name} is {value}; it must be positive")
    options = dict(parse_assignment(f"engine.{text}")[1:] for text in args.engine_option)
    sizes = args.sizes.split(",") if args.sizes else []
    request = Request(
        config,
        directory,
        tuple(sizes),
        args.draws,
        seeds,
        models,
        args.protocol,
        budget,
        args.match,
        reference,
    )
    if args.published:  # refused before anything is fitted
        tests = set_names(config.data.test, ("train", "valid")) or ["held_out"]
        read_published(Path(args.published), tests, args.measure, units_of(config.targets))
    study = prepare(request, print)
    where = Where(args.engine, args.workers, args.threads, args.retries, args.keep, options)
    print(f"{len(study.jobs)} fits in {directory}, {where.workers} at a time")
    return run(study, where, lambda text: print(text, flush=True))


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 1 an error that was explained or fits that failed, 130 stopped."""
    args = parse(parser(), arguments)
    try:
        directory = directory_of(args)
        failed = {} if args.report else fit_all(args, directory)
        from train.curve.report import Asked, report

        asked = Asked(args.reach, args.measure, args.energy_per, args.block, args.published)
        for line in report(directory, asked):
            print(line)
    except (ValueError, ImportError) as error:
        print(f"potential-curve: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"potential-curve: {error.filename}: {error.strerror}; give another file or directory",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(
            "potential-curve: interrupted; what was fitted is kept, repeat the command to go on",
            file=sys.stderr,
        )
        return 130
    for name, reason in failed.items():
        print(f"potential-curve: {name} is not done: {reason.splitlines()[0]}", file=sys.stderr)
    return 1 if failed else 0
