"""What two ranks exchange per step, and how long it takes: preset small, acetylacetone, gloo on this machine.

    python -m bench.exchange --steps 30

Both ranks run on the cores this process may use, so that on one core the times are only indicative: a step then holds
the work of both ranks, and each exchange waits for the other rank's turn. Writes docs/results/exchange.json.
"""

import argparse
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing

from bench.provenance import ROOT, provenance
from potential.model import Statistics, build, presets
from train.batches import prepare
from train.config import NETWORK, Fit
from train.data.dataset import read
from train.parallel import Ranks
from train.run import start
from train.step import train_step


def timed(function: Callable[[], object], n: int) -> list[float]:
    """ms of each of n calls, every one begun by all ranks together."""
    times = []
    for _ in range(n):
        dist.barrier()
        begun = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - begun))
    return times


def work(rank: int, size: int, port: int, args: argparse.Namespace, out: Path) -> None:
    """One rank; the first writes what it measured."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    ranks = Ranks(rank, size)
    samples = prepare(read(str(ROOT / "data/acac/train_300K.xyz.xz"))[0][: args.batch], 5.0)
    facts = Statistics(("H", "C", "O"), (0.0, 0.0, 0.0), 1.0, 14.0)
    potential = build({**presets(NETWORK)[args.preset], "cutoff": 5.0}, facts)
    run, index = start(potential, Fit(), ranks=ranks), range(args.batch)
    mine = ranks.share(samples, index)

    def step() -> None:
        train_step(run, mine, Fit(), 1e-6)
        ranks.agree(0.0, False)

    for _ in range(3):
        step()
    weights = list(potential.parameters())
    counts = {name: torch.ones((), dtype=torch.int64) for name in ("energy", "forces", "stress")}
    sums = {name: [1.0, 1.0] for name in (*counts, "")}
    exchange = {
        "gradient": lambda: ranks.add_gradients(weights),
        "counts of labels": lambda: ranks.add_counts(counts),
        "sums of errors": lambda: ranks.add_sums(sums),
        "clock and stop": lambda: ranks.agree(0.0, False),
    }
    bytes_of = {
        "gradient": sum(w.numel() * w.element_size() for w in weights),
        "counts of labels": 8 * len(counts),
        "sums of errors": 16 * len(sums),
        "clock and stop": 16,
    }
    found: dict[str, Any] = {"step": timed(step, args.steps)}
    found |= {name: timed(function, args.steps) for name, function in exchange.items()}
    table = {
        name: {
            "bytes": bytes_of.get(name, sum(bytes_of.values())),
            "ms": {
                k: round(float(np.quantile(ms, q)), 3)
                for k, q in (("median", 0.5), ("q1", 0.25), ("q3", 0.75))
            },
        }
        for name, ms in found.items()
    }
    if rank == 0:
        out.write_text(json.dumps({"parameters": sum(w.numel() for w in weights), "exchange": table}))
    dist.destroy_process_group()


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--steps", type=int, default=30)
    p.add_argument("--batch", type=int, default=6, help="molecules per step, over both ranks")
    p.add_argument("--preset", default="small")
    p.add_argument("--results", type=Path, default=ROOT / "docs/results/exchange.json", metavar="FILE")
    args = p.parse_args()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    partial = args.results.with_suffix(".partial")
    torch.multiprocessing.spawn(work, (2, port, args, partial), nprocs=2)
    found = {**provenance(), "ranks": 2, "backend": "gloo", "preset": args.preset, "batch": args.batch}
    found |= json.loads(partial.read_text())
    found["note"] = (
        "bytes: what one rank hands over per step, of `step` the sum; ms: begun by both ranks together, on cores that "
        "the command could use (on one core both ranks share it: indicative only)"
    )
    args.results.write_text(json.dumps(found, indent=1) + "\n")
    partial.unlink()
    print(json.dumps(found["exchange"], indent=1))


if __name__ == "__main__":
    main()
