"""Predictions of a potential on labelled frames, and the errors they make."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from potential.chunks import predict_in_chunks
from potential.model import Potential
from potential.targets import TargetFacts, as_labelled
from train.batches import Sample, batch, in_order
from train.columns import places, trajectories
from train.data.dataset import Frame
from train.loss import blank
from train.memory import is_out_of_memory

EVALUATION_ATOMS = 600  # atoms per batch
ON_GPU = 4  # times as many on a GPU
CHUNK = 64  # atoms at a time of a structure that does not fit into memory as a whole
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
    targets: Mapping[str, np.ndarray] = field(
        default_factory=dict
    )  # (n_frames or n_atoms_total, dim, 2) each

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name, those of targets as targets/<name>."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "targets"}
        return own | {f"targets/{name}": x for name, x in self.targets.items()}


def from_arrays(arrays: Mapping[str, np.ndarray]) -> Predictions:
    """The opposite of `Predictions.arrays`."""
    own = {name: x for name, x in arrays.items() if "/" not in name}
    others = {name.removeprefix("targets/"): x for name, x in arrays.items() if "/" in name}
    return Predictions(**own, targets=others)


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
    most_at_once = EVALUATION_ATOMS * (ON_GPU if device.startswith("cuda") else 1)
    for group in in_order(samples, most_at_once):
        parts += _fitting(potential, group, device)
        size += sum(len(s.graph.positions) for s in group)
        if size >= most:
            yield _joined(parts)
            parts, size = [], 0
    if parts:
        yield _joined(parts)


def _fitting(potential: Potential, samples: Sequence[Sample], device: str) -> list[Predictions]:
    """Of all at once, or of one half after the other where memory is short, a single structure in chunks.

    Raises:
        MemoryError: a structure does not fit even so.
    """
    try:
        return [_predict(potential, batch(samples, device))]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    middle = len(samples) // 2  # out here: the traceback of `error` would keep the tensors
    if middle:
        return [p for half in (samples[:middle], samples[middle:]) for p in _fitting(potential, half, device)]
    try:
        return [_predict(potential, batch(samples, device), CHUNK)]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        graph = samples[0].graph
        said = (str(error) or "MemoryError").splitlines()[0]
        raise MemoryError(
            f"a structure of {len(graph.positions)} atoms and {len(graph.center)} edges does not fit: {said}"
        ) from error


def _predict(potential: Potential, b: Sample, chunk: int | None = None) -> Predictions:
    """The predictions of a batch, as a whole or `chunk` atoms at a time."""
    p, t = predict_in_chunks(potential, b.graph, chunk or len(b.graph.positions)), b.target
    others = as_labelled(p.targets, potential.statistics.targets)
    if not potential.statistics.has_energy:  # nothing to compare with
        t = replace(blank(t), others=t.others)
    volume = np.abs(np.linalg.det(b.graph.cell.cpu().numpy()))
    volume[~b.graph.pbc.all(dim=1).cpu().numpy()] = np.nan
    volume[volume == 0] = np.nan
    virial = p.virial.detach().cpu().numpy()
    predicted_stress = (virial + virial.transpose(0, 2, 1)) / 2 / volume[:, None, None]
    return Predictions(
        b.graph.n_atoms.cpu().numpy(),
        b.graph.atomic_numbers.cpu().numpy(),
        np.stack([t.energy.cpu().numpy(), p.energy.cpu().numpy()], -1),
        np.stack([t.forces.cpu().numpy(), p.forces.detach().cpu().numpy()], -1),
        np.stack([t.stress.cpu().numpy(), predicted_stress], -1),
        {
            name: np.stack([x.cpu().numpy(), others[name].cpu().numpy()], -1)
            for name, x in t.others.items()
            if name in others
        },
    )


def _joined(parts: Sequence[Predictions]) -> Predictions:
    rows = [p.arrays() for p in parts]
    return from_arrays({name: np.concatenate([row[name] for row in rows]) for name in rows[0]})


def errors(p: Predictions) -> dict[str, float | int | None]:
    """RMSE and MAE over what is labelled, None if nothing is.

    Energy in meV/atom (RMSE per structure too, meV), forces meV/Å, stress meV/Å^3. Other targets in 1/1000 of their
    unit, with the standard deviation of their labels: root mean square over the components, each about its mean.
    """
    return pooled_errors([p])


def pooled_errors(parts: Iterable[Predictions]) -> dict[str, float | int | None]:
    """The errors of a set that comes in parts."""
    frames = 0
    sums = {
        name: np.zeros(4) for name in ("energy", "forces", "stress")
    }  # squares, sizes, number; per structure
    others: dict[str, list[np.ndarray]] = {}
    for p in parts:
        frames += len(p.n_atoms)
        for name, values in p.targets.items():
            others.setdefault(name, []).append(_moments(values))
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
    for name, moments in others.items():
        out |= _target_errors(name, np.sum(moments, axis=0))
    return out


def _moments(values: np.ndarray) -> np.ndarray:
    """(5, dim) from (n, dim, 2): number of labels, their sum and sum of squares, squares and sizes of the errors."""
    reference, predicted = np.moveaxis(values, -1, 0)
    known = np.isfinite(reference)
    label, error = np.where(known, reference, 0.0), np.where(known, predicted - reference, 0.0)
    moments: np.ndarray = np.stack([known, label, label**2, error**2, np.abs(error)]).sum(axis=1)
    return moments


def _target_errors(name: str, moments: np.ndarray) -> dict[str, float | int | None]:
    n, label, squares, errors_squared, absolute = moments
    total = float(n.sum())
    if not total:
        return {f"{name}_{kind}": None for kind in ("rmse", "mae", "deviation")}
    variance = np.maximum(squares - label**2 / np.maximum(n, 1), 0.0).sum() / total
    return {
        f"{name}_rmse": 1e3 * math.sqrt(errors_squared.sum() / total),
        f"{name}_mae": 1e3 * float(absolute.sum()) / total,
        f"{name}_deviation": 1e3 * math.sqrt(variance),
    }


def target_units(facts: Iterable[TargetFacts], n_atoms: float) -> dict[str, float | int | None]:
    """What the loss divides an error of each target by, in 1/1000 of its unit, for structures of so many atoms."""
    return {
        f"{one.name}_unit": 1e3 * one.spread * (math.sqrt(n_atoms) if one.per == "structure" else 1.0)
        for one in facts
    }


def errors_text(
    table: Mapping[str, Mapping[str, float | int | None]], targets: Iterable[TargetFacts] = ()
) -> str:
    """The table of errors that ends a run."""
    columns = [
        ("energy_rmse", "E RMSE meV/atom"),
        ("energy_rmse_per_structure", "meV/structure"),
        ("energy_mae", "E MAE meV/atom"),
        ("forces_rmse", "F RMSE meV/Å"),
        ("forces_mae", "F MAE meV/Å"),
        ("stress_rmse", "S RMSE meV/Å^3"),
    ]
    for one in targets:
        columns.append((f"{one.name}_rmse", f"{one.title} RMSE 10^-3 {one.unit}".rstrip()))
        columns.append((f"{one.name}_relative", "% of deviation"))
        table = {
            name: {**row, f"{one.name}_relative": relative(row, one.name)} for name, row in table.items()
        }
    shown = [(k, title) for k, title in columns if any(row.get(k) is not None for row in table.values())]
    width = max(map(len, ["set", *table]))
    lines = ["", "  ".join([f"{'set':<{width}}", "frames", *(title for _, title in shown)])]
    for name, row in table.items():
        cells = [
            f"{row[key]:{len(title)}.2f}" if row.get(key) is not None else f"{'-':>{len(title)}}"
            for key, title in shown
        ]
        lines.append("  ".join([f"{name:<{width}}", f"{row['frames']:6d}", *cells]))
    return "\n".join([*lines, ""])


def relative(row: Mapping[str, float | int | None], name: str) -> float | None:
    """The RMSE of a target in percent of the standard deviation of its labels."""
    error, deviation = row.get(f"{name}_rmse"), row.get(f"{name}_deviation")
    return 100 * error / deviation if error is not None and deviation else None


def write_predictions(
    path: Path, sets: Mapping[str, tuple[Predictions, Sequence[Frame]]], targets: Iterable[TargetFacts] = ()
) -> None:
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
            for one in (one for one in targets if one.name in p.targets):
                place_of = group.create_group(f"targets/{one.name}")
                place_of.attrs.update({"irreps": one.irreps, "per": one.per, "unit": one.unit})
                for column, kind in enumerate(("reference", "predicted")):
                    values = p.targets[one.name][..., column]
                    place_of.create_dataset(kind, data=values, compression="gzip")
    partial.replace(path)
