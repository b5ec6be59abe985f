"""SNAP and qSNAP: the published potentials evaluated, their fits repeated, and fits that choose everything themselves.

    python -m bench.snap --data DATA

DATA/mlearn holds <element>_train.extxyz.xz, <element>_test.extxyz.xz and published_<element>_<kind>.snapcoeff and
.snapparam (Zuo et al., J. Phys. Chem. A 124, 731 (2020)), DATA/nbmotaw the published potential for Nb-Mo-Ta-W with its
test (Li et al., npj Comput. Mater. 6, 70 (2020)). For each element and kind:

* published: errors on the test by LAMMPS's pair style; largest difference to rows times coefficients
* refitted: with the published descriptor, to energies and forces of the training set, as the paper did
* chosen: what `potential-curve --models snap,qsnap` fits: descriptor from the data, stress too

Finished rows of docs/results/snap.json are kept.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.mlearn import PUBLISHED
from bench.provenance import ROOT, provenance
from potential.linear.snap import Snap, rows
from potential.linear.snap_calculator import Prediction, predict
from potential.linear.snap_files import read_snap
from train.config import Data
from train.data.dataset import Frame
from train.data.keys import keys
from train.linear.snap import Dials, SnapFit, choose_descriptor, fit_snap
from train.plan import elements
from train.sets import read_files
from train.statistics import fit_e0

KINDS = {"SNAP": "snap", "qSNAP": "qsnap"}
RESAMPLES = 10_000
ALLOY = {"energy_mae": 4.97, "forces_mae": 125.0}  # on its test, energies after a shift of each element


def frames_of(path: Path) -> list[Frame]:
    return list(read_files([str(path)], keys(Data()))[0])


def tested(frames: list[Frame], found: list[Prediction]) -> dict[str, np.ndarray]:
    """Errors frame by frame: energy meV/atom, (n_frames,); of forces (meV/Å) and stress (meV/Å^3) sums of sizes and
    squares and numbers of labels."""
    out: dict[str, list[float]] = {"energy": []}
    for frame, p in zip(frames, found, strict=True):
        n = len(frame.atoms)
        out["energy"].append(1e3 * (p.energy - float(frame.energy or np.nan)) / n)
        stress = np.full((3, 3), np.nan) if frame.stress is None else frame.stress
        for name, error in (
            ("forces", 1e3 * (p.forces - frame.forces)),
            ("stress", 1e3 * (p.virial / frame.atoms.get_volume() - stress)),
        ):
            known = np.isfinite(error)
            values = (np.abs(error[known]).sum(), np.square(error[known]).sum(), known.sum())
            for key, value in zip(("absolute", "squares", "labels"), values, strict=True):
                out.setdefault(f"{name}_{key}", []).append(float(value))
    return {name: np.array(values) for name, values in out.items()}


def errors(t: dict[str, np.ndarray]) -> dict[str, float]:
    out = {
        "energy_mae": np.abs(t["energy"]).mean(),
        "energy_rmse": np.sqrt(np.square(t["energy"]).mean()),
    }
    for name in ("forces", "stress"):
        labels = t[f"{name}_labels"].sum()
        out[f"{name}_mae"] = t[f"{name}_absolute"].sum() / labels
        out[f"{name}_rmse"] = np.sqrt(t[f"{name}_squares"].sum() / labels)
    return {name: round(float(value), 4) for name, value in out.items()}


def ratio(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Mean absolute errors of one over those of the other: value, and 95 % interval from resampled test frames."""
    n = len(one["energy"])
    drawn = np.concatenate([np.arange(n)[None], np.random.default_rng(0).integers(n, size=(RESAMPLES, n))])

    def both(measure: Callable[[dict[str, np.ndarray]], np.ndarray]) -> list[float]:
        values = measure(one) / measure(other)
        return [round(float(x), 3) for x in (values[0], *np.quantile(values[1:], (0.025, 0.975)))]

    return {
        "energy": both(lambda t: np.abs(t["energy"])[drawn].mean(1)),
        "forces": both(lambda t: t["forces_absolute"][drawn].sum(1) / t["forces_labels"][drawn].sum(1)),
    }


def matrix_check(snap: Snap, frames: list[Frame], found: list[Prediction]) -> dict[str, float]:
    """Largest difference between rows times coefficients and the pair style: eV, eV/Å, eV."""
    most = np.zeros(3)
    for frame, p in zip(frames, found, strict=True):
        r = rows(frame.atoms, snap.descriptor)
        c = snap.coefficients
        of_frame = [
            np.abs(a - b).max()
            for a, b in ((r.energy @ c, p.energy), (r.forces @ c, p.forces), (r.virial @ c, p.virial))
        ]
        most = np.maximum(most, of_frame)
    return dict(zip(("energy", "forces", "virial"), most.tolist(), strict=True))


