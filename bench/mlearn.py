"""Metals and silicon of mlearn beside the published potentials: test errors with bootstrap intervals.

    python -m bench.mlearn --data DATA --minutes 20 --seeds 0 1 2
    python -m bench.mlearn --table

DATA/mlearn holds <element>_train.extxyz.xz and <element>_test.extxyz.xz (Zuo et al., J. Phys. Chem. A 124, 731 (2020)).
Trains `potential-train` with its defaults on one thread. Finished jobs are skipped; each adds a line to
docs/results/mlearn.jsonl.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.provenance import ROOT, provenance, read_rows, spell, write_rows
from train.report.run_directory import PredictedSet, read

# Test MAE in meV/atom and eV/Å. GAP, MTP: table of the paper; SNAP, qSNAP: the published potentials on these files.
PUBLISHED = {
    "Li": {"GAP": (0.49, 0.01), "MTP": (0.49, 0.01), "SNAP": (1.03, 0.028), "qSNAP": (0.73, 0.033)},
    "Mo": {"GAP": (2.24, 0.09), "MTP": (2.83, 0.09), "SNAP": (5.48, 0.207), "qSNAP": (2.77, 0.184)},
    "Si": {"GAP": (2.91, 0.07), "MTP": (2.21, 0.06), "SNAP": (6.44, 0.133), "qSNAP": (3.81, 0.116)},
    "Cu": {"GAP": (0.46, 0.01), "MTP": (0.41, 0.01), "SNAP": (0.53, 0.037), "qSNAP": (0.56, 0.024)},
}
RESAMPLES = 10_000


def bootstrap(one: PredictedSet) -> dict[str, float | list[float]]:
    """MAE of energy (meV/atom) and force components (eV/Å) with 95 % intervals from resampled test frames."""
    energy = 1e3 * np.abs(one.energy_predicted - one.energy_reference) / one.n_atoms
    forces = np.zeros(len(one.n_atoms))
    np.add.at(forces, one.system, np.abs(one.forces_predicted - one.forces_reference).sum(1))
    drawn = np.random.default_rng(0).integers(len(energy), size=(RESAMPLES, len(energy)))
    means = forces[drawn].sum(1) / (3 * one.n_atoms[drawn].sum(1))
    return {
        "energy_mae": float(energy.mean()),
        "energy_interval": np.quantile(energy[drawn].mean(1), (0.025, 0.975)).tolist(),
        "forces_mae": float(forces.sum() / (3 * one.n_atoms.sum())),
        "forces_interval": np.quantile(means, (0.025, 0.975)).tolist(),
    }


def perform(element: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train and test; the line of this job."""
    facts, number = provenance(), 1
    while (output := args.runs / f"{element}-{args.minutes:g}min-{seed}-{number}").exists():
        number += 1  # what a killed run left is not continued: its clock is lost
    train, test = (
        (args.data / "mlearn" / f"{element}_{part}.extxyz.xz").resolve() for part in ("train", "test")
    )
    words = [sys.executable, "-c", "import sys; from train.cli import main; sys.exit(main())", str(train)]
    words += [
        "--test",
        str(test),
        "--minutes",
        f"{args.minutes:g}",
        "--seed",
        str(seed),
        "--output",
        str(output.resolve()),
    ]
    words += [word for assignment in args.set for word in ("--set", assignment)]
    subprocess.run(words, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": str(args.threads)}, check=True)
    run = read(output)
    (tested,) = (one for one in run.sets if one.name not in ("train", "valid"))
    return {
        **facts,
        "element": element,
        "seed": seed,
        "minutes": args.minutes,
        "threads": args.threads,
        "set": args.set,
        **bootstrap(tested),
        "frames": len(tested.n_atoms),
        "steps": run.metrics[-1]["step"],
        "parameters": run.summary["parameters"],
        "preset": run.summary["preset"],
        "load": os.getloadavg()[2],
        "job": spell(words),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Median of the seeds with the interval of the median seed's test frames, and the published values."""
    lines = ["| element | potential | seeds | energy MAE, meV/atom | force MAE, eV/Å |", "|---" * 5 + "|"]
    for element, published in PUBLISHED.items():
        mine = [row for row in rows if row["element"] == element]
        for minutes, setting in sorted({(row["minutes"], tuple(row["set"])) for row in mine}):
            some = [row for row in mine if (row["minutes"], tuple(row["set"])) == (minutes, setting)]
            cells = []
            for kind, digits in (("energy", 2), ("forces", 4)):
                middle = median(row[f"{kind}_mae"] for row in some)
                nearest = min(some, key=lambda row: abs(row[f"{kind}_mae"] - middle))
                low, high = nearest[f"{kind}_interval"]
                cells.append(f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]")
            name = " ".join([f"ours, {minutes:g} min", *setting])
            lines.append(f"| {element} | {name} | {len(some)} | {' | '.join(cells)} |")
        for name, (energy, force) in published.items():
            lines.append(f"| {element} | {name} | | {energy} | {force} |")
    return "\n".join(lines)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, default=ROOT / "data", metavar="FOLDER", help="holds mlearn/")
    p.add_argument("--elements", nargs="+", choices=PUBLISHED, default=list(PUBLISHED))
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--minutes", type=float, default=20.0)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="other than the defaults"
    )
    p.add_argument("--runs", type=Path, default=ROOT / "runs" / "mlearn", metavar="DIR")
    p.add_argument("--results", type=Path, default=ROOT / "docs" / "results" / "mlearn.jsonl", metavar="FILE")
    p.add_argument("--table", action="store_true", help="print what is finished")
    args = p.parse_args()
    rows = read_rows(args.results)
    keys = ("element", "seed", "minutes", "threads", "set")
    for seed in [] if args.table else args.seeds:
        for element in args.elements:
            job = (element, seed, args.minutes, args.threads, args.set)
            if job in [tuple(row[key] for key in keys) for row in rows]:
                continue
            rows.append(perform(element, seed, args))
            write_rows(args.results, rows)
    print(table(rows))


if __name__ == "__main__":
    main()
