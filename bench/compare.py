"""Silicon of mlearn: our model, the published SNAP, and Stillinger and Weber's, by potential-compare.

    python -m bench.compare --minutes 15
    python -m bench.compare --model runs/compare/run/model.safetensors

Trains on one thread unless there is a model. Leaves the report in --output, numbers and pictures in docs/results.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys

from bench.provenance import ROOT, provenance

SILICON = "data/mlearn/Si_{}.extxyz.xz"
KNOWN = {"a0": 5.469, "B0": 88.5}  # PBE, all electrons: Lejaeghere et al., Science 351, aad3000 (2016)
# kept in docs/results: numbers, no curves
KEPT = ("files", "frames", "contestants", "shifts", "unshifted", "errors", "ranking", "groups", "pairs", "crystal",
        "speed", "settings", "failures", "gaps")  # fmt: skip


def call(module: str, arguments: list[str]) -> None:
    """One of our commands, on one thread."""
    code = f"import sys; from {module} import main; sys.exit(main())"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, env=environment, check=True)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--minutes", type=float, default=15.0, help="of training without --model (default: 15)")
    p.add_argument("--model", help="a model of silicon")
    p.add_argument("--output", default="runs/compare", metavar="DIR")
    args = p.parse_args()
    model = args.model or f"{args.output}/run/model.safetensors"
    if not args.model:
        minutes = f"{args.minutes:g}"
        call("train.cli", [SILICON.format("train"), "--minutes", minutes, "--output", f"{args.output}/run"])
    contestants = {
        "ours": model,
        "SNAP": "potential.linear.snap_calculator:SnapCalculator",
        "Stillinger-Weber": "examples/compare/stillinger_weber.py:factory",
    }
    words = [
        SILICON.format("test"),
        "--group-key",
        "group",
        "--crystal",
        "Si",
        "--output",
        f"{args.output}/report",
    ]
    words += [word for name, what in contestants.items() for word in ("--calculator", f"{name}={what}")]
    words += ["--option", "SNAP.model=data/mlearn/Si_published.snapcoeff"]
    words += [word for name, value in KNOWN.items() for word in ("--known", f"{name}={value}")]
    facts = provenance()
    call("train.compare.cli", words)
    report, results = ROOT / args.output / "report", ROOT / "docs" / "results"
    found = json.loads((report / "comparison.json").read_text(encoding="utf-8"))
    kept = facts | {key: found[key] for key in KEPT}
    kept["checks"] = {
        name: {check: {k: x for k, x in one.items() if k != "curve"} for check, one in of.items()}
        for name, of in found["checks"].items()
    }
    (results / "compare.json").write_text(
        json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    for name in ("checks", "parity"):
        shutil.copy(report / f"{name}.png", results / f"compare_{name}.png")


if __name__ == "__main__":
    main()
