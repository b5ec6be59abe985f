"""SNAP and qSNAP: the published potentials evaluated, their fits repeated, and fits that choose everything themselves.

    python -m bench.snap --data DATA

DATA/mlearn holds <element>_train.extxyz.xz, <element>_test.extxyz.xz and published_<element>_<kind>.snapcoeff and
.snapparam (Zuo et al., J. Phys. Chem. A 124, 731 (2020)), DATA/nbmotaw the published potential for Nb-Mo-Ta-W with its
test (Li et al., npj Comput. Mater. 6, 70 (2020)). The project's data/, taken where nothing else is said, has SNAP of
silicon only. For each element and kind:

* published: errors on the test by LAMMPS's pair style; largest difference to rows times coefficients
* refitted: with the published descriptor, to energies and forces of the training set; their weights by
  cross-validation, where those of the paper were searched for group by group
* chosen: what `potential-curve --models snap,qsnap` fits: descriptor from the data, stress too

Finished rows of docs/results/snap.json are kept.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.mlearn import PUBLISHED
from bench.provenance import ROOT, provenance
from potential.linear.snap import Snap, rows
from potential.linear.snap_calculator import Prediction
from potential.linear.snap_files import read_snap
from train.compare.errors import MEASURES, Deviations, resampled
from train.config import Data
from train.curve.intervals import interval
from train.curve.snap import evaluated
from train.data.dataset import Frame
from train.data.keys import keys
from train.directory import write_text
from train.linear.snap import Dials, SnapFit, choose_descriptor, fit_snap
from train.plan import elements
from train.sets import read_files
from train.statistics import fit_e0

KINDS = {"SNAP": "snap", "qSNAP": "qsnap"}
ALLOY = {"energy_mae": 4.97, "forces_mae": 125.0}  # on its test, energies after a shift of each element


def frames_of(path: Path) -> list[Frame]:
    return list(read_files([str(path)], keys(Data()))[0])


def tested(frames: list[Frame], found: list[Prediction]) -> dict[str, Deviations]:
    """Errors of energies (meV/atom), forces (meV/Å) and stress (meV/Å^3)."""

    def of(values: list[Any]) -> Deviations:
        error = 1e3 * np.concatenate([np.ravel(x) for x in values])
        frame = np.repeat(np.arange(len(values)), [np.size(x) for x in values])
        known = np.isfinite(error)
        return Deviations(error[known], frame[known], np.full(known.sum(), -1), len(values))

    pairs = list(zip(frames, found, strict=True))
    return {
        "energy": of([(p.energy - _or_nan(f.energy)) / len(f.atoms) for f, p in pairs]),
        "forces": of([p.forces - _or_nan(f.forces) for f, p in pairs]),
        "stress": of([p.virial / f.atoms.get_volume() - _or_nan(f.stress) for f, p in pairs]),
    }


def _or_nan(label: Any) -> Any:
    return np.nan if label is None else label


def errors(t: dict[str, Deviations]) -> dict[str, float]:
    return {
        f"{name}_{measure}": round(float((np.abs(one.error) ** power).mean() ** (1 / power)), 4)
        for name, one in t.items()
        for measure, power in MEASURES.items()
        if len(one.error)
    }


def ratio(one: dict[str, Deviations], other: dict[str, Deviations]) -> dict[str, list[float]]:
    """Errors of one over those of the other: value, and 95 % interval from resampled test frames."""
    out = {}
    for name in ("energy", "forces"):
        for measure, power in MEASURES.items():
            both = resampled([other[name], one[name]], power, 1)
            assert both is not None, f"no labels of {name}"
            logs, drawn = both
            found = interval(float(np.exp(logs[1] - logs[0])), np.exp(drawn[:, 1] - drawn[:, 0]))
            out[f"{name}_{measure}"] = [round(x, 3) for x in found]
    return out


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


def fitted(fit: Callable[[], SnapFit], test: list[Frame]) -> tuple[dict[str, Any], dict[str, Deviations]]:
    begun, cpu = time.perf_counter(), time.process_time()
    found = fit()
    seconds = {"cpu_seconds": time.process_time() - cpu, "seconds": time.perf_counter() - begun}
    t = tested(test, evaluated(found.snap, test)[0])
    d = found.snap.descriptor
    facts = {"cutoff": d.cutoff, "twojmax": d.twojmax, "coefficients": d.n_coefficients, "said": found.text}
    return {**errors(t), **facts, **{k: round(v, 1) for k, v in seconds.items()}}, t


def published(element: str, kind: str, data: Path) -> Path:
    """The files of a published potential, as mlearn or as the project's data names them."""
    names = (f"published_{element}_{KINDS[kind]}.snapcoeff", f"{element}_published.snapcoeff")
    return next(
        (data / n for n in names[: 2 if kind == "SNAP" else 1] if (data / n).exists()), data / names[0]
    )


def missing(element: str, kind: str, data: Path) -> list[str]:
    """Files that a row needs and DATA does not have."""
    if element not in PUBLISHED:
        needed = [data / "nbmotaw" / name for name in ("test.extxyz.xz", "Ta-W-Nb-Mo.snapcoeff")]
    else:
        needed = [data / "mlearn" / f"{element}_{part}.extxyz.xz" for part in ("train", "test")]
        needed.append(published(element, kind, data / "mlearn"))
    return [str(path.relative_to(data)) for path in needed if not path.exists()]


def element_row(element: str, kind: str, data: Path) -> dict[str, Any]:
    train, test = (frames_of(data / f"{element}_{part}.extxyz.xz") for part in ("train", "test"))
    snap = read_snap(published(element, kind, data))
    found, cost = evaluated(snap, test)
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
    found, _ = evaluated(snap, frames)
    t = tested(frames, found)
    n = [len(frame.atoms) for frame in frames]
    parts = np.array([[frame.atoms.symbols.count(s) for s in snap.descriptor.elements] for frame in frames])
    parts = parts / np.array(n)[:, None]
    shifts = np.linalg.lstsq(parts, t["energy"].error, rcond=None)[0]
    t["energy"] = replace(t["energy"], error=t["energy"].error - parts @ shifts)
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
            cells += [
                "{:.2f} [{:.2f}, {:.2f}]".format(*one["ratio"][f"{k}_mae"]) for k in ("energy", "forces")
            ]
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
    lacking = {job: files for job in jobs if (files := missing(*job, args.data))}
    for (element, kind), files in lacking.items():
        print(f"{element} {kind} is left out: {args.data} has no {', '.join(files)}", flush=True)
    if len(lacking) == len(jobs):
        p.error(f"nothing to do in {args.data}; give the folder that holds mlearn/ and nbmotaw/ with --data")
    for element, kind in jobs:
        if (element, kind) in lacking or (element, kind) in [(r["element"], r["kind"]) for r in done]:
            continue
        alloy = element not in PUBLISHED
        row = alloy_row(args.data / "nbmotaw") if alloy else element_row(element, kind, args.data / "mlearn")
        done.append({**row, "provenance": provenance()})
        write_text(args.results, json.dumps({"rows": done}, indent=1) + "\n")
        print(table(done), flush=True)


if __name__ == "__main__":
    main()
