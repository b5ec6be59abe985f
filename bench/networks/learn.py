"""Every network trained on acetylacetone for the same CPU time of one thread; errors on both test sets.

    python -m bench.networks.learn --minutes 1 --networks painn schnet
    python -m bench.networks.learn --table

The clock of the trainer is that of the process, so that other work on the machine does not count. Defaults of
potential-train, preset small; every fifth frame of each test set. Each run adds a line to
docs/results/networks_learned.jsonl; finished ones are skipped.
"""

import argparse
import io
import json
import lzma
import os
import shutil
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from ase.io import read, write

from bench.provenance import ROOT, provenance
from potential.networks import NETWORKS
from train.config import Config, Data, Fit
from train.fit import fit

ACAC = ROOT / "data" / "acac"
TESTS = ("test_MD_300K", "test_MD_600K")
PRESET = "small"


def some(name: str, runs: Path) -> str:
    """Every fifth frame of a test set, as a file of its own."""
    text = lzma.decompress((ACAC / f"{name}.xyz.xz").read_bytes()).decode()
    runs.mkdir(parents=True, exist_ok=True)
    file = runs / f"{name}.xyz"
    partial = file.with_suffix(f".{os.getpid()}.xyz")
    write(partial, read(io.StringIO(text), "::5", format="extxyz"))
    partial.replace(file)
    return str(file)


def learn(network: str, minutes: float, seed: int, runs: Path) -> dict[str, Any]:
    """One run and its errors."""
    facts, output = provenance(), runs / network
    shutil.rmtree(output, ignore_errors=True)  # what a stopped run left
    data = Data(train=(str(ACAC / "train_300K.xyz.xz"),), test=tuple(some(name, runs) for name in TESTS))
    config = Config(data, {"network": network, "preset": PRESET}, Fit(minutes=minutes, seed=seed))
    with patch.object(time, "monotonic", time.process_time):
        summary = fit(config, output)
    keys = ("energy_rmse_per_structure", "forces_rmse")
    return {
        **facts,
        "network": network,
        "preset": PRESET,
        "minutes": minutes,
        "seed": seed,
        "parameters": summary["parameters"],
        "steps": summary["resources"]["steps"],
        "errors": {name: {key: summary["errors"][name][key] for key in keys} for name in TESTS},
    }


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown: E meV per molecule / F meV/Å."""
    rows = ["| network | parameters | steps | 300 K | 600 K |", "|---|---|---|---|---|"]
    for line in sorted(lines, key=lambda x: float(x["errors"][TESTS[0]]["forces_rmse"])):
        pairs = [tuple(line["errors"][name].values()) for name in TESTS]
        errors = " | ".join(f"{e:.1f} / {f:.1f}" for e, f in pairs)
        rows.append(f"| {line['network']} | {line['parameters']:,} | {line['steps']:,} | {errors} |")
    return "\n".join(rows)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    p.add_argument("--minutes", type=float, default=2.0, help="CPU time of training")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--runs", type=Path, default=ROOT / "runs" / "networks", metavar="DIR")
    p.add_argument(
        "--results", type=Path, default=ROOT / "docs" / "results" / "networks_learned.jsonl", metavar="FILE"
    )
    p.add_argument("--table", action="store_true", help="print what was measured, train nothing")
    args = p.parse_args()
    torch.set_num_threads(1)
    done = (
        [json.loads(line) for line in args.results.read_text().splitlines()] if args.results.exists() else []
    )
    for network in [] if args.table else args.networks:
        job = {"network": network, "minutes": args.minutes, "seed": args.seed}
        if any(job.items() <= line.items() for line in done):
            continue
        done.append(learn(network, args.minutes, args.seed, args.runs))
        with args.results.open("a", encoding="utf-8") as f:
            f.write(json.dumps(done[-1]) + "\n")
    print(table([line for line in done if line["minutes"] == args.minutes and line["seed"] == args.seed]))


if __name__ == "__main__":
    main()
