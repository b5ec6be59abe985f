"""The input pipeline: cost beside a training step, neighbor graphs, QM9 and a million frames prepared and streamed.

    python -m bench.pipeline --qm9 qm9_consistent130831.npz.xz --million 1000000

Times are CPU seconds of one process (`process_time`), which others on the machine do not lengthen as they do wall time;
memory is that of a whole process tree (proportional set size), looked at ten times a second. Every part done stays
in docs/results/pipeline.json; --only names the parts to measure again. QM9 does not come along: a file with the arrays
n_atoms, Z, R (Å, of all molecules one after the other) and InternalEnergy_0K_au (Ha).
"""

from __future__ import annotations

import argparse
import copy
import json
import lzma
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units

from bench.provenance import ROOT, provenance
from potential.graph import from_atoms
from train.batches import batch
from train.buckets import epoch_batches
from train.config import Config, Data, Fit
from train.data.dataset import Frame
from train.data.keys import Keys
from train.fit import Job, prepare_job
from train.parallel import Ranks
from train.prepared.read import open_prepared
from train.prepared.write import prepare_files, write_frames
from train.run import start
from train.step import train_step
from train.stream import feeding

RESULTS = ROOT / "docs" / "results" / "pipeline.json"
PARTS = ("overhead", "paired", "storage", "qm9_graphs", "text_prepare", "qm9_prepare", "qm9_stream", "qm9_epoch",
         "million_prepare", "million_stream", "million_text")  # fmt: skip
TEXT_FRAMES = 20_000
GRAPHS = 100_000  # molecules of QM9 whose neighbors are searched
EPOCH_DIALS = {
    "channels": 4,
    "message_channels": 4,
    "vector_channels": 2,
    "lmax": 1,
    "hidden_lmax": 1,
    "correlation": 2,
}
EPOCH_BATCH = 16
PAIRS, BLOCK = 30, 10  # of blocks of steps, ready and streamed in turns
PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of an epoch


def cpu(action: Callable[[], Any], repeats: int = 1) -> float:
    """CPU seconds of one call."""
    begun = time.process_time()
    for _ in range(repeats):
        action()
    return (time.process_time() - begun) / repeats


def qm9(path: Path, n: int | None = None) -> Iterator[Frame]:
    """Molecules with U0, one by one."""
    packed = path.read_bytes()
    with np.load(BytesIO(lzma.decompress(packed) if path.suffix == ".xz" else packed)) as content:
        sizes, z, x = content["n_atoms"].astype(int), content["Z"], content["R"].astype(np.float64)
        energy = content["InternalEnergy_0K_au"] * units.Hartree
    ends = np.cumsum(sizes)
    for k, end in enumerate(ends[:n]):
        part = slice(end - sizes[k], end)
        yield Frame(Atoms(z[part], x[part]), float(energy[k]), None, None, path.name, k)


def synthetic(n: int) -> Iterator[Frame]:
    """Water-like frames of three atoms with random labels, one by one."""
    rng = np.random.default_rng(0)
    home = np.array([[0, 0, 0], [1.0, 0, 0], [0, 1.0, 0]])
    for k in range(n):
        forces = rng.normal(size=(3, 3))
        atoms = Atoms("OHH", home + rng.normal(scale=0.1, size=(3, 3)))
        yield Frame(atoms, -14.2 + 0.1 * rng.normal(), forces - forces.mean(axis=0), None, "synthetic", k)


def synthetic_text(path: Path, n: int) -> None:
    """The same as extended XYZ."""
    with path.open("w", encoding="utf-8") as file:
        for frame in synthetic(n):
            assert frame.forces is not None
            x = np.concatenate([frame.atoms.positions, frame.forces], axis=1)
            rows = (f"{s} {' '.join(f'{v:.8f}' for v in row)}" for s, row in zip("OHH", x, strict=True))
            head = f'Properties=species:S:1:pos:R:3:forces:R:3 energy={frame.energy:.8f} pbc="F F F"'
            file.write("\n".join(["3", head, *rows, ""]))


def tree_memory(pid: int) -> float:
    """GiB of a process and its children, each page counted once."""
    total, todo = 0, [pid]
    while todo:
        one = todo.pop()
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            todo += [int(c) for c in Path(f"/proc/{one}/task/{one}/children").read_text().split()]
        except (OSError, StopIteration):  # it has just ended
            continue
    return total / 2**20


