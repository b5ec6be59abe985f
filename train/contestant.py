"""Our model as a contestant of potential-bench: a saved model or a preset, and its training step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from ase import Atoms

from potential.analysis.split import measure_split
from potential.calculator import EquivCalculator
from potential.chunks import predict_in_chunks
from potential.graph import Graph, collate, from_atoms
from potential.model import Statistics, build, presets
from potential.physics import Prediction
from train.batches import Sample
from train.config import NETWORK, PRESETS, Fit
from train.loss import Targets
from train.option import suggest
from train.run import start
from train.step import train_step

PACKAGES = ("equiv-potential",)
PERIODS = {"training": 10}  # SOAP renews its preconditioner every tenth step
MEAN_NEIGHBORS = 20.0  # of an untrained model: scales features, not time


def factory(
    elements: Sequence[str],
    dtype: str,
    cutoff: float,
    preset: str = "small",
    skin: float = 0.0,
    device: str = "cpu",
) -> EquivCalculator:
    """The calculator of an untrained model of a preset: small, dense-small (of dense structures), painn-small (of
    another network).

    Raises:
        ValueError: an unknown network or preset.
    """
    network, _, size = preset.rpartition("-")
    if size not in PRESETS:
        raise ValueError(
            f"there is no preset {size!r}{suggest(size, PRESETS)}; there are {', '.join(PRESETS)}, for dense "
            f"structures as dense-{PRESETS[0]}, of another network as painn-{PRESETS[0]}"
        )
    dense, network = network == "dense", NETWORK if network in ("", "dense") else network
    config = {"network": network, **presets(network, dense)[size], "cutoff": cutoff}
    facts = Statistics(tuple(elements), (0.0,) * len(elements), 1.0, MEAN_NEIGHBORS)
    precision: torch.dtype = getattr(torch, dtype)
    return EquivCalculator(build(config, facts, dtype=precision), device, skin=skin)


def saved(model: str, dtype: str, skin: float = 0.0, device: str = "cpu") -> EquivCalculator:
    """The calculator of a saved model.

    Raises:
        ValueError: no model in the file.
    """
    return EquivCalculator(model, device, dtype, skin)


def about(calculator: EquivCalculator) -> dict[str, Any]:
    """Number of weights, cutoff and skin in Å."""
    n = sum(p.numel() for p in calculator.potential.parameters())
    return {"parameters": n, "cutoff": calculator.potential.cutoff, "skin": calculator.skin}


def batch(calculator: EquivCalculator, structures: Sequence[Atoms]) -> Graph:
    """All structures as one graph."""
    return collate([from_atoms(atoms, calculator.potential.cutoff) for atoms in structures])


def edges(calculator: EquivCalculator, structures: Sequence[Atoms]) -> int:
    """Directed pairs within the cutoff."""
    return len(batch(calculator, structures).center)


def evaluation(calculator: EquivCalculator, structures: Sequence[Atoms]) -> Callable[[], Prediction]:
    """Energy and forces of one batch whose neighbors are known."""
    graph = batch(calculator, structures).to(calculator.device)
    return lambda: predict_in_chunks(calculator.potential, graph, calculator.chunk)


def training(calculator: EquivCalculator, structures: Sequence[Atoms]) -> Callable[[], float]:
    """One step of potential-train with its defaults: batch, loss, gradient, SOAP, moving average."""
    potential = copy.deepcopy(calculator.potential).requires_grad_(True).train()
    samples = []
    for atoms in structures:
        forces = torch.zeros(len(atoms), 3, dtype=torch.float64)
        unknown = torch.full((1, 3, 3), torch.nan, dtype=torch.float64)
        labels = Targets(torch.zeros(1, dtype=torch.float64), forces, unknown)
        samples.append(Sample(from_atoms(atoms, potential.cutoff), labels))
    fit = Fit(device=str(calculator.device))
    run = start(potential, fit)
    return lambda: train_step(run, samples, fit, 1e-6)


def split(calculator: EquivCalculator, structures: Sequence[Atoms]) -> dict[str, float]:
    """Where the time goes, in ms, over all structures."""
    parts = [measure_split(calculator.potential, atoms) for atoms in structures]
    return {name: sum(part[name] for part in parts) for name in parts[0]}
