"""Predictions of a potential on labelled frames, and the errors they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from potential.model import Potential
from potential.physics import predict
from train.batches import Sample, in_order
from train.data.dataset import Frame

EVALUATION_ATOMS = 600  # atoms per batch


@dataclass(frozen=True)
class Predictions:
    """Reference and prediction of a set; NaN where a label is absent."""

    n_atoms: np.ndarray  # (n_frames,)
    atomic_numbers: np.ndarray  # (n_atoms_total,)
    energy: np.ndarray  # (n_frames, 2) eV: reference, predicted
    forces: np.ndarray  # (n_atoms_total, 3, 2) eV/Å
    stress: np.ndarray  # (n_frames, 3, 3, 2) eV/Å^3; prediction NaN without full periodicity


def evaluate(potential: Potential, samples: Sequence[Sample], device: str) -> Predictions:
    """Predict every structure. The potential is used as it is, without copying it."""
    parts: list[tuple[np.ndarray, ...]] = []
    for b in in_order(samples, EVALUATION_ATOMS, device):
        p = predict(potential, b.graph)
        volume = np.abs(np.linalg.det(b.graph.cell.cpu().numpy()))
        volume[~b.graph.pbc.all(dim=1).cpu().numpy()] = np.nan
        volume[volume == 0] = np.nan
        virial = p.virial.detach().cpu().numpy()
        predicted_stress = (virial + virial.transpose(0, 2, 1)) / 2 / volume[:, None, None]
        t = b.target
        parts.append(
            (
                b.graph.n_atoms.cpu().numpy(),
                b.graph.atomic_numbers.cpu().numpy(),
                np.stack([t.energy.cpu().numpy(), p.energy.cpu().numpy()], -1),
                np.stack([t.forces.cpu().numpy(), p.forces.detach().cpu().numpy()], -1),
                np.stack([t.stress.cpu().numpy(), predicted_stress], -1),
            )
        )
    return Predictions(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def errors(p: Predictions) -> dict[str, float | int | None]:
    """RMSE and MAE over what is labelled, None if nothing is.

    Energy in meV/atom (RMSE per structure too, meV), forces meV/Å, stress meV/Å^3.
    """
    out: dict[str, float | int | None] = {"frames": len(p.n_atoms)}
    for name in ("energy", "forces", "stress"):
        reference, predicted = np.moveaxis(getattr(p, name), -1, 0)
        labelled = np.isfinite(reference)
        difference = 1e3 * (predicted - reference)[labelled]
        if name == "energy":
            out["energy_rmse_per_structure"] = _rms(difference)
            difference = difference / p.n_atoms[labelled]
        out[f"{name}_rmse"] = _rms(difference)
        out[f"{name}_mae"] = float(np.mean(np.abs(difference))) if difference.size else None
    return out


def _rms(difference: np.ndarray) -> float | None:
    return float(np.sqrt(np.mean(difference**2))) if difference.size else None


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
            sources = list(dict.fromkeys(f.source for f in frames))
            group.attrs["source"] = sources if len(sources) > 1 else sources[0]
            group["file"] = np.array([sources.index(f.source) for f in frames])
            group["frame"] = np.array([f.index for f in frames])
            group["config_type"] = [f.config_type or "" for f in frames]
            group["n_atoms"] = p.n_atoms
            group["atomic_numbers"] = p.atomic_numbers
            for label in ("energy", "forces", "stress"):
                values = getattr(p, label)
                for column, kind in enumerate(("reference", "predicted")):
                    group.create_dataset(f"{label}_{kind}", data=values[..., column], compression="gzip")
    partial.replace(path)