def watched(*arguments: str) -> dict[str, Any]:
    """This script with other arguments as a process: what it prints as JSON last, its wall time and peak memory."""
    begun, peak = time.monotonic(), 0.0
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.pipeline", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    while process.poll() is None:
        peak = max(peak, tree_memory(process.pid))
        time.sleep(0.1)
    assert process.stdout is not None
    if process.returncode:
        raise SystemExit(f"{arguments} failed")
    found: dict[str, Any] = json.loads(process.stdout.read().splitlines()[-1])
    return {**found, "wall_seconds": round(time.monotonic() - begun, 1), "peak_GiB": round(peak, 3)}


def make_job(path: Path, model: Mapping[str, Any] | None = None, **fit: Any) -> Job:
    """A run on a prepared set at preset small, made ready."""
    config = Config(
        data=Data(train=(str(path),)), model=model or {"preset": "small"}, fit=Fit(epochs=1, **fit)
    )
    return prepare_job(config, Path("unused"), Ranks())


def three_jobs(work: Path, source: Path) -> Iterator[tuple[str, Job]]:
    """Runs on prepared sets of three kinds of structures, made ready."""
    data = ROOT / "data"
    sets: dict[str, Any] = {
        "QM9, 4 molecules": qm9(source, 400),
        "acetylacetone, 5 molecules": data / "acac" / "train_300K.xyz.xz",
        "silicon, 2 cells": data / "mlearn" / "Si_train.extxyz.xz",
    }
    for name, frames in sets.items():
        path = work / "overhead.h5"
        path.unlink(missing_ok=True)
        if isinstance(frames, Path):
            prepare_files([str(frames)], path, Keys(), tell=lambda _: None)
        else:
            write_frames(path, frames)
        yield name, make_job(path, batch_size=int(name.split()[1]))


def paired(work: Path, source: Path) -> dict[str, Any]:
    """What streaming by the default worker adds to the process that trains, for three kinds of structures."""
    return {"workers": 1, "batches": {name: in_turns(job) for name, job in three_jobs(work, source)}}


def in_turns(job: Job) -> dict[str, Any]:
    """CPU ms of a training step whose samples are ready, and of one that a worker feeds, in turns: of this process
    alone, without waiting for samples and without the CPU of the worker."""
    run, fit = start(job.potential, job.config.fit), job.config.fit
    batches = epoch_batches(np.ones(len(job.task.train)), fit, 0)[:BLOCK]
    ready = [[job.task.train[int(k)] for k in index] for index in batches]
    times: dict[str, list[float]] = {"ready": [], "streamed": []}
    with feeding(job.task.train, 1) as fetch:
        steps: dict[str, Callable[[], Any]] = {
            "ready": lambda: [train_step(run, s, fit, 1e-3) for s in ready],
            "streamed": lambda: [train_step(run, s, fit, 1e-3) for s in fetch(batches)],
        }
        for k in range(PAIRS + 1):
            for kind in (("ready", "streamed"), ("streamed", "ready"))[k % 2]:
                seconds = cpu(steps[kind])
                if k:  # the first pair warms up
                    times[kind].append(1e3 * seconds / BLOCK)
    ready_ms, collate_ms = (
        np.median(times["ready"]),
        1e3 * cpu(lambda: [batch(s, "cpu") for s in ready], 5) / BLOCK,
    )
    ratio = np.array(times["streamed"]) / np.array(times["ready"])
    return {
        "pairs": PAIRS,
        "steps_each": BLOCK,
        "ready_ms": float(ready_ms),
        "streamed_ms": float(np.median(times["streamed"])),
        "collate_ms": collate_ms,
        "ratio_median": float(np.median(ratio)),
        "ratio_quartiles": np.quantile(ratio, [0.25, 0.75]).tolist(),
        "overhead_fraction": float(np.median(ratio) - 1 + collate_ms / ready_ms),
    }


