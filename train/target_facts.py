"""What the model carries of each target beside the energy: an offset of each element and a scale, measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from potential.model import Potential
from potential.targets import TENSOR, TargetFacts, layout, tensor_basis
from train.columns import labelled
from train.config import Config, Fit
from train.data.dataset import Frame
from train.data.labels import LABELS
from train.data.targets import UNITS
from train.target import Target

Array = NDArray[np.float64]
RIDGE = 1e-4  # pull of offsets that the compositions do not determine to their mean
NOTHING = 1e-12  # of the largest label; a scalar that varies less is the offset alone


def target_facts(
    frames: Sequence[Frame], elements: Sequence[str], targets: Mapping[str, Target]
) -> tuple[TargetFacts, ...]:
    """Facts of the targets of the training frames.

    Raises:
        ValueError: a target that no frame has.
    """
    return tuple(_facts(name, target, frames, elements) for name, target in targets.items())


def _facts(name: str, target: Target, frames: Sequence[Frame], elements: Sequence[str]) -> TargetFacts:
    have = [f for f in frames if np.isfinite(f.targets[name]).any()]
    if not have:
        raise ValueError(f"no training frame has the target {name}; give frames with it, or leave it out")
    counts = np.concatenate([_counts(f, elements, target.per) for f in have])
    labels = np.concatenate([f.targets[name] for f in have])
    known = np.isfinite(labels).all(axis=1)
    counts, labels = counts[known], labels[known]
    if target.irreps == TENSOR:
        labels = labels @ tensor_basis().numpy().T
    n_atoms = counts.sum(axis=1) if target.per == "structure" else np.ones(len(counts))
    fractions = counts / counts.sum(axis=1, keepdims=True)
    offsets, scales, at = [], [], 0
    for mul, ir in layout(target.irreps):
        width = mul * ir.dim
        block = labels[:, at : at + width]
        if ir.l == 0:
            offset = _fitted(fractions, block / n_atoms[:, None])
            offsets.append(offset)
            block = block - n_atoms[:, None] * (fractions @ offset)
        size = float(np.sqrt(np.mean(block**2 / n_atoms[:, None])))
        scales.append(size if size > NOTHING * np.abs(labels).max() else 1.0)
        at += width
    table = np.concatenate(offsets, axis=1) if offsets else np.zeros((len(elements), 0))
    unit = next(iter(UNITS.get(name, {target.unit: 1.0})))
    rows = tuple(tuple(row) for row in table.tolist())
    return TargetFacts(name, target.irreps, target.per, unit, tuple(scales), rows)


def _counts(frame: Frame, elements: Sequence[str], per: str) -> Array:
    """(1 or n_atoms, n_elements): atoms of each element that a value is of."""
    symbols = np.array(frame.atoms.get_chemical_symbols())
    of_atoms = (symbols[:, None] == np.array(elements)).astype(np.float64)
    found: Array = of_atoms if per == "atom" else of_atoms.sum(axis=0, keepdims=True)
    return found


def _fitted(fractions: Array, values: Array) -> Array:
    """(n_elements, n): least squares of values (rows, n) by fractions of elements; what these do not determine stays at
    the mean, as for E0."""
    mean = values.mean(axis=0)
    matrix = fractions.T @ fractions / len(fractions) + RIDGE * np.eye(fractions.shape[1])
    right = fractions.T @ (values - mean) / len(fractions)
    offset: Array = mean + np.asarray(np.linalg.solve(matrix, right), dtype=np.float64)
    return offset


def require_energies(start: Potential, config: Config, frames: Sequence[Frame]) -> None:
    """A run that starts from a saved model trains the energies that it predicts, or keeps all that they come from.

    Raises:
        ValueError: energies where the model has none, or none where the model has them.
    """
    energies = labelled(frames).intersection(LABELS)
    if energies and not start.statistics.has_energy:
        raise ValueError(
            f"the model to start from ({config.fit.start}) predicts no energies, but the frames have "
            f"{', '.join(sorted(energies))}; leave them out with --energy-key none, --forces-key none and --stress-key "
            "none, or train anew"
        )
    parts = list(dict.fromkeys(name.split(".")[0] for name in _of_energies(start)))
    if (
        start.statistics.has_energy
        and not energies & weighed(config.fit)
        and _moving(start, config.fit.freeze)
    ):
        raise ValueError(
            f"the model to start from ({config.fit.start}) predicts energies, but no training frame has energy, forces "
            "or stress of a weight above 0: its energies would change unseen; add frames that have them with --replay, "
            "raise --set fit.energy_weight or fit.forces_weight, or keep all that "
            f'energies come from: --set "fit.freeze={parts}"'
        )


def weighed(fit: Fit) -> set[str]:
    """Labels of energies whose weight is above 0 in any stage."""
    stages = ("", "stage_two_")[: 1 + (fit.stage_two > 0)]
    return {label for label in LABELS if any(getattr(fit, f"{stage}{label}_weight") for stage in stages)}


def _of_energies(start: Potential) -> list[str]:
    """Names of the weights that energies depend on."""
    return [n.removeprefix("network.") for n, _ in start.named_parameters() if not n.startswith("targets.")]


def _moving(start: Potential, freeze: Sequence[str]) -> bool:
    words = tuple(f"{prefix.removeprefix('network.').rstrip('.')}." for prefix in freeze)
    return not all(f"{name}.".startswith(words) for name in _of_energies(start))
