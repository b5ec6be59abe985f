"""What a fit minimises: weighted errors of energy per atom, forces, virial per atom and targets, as sums and counts.

The loss of a set is a weighted mean, sum_k w_k x_k / sum_k w_k over its labels k, for each kind of label. The weights
of the training set are divided by their mean beforehand (`batches.normalized`), so that the second sum is the number
of labels; a batch divides by its own number, and its loss is on average that of the set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from potential.graph import Graph
from potential.physics import Prediction
from potential.table import Table
from potential.targets import TargetFacts
from train.config import Fit
from train.data.dataset import Frame


@dataclass(frozen=True)
class Targets:
    """Labels of the structures of a Graph; NaN where a label is absent. Absent is not zero."""

    energy: Tensor  # (n_systems,) eV
    forces: Tensor  # (n_atoms, 3) eV/Å
    stress: Tensor  # (n_systems, 3, 3) eV/Å^3
    others: Mapping[str, Tensor] = field(default_factory=dict)  # (n_systems or n_atoms, dim) each

    def to(self, device: str) -> Targets:
        return self.each(lambda x: x.to(device))

    def each(self, change: Callable[[Tensor], Tensor]) -> Targets:
        """The same with every tensor changed."""
        others = {name: change(x) for name, x in self.others.items()}
        return Targets(change(self.energy), change(self.forces), change(self.stress), others)

    def all(self) -> dict[str, Tensor]:
        """Every label by name."""
        return {"energy": self.energy, "forces": self.forces, "stress": self.stress, **self.others}


def targets(frame: Frame) -> Targets:
    """The labels of one frame as tensors."""
    nothing = np.full((len(frame.atoms), 3), np.nan)
    return Targets(
        energy=torch.tensor([np.nan if frame.energy is None else frame.energy], dtype=torch.float64),
        forces=torch.from_numpy(
            nothing if frame.forces is None else np.array(frame.forces, dtype=np.float64)
        ),
        stress=torch.from_numpy(
            np.full((1, 3, 3), np.nan)
            if frame.stress is None
            else np.array(frame.stress, dtype=np.float64)[None]
        ),
        others={name: torch.from_numpy(value) for name, value in frame.targets.items()},
    )


def blank(target: Targets) -> Targets:
    """No label at all."""
    return target.each(lambda label: torch.full_like(label, torch.nan))


def collate_targets(parts: Sequence[Targets]) -> Targets:
    return Targets(
        torch.cat([t.energy for t in parts]),
        torch.cat([t.forces for t in parts]),
        torch.cat([t.stress for t in parts]),
        {name: torch.cat([t.others[name] for t in parts]) for name in parts[0].others},
    )


def differences(
    prediction: Prediction, graph: Graph | Table, target: Targets
) -> dict[str, tuple[Tensor, Tensor]]:
    """Prediction minus label with the mask of what is labelled: energy and virial per atom (eV), forces (eV/Å), other
    targets in their units."""
    n_atoms = graph.n_atoms.to(torch.float64)
    volume = graph.volume if isinstance(graph, Table) else torch.linalg.det(graph.cell).abs()
    pairs = {
        "energy": ((prediction.energy - target.energy) / n_atoms, target.energy),
        "forces": (prediction.forces - target.forces, target.forces),
        "stress": (
            (prediction.virial - target.stress * volume[:, None, None]) / n_atoms[:, None, None],
            target.stress,
        ),
        **{name: (prediction.targets[name] - label, label) for name, label in target.others.items()},
    }
    out = {}
    for name, (difference, label) in pairs.items():
        known = torch.isfinite(label)
        out[name] = (torch.where(known, difference, torch.zeros_like(difference)), known)
    return out


def penalties(
    difference: dict[str, tuple[Tensor, Tensor]],
    fit: Fit,
    scale: float,
    weights: dict[str, Tensor] | None = None,
    units: Mapping[str, Tensor] | None = None,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Weighted sum of penalties and count of labels for each target, in units of `scale` (eV), or of `units` where a
    target is named there.

    Every component of the forces and of the virial is a label of its own, also for `mae`: no mean of a mean, and no
    norm of a vector, whose gradient would not exist at zero.

    `weights` is from `spread`; without it every label counts 1.
    """
    out = {}
    for name, (d, known) in difference.items():
        x = d / (units or {}).get(name, scale)
        if fit.loss == "huber":
            delta = fit.huber_delta  # scaled to x^2 near zero, so that weights mean the same as with mse
            x = torch.where(x.abs() < delta, x**2, delta * (2 * x.abs() - delta))
        else:
            x = x.abs() if fit.loss == "mae" else x**2
        if weights is not None:
            x = weights[name] * x
        out[name] = (x.sum(), known.sum())
    return out


def spread(weights: Tensor, graph: Graph | Table, target: Targets | None = None) -> dict[str, Tensor]:
    """Weights of structures (n_systems, number of labels) as factors for the differences of each label."""
    energy, forces, stress, *others = weights.unbind(dim=1)
    factors = {"energy": energy, "forces": forces[graph.system][:, None], "stress": stress[:, None, None]}
    for (name, label), factor in zip(target.others.items() if target else (), others, strict=True):
        factors[name] = (factor if len(label) == len(factor) else factor[graph.system])[:, None]
    return factors


def units(facts: Iterable[TargetFacts], graph: Graph) -> dict[str, Tensor]:
    """What an error of each target is divided by: its spread in the data, times the root of the number of atoms where
    these add up."""
    roots = graph.n_atoms.to(torch.float64).sqrt()[:, None]
    return {
        one.name: one.spread * (roots if one.per == "structure" else torch.ones_like(roots[:1]))
        for one in facts
    }


def total(
    sums: dict[str, tuple[Tensor, Tensor]], fit: Fit, others: Mapping[str, float] | None = None
) -> Tensor:
    """The loss: sum over targets of weight * sum / count; one division per target, none for absent labels."""
    weights = {"energy": fit.energy_weight, "forces": fit.forces_weight, "stress": fit.stress_weight,
               "noise": fit.denoise_weight, **(others or {})}  # fmt: skip
    terms = [weights[name] * s / n.clamp(min=1) for name, (s, n) in sums.items()]
    return torch.stack(terms).sum()