def overhead(work: Path, source: Path) -> dict[str, Any]:
    """CPU ms of the pipeline and of a training step for batches of three kinds of structures, small."""
    rows = {}
    for name, job in three_jobs(work, source):
        run, fit = start(job.potential, job.config.fit), job.config.fit
        batches = epoch_batches(np.ones(len(job.task.train)), fit, 0)[:60]
        ready = [[job.task.train[k] for k in index] for index in batches]
        frames_ready = [[job.sets.frames["train"][int(k)] for k in index] for index in batches]
        for samples in ready[:10]:
            train_step(run, samples, fit, 1e-3)
        step = cpu(lambda: [train_step(run, s, fit, 1e-3) for s in ready[10:]]) / 50  # noqa: B023
        collating = cpu(lambda: [batch(s, "cpu") for s in ready], 5) / 60  # noqa: B023
        cutoff = job.potential.cutoff
        graphs = cpu(lambda: [from_atoms(f.atoms, cutoff) for fs in frames_ready for f in fs]) / 60  # noqa: B023
        with feeding(job.task.train, 0) as fetch:
            whole = cpu(lambda: list(fetch(batches))) / 60  # noqa: B023
        with feeding(job.task.train, 1) as fetch:
            list(fetch(batches[:4]))
            receiving = cpu(lambda: list(fetch(batches))) / 60  # noqa: B023
        rows[name] = {
            "atoms": float(np.mean([sum(len(s.graph.positions) for s in b) for b in ready])),
            "edges": float(np.mean([sum(len(s.graph.center) for s in b) for b in ready])),
            "step_ms": 1e3 * step,
            "collate_ms": 1e3 * collating,
            "graphs_ms": 1e3 * graphs,
            "read_and_graphs_ms": 1e3 * whole,
            "receive_from_worker_ms": 1e3 * receiving,
            "collate_fraction": collating / step,
            "worker_fraction": (collating + receiving) / step,
            "same_process_fraction": (collating + whole) / step,
        }
    return {"preset": "small", "batches": rows}


