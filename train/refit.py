"""E0 of a starting model for new energies: of elements new to it, and of all where another method speaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite

import numpy as np

from potential import Potential
from train.batches import prepare
from train.config import Fit
from train.data.dataset import Frame
from train.evaluate import evaluate
from train.statistics import E0Fit, fit_e0

SIGNIFICANT = 0.05  # eV/atom; energies further off come from another method, not from the model's errors
KEPT, MOVED = "starting model", "starting model, moved"


@dataclass(frozen=True)
class NewData:
    """What E0 is taken from: training frames, isolated atoms of files, energies that are given."""

    frames: Sequence[Frame]
    isolated: Sequence[Frame]
    given: Mapping[str, float]


def refit_e0(potential: Potential, data: NewData, old: Sequence[str], fit: Fit) -> E0Fit:
    """E0 of all elements, from what the potential (made by `extended`) leaves of the energies of the new data.

    Elements that it did not know get E0 from that remainder: given, from isolated atoms, or by least squares. Those it
    knew (`old`) move only where what new elements leave says that the energies come from another method: by more than
    SIGNIFICANT on average (fit.refit_e0 = "auto"), or "always", or "never". What is given holds in any case.
    """
    before = dict(zip(potential.statistics.elements, potential.statistics.e0, strict=True))
    frames = remainders(potential, data.frames, before)
    new = [f for f in data.isolated if f.atoms.symbols[0] in before.keys() - set(old)]
    isolated = remainders(potential, new, before)
    symbols = [s for s in before if any(s in f.atoms.symbols for f in frames)]
    given = {s: e - before[s] for s, e in data.given.items() if s in symbols}
    labelled = [f for f in frames if f.energy is not None]
    found = fit_e0(frames, symbols, isolated, given) if labelled else None
    moves, size, keep = dict(found.e0) if found else {}, 0.0, True
    if found:
        # first what new elements explain: one composition cannot tell their E0 from that of the others
        held = {s: 0.0 for s in symbols if s in old} | given
        kept = fit_e0([f for f in frames if not f.is_isolated_atom or f.atoms.symbols[0] not in old],
                      symbols, isolated, held).e0  # fmt: skip
        beyond = remaining(labelled, kept)
        off = fit_e0(beyond, symbols, [], {s: 0.0 for s in symbols if s in given or s not in old}).e0
        size = rms([sum(off[s] for s in f.atoms.symbols) / len(f.atoms) for f in beyond])
        keep = fit.refit_e0 == "never" or (fit.refit_e0 == "auto" and size <= SIGNIFICANT)
        if keep:
            moves = kept
        elif not isfinite(found.condition):  # the compositions do not determine all at once
            moves = {s: kept[s] + off[s] for s in symbols}
    sources = dict.fromkeys(before, KEPT)
    if found:
        sources |= {
            s: found.sources[s] if s not in old or s in given else KEPT if keep else MOVED for s in symbols
        }
    e0 = {s: value + moves.get(s, 0.0) for s, value in before.items()}
    text = f"E0 of {', '.join(old)} from the starting model"
    text += (
        f", which is off by {size:.3g} eV/atom on average"
        + (" and kept." if keep else ": moved to the new energies.")
        if labelled
        else "; there are no energies to compare with."
    )
    others = [f"E0 of {s} is {e0[s]:.6g} eV ({sources[s]})." for s in e0 if sources[s] not in (KEPT, MOVED)]
    return E0Fit(
        e0, sources, found.rank if found else 0, found.condition if found else 1.0, " ".join([text, *others])
    )


def remainders(potential: Potential, frames: Sequence[Frame], e0: Mapping[str, float]) -> list[Frame]:
    """The frames with what the potential leaves of their energies."""
    alone = [f for f in frames if f.is_isolated_atom]
    rest = [f for f in frames if not f.is_isolated_atom and f.energy is not None]
    out = [f if f.energy is None else replace(f, energy=f.energy - e0[f.atoms.symbols[0]]) for f in alone]
    if rest:
        device = str(next(potential.parameters()).device)
        energy = evaluate(potential, prepare(rest, potential.cutoff), device).energy
        out += [replace(f, energy=float(a - b)) for f, (a, b) in zip(rest, energy, strict=True)]
    return out


def remaining(frames: Sequence[Frame], moves: Mapping[str, float]) -> list[Frame]:
    """The frames with what E0 explain taken off their energies."""
    known = ((f, f.energy) for f in frames)
    return [replace(f, energy=e - sum(moves[s] for s in f.atoms.symbols)) for f, e in known if e is not None]


def rms(values: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if len(values) else 0.0
