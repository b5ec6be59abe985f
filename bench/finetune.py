"""Fine-tuning: 50 frames at 600 K for a model fitted at 300 K (acetylacetone): what it gains, what it forgets.

    python -m bench.finetune --pool train_600K.xyz.xz --seeds 0 1 2 --set fit.epochs=304

The model is fitted by `potential-train data/acac/train_300K.xyz.xz --minutes 6`; then, for each seed, 50 frames are
drawn from the pool (train_600K.xyz.xz of the acetylacetone set, not in data/) and learned by the documented command

    potential-train new.xyz --from model.safetensors --replay train_300K.xyz.xz

Errors before and after are those of its summary.json, on all 650 frames of each test. Finished runs are kept.
Writes docs/results/finetune.json.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import read, write

from bench.provenance import ROOT, provenance

ACAC = ROOT / "data" / "acac"
OLD, NEW = "test_MD_300K", "test_MD_600K"
MOST_OLD, MOST_NEW = 1.10, 0.70  # bar: forces RMSE after / before, at 300 K and at 600 K


def train(arguments: list[str], output: Path) -> dict[str, Any]:
    """One run of potential-train, unless it is finished; its summary."""
    if not (output / "summary.json").exists():
        again = ["--resume"] if (output / "config.toml").exists() else arguments
        tests = (
            [] if "--resume" in again else ["--test", *(str(ACAC / f"{name}.xyz.xz") for name in (OLD, NEW))]
        )
        code = "import sys; from train.cli import main; sys.exit(main())"
        subprocess.run([sys.executable, "-c", code, *again, *tests, "--output", str(output)], check=True)
    summary: dict[str, Any] = json.loads((output / "summary.json").read_text())
    return summary


def tune(seed: int, weight: float, args: argparse.Namespace, base: Path) -> dict[str, Any]:
    """Fine-tuning with the frames of one seed, old frames counting `weight`."""
    chosen = args.runs / f"new-{seed}.xyz"
    pool = read(args.pool, ":")
    index = sorted(np.random.default_rng(seed).choice(len(pool), args.frames, replace=False).tolist())
    args.runs.mkdir(parents=True, exist_ok=True)
    write(chosen, [pool[i] for i in index], format="extxyz")
    command = [str(chosen), "--from", str(base / "model.safetensors"), "--seed", str(seed)]
    command += ["--replay", str(ACAC / "train_300K.xyz.xz"), *(f"--set={text}" for text in args.set)]
    command += ["--replay-weight", str(weight)]
    summary = train(
        command, args.runs / (f"tuned-{seed}" if weight == 1 else f"tuned-{seed}-weight-{weight:g}")
    )
    keys = ("energy_rmse_per_structure", "forces_rmse")
    before, after = (
        {name: {key: summary[table][name][key] for key in keys} for name in (OLD, NEW)}
        for table in ("errors_before", "errors")
    )
    ratio = {name: after[name]["forces_rmse"] / before[name]["forces_rmse"] for name in (OLD, NEW)}
    return {
        "seed": seed,
        "replay_weight": weight,
        "frames": index,
        "seconds": summary["seconds"],
        "steps": summary["resources"]["steps"],
        "before": before,
        "after": after,
        "forces_ratio": {name: round(value, 3) for name, value in ratio.items()},
        "bar": bool(ratio[OLD] <= MOST_OLD and ratio[NEW] <= MOST_NEW),
    }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--pool", required=True, metavar="FILE", help="frames at 600 K to draw from")
    p.add_argument("--frames", type=int, default=50)
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--replay-weights", type=float, nargs="+", default=[1.0], metavar="W")
    p.add_argument("--minutes", type=float, default=6.0, help="for the model to start from")
    p.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="other settings of fine-tuning"
    )
    p.add_argument("--runs", type=Path, default=ROOT / "runs" / "bench-finetune", metavar="DIR")
    p.add_argument(
        "--results", type=Path, default=ROOT / "docs" / "results" / "finetune.json", metavar="FILE"
    )
    args = p.parse_args()
    base = args.runs / "base"
    first = train([str(ACAC / "train_300K.xyz.xz"), "--minutes", str(args.minutes)], base)
    results = {
        **provenance(),
        "units": {"energy": "meV per molecule, RMSE", "forces": "meV/Å, RMSE"},
        "bar": f"forces_ratio at most {MOST_OLD} ({OLD}) and {MOST_NEW} ({NEW})",
        "base": {"seconds": first["seconds"], "minutes": args.minutes},
        "settings": args.set,
        "runs": [tune(seed, weight, args, base) for weight in args.replay_weights for seed in args.seeds],
    }
    args.results.write_text(json.dumps(results, indent=1) + "\n")
    for run in results["runs"]:
        print(
            run["replay_weight"], run["seed"], run["forces_ratio"], "reached" if run["bar"] else "not reached"
        )


if __name__ == "__main__":
    main()