def storage(work: Path, source: Path) -> dict[str, Any]:
    """Bytes per frame and CPU µs to get a graph, at random: edges searched anew, or read from compressed HDF5."""
    import h5py

    rows = {}
    sets = {
        "QM9": list(qm9(source, 2000)),
        "acetylacetone": _read(ROOT / "data" / "acac" / "train_300K.xyz.xz"),
        "silicon": _read(ROOT / "data" / "mlearn" / "Si_train.extxyz.xz"),
    }
    for name, frames in sets.items():
        graphs = [from_atoms(f.atoms, 5.0) for f in frames]
        path = work / "edges.h5"
        ends = np.concatenate([[0], np.cumsum([len(g.center) for g in graphs])])
        columns = {
            "center": np.concatenate([g.center.numpy() for g in graphs]).astype(np.uint16),
            "neighbor": np.concatenate([g.neighbor.numpy() for g in graphs]).astype(np.uint16),
            "image": np.concatenate([g.image.numpy() for g in graphs]).astype(np.int8),
        }
        with h5py.File(path, "w", libver="latest") as file:
            for column, values in columns.items():
                chunks = (16_384 // max(1, values[0].nbytes), *values.shape[1:])
                file.create_dataset(column, data=values, chunks=chunks, compression="gzip", compression_opts=1,
                                    shuffle=True, fletcher32=True)  # fmt: skip
        order = np.random.default_rng(0).permutation(len(frames))[:1000]
        with h5py.File(path) as file:
            reading = cpu(lambda: [file[c][ends[k] : ends[k + 1]] for k in order for c in columns])  # noqa: B023
        searching = cpu(lambda: [from_atoms(frames[k].atoms, 5.0) for k in order])  # noqa: B023
        whole = work / "storage.h5"
        whole.unlink(missing_ok=True)
        written = write_frames(whole, frames)
        prepared = open_prepared(str(whole))
        rows[name] = {
            "atoms": written.atoms / written.frames,
            "edges": float(ends[-1] / len(frames)),
            "bytes_per_frame": written.bytes / written.frames,
            "bytes_of_edges_per_frame": path.stat().st_size / len(frames),
            "frame_read_us": 1e6 * cpu(lambda: [prepared[int(k)] for k in order]) / len(order),  # noqa: B023
            "edges_read_us": 1e6 * reading / len(order),
            "edges_search_us": 1e6 * searching / len(order),
            "graph_bytes_in_memory": sum(g.center.nbytes + g.neighbor.nbytes + g.image.nbytes + g.positions.nbytes
                                         for g in graphs) / len(graphs),
        }  # fmt: skip
    return {"cutoff": 5.0, "sets": rows}


def _read(path: Path) -> list[Frame]:
    from train.data.dataset import read

    return read(path)[0]


def qm9_graphs(work: Path, source: Path) -> dict[str, Any]:
    """The neighbor graphs of 100,000 molecules of QM9, 5 Å, by two processes, reading left out."""
    with ProcessPoolExecutor(2) as pool:
        shares = list(pool.map(_graphs, [source] * 2, range(2)))
    spent = sum(seconds for seconds, _ in shares)
    return {
        "molecules": GRAPHS,
        "cpu_seconds": spent,
        "us_per_molecule": 1e6 * spent / GRAPHS,
        "on_2_cores_seconds": max(wall for _, wall in shares),
        "load": os.getloadavg()[0],
    }


def _graphs(source: Path, share: int) -> tuple[float, float]:
    """CPU and wall seconds of every second molecule."""
    atoms = [f.atoms for k, f in enumerate(qm9(source, GRAPHS)) if k % 2 == share]
    begun = time.monotonic()
    spent = cpu(lambda: [from_atoms(a, 5.0) for a in atoms])
    return spent, time.monotonic() - begun


def stage_prepare_qm9(work: Path, source: Path) -> dict[str, Any]:
    path = work / "qm9.h5"
    path.unlink(missing_ok=True)
    seconds = cpu(lambda: write_frames(path, qm9(source)))
    return _prepared(path, seconds)


def stage_prepare_million(work: Path, n: int) -> dict[str, Any]:
    path = work / "million.h5"
    path.unlink(missing_ok=True)
    seconds = cpu(lambda: write_frames(path, synthetic(n)))
    return _prepared(path, seconds)


def stage_prepare_text(text: Path) -> dict[str, Any]:
    path = text.with_suffix(".h5")
    path.unlink(missing_ok=True)
    seconds = cpu(lambda: prepare_files([str(text)], path, Keys(), tell=lambda _: None))
    found = _prepared(path, seconds)
    return {**found, "text_bytes_per_frame": text.stat().st_size / found["frames"]}


def _prepared(path: Path, seconds: float) -> dict[str, Any]:
    n, size = len(open_prepared(str(path))), path.stat().st_size
    return {
        "frames": n,
        "cpu_seconds": seconds,
        "us_per_frame": 1e6 * seconds / n,
        "bytes_per_frame": size / n,
    }


def stage_stream(path: Path, steps: int) -> dict[str, Any]:
    """Steps of one epoch at several of its places, with one worker; CPU ms of a step and of waiting for its samples.
    Steps of a new run on one batch, in turns with them, tell a slower machine from a slower run."""
    begun = time.process_time()
    job = make_job(path, workers=1)
    fit, ready = job.config.fit, time.process_time() - begun
    run = start(job.potential, fit)
    batches = epoch_batches(np.ones(len(job.task.train)), fit, 0)
    places = {}
    fixed = [job.task.train[int(k)] for k in batches[0]]
    with feeding(job.task.train, 1) as fetch:
        for place in PLACES:
            first = int(place * (len(batches) - steps))
            some = batches[first : first + steps]
            times, reference = [], []
            fresh = start(copy.deepcopy(job.potential), fit)
            for _ in range(10):  # its first steps are slower
                train_step(fresh, fixed, fit, 0.1)
            before = time.process_time()
            for samples in fetch(some):
                train_step(run, samples, fit, 0.1)
                times.append(time.process_time() - before)
                reference.append(cpu(lambda: train_step(fresh, fixed, fit, 0.1)))  # noqa: B023
                before = time.process_time()
            atoms = sum(len(job.sets.frames["train"][int(k)].atoms) for index in some for k in index)
            places[f"batch {first}"] = {
                "median_ms": 1e3 * float(np.median(times)),
                "ms_per_atom": 1e3 * sum(times) / atoms,
                "reference_ms": 1e3 * float(np.median(reference)),
            }
    frames = job.sets.frames["train"]
    order = np.random.default_rng(1).permutation(len(frames))[:1000]
    reading = cpu(lambda: [frames[int(k)] for k in order]) / len(order)
    return {
        "start_up_cpu_seconds": ready,
        "random_read_us": 1e6 * reading,
        "frames": len(frames),
        "batches": len(batches),
        "batch_size": fit.batch_size,
        "steps": steps * len(PLACES),
        "places": places,
        "parameters": sum(p.numel() for p in job.potential.parameters()),
    }


def stage_epoch(path: Path, most: int) -> dict[str, Any]:
    """Every batch of one epoch (at most `most` of them) by a network so small that reading counts: CPU ms an atom of
    step and waiting for its samples, and memory of the process tree, in each tenth of it. Steps of a new run on one
    batch, timed at the same moments, tell a slower machine from a slower run."""
    begun = time.process_time()
    job = make_job(path, EPOCH_DIALS, workers=1, batch_size=EPOCH_BATCH)
    fit, ready = job.config.fit, time.process_time() - begun
    run = start(job.potential, fit)
    batches = epoch_batches(np.ones(len(job.task.train)), fit, 0)[:most]
    fixed = [job.task.train[int(k)] for k in batches[0]]
    times, atoms, memory, reference = [], [], [], []
    with feeding(job.task.train, 1) as fetch:
        before = time.process_time()
        for k, samples in enumerate(fetch(batches)):
            train_step(run, samples, fit, 0.1)
            now = time.process_time()
            times.append(now - before)
            atoms.append(sum(len(s.graph.positions) for s in samples))
            if k % max(1, len(batches) // 10) == 0:
                fresh = start(copy.deepcopy(job.potential), fit)
                reference.append(cpu(lambda: train_step(fresh, fixed, fit, 0.1), 40))  # noqa: B023
            if k % max(1, len(batches) // 100) == 0:
                memory.append(tree_memory(os.getpid()))
            before = time.process_time()
    per_atom = 1e3 * np.array(times) / np.array(atoms)
    return {
        "start_up_cpu_seconds": ready,
        "epoch_cpu_seconds": sum(times),
        "batches": len(batches),
        "of_batches": len(epoch_batches(np.ones(len(job.task.train)), fit, 0)),
        "batch_size": fit.batch_size,
        "atoms": sum(atoms),
        "parameters": sum(p.numel() for p in job.potential.parameters()),
        "first_and_last_100_ms_per_atom": [
            float(np.median(part)) for part in (per_atom[:100], per_atom[-100:])
        ],
        "tenths_ms_per_atom": [float(np.median(part)) for part in np.array_split(per_atom, 10)],
        "tenths_reference_ms": [1e3 * one for one in reference[:10]],
        "tenths_GiB": [round(float(max(part)), 3) for part in np.array_split(memory, 10)],
    }


def measure(part: str, work: Path, args: argparse.Namespace) -> dict[str, Any]:
    options = ["--work", str(work), "--qm9", str(args.qm9), "--steps", str(args.steps)]
    options += ["--million", str(args.million)]
    options += ["--batches", str(args.batches)]
    if part == "text_prepare":
        synthetic_text(work / "text.xyz", TEXT_FRAMES)
    if part == "million_text":
        synthetic_text(work / "million-text.xyz", args.million)
    table = {"overhead": overhead, "paired": paired, "storage": storage, "qm9_graphs": qm9_graphs}
    if part not in table:
        return watched(*options, "--stage", part)
    return table[part](work, args.qm9)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--qm9", type=Path, required=True, metavar="NPZ")
    p.add_argument("--million", type=int, default=1_000_000, metavar="N", help="frames of the synthetic set")
    p.add_argument("--steps", type=int, default=60, help="at each place of the epoch")
    p.add_argument("--batches", type=int, default=10**9, help="at most, of the epoch of qm9_epoch")
    p.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    p.add_argument("--work", type=Path, default=ROOT / "runs" / "bench-pipeline", metavar="DIR")
    p.add_argument("--stage", choices=PARTS, help=argparse.SUPPRESS)
    args = p.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.stage:
        stages: dict[str, Callable[[], dict[str, Any]]] = {
            "qm9_prepare": lambda: stage_prepare_qm9(args.work, args.qm9),
            "text_prepare": lambda: stage_prepare_text(args.work / "text.xyz"),
            "million_text": lambda: stage_prepare_text(args.work / "million-text.xyz"),
            "qm9_epoch": lambda: stage_epoch(args.work / "qm9.h5", args.batches),
            "million_prepare": lambda: stage_prepare_million(args.work, args.million),
            "qm9_stream": lambda: stage_stream(args.work / "qm9.h5", args.steps),
            "million_stream": lambda: stage_stream(args.work / "million.h5", args.steps),
        }
        print(json.dumps(stages[args.stage]()))
        return
    for part in args.only:
        found = {**provenance(), **measure(part, args.work, args)}
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps({**results, part: found}, indent=1) + "\n")
        print(f"{part}: {json.dumps({k: v for k, v in found.items() if k not in provenance()})}", flush=True)


if __name__ == "__main__":
    main()
