"""The cost model of docs/SCALING.md: time, storage and machines for large data sets, from what was measured.

    python -m bench.scaling            # prints the tables
    python -m bench.scaling --write    # puts them between the marks in docs/SCALING.md

Reads docs/results/pipeline.json (bench/pipeline.py), gpu.json (bench/gpu.py) and speed.jsonl (potential-bench). What
was not measured is in ASSUMED and stands above the tables.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from typing import Any

from bench.provenance import ROOT

MARK = "<!-- made by `python -m bench.scaling --write` -->"
ASSUMED = {
    "GPU": (1.0, "speed of a GPU, the one measured being 1"),
    "cores": (8.0, "CPU cores beside each GPU that are free to feed it"),
    "GPUs per node": (8.0, ""),
    "GiB per node": (512.0, "memory of a node"),
    "GB/s within a node": (100.0, "of the all-reduce of one GPU"),
    "GB/s between nodes": (20.0, "of the same"),
    "ms latency": (0.05, "of an all-reduce, for each doubling of the GPUs"),
    "updates": (50_000.0, "steps that a training needs, whatever its batch"),
}
GPUS = (1, 8, 64, 512)
# per frame in each process that reads: ends of atoms and of info, labels, kind, chosen rows, order of the epoch
INDEX_BYTES = 8 + 8 + 1 + 4 + 8 + 8


@dataclass(frozen=True)
class Set:
    """A published data set: millions of frames, atoms per frame, epochs usually trained, and what it resembles here."""

    name: str
    frames: float
    atoms: float
    epochs: int
    like: str  # of pipeline.json: storage
    speed: str  # of speed.jsonl


SETS = (
    Set("MPtrj", 1.6e6, 31, 100, "silicon", "Si64"),
    Set("SPICE", 2.0e6, 30, 100, "acetylacetone", "molecules"),
    Set("OMat24", 100e6, 20, 4, "silicon", "Si64"),
)


def assumed(name: str) -> float:
    return ASSUMED[name][0]


def gpu_step(preset: str) -> tuple[float, int]:
    """Seconds of a float32 training step of the largest batch of molecules measured, and its atoms."""
    rows = json.loads((ROOT / "docs" / "results" / "gpu.json").read_text())["rows"]
    steps = [
        r for r in rows if r["task"] == "training" and r["preset"] == preset and r["record"] and not r["tf32"]
    ]
    largest = max(steps, key=lambda r: r["atoms"])
    return 1e-3 * largest["step"]["ms"], largest["atoms"]


def step_seconds() -> dict[tuple[str, str], tuple[float, int]]:
    """(preset, system) -> CPU seconds per atom of a training step on one core, and weights."""
    found = {}
    for text in (ROOT / "docs" / "results" / "speed.jsonl").read_text().splitlines():
        line = json.loads(text)
        if line["task"] == "training" and line["contestant"] in ("small", "medium"):
            name = line["system"]
            found[line["contestant"], name] = (1e-3 * line["cpu_ms"] / line["atoms"], line["parameters"])
    return found


@dataclass(frozen=True)
class Pipeline:
    """Measured, per atom or per frame of one kind of structures."""

    read: float  # s per frame, at random from a large file
    graph: float  # s per atom, neighbors
    disk: float  # bytes per atom
    memory: float  # bytes per atom of a graph


def pipelines(measured: dict[str, Any]) -> dict[str, Pipeline]:
    rows = measured["storage"]["sets"]
    # of a small file chunks are still unpacked when they are wanted again; QM9 says what that is worth
    cold = measured["qm9_stream"]["random_read_us"] / rows["QM9"]["frame_read_us"]
    return {
        name: Pipeline(
            1e-6 * row["frame_read_us"] * cold,
            1e-6 * row["edges_search_us"] / row["atoms"],
            row["bytes_per_frame"] / row["atoms"],
            row["graph_bytes_in_memory"] / row["atoms"],
        )
        for name, row in rows.items()
    }


def exchange(parameters: int, gpus: int) -> float:
    """Seconds of the all-reduce of one step: 4 bytes a weight, sent and received once around the ring."""
    if gpus == 1:
        return 0.0
    size = 4 * parameters * 2 * (gpus - 1) / gpus
    within = gpus <= assumed("GPUs per node")
    rate = assumed("GB/s within a node") if within else assumed("GB/s between nodes")
    return size / (1e9 * rate) + 1e-3 * assumed("ms latency") * math.log2(gpus)


def prediction(one: Set, preset: str, gpus: int, measured: dict[str, Any]) -> dict[str, Any]:
    """Time of a training, and every resource over what there is of it; the largest breaks first."""
    per_atom, parameters = step_seconds()[preset, one.speed]
    pipe, (seconds, atoms) = pipelines(measured)[one.like], gpu_step(preset)
    batch = atoms / one.atoms
    # other structures than molecules cost as much more there as on a CPU
    compute = seconds / assumed("GPU") * per_atom / step_seconds()[preset, "molecules"][0]
    feed = batch * (pipe.read + pipe.graph * one.atoms)  # core seconds per GPU and step
    sending = exchange(parameters, gpus)
    step = max(compute + sending, feed / assumed("cores"))
    steps = one.frames * one.epochs / (batch * gpus)
    processes = (1 + assumed("cores")) * min(gpus, assumed("GPUs per node"))
    index = INDEX_BYTES * one.frames * processes / 2**30
    loads = {
        "feeding the GPUs (CPU cores)": feed / assumed("cores") / (compute + sending),
        "exchange of gradients": 10 * sending / compute,  # a tenth of a step is bearable
        "too few steps (the batch of all GPUs is too large)": assumed("updates") / steps,
        "memory for the index of frames": 10 * index / assumed("GiB per node"),  # a tenth of the node
        "time (weeks)": step * steps / (14 * 86_400),
    }
    first = max(loads, key=lambda name: loads[name])
    return {
        "hours": step * steps / 3600,
        "steps": steps,
        "compute_ms": 1e3 * compute,
        "exchange_ms": 1e3 * sending,
        "cores_per_gpu": feed / (compute + sending),
        "index_GiB_per_node": index,
        "first": first if loads[first] > 1 else "nothing",
    }


def tables(measured: dict[str, Any]) -> str:
    """Everything as Markdown."""
    lines = ["Assumed, not measured:", "", "| | value | |", "|---|---|---|"]
    lines += [f"| {name} | {value:g} | {text} |" for name, (value, text) in ASSUMED.items()]
    lines += ["", "Measured on one core (CPU seconds; docs/results/pipeline.json, speed.jsonl):", ""]
    lines += [
        "| like | read, µs a frame | neighbors, µs an atom | disk, bytes an atom | graph, bytes an atom |"
    ]
    lines += ["|---|---|---|---|---|"]
    for name, p in pipelines(measured).items():
        lines.append(f"| {name} | {1e6 * p.read:.0f} | {1e6 * p.graph:.0f} | {p.disk:.0f} | {p.memory:.0f} |")
    lines += [
        "",
        "| preset, like | step, ms an atom | frames/s a core (30 atoms) | weights | MB exchanged a step |",
    ]
    lines += ["|---|---|---|---|---|"]
    for (preset, name), (seconds, n) in sorted(step_seconds().items(), reverse=True):
        if name != "Si512":
            rate = 1 / (30 * seconds)
            lines.append(f"| {preset}, {name} | {1e3 * seconds:.2f} | {rate:.0f} | {n:,} | {8e-6 * n:.1f} |")
    lines += [
        "",
        "Measured on one H200 (docs/results/gpu.json):",
        "",
        "| preset | atoms a step | step, ms | atoms/s | cores of this CPU |",
    ]
    lines += ["|---|---|---|---|---|"]
    for preset in ("small", "medium"):
        (seconds, atoms), (core, _) = gpu_step(preset), step_seconds()[preset, "molecules"]
        lines.append(
            f"| {preset} | {atoms:,} | {1e3 * seconds:.1f} | {atoms / seconds:,.0f} | {core * atoms / seconds:.0f} |"
        )
    parse = measured["text_prepare"]["us_per_frame"]
    lines += [
        "",
        "| set | frames | on disk, GB | prepare, core hours | start-up, s | steps of 1 epoch, 1 GPU |",
        "|---|---|---|---|---|---|",
    ]
    qm9, million = measured["qm9_stream"], measured["million_stream"]
    (small, n_small), (large, n_large) = ((r["start_up_cpu_seconds"], r["frames"]) for r in (qm9, million))
    for one in SETS:
        p = pipelines(measured)[one.like]
        # text of more atoms takes longer to parse: by the bytes, beside those of the three atoms measured
        hours = one.frames * parse * 1e-6 * (1 + (one.atoms - 3) / 30) / 3600
        batches = one.frames * one.atoms / gpu_step("small")[1]
        start = small + (large - small) * (one.frames - n_small) / (n_large - n_small)
        size = 1e-9 * one.frames * one.atoms * p.disk
        lines.append(
            f"| {one.name} | {one.frames:.3g} | {size:.1f} | {hours:.1f} | {start:.0f} | {batches:,.0f} |"
        )
    lines += ["", "| set, epochs | preset | GPUs | hours | steps | GPU ms a step | exchange, ms | cores a GPU needs | "
              "index, GiB a node | what breaks first |", "|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for one in SETS:
        for preset in ("small", "medium"):
            for gpus in GPUS:
                r = prediction(one, preset, gpus, measured)
                lines.append(
                    f"| {one.name}, {one.epochs} | {preset} | {gpus} | {r['hours']:.3g} | {r['steps']:,.0f} | "
                    f"{r['compute_ms']:.0f} | {r['exchange_ms']:.2f} | {r['cores_per_gpu']:.1f} | "
                    f"{r['index_GiB_per_node']:.1f} | {r['first']} |"
                )
    return "\n".join(lines)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--write", action="store_true", help="put the tables into docs/SCALING.md")
    p.add_argument("--gpu", type=float, help="speed of a GPU, the one measured being 1")
    args = p.parse_args()
    if args.gpu:
        ASSUMED["GPU"] = (args.gpu, ASSUMED["GPU"][1])
    text = tables(json.loads((ROOT / "docs" / "results" / "pipeline.json").read_text()))
    if not args.write:
        print(text)
        return
    path = ROOT / "docs" / "SCALING.md"
    before, _, rest = path.read_text(encoding="utf-8").partition(MARK)
    after = rest.partition(MARK)[2]
    path.write_text(f"{before}{MARK}\n\n{text}\n\n{MARK}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
