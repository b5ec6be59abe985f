"""Facts of the training data that the model carries: the energy of each isolated atom (E0)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.dataset import Array, Frame

ISOLATED = "isolated atoms"
FITTED = "least squares"
UNKNOWN = "no energies"
NOISE = 0.01  # eV/atom; how well any E0 can describe real energies, sets the strength of the ridge
SINGULAR = 1e-6  # relative size below which a singular value counts as zero


@dataclass(frozen=True)
class E0Fit:
    """Energy of each element as an isolated atom, and where it comes from."""

    e0: dict[str, float]  # eV
    sources: dict[str, str]  # per element: ISOLATED, FITTED or UNKNOWN
    rank: int  # independent compositions among the fitted elements plus the isolated atoms
    condition: float  # of the fit; 1 if nothing was fitted, inf if the compositions do not determine it
    text: str  # for the report

    @property
    def source(self) -> str:
        """All sources in one phrase, e.g. "isolated atoms" or "isolated atoms + least squares"."""
        return " + ".join(dict.fromkeys(self.sources.values()))


def fit_e0(frames: Sequence[Frame], elements: Sequence[str], isolated: Sequence[Frame] = ()) -> E0Fit:
    """E0 from isolated atoms where there are any, from regularised least squares for the other elements.

    The fit minimises, over the frames, sum (E/n - sum_s x_s e0_s)^2 + ridge * sum_s (e0_s - mean)^2, where
    x_s is the fraction of element s and `mean` the mean energy per atom: what the compositions do not
    determine stays at the mean (with one composition only, every element gets exactly the mean).

    Args:
        frames: the training frames; isolated atoms among them are used as such.
        elements: chemical symbols, in the order of the model.
        isolated: further isolated atoms, e.g. from a file of their own.

    Raises:
        ValueError: an element not listed, an energy that is not finite, a frame in `isolated` that is not.
    """
    _check(frames, isolated, elements)
    known, spread = _isolated_energies([*frames, *isolated])
    e0 = {s: known[s] for s in elements if s in known}
    sources = dict.fromkeys(e0, ISOLATED)
    rest = [s for s in elements if s not in e0]
    labelled = [f for f in frames if f.energy is not None and not f.is_isolated_atom]
    rows = [f for f in labelled if not set(rest).isdisjoint(f.atoms.symbols)]
    rank, condition = len(e0), 1.0
    if rest and rows:
        fitted, fit_rank, condition = _least_squares(rows, rest, e0)
        e0 |= fitted
        sources |= dict.fromkeys(rest, FITTED)
        rank += fit_rank
    elif rest:
        e0 |= dict.fromkeys(rest, 0.0)
        sources |= dict.fromkeys(rest, UNKNOWN)
    order = {s: e0[s] for s in elements}
    sources = {s: sources[s] for s in elements}
    text = " ".join(
        [*_sentences(sources, rank, condition, rows), *spread, *_binding(labelled, order, sources)]
    )
    return E0Fit(e0=order, sources=sources, rank=rank, condition=condition, text=text)


def _check(frames: Sequence[Frame], isolated: Sequence[Frame], elements: Sequence[str]) -> None:
    for frame in isolated:
        if not frame.is_isolated_atom:
            raise ValueError(
                f"{frame.name}: holds {len(frame.atoms)} atoms or a crystal; expected one isolated atom; "
                "remove it from the isolated atoms"
            )
    for frame in [*frames, *isolated]:
        if frame.energy is not None and not np.isfinite(frame.energy):
            raise ValueError(f"{frame.name}: energy is {frame.energy}; it must be finite; remove this frame")
    for frame in frames:
        missing = sorted(set(frame.atoms.symbols) - set(elements))
        if missing:
            raise ValueError(
                f"{frame.name}: contains {', '.join(missing)}, which is not among the elements "
                f"{', '.join(elements)}; add it to the elements or remove this frame"
            )


def _isolated_energies(frames: Sequence[Frame]) -> tuple[dict[str, float], list[str]]:
    """The lowest energy of each isolated atom (its ground state), and a sentence where they differ."""
    found: dict[str, list[float]] = {}
    for frame in frames:
        if frame.energy is not None and frame.is_isolated_atom:
            found.setdefault(frame.atoms.symbols[0], []).append(frame.energy)
    spread = [
        f"{len(values)} isolated {s} atoms differ by {np.ptp(values):.4g} eV; the lowest is taken."
        for s, values in found.items()
        if np.ptp(values) > 1e-3
    ]
    return {s: min(values) for s, values in found.items()}, spread


def _least_squares(
    frames: Sequence[Frame], elements: Sequence[str], known: dict[str, float]
) -> tuple[dict[str, float], int, float]:
    """E0 of `elements` from what the `known` ones leave; also the rank and condition of the compositions."""
    counts = np.array([[f.atoms.symbols.count(s) for s in elements] for f in frames], dtype=np.float64)
    rest = np.array([_energy(f) - sum(known.get(s, 0.0) for s in f.atoms.symbols) for f in frames])
    n_atoms = counts.sum(axis=1)
    fractions, target = counts / n_atoms[:, None], rest / n_atoms
    mean = float(target.mean())
    u, s, vt = np.linalg.svd(fractions, full_matrices=False)
    # A deviation of E0 from the mean is at most of the size of the mean: the ratio to the noise is the ridge.
    ridge = (NOISE / max(abs(mean), 1.0)) ** 2
    rank = int((s > SINGULAR * s[0]).sum())
    s, u, vt = s[:rank], u[:, :rank], vt[:rank]
    deviation: Array = vt.T @ (s / (s**2 + ridge) * (u.T @ (target - mean)))
    condition = float(s[0] / s[-1]) if rank == len(elements) else float("inf")
    return {e: mean + float(d) for e, d in zip(elements, deviation, strict=True)}, rank, condition


def _energy(frame: Frame) -> float:
    assert frame.energy is not None  # the callers pass labelled frames only
    return frame.energy


def _sentences(sources: dict[str, str], rank: int, condition: float, rows: Sequence[Frame]) -> list[str]:
    def named(source: str) -> str:
        return ", ".join(s for s, v in sources.items() if v == source)

    text = []
    if named(ISOLATED):
        text.append(f"E0 of {named(ISOLATED)} from isolated atoms.")
    if named(FITTED):
        text.append(
            f"E0 of {named(FITTED)} by least squares on {len(rows)} frames (condition {condition:.3g})."
        )
        text.append(f"Rank {rank} of {len(sources)} elements" + (":" if rank < len(sources) else "."))
        if rank < len(sources):
            text.append(
                "the compositions do not determine every E0, the rest stays at the mean energy per atom. "
                "Total energies are not affected; other compositions are not reliable, add isolated atoms."
            )
    if named(UNKNOWN):
        text.append(
            f"E0 of {named(UNKNOWN)} set to 0 eV: no energies to take it from, so energies have no meaning."
        )
    return text


def _binding(frames: Sequence[Frame], e0: dict[str, float], sources: dict[str, str]) -> list[str]:
    """Isolated atoms of another method show as an absurd binding energy."""
    rows = [f for f in frames if all(sources[s] == ISOLATED for s in f.atoms.symbols)]
    if not rows:
        return []
    binding = float(
        np.median([(_energy(f) - sum(e0[s] for s in f.atoms.symbols)) / len(f.atoms) for f in rows])
    )
    text = f"Median binding energy {binding:.3f} eV/atom."
    if not -15.0 < binding < 5.0:
        text += (
            " That is far outside -15 to 5 eV/atom: the isolated atoms seem to come from another method,"
            " charge or unit than the frames; correct or remove them."
        )
    return [text]
