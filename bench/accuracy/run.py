"""Ours and its peers trained on the same frames for the same time, one job after the other.

    python -m bench.accuracy.run --python mace-env/bin/python --data DATA --minutes 10 --seeds 0 1 2
    python -m bench.accuracy.run --table

Finished jobs are skipped. Each adds one line to docs/results/accuracy.jsonl.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from bench.provenance import ROOT, provenance, read_rows, spell, write_rows

OURS = "potential-train"  # with its own choice of preset
PRESETS = ("tiny", "small", "medium", "large")  # ours as well
PAINN = ("--network", "painn", "--set", "model.channels=128", "--set", "model.n_layers=3")
OTHERS = {  # other networks by our trainer; PaiNN as large as in its paper
    "painn-128": PAINN,
    "painn-128-fast": (*PAINN, "--set", "fit.learning_rate=0.005"),
}
PEERS = {  # options of mace_fit.py; a first guess, see README.md
    "mace-64": ("--hidden", "64x0e", "--optimizer", "soap", "--learning-rate", "0.005", "--max-ell", "2"),
    "mace-64-l3": ("--hidden", "64x0e", "--optimizer", "soap", "--learning-rate", "0.005", "--max-ell", "3"),
    "mace-stock": ("--hidden", "128x0e+128x1o", "--optimizer", "adam", "--learning-rate", "0.01"),
}
ERRORS = ("energy_rmse", "energy_rmse_per_structure", "energy_mae", "forces_rmse", "forces_mae", "frames")


@dataclass(frozen=True)
class Set:
    """Files below --data, which energy error is usual for them, and what else MACE needs to use all labels."""

    train: str
    tests: tuple[str, ...]
    energy: str
    peers: tuple[str, ...] = ()


MOLECULE, METAL = "energy_rmse_per_structure", "energy_rmse"
VIRIALS = ("--virial-weight", "10")  # a tenth of the forces', as ours
SETS = {
    "acac": Set("acac/train_300K.xyz.xz", ("acac/test_MD_300K.xyz.xz", "acac/test_MD_600K.xyz.xz"), MOLECULE),
    "3bpa": Set("3bpa/train_300K.xyz.xz", ("3bpa/test_300K.xyz.xz",), MOLECULE),
    "Si": Set("mlearn/Si_train.extxyz.xz", ("mlearn/Si_test.extxyz.xz",), METAL, VIRIALS),
    "Mo": Set("mlearn/Mo_train.extxyz.xz", ("mlearn/Mo_test.extxyz.xz",), METAL, VIRIALS),
}


@dataclass(frozen=True)
class Job:
    """Who trains on what, and how long; two jobs that are equal give one line."""

    contestant: str
    data: str
    seed: int
    minutes: float
    threads: int
    clock: str


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--contestants", nargs="+", choices=(OURS, *PRESETS, *OTHERS, *PEERS), default=[OURS, *PEERS]
    )
    p.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--minutes", type=float, default=10.0, help="of training")
    p.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: of all threads, for a busy machine"
    )
    p.add_argument("--threads", type=int, default=1)
    p.add_argument(
        "--data", type=Path, default=ROOT / "data", metavar="FOLDER", help="holds acac, 3bpa, mlearn"
    )
    p.add_argument("--python", metavar="PATH", help="the Python of an environment with mace-torch")
    p.add_argument("--runs", type=Path, default=ROOT / "runs" / "accuracy", metavar="DIR")
    p.add_argument(
        "--results", type=Path, default=ROOT / "docs" / "results" / "accuracy.jsonl", metavar="FILE"
    )
    p.add_argument("--table", action="store_true", help="medians over seeds and ratios of what is finished")
    return p.parse_args()


def job_of(row: dict[str, Any]) -> Job:
    return Job(
        *(row[key] for key in ("contestant", "data", "seed", "minutes", "threads")), row.get("clock", "wall")
    )


def command(job: Job, args: argparse.Namespace, output: Path) -> list[str]:
    """What trains and tests; it leaves summary.json in `output`."""
    files = SETS[job.data]
    train, *tests = [str((args.data / name).resolve()) for name in (files.train, *files.tests)]
    shared = ["--test", *tests, "--seed", str(job.seed)]
    if job.contestant not in PEERS:
        chosen = ["--preset", job.contestant] if job.contestant in PRESETS else OTHERS.get(job.contestant, ())
        start = [sys.executable, "-c", "import sys; from train.cli import main; sys.exit(main())"]
        return [*start, train, *shared, *chosen, "--minutes", str(job.minutes), "--set",
                f"fit.clock={job.clock}", "--output", str(output)]  # fmt: skip
    start = [args.python, str(Path(__file__).with_name("mace_fit.py"))]
    length = ["--seconds", str(60 * job.minutes), "--clock", job.clock, "--threads", str(job.threads)]
    recipe = [*PEERS[job.contestant], *files.peers]
    return [*start, "--train", train, *shared, *length, *recipe, "--output", str(output / "summary.json")]


def perform(job: Job, args: argparse.Namespace) -> dict[str, Any]:
    """Train and test; the line of this job."""
    facts, number = provenance(), 1
    name = f"{job.data}-{job.contestant}-{job.minutes:g}min-{job.threads}-{job.seed}"
    while (output := args.runs.resolve() / f"{name}-{number}").exists():
        number += 1  # what a killed run left is not continued: its clock is lost
    if job.contestant in PEERS:
        output.mkdir(parents=True)
    words = command(job, args, output)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    env = {**os.environ, "OMP_NUM_THREADS": str(job.threads)}
    subprocess.run(words, cwd=ROOT, env=env, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    summary = json.loads((output / "summary.json").read_text())
    steps = summary.get("steps")
    if job.contestant not in PEERS:
        steps = json.loads((output / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    tests = [Path(name).name.split(".")[0] for name in SETS[job.data].tests]
    return {
        **facts,
        **vars(job),
        "errors": {test: {key: summary["errors"][test][key] for key in ERRORS} for test in tests},
        "steps": steps,
        "seconds": summary["seconds"],
        "cpu_seconds_with_testing": round(cpu, 1),
        "load": os.getloadavg()[2],
        "parameters": summary["parameters"],
        "recipe": summary.get("recipe", {"preset": summary.get("preset")}),
        "versions": summary.get("versions", {"equiv-potential": summary.get("version")}),
        "job": spell(words),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Medians over seeds, and the ratio to ours: energy RMSE (meV per molecule, of metals per atom), forces RMSE."""
    found: dict[tuple[Any, ...], dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        for test, errors in row["errors"].items():
            key = (row["data"], test, row["minutes"], row.get("clock", "wall"), row["threads"])
            pair = (errors[SETS[row["data"]].energy], errors["forces_rmse"])
            found.setdefault(key, {}).setdefault(row["contestant"], []).append(pair)
    lines = [
        "| set | test | minutes | clock | threads | contestant | seeds | energy | forces | ratio to ours |"
    ]
    lines.append("|---" * 10 + "|")
    for key, pairs in sorted(found.items()):
        medians = {name: [median(column) for column in zip(*p, strict=True)] for name, p in pairs.items()}
        for name, (energy, forces) in medians.items():
            ours = medians.get(OURS)
            ratio = f"{energy / ours[0]:.2f} / {forces / ours[1]:.2f}" if ours else "-"
            cells = [
                *(f"{k}" for k in key),
                name,
                f"{len(pairs[name])}",
                f"{energy:.2f}",
                f"{forces:.1f}",
                ratio,
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    args = arguments()
    rows = read_rows(args.results)
    if args.table:
        print(table(rows))
        return
    if not args.python and any(name in PEERS for name in args.contestants):
        raise SystemExit(
            "MACE needs --python, the Python of its environment; or give --contestants potential-train"
        )
    missing = [
        f for name in args.sets for f in (SETS[name].train, *SETS[name].tests) if not (args.data / f).exists()
    ]
    if missing:
        raise SystemExit(f"{args.data} lacks {', '.join(missing)}; give another --data, or fewer --sets")
    done = {job_of(row) for row in rows}
    # seeds outermost and contestants innermost: whoever is compared is measured close together
    for seed, data, contestant in product(args.seeds, args.sets, args.contestants):
        job = Job(contestant, data, seed, args.minutes, args.threads, args.clock)
        if job in done:
            continue
        line = perform(job, args)
        rows = [*read_rows(args.results), line]
        write_rows(args.results, rows)
    print(table(rows))


if __name__ == "__main__":
    main()
