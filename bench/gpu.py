"""What a GPU does with our networks: its ceilings, training steps, energy and forces, with and without TensorFloat-32.

    python -m bench.gpu --presets small medium

Writes docs/results/gpu.json. Dynamics, and MACE beside ours: `potential-bench --device cuda` (results/speed_gpu.jsonl).
Floating-point operations are those of products of matrices, counted by torch; times are medians of calls between which
the GPU is waited for. Bytes are not counted: what is not bound by launches or arithmetic is bound by memory.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.provenance import ROOT, provenance
from potential.analysis.systems import build_system
from potential.analysis.tasks import structures_of
from potential.chunks import predict_in_chunks
from potential.graph import Graph, collate, from_atoms
from potential.model import Potential, Statistics, build, presets, recast
from potential.physics import predict
from potential.recorded import ROOM, Recording
from potential.table import Shape, most_neighbors, tabulate
from potential.table import predict as in_a_table
from train.batches import Sample
from train.config import Fit
from train.directory import write_text
from train.loss import Targets
from train.precision import tf32
from train.run import start
from train.step import fitting, gradient, train_step

ELEMENTS = ("H", "C", "N", "O", "Si")
CRYSTALS = (64, 512, 4096, 32768)
BATCHES = (5, 20, 80, 320, 1280)  # molecules of 27 atoms
SECONDS, CALLS = 1.0, 30  # of measuring one thing, at most
CHUNK = 16384


def times(call: Callable[[], Any], seconds: float = SECONDS) -> dict[str, float]:
    """Milliseconds of a call and of launching it, medians; the most memory in MiB."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    walls, launches, begun = [], [], time.perf_counter()
    while len(walls) < CALLS and (len(walls) < 3 or time.perf_counter() - begun < seconds):
        start_of_call = time.perf_counter()
        call()
        launched = time.perf_counter()
        torch.cuda.synchronize()
        walls.append(1e3 * (time.perf_counter() - start_of_call))
        launches.append(1e3 * (launched - start_of_call))
    peak = torch.cuda.max_memory_allocated() / 2**20
    return {"ms": median(walls), "launch_ms": median(launches), "calls": len(walls), "peak_mib": peak}


class Counter(TorchDispatchMode):
    """Counts the operations of products of matrices. (torch's FlopCounterMode cannot be used around autograd.grad.)"""

    flop = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.flop += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def gflop(call: Callable[[], Any]) -> float:
    with Counter() as counter:
        call()
    return 1e-9 * counter.flop


def ceilings(n: int = 8192) -> dict[str, float]:
    """TFLOP/s of large products, TB/s of a large copy counting reading and writing."""
    found = {}
    for name, dtype, on in (
        ("float32", "float32", False),
        ("tf32", "float32", True),
        ("float64", "float64", False),
    ):
        a, b = (torch.randn(n, n, device="cuda", dtype=getattr(torch, dtype)) for _ in range(2))
        with tf32(on):
            found[f"{name}_tflops"] = 2e-9 * n**3 / times(lambda a=a, b=b: a @ b)["ms"]
    x = torch.randn(2**29, device="cuda")
    y = torch.empty_like(x)
    found["copy_tb_per_s"] = 2e-9 * 4 * x.numel() / times(lambda: y.copy_(x))["ms"]
    return found


def potential_of(preset: str) -> Potential:
    facts = Statistics(ELEMENTS, (0.0,) * len(ELEMENTS), 1.0, 20.0)
    return build({**presets("equivariant")[preset]}, facts).to("cuda")


def molecules(potential: Potential, n: int) -> list[Graph]:
    """The molecules of potential-bench, again and again."""
    graphs = [
        from_atoms(a, potential.cutoff) for a in structures_of(list(build_system("molecules").structures))
    ]
    return [graphs[k % len(graphs)] for k in range(n)]


def crystal(potential: Potential, n: int) -> Graph:
    return from_atoms(structures_of(list(build_system(f"Si{n}").structures))[0], potential.cutoff)


