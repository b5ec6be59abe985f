"""Acetylacetone in five minutes: errors over seeds and the energy drift of MD. Run by `make bench-acac`.

    python -m bench.acac --minutes 5 --seeds 0 1 2 --picoseconds 20

Trains with `potential-train` and its own defaults on data/acac, once per seed, on a quiet machine; then 20 ps of NVE
with the first seed's model (examples/02_md.py). Writes docs/results/acac.json.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.provenance import ROOT, provenance

ACAC = ROOT / "data" / "acac"


def train(seed: int, minutes: float, output: Path) -> dict[str, Any]:
    """One run of potential-train, unless it is finished already; its errors and size."""
    command = [sys.executable, "-c", "import sys; from train.cli import main; sys.exit(main())"]
    command += [str(ACAC / "train_300K.xyz.xz"), "--minutes", str(minutes), "--seed", str(seed)]
    command += [
        "--test",
        str(ACAC / "test_MD_300K.xyz.xz"),
        str(ACAC / "test_MD_600K.xyz.xz"),
        "--output",
        str(output),
    ]
    origin = output / "provenance.json"
    if not origin.exists():
        subprocess.run(command, check=True)
        origin.write_text(json.dumps(provenance()))
    came = json.loads(origin.read_text())
    if came["commit"] != provenance()["commit"]:
        raise SystemExit(f"{output}: trained at {came['commit']}, another commit; remove it to train again")
    summary = json.loads((output / "summary.json").read_text())
    last = json.loads((output / "metrics.jsonl").read_text().splitlines()[-1])
    keys = ("energy_rmse_per_structure", "forces_rmse")
    errors = {name: {key: row[key] for key in keys} for name, row in summary["errors"].items()}
    return {
        "seed": seed,
        **{key: came[key] for key in ("commit", "date", "threads")},
        "parameters": summary["parameters"],
        "seconds": summary["seconds"],
        "steps": last["step"],
        "errors": errors,
    }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--minutes", type=float, default=5.0)
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--picoseconds", type=float, default=20.0)
    p.add_argument("--runs", type=Path, default=ROOT / "runs" / "bench-acac", metavar="DIR")
    p.add_argument("--results", type=Path, default=ROOT / "docs" / "results" / "acac.json", metavar="FILE")
    args = p.parse_args()
    results = {**provenance(), "units": {"energy": "meV per molecule, RMSE", "forces": "meV/Å, RMSE"}}
    results["runs"] = [train(seed, args.minutes, args.runs / f"seed-{seed}") for seed in args.seeds]
    md = args.runs / "md"
    command = [sys.executable, str(ROOT / "examples" / "02_md.py"), "--output", str(md)]
    command += ["--model", str(args.runs / f"seed-{args.seeds[0]}" / "model.safetensors")]
    subprocess.run([*command, "--picoseconds", str(args.picoseconds)], check=True)
    results["md"] = {k: v for k, v in json.loads((md / "md.json").read_text()).items() if k != "model"}
    args.results.parent.mkdir(parents=True, exist_ok=True)
    args.results.write_text(json.dumps(results, indent=1) + "\n")
    print(f"results in {args.results}")


if __name__ == "__main__":
    main()
