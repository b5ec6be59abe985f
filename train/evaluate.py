"""Predictions of a potential on labelled frames, and the errors they make."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from potential.model import Potential
from potential.physics import predict
from train.batches import Sample, in_order
from train.columns import places, trajectories
from train.data.dataset import Frame

EVALUATION_ATOMS = 600  # atoms per batch
PREDICTED = 50_000  # frames of a set in predictions.h5
PART_ATOMS = 1_000_000  # whose predictions are held at a time (about 100 bytes each)


@dataclass(frozen=True)
class Predictions:
    """Reference and prediction of a set; NaN where a label is absent."""

    n_atoms: np.ndarray  # (n_frames,)
    atomic_numbers: np.ndarray  # (n_atoms_total,)
    energy: np.ndarray  # (n_frames, 2) eV: reference, predicted
    forces: np.ndarray  # (n_atoms_total, 3, 2) eV/Å
    stress: np.ndarray  # (n_frames, 3, 3, 2) eV/Å^3; prediction NaN without full periodicity


def evaluate(potential: Potential, samples: Iterable[Sample], device: str) -> Predictions:
    """Predict every structure. The potential is used as it is, without copying it."""
    (whole,) = evaluate_parts(potential, samples, device, math.inf)
    return whole


def evaluate_parts(
    potential: Potential, samples: Iterable[Sample], device: str, most: float = PART_ATOMS
) -> Iterator[Predictions]:
    """The same, `most` atoms or a batch more at a time."""
    parts: list[Predictions] = []
    size = 0
    for b in in_order(samples, EVALUATION_ATOMS, device):
        parts.append(_predict(potential, b))
        size += len(b.graph.positions)
        if size >= most:
            yield _joined(parts)
            parts, size = [], 0
    if parts:
        yield _joined(parts)


def _predict(potential: Potential, b: Sample) -> Predictions:
    p = predict(potential, b.graph)
    volume = np.abs(np.linalg.det(b.graph.cell.cpu().numpy()))
    volume[~b.graph.pbc.all(dim=1).cpu().numpy()] = np.nan
    volume[volume == 0] = np.nan
    virial = p.virial.detach().cpu().numpy()
    predicted_stress = (virial + virial.transpose(0, 2, 1)) / 2 / volume[:, None, None]
    t = b.target
    return Predictions(
        b.graph.n_atoms.cpu().numpy(),
        b.graph.atomic_numbers.cpu().numpy(),
        np.stack([t.energy.cpu().numpy(), p.energy.cpu().numpy()], -1),
        np.stack([t.forces.cpu().numpy(), p.forces.detach().cpu().numpy()], -1),
        np.stack([t.stress.cpu().numpy(), predicted_stress], -1),
    )


def _joined(parts: Sequence[Predictions]) -> Predictions:
    return Predictions(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Predictions)))


def errors(p: Predictions) -> dict[str, float | int | None]:
    """RMSE and MAE over what is labelled, None if nothing is.

    Energy in meV/atom (RMSE per structure too, meV), forces meV/Å, stress meV/Å^3.
    """
    return pooled_errors([p])


def pooled_errors(parts: Iterable[Predictions]) -> dict[str, float | int | None]:
    """The errors of a set that comes in parts."""
    frames = 0
    sums = {
        name: np.zeros(4) for name in ("energy", "forces", "stress")
    }  # squares, sizes, number; per structure
    for p in parts:
        frames += len(p.n_atoms)
        for name, sum_ in sums.items():
            reference, predicted = np.moveaxis(getattr(p, name), -1, 0)
            labelled = np.isfinite(reference)
            difference = 1e3 * (predicted - reference)[labelled]
            if name == "energy":
                sum_[3] += np.sum(difference**2)
                difference = difference / p.n_atoms[labelled]
            sum_[:3] += np.sum(difference**2), np.sum(np.abs(difference)), difference.size
    out: dict[str, float | int | None] = {"frames": frames}
    for name, (squares, absolute, n, per_structure) in sums.items():
        if name == "energy":
            out["energy_rmse_per_structure"] = math.sqrt(per_structure / n) if n else None
        out[f"{name}_rmse"] = math.sqrt(squares / n) if n else None
        out[f"{name}_mae"] = float(absolute / n) if n else None
    return out


def errors_text(table: Mapping[str, Mapping[str, float | int | None]]) -> str:
    """The table of errors that ends a run."""
    columns = [
        ("energy_rmse", "E RMSE meV/atom"),
        ("energy_rmse_per_structure", "meV/structure"),
        ("energy_mae", "E MAE meV/atom"),
        ("forces_rmse", "F RMSE meV/Å"),
        ("forces_mae", "F MAE meV/Å"),
        ("stress_rmse", "S RMSE meV/Å^3"),
    ]
    shown = [(key, title) for key, title in columns if any(row[key] is not None for row in table.values())]
    width = max(len("set"), *(len(name) for name in table))
    lines = ["", "  ".join([f"{'set':<{width}}", "frames", *(title for _, title in shown)])]
    for name, row in table.items():
        cells = [
            f"{row[key]:{len(title)}.2f}" if row[key] is not None else f"{'-':>{len(title)}}"
            for key, title in shown
        ]
        lines.append("  ".join([f"{name:<{width}}", f"{row['frames']:6d}", *cells]))
    return "\n".join([*lines, ""])


def write_predictions(path: Path, sets: Mapping[str, tuple[Predictions, Sequence[Frame]]]) -> None:
    """Write predictions.h5: {set name: (predictions, their frames)}, completely or not at all."""
    import h5py

    partial = path.with_name(f".{path.name}.partial")
    with h5py.File(partial, "w") as file:
        for name, (p, frames) in sets.items():
            group = file.create_group(name)
            place = places(frames)
            sources = place["files"]
            group.attrs["source"] = sources if len(sources) > 1 else sources[0]
            group["file"] = np.array(place["file"])
            group["frame"] = np.array(place["frames"])
            group["config_type"] = [kind or "" for _, kind in trajectories(frames)]
            group["n_atoms"] = p.n_atoms
            group["atomic_numbers"] = p.atomic_numbers
            for label in ("energy", "forces", "stress"):
                values = getattr(p, label)
                for column, kind in enumerate(("reference", "predicted")):
                    group.create_dataset(f"{label}_{kind}", data=values[..., column], compression="gzip")
    partial.replace(path)
