"""Linear ACE by least squares beside published numbers: molecules (RMSE), silicon and molybdenum of mlearn (MAE).

    python -m bench.linear --data DATA
    python -m bench.linear --table

DATA holds acac, 3bpa and mlearn, each with the files of its source (data/README.md). Fits `potential-train --network
ace` with its defaults, or with --set, on one thread, to all training frames (validation frames serve too). Finished
jobs are skipped; each adds a line to docs/results/linear.jsonl.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench import mlearn
from bench.provenance import ROOT, provenance, read_rows, spell, write_rows
from train.report.run_directory import read

SETS: dict[str, tuple[str, list[str], str]] = {  # training file, tests, isolated atoms
    "acac": (
        "acac/train_300K.xyz.xz",
        ["acac/test_MD_300K.xyz.xz", "acac/test_MD_600K.xyz.xz"],
        "acac/isolated_atoms.xyz",
    ),
    "3bpa": ("3bpa/train_300K.xyz.xz", ["3bpa/test_300K.xyz.xz"], "3bpa/iso_atoms.xyz"),
    "Si": ("mlearn/Si_train.extxyz.xz", ["mlearn/Si_test.extxyz.xz"], ""),
    "Mo": ("mlearn/Mo_train.extxyz.xz", ["mlearn/Mo_test.extxyz.xz"], ""),
}
# RMSE, meV per molecule and meV/Å. 3BPA: Kovács et al. 2021 and Batatia et al. 2022; acetylacetone: Batatia et al.
# 2022, where no linear ACE is reported.
PUBLISHED = {
    ("3bpa", "test_300K"): {"linear ACE": (7.1, 27.1), "GAP": (22.8, 87.3), "MACE": (3.0, 8.8)},
    ("acac", "test_MD_300K"): {"NequIP": (0.81, 5.9), "MACE": (0.9, 5.1)},
    ("acac", "test_MD_600K"): {"NequIP": (6.0, 27.8), "MACE": (4.6, 22.4)},
}


def perform(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Fit and test; the line of this job."""
    facts, number = provenance(), 1
    while (output := args.runs / f"{name}-{number}").exists():
        number += 1
    train, tests, isolated = SETS[name]
    words = [sys.executable, "-c", "import sys; from train.cli import main; sys.exit(main())"]
    words += [str((args.data / train).resolve()), "--test", *(str((args.data / t).resolve()) for t in tests)]
    words += ["--network", "ace", "--output", str(output.resolve())]
    chosen = [*args.set, *([f"data.isolated_atoms={(args.data / isolated).resolve()}"] * bool(isolated))]
    words += [word for assignment in chosen for word in ("--set", assignment)]
    subprocess.run(words, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": str(args.threads)}, check=True)
    run = read(output)
    keys = ("energy_rmse", "energy_rmse_per_structure", "energy_mae", "forces_rmse", "forces_mae", "frames")
    errors = {
        one: {key: row[key] for key in keys} for one, row in run.rows("errors").items() if one != "train"
    }
    intervals = {
        one.name: mlearn.bootstrap(one)
        for one in run.sets
        if one.name not in ("train", "valid") and not isolated
    }
    used = run.rows("resources")
    return {
        **facts,
        "set": name,
        "settings": args.set,
        "parameters": run.summary["parameters"],
        "seconds": run.summary["seconds"],
        "cpu_seconds": round(run.summary["seconds"] * used["cpu_share"], 1),
        "peak_memory_mib": used["peak_memory_mib"],
        "why": [line for line in run.summary["why"] if "coefficients" in line],
        "errors": errors,
        "intervals": intervals,
        "load": os.getloadavg()[2],
        "job": spell(words),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """What was measured, beside what was published."""
    lines = [
        "| set | test | potential | coefficients | CPU s | energy | forces |",
        "|---" * 7 + "|",
    ]
    for row in rows:
        name = " ".join(["ours", *row["settings"]])
        for test, found in row["errors"].items():
            if row["intervals"]:
                cells = f"{found['energy_mae']:.2f} meV/atom, MAE | {found['forces_mae'] / 1e3:.4f} eV/Å, MAE"
            else:
                energy = found["energy_rmse_per_structure"]
                cells = f"{energy:.2f} meV/molecule, RMSE | {found['forces_rmse']:.1f} meV/Å, RMSE"
            lines.append(
                f"| {row['set']} | {test} | {name} | {row['parameters']:,} | {row['cpu_seconds']:.0f} | {cells} |"
            )
    for (of, test), published in PUBLISHED.items():
        lines += [f"| {of} | {test} | {name} | | | {e} | {f} |" for name, (e, f) in published.items()]
    for element in ("Si", "Mo"):
        for name, (e, f) in mlearn.PUBLISHED[element].items():
            lines.append(f"| {element} | {element}_test | {name} | | | {e} | {f} |")
    return "\n".join(lines)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, default=ROOT / "data", metavar="FOLDER")
    p.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    p.add_argument("--threads", type=int, default=1)
    p.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="other than the defaults"
    )
    p.add_argument("--runs", type=Path, default=ROOT / "runs" / "linear", metavar="DIR")
    p.add_argument("--results", type=Path, default=ROOT / "docs" / "results" / "linear.jsonl", metavar="FILE")
    p.add_argument("--table", action="store_true", help="print what is finished")
    args = p.parse_args()
    rows = read_rows(args.results)
    for name in [] if args.table else args.sets:
        if (name, args.set) in [(row["set"], row["settings"]) for row in rows]:
            continue
        rows.append(perform(name, args))
        write_rows(args.results, rows)
    print(table(rows))


if __name__ == "__main__":
    main()
