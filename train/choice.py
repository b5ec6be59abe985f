"""The network that suits the data, with the reasons: preset, its kind, cutoff."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import torch

from potential.graph import Graph, from_atoms
from potential.model import presets, settings
from train.columns import n_labels
from train.config import NETWORK, Config
from train.data.dataset import Frame
from train.target import order, resolved

T = TypeVar("T")
NEAR = 7.0  # Å, within which nearest neighbors are looked for
DENSE = 3.2  # nearest neighbors from which a structure is dense: more than graphite has


def choose_model(config: Config, frames: Sequence[Frame]) -> tuple[dict[str, Any], list[str]]:
    """The network's settings: preset and cutoff from the data where they are not given, and why."""
    given = dict(config.model)
    why = []
    n = n_labels(frames)
    preset = given.pop("preset", None)
    if preset is None:
        preset = "tiny" if n < 2000 else "small" if n < 3_000_000 else "medium"
        kinds = ", ".join(["energies and force components", *config.targets])
        why.append(f"preset {preset}: {n:,} labels ({kinds}) to learn from")
    network = given.pop("network", NETWORK)
    dials, of_dense = (presets(network, dense)[preset] for dense in (False, True))
    if of_dense != dials and dials.keys() - given.keys():
        near = coordination(from_atoms(f.atoms, NEAR) for f in twenty(frames))
        if near >= DENSE:
            dials = of_dense
            text = " ".join(f"{key}={given.get(key, value)}" for key, value in dials.items())
            why.append(f"dense structures, {near:.1f} nearest neighbors: preset {preset} is {text} for them")
    model = {"network": network, **dials, **given}
    hidden = model.get("hidden_lmax")
    if "lmax" in dials and "lmax" not in given and isinstance(hidden, int):  # anything else is refused below
        model["lmax"] = max(model["lmax"], hidden)
    if "cutoff" not in given:
        model["cutoff"], text = choose_cutoff(frames)
        why.append(text)
    chosen = settings(model)[1]  # a wrong dial is refused here, before anything is computed with it
    needed = order(resolved(config.targets))
    if needed > getattr(chosen, "lmax_out", needed):
        if "lmax_out" in given:
            raise ValueError(
                f"[model] lmax_out is {given['lmax_out']}, but the targets need {needed}; leave it out"
            )
        model["lmax_out"] = needed
        chosen = settings(model)[1]
        why.append(f"lmax_out {needed}: for {', '.join(config.targets)}")
    # every dial, so that a run that goes on, or on other frames, has the network it began with
    every = {k: v for k, v in asdict(chosen).items() if k != "lmax_out"}
    return {"preset": preset, **model, **every}, why


def twenty(items: Sequence[T]) -> Sequence[T]:
    """About so many of them, evenly spaced."""
    return items[:: max(1, len(items) // 20)]


def coordination(graphs: Iterable[Graph]) -> float:
    """Mean number of neighbors of an atom that are at most 1.35 times as far as its nearest one: 12 in fcc, 14 in bcc
    (8 and 6), 4 in diamond, 1 to 3 in molecules and in quartz."""
    n_near = n_atoms = 0
    for g in graphs:
        lengths = torch.linalg.vector_norm(g.edge_vectors(), dim=1)
        nearest = lengths.new_full((len(g.positions),), math.inf).scatter_reduce(0, g.center, lengths, "amin")
        n_near += int((lengths < 1.35 * nearest[g.center]).sum())
        n_atoms += len(nearest)
    return n_near / n_atoms


def choose_cutoff(frames: Sequence[Frame]) -> tuple[float, str]:
    """A cutoff in Å from the density of twenty frames, and why."""
    some = twenty(frames)
    density = sum(len(from_atoms(f.atoms, 5.0).center) for f in some) / sum(len(f.atoms) for f in some)
    cutoff = 6.0 if density < 8 else 5.0 if density < 70 else 4.5
    return cutoff, f"cutoff {cutoff} Å: {density:.0f} neighbors per atom within 5 Å"
