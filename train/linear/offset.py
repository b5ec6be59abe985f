"""Energies that had no weight: where E0 is free, it moves to what the fit leaves of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from potential.model import Potential, build, configuration
from train.batches import Sample
from train.evaluate import evaluate
from train.statistics import FITTED, E0Fit

TOLD = 0.001  # eV/atom: less is not worth a word


def leveled(potential: Potential, samples: Sequence[Sample], e0: E0Fit) -> tuple[Potential, str]:
    """The potential with E0 by least squares of what is left of the energies per atom, and what was done.

    Only E0 that were fitted move; those of isolated atoms are facts.
    """
    p = evaluate(potential, samples, "cpu")
    known = np.isfinite(p.energy[:, 0])
    if not known.any():
        return potential, ""
    facts = potential.statistics
    species = potential.species_of[torch.from_numpy(p.atomic_numbers)].numpy()
    counts = np.zeros((len(p.n_atoms), len(facts.elements)))
    np.add.at(counts, (np.repeat(np.arange(len(p.n_atoms)), p.n_atoms), species), 1.0)
    x = (counts / p.n_atoms[:, None])[known]
    left = ((p.energy[:, 0] - p.energy[:, 1]) / p.n_atoms)[known]
    free = np.array([e0.sources.get(s) == FITTED for s in facts.elements])
    move = np.zeros(len(facts.elements))
    if free.any():
        move[free] = np.linalg.lstsq(x[:, free], left, rcond=None)[0]
    off = abs(float(np.mean(left - x @ move)))
    told = []
    if np.abs(move).max() > TOLD:
        moves = ", ".join(f"{s} {d:+.4f}" for s, d in zip(facts.elements, move, strict=True))
        told.append(f"energies have no weight; E0 moved to what is left of them, in eV: {moves}")
    if off > TOLD:
        told.append(
            f"WARNING: energies, which have no weight, are off by {1e3 * off:.0f} meV/atom in the mean; E0 of isolated "
            "atoms does not move: give fit.energy_weight, or look at differences of energies only"
        )
    moved = tuple(float(old + d) for old, d in zip(facts.e0, move, strict=True))
    other = build(configuration(potential), replace(facts, e0=moved), dtype=torch.float64)
    other.load_state_dict(potential.state_dict())
    return other, "\n".join(told)
