"""The committed studies: which pools, tests, models and lengths `potential-curve` is given, and what is kept of it.

    python -m bench.studies.run acac --data DATA --quick
    python -m bench.studies.run acac Si --data DATA --protocol converged --engine process --workers 2
    python -m bench.studies.run --list

Every fit is a job of potential-curve in --runs: a stopped study goes on when the command is repeated. What is said of a
study goes to docs/results/studies/<name>/: curves.csv, errors.csv, the pictures, and study.json with commit, command,
machine and date. The page stays in --runs.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.provenance import ROOT, provenance
from bench.studies.qm9 import POOL, TEST, drawn
from train.curve.cli import main as potential_curve
from train.directory import write_text

HERE = Path(__file__).parent
KEPT = ("curves.csv", "errors.csv", "curves.png", "pareto.png")
NETWORKS = ("equivariant-L0", "equivariant-L1", "equivariant-L2", "nequip", "painn", "schnet", "egnn", "ace")
METALS = (
    "equivariant-L0",
    "equivariant-L2",
    "painn",
    "schnet",
    "ace",
    "snap",
    "qsnap",
)  # the last two: extra snap
BUDGETS = {"equal-time": 60.0, "converged": 20_000.0}  # CPU seconds of training, steps at most
QUICK = {"equal-time": 15.0, "converged": 1_000.0}
MOLECULE = ("--block", "10")  # test frames that are neighbors in time are resampled together
MOLECULES = ("equivariant-L0", "equivariant-L2", "painn", "schnet", "egnn", "nequip")
QM9 = "qm9/qm9_consistent130831.npz.xz"
DEBYE = (
    "--targets",
    "dipole",
    "--set",
    "targets.dipole.irreps=magnitude",
    "--set",
    "targets.dipole.unit=Debye",
)
RMD17 = ("--energy-unit", "kcal/mol", "--length-unit", "Ang", "--measure", "mae")


@dataclass(frozen=True)
class Plan:
    """One study. Files are below --data; `split`: files of rMD17, whose first published split is taken."""

    pool: str
    tests: tuple[str, ...]
    sizes: str
    models: tuple[str, ...] = NETWORKS
    options: tuple[str, ...] = ()
    split: bool = False
    drawn: str = ""  # of QM9, whose pool and test are drawn at random: energy or mu
    quick: tuple[int, int, str] = (0, 0, "")  # molecules of pool and test of --quick, and its sizes


def qm9(label: str, *options: str) -> Plan:
    quick = (2000, 500, "250,500,1000")
    sizes, measured = "1000,2000,5000,10000,25000,50000", ("--measure", "mae", "--set", "fit.batch_size=16")
    return Plan(QM9, (), sizes, MOLECULES, (*measured, *options), drawn=label, quick=quick)


def metal(element: str, sizes: str) -> Plan:
    test = (f"mlearn/{element}_test.extxyz.xz",)
    return Plan(f"mlearn/{element}_train.extxyz.xz", test, sizes, METALS, ("--measure", "mae"))


STUDIES = {
    "acac": Plan(
        "acac/train_300K.xyz.xz",
        ("acac/test_MD_300K.xyz.xz", "acac/test_MD_600K.xyz.xz"),
        "25,50,100,200,450",
        options=MOLECULE,
    ),
    "3bpa": Plan("3bpa/train_300K.xyz.xz", ("3bpa/test_300K.xyz.xz",), "25,50,100,200,450", options=MOLECULE),
    "aspirin": Plan("rmd17/rmd17_aspirin.npz", (), "25,50,100,200,450", options=RMD17, split=True),
    "ethanol": Plan("rmd17/rmd17_ethanol.npz", (), "25,50,100,200,450", options=RMD17, split=True),
    "Li": metal("Li", "15,30,60,120,all"),
    "Mo": metal("Mo", "12,24,48,96,all"),
    "Si": metal("Si", "13,26,52,107,all"),
    "Cu": metal("Cu", "16,32,65,131,all"),
    "nbmotaw": Plan(
        "nbmotaw/train_no_multinary_sqs.extxyz.xz",
        ("nbmotaw/test.extxyz.xz",),
        "82,165,330,660,1320,2641",
        METALS,
        ("--measure", "mae"),
    ),
    "qm9-u0": qm9("energy", "--energy-unit", "Ha", "--energy-per", "structure"),
    "qm9-dipole": qm9("mu", *DEBYE),
}


def published_split(source: Path, folder: Path) -> tuple[Path, Path]:
    """Pool and test of the first published split of an rMD17 file, a thousand frames each."""
    content = np.load(source)
    out = []
    for part in ("train", "test"):
        rows = content[f"split_{part}_01"]
        file = folder / f"{source.stem}_{part}.npz"
        kept = {key: content[key][rows] for key in ("coords", "energies", "forces")}
        partial = file.with_name(f"partial-{file.name}")
        np.savez(partial, nuclear_charges=content["nuclear_charges"], **kept)
        partial.replace(file)
        out.append(file)
    return out[0], out[1]


def thinned(sizes: str) -> str:
    """The first, a middle one and the last of a list."""
    each = sizes.split(",")
    return ",".join((each[0], each[len(each) // 2], each[-1]))


def words_of(name: str, args: argparse.Namespace, output: Path) -> list[str]:
    """The arguments of potential-curve."""
    plan = STUDIES[name]
    pool, tests = args.data / plan.pool, [args.data / test for test in plan.tests]
    missing = [str(file) for file in (pool, *tests) if not file.exists()]
    if missing:
        raise SystemExit(
            f"{', '.join(missing)}: not there; give --data, a folder that holds acac, 3bpa, mlearn, rmd17, nbmotaw, qm9"
        )
    if plan.split:
        args.runs.mkdir(parents=True, exist_ok=True)
        pool, test = published_split(pool, args.runs)
        tests = [test]
    sizes = (plan.quick[2] or thinned(plan.sizes)) if args.quick else plan.sizes
    if plan.drawn:
        many = plan.quick[:2] if args.quick else (POOL, TEST)
        pool, test = drawn(pool, plan.drawn, args.runs, many)
        tests = [test]
    budget = (QUICK if args.quick else BUDGETS)[args.protocol] if args.budget is None else args.budget
    words = [str(pool), "--test", *map(str, tests), "--models", ",".join(args.models or plan.models)]
    words += ["--sizes", sizes, "--draws", str(args.draws), "--seeds", str(args.seeds)]
    words += ["--protocol", args.protocol, "--budget", f"{budget:g}", "--engine", args.engine]
    if args.engine != "local":
        words += ["--workers", str(args.workers)]
    if args.quick:
        words += ["--quick"]
    published = HERE / f"{name}.csv"
    words += ["--published", str(published)] if published.exists() else []
    return [*words, *plan.options, "--output", str(output)]


def keep(name: str, output: Path, words: Sequence[str]) -> None:
    """What a study says, and how it came about, into docs/results."""
    folder = ROOT / "docs" / "results" / "studies" / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in KEPT:
        if (output / file).exists():
            shutil.copyfile(output / file, folder / file)
    found = json.loads((output / "analysis.json").read_text())
    about = {**provenance(), "study": name, "arguments": [Path(w).name if "/" in w else w for w in words]}
    about |= {key: found[key] for key in ("done", "of", "measure", "block")}
    about |= {"models": found["study"]["models"], "facts": found["study"]["facts"]}
    write_text(folder / "study.json", json.dumps(about, indent=1) + "\n")
    print(folder)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("studies", nargs="*", choices=[*STUDIES, []], metavar="STUDY", help=", ".join(STUDIES))
    p.add_argument("--list", action="store_true", help="what there is")
    p.add_argument(
        "--data",
        type=Path,
        default=ROOT / "data",
        metavar="FOLDER",
        help="holds acac, 3bpa, mlearn, rmd17, nbmotaw, qm9",
    )
    p.add_argument("--runs", type=Path, default=ROOT / "runs" / "studies", metavar="DIR")
    p.add_argument("--protocol", choices=BUDGETS, default="equal-time")
    p.add_argument("--budget", type=float, help="of a fit, as the protocol says")
    p.add_argument("--models", nargs="+", help="others than planned")
    p.add_argument("--draws", type=int, default=3)
    p.add_argument("--seeds", type=int, default=1)
    p.add_argument("--engine", choices=("local", "process", "submitit"), default="local")
    p.add_argument("--workers", type=int, default=2)
    p.add_argument(
        "--quick", action="store_true", help="preset tiny, three sizes, 15 CPU seconds or 1,000 steps"
    )
    args = p.parse_args()
    if args.list or not args.studies:
        for name, plan in STUDIES.items():
            print(
                f"{name}: {plan.pool} -> {', '.join(plan.tests) or 'its published split'}; {', '.join(plan.models)}"
            )
        return
    for study in args.studies:
        name = f"{study}-{args.protocol}{'-quick' * args.quick}"
        output = args.runs / name
        words = words_of(study, args, output)
        if potential_curve(words):
            raise SystemExit(1)
        keep(name, output, words)


if __name__ == "__main__":
    main()