def fitted(fit: Callable[[], SnapFit], test: list[Frame]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    begun, cpu = time.perf_counter(), time.process_time()
    found = fit()
    seconds = {"cpu_seconds": time.process_time() - cpu, "seconds": time.perf_counter() - begun}
    t = tested(test, [predict(found.snap, frame.atoms) for frame in test])
    d = found.snap.descriptor
    facts = {"cutoff": d.cutoff, "twojmax": d.twojmax, "coefficients": d.n_coefficients, "said": found.text}
    return {**errors(t), **facts, **{k: round(v, 1) for k, v in seconds.items()}}, t


def element_row(element: str, kind: str, data: Path) -> dict[str, Any]:
    train, test = (frames_of(data / f"{element}_{part}.extxyz.xz") for part in ("train", "test"))
    snap = read_snap(data / f"published_{element}_{KINDS[kind]}")
    begun = time.process_time()
    found = [predict(snap, frame.atoms) for frame in test]
    cost = 1e6 * (time.process_time() - begun) / sum(len(frame.atoms) for frame in test)
    t = tested(test, found)
    e0 = fit_e0(train, elements(train))
    refitted, r = fitted(
        lambda: fit_snap(train, snap.descriptor, e0, Data(), kinds=("energy", "forces")), test
    )
    descriptor, _ = choose_descriptor(train, Dials(quadratic=kind == "qSNAP"))
    chosen, c = fitted(lambda: fit_snap(train, descriptor, e0, Data()), test)
    energy, forces = PUBLISHED[element][kind]
    return {
        "element": element,
        "kind": kind,
        "frames": [len(train), len(test)],
        "said": {"energy_mae": energy, "forces_mae": 1e3 * forces},
        "published": {**errors(t), "us_per_atom": round(cost, 1)},
        "matrix": matrix_check(snap, test, found),
        "refitted": {**refitted, "ratio": ratio(r, t)},
        "chosen": {**chosen, "ratio": ratio(c, t)},
    }


def alloy_row(data: Path) -> dict[str, Any]:
    """The published potential for four elements; its energies have a zero of their own for each element."""
    frames, snap = frames_of(data / "test.extxyz.xz"), read_snap(data / "Ta-W-Nb-Mo")
    found = [predict(snap, frame.atoms) for frame in frames]
    t = tested(frames, found)
    n = [len(frame.atoms) for frame in frames]
    parts = np.array([[frame.atoms.symbols.count(s) for s in snap.descriptor.elements] for frame in frames])
    parts = parts / np.array(n)[:, None]
    shifts = np.linalg.lstsq(parts, t["energy"], rcond=None)[0]
    t["energy"] = t["energy"] - parts @ shifts
    some = slice(None, None, 20)
    return {
        "element": "Nb-Mo-Ta-W",
        "kind": "SNAP",
        "frames": [0, len(frames)],
        "said": ALLOY,
        "published": errors(t),
        "shifts": dict(zip(snap.descriptor.elements, (shifts / 1e3).tolist(), strict=True)),
        "matrix": matrix_check(snap, frames[some], found[some]),
    }


def table(done: list[dict[str, Any]]) -> str:
    lines = [
        "| | | published, as stated | evaluated | refitted | ratio, energy | ratio, forces | chosen | CPU s |",
        "|---" * 9 + "|",
    ]
    for row in done:
        cells = [f"{row[k]['energy_mae']:.2f} / {row[k]['forces_mae']:.0f}" for k in ("said", "published")]
        if "refitted" in row:
            one, other = row["refitted"], row["chosen"]
            cells.append(f"{one['energy_mae']:.2f} / {one['forces_mae']:.0f}")
            cells += ["{:.2f} [{:.2f}, {:.2f}]".format(*one["ratio"][k]) for k in ("energy", "forces")]
            cells.append(f"{other['energy_mae']:.2f} / {other['forces_mae']:.0f}")
            cells.append(f"{one['cpu_seconds']:.0f}, {other['cpu_seconds']:.0f}")
        cells += [""] * (7 - len(cells))
        lines.append(f"| {row['element']} | {row['kind']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--data", type=Path, default=ROOT / "data", metavar="FOLDER", help="holds mlearn/, nbmotaw/"
    )
    p.add_argument("--elements", nargs="+", choices=PUBLISHED, default=list(PUBLISHED))
    p.add_argument("--results", type=Path, default=ROOT / "docs" / "results" / "snap.json", metavar="FILE")
    args = p.parse_args()
    done = json.loads(args.results.read_text())["rows"] if args.results.exists() else []
    jobs = [(element, kind) for kind in KINDS for element in args.elements] + [("Nb-Mo-Ta-W", "SNAP")]
    for element, kind in jobs:
        if (element, kind) in [(row["element"], row["kind"]) for row in done]:
            continue
        alloy = element not in PUBLISHED
        row = alloy_row(args.data / "nbmotaw") if alloy else element_row(element, kind, args.data / "mlearn")
        done.append({**row, "provenance": provenance()})
        partial = args.results.with_name(f".{args.results.name}.partial")
        partial.write_text(json.dumps({"rows": done}, indent=1) + "\n")
        partial.replace(args.results)
        print(table(done), flush=True)


if __name__ == "__main__":
    main()