def training(preset: str, graphs: list[Graph], fit: Fit) -> dict[str, Any]:
    """One step of potential-train, the gradient apart from the optimizer."""
    samples, unknown = [], torch.full((1, 3, 3), torch.nan, dtype=torch.float64)
    for g in graphs:
        zero = torch.zeros(1, dtype=torch.float64)
        samples.append(Sample(g, Targets(zero, torch.zeros_like(g.positions), unknown)))
    run = start(potential_of(preset), fit)
    for _ in range(11):  # SOAP begins, and turns its bases for the first time
        train_step(run, samples, fit, 1e-6)
    found: dict[str, Any] = {"gradient_recorded": bool(run.recordings.known)}
    found |= {"gflop": gflop(lambda: gradient(run, samples, fit))}
    found["step"] = times(lambda: [train_step(run, samples, fit, 1e-6) for _ in range(10)])
    found["gradient"] = times(lambda: fitting(run, samples, fit))
    found["optimizer"] = times(lambda: [run.optimizer.step() for _ in range(10)])
    for name in ("step", "optimizer"):  # ten calls, one of which turns the bases
        for key in ("ms", "launch_ms"):
            found[name][key] /= 10
    return found


def evaluation(potential: Potential, graph: Graph) -> dict[str, Any]:
    """Energy and forces of a graph whose edges are known, launched or recorded; how far the forces are off."""
    there, found = graph.to("cuda"), {}
    exact = predict_in_chunks(recast(potential, torch.float64), there, CHUNK).forces
    species = potential.species_of.cpu()[graph.atomic_numbers]
    shape = Shape(len(species), math.ceil(ROOM * most_neighbors(graph)), graph.n_systems)
    table = tabulate(graph, species, torch.zeros(len(ELEMENTS), dtype=torch.float64), shape).each(
        lambda x: x.to("cuda")
    )
    for name, on in (("float32", False), ("tf32", True)):
        with tf32(on):
            row: dict[str, Any] = times(lambda: predict_in_chunks(potential, there, CHUNK))
            row["forces_deviation"] = deviation(predict_in_chunks(potential, there, CHUNK).forces, exact)
            recording = Recording(lambda: in_a_table(potential, table)[0].forces, there.positions.device)
            row["recorded"] = times(recording)
            row["recorded"]["forces_deviation"] = deviation(recording(), exact)
        found[name] = row
        del recording
    if len(graph.positions) <= CHUNK:
        found["gflop"] = gflop(lambda: predict(potential, there))
    return found


def deviation(forces: torch.Tensor, exact: torch.Tensor) -> float:
    """Root mean square, relative."""
    return float((forces - exact).square().mean().sqrt() / exact.square().mean().sqrt())


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--presets", nargs="+", default=["small", "medium"])
    p.add_argument("--crystals", type=int, nargs="+", default=CRYSTALS, help="atoms of silicon")
    p.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="molecules a training step")
    p.add_argument("--commit", help="where this is no checkout")
    p.add_argument("--results", type=Path, default=ROOT / "docs" / "results" / "gpu.json", metavar="FILE")
    args = p.parse_args()
    rows: list[dict[str, Any]] = []
    facts = {**provenance(), "gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    result = {**facts, "ceilings": ceilings(), "rows": rows}
    result["commit"] = args.commit or result["commit"]

    def add(**row: Any) -> None:
        rows.append(row)
        print(json.dumps(row), flush=True)
        args.results.parent.mkdir(parents=True, exist_ok=True)
        write_text(args.results, json.dumps(result, indent=1) + "\n")

    print(json.dumps(result["ceilings"]), flush=True)
    for preset in args.presets:
        potential = potential_of(preset).requires_grad_(False)
        systems = {"molecules": collate(molecules(potential, 5))}
        systems |= {f"Si{n}": crystal(potential, n) for n in args.crystals}
        for system, graph in systems.items():
            atoms = {"atoms": len(graph.positions), "edges": len(graph.center)}
            add(task="evaluation", preset=preset, system=system, **atoms, **evaluation(potential, graph))
        for n in args.batches:
            graphs = molecules(potential, n)
            atoms = {"atoms": 27 * n, "edges": sum(len(g.center) for g in graphs)}
            for record, on in ((False, False), (True, False), (True, True)):
                fit = Fit(device="cuda", tf32=on, record=record)
                how = {
                    "task": "training",
                    "preset": preset,
                    "system": f"{n} molecules",
                    "record": record,
                    "tf32": on,
                }
                add(**how, **atoms, **training(preset, graphs, fit))


if __name__ == "__main__":
    main()
