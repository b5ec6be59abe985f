"""Facts of the training data that the model carries: the energy of each isolated atom (E0)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from train.data.dataset import Array, Frame

GIVEN = "given"
ISOLATED = "isolated atoms"
FITTED = "least squares"
UNKNOWN = "no energies"
NOISE = 0.01  # eV/atom; how well any E0 can describe real energies, sets the strength of the ridge
SAME = 1e-3  # eV; energies of one isolated atom that differ by less are not mentioned
SINGULAR = 1e-6  # relative size below which a singular value counts as zero


@dataclass(frozen=True)
class E0Fit:
    """Energy of each element as an isolated atom, and where it comes from."""

    e0: dict[str, float]  # eV
    sources: dict[str, str]  # per element: GIVEN, ISOLATED, FITTED or UNKNOWN
    rank: int  # independent compositions among the fitted elements plus the others
    condition: float  # of the fit; 1 if nothing was fitted, inf if the compositions do not determine it
    text: str  # for the report

    @property
    def source(self) -> str:
        """All sources in one phrase, e.g. "isolated atoms" or "isolated atoms + least squares"."""
        return " + ".join(dict.fromkeys(self.sources.values()))


def fit_e0(
    frames: Sequence[Frame],
    elements: Sequence[str],
    isolated: Sequence[Frame] = (),
    given: Mapping[str, float] | None = None,
) -> E0Fit:
    """E0 as given, else from isolated atoms, else from regularised least squares: whichever comes first.

    The fit minimises, over the frames, sum (E/n - sum_s x_s e0_s)^2 + ridge * sum_s (e0_s - mean)^2, where
    x_s is the fraction of element s and `mean` the mean energy per atom: what the compositions do not
    determine stays at the mean (with one composition only, every element gets exactly the mean).
    Only where no training frame has an energy at all and nothing else is known, E0 is 0 and the text says so.

    Args:
        frames: the training frames; isolated atoms among them are used as such.
        elements: chemical symbols, in the order of the model.
        isolated: isolated atoms of a file of their own, which come before those among the frames.
        given: eV of isolated atoms, by symbol; come before all others.

    Raises:
        ValueError: an element not listed or without any source, an energy that is not finite, a frame in
            `isolated` that is not.
    """
    _check(frames, isolated, elements)
    known, told = _known(frames, isolated, given or {}, elements)
    e0 = {s: value for s, (value, _) in known.items()}
    sources = {s: source for s, (_, source) in known.items()}
    rest = [s for s in elements if s not in e0]
    labelled = [f for f in frames if f.energy is not None and not f.is_isolated_atom]
    rows = [f for f in labelled if not set(rest).isdisjoint(f.atoms.symbols)]
    _refuse_without_source([s for s in rest if not any(s in f.atoms.symbols for f in rows)], e0, labelled)
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
    text = " ".join([*_sentences(sources, rank, condition, rows), *told, *_binding(labelled, order, sources)])
    return E0Fit(e0=order, sources=sources, rank=rank, condition=condition, text=text)


def _known(
    frames: Sequence[Frame], isolated: Sequence[Frame], given: Mapping[str, float], elements: Sequence[str]
) -> tuple[dict[str, tuple[float, str]], list[str]]:
    """E0 and source of the elements that need no fit, and sentences where sources differ or are not needed."""
    wrong = [s for s, value in given.items() if not np.isfinite(value)]
    if wrong:
        raise ValueError(f"E0 given for {wrong[0]} is {given[wrong[0]]}; it must be a finite energy in eV")
    of_file, spread = _isolated_energies(isolated)
    among, more = _isolated_energies(frames)
    known: dict[str, tuple[float, str]] = {}
    for symbol in elements:
        found = [
            (table[symbol], source, name)
            for table, source, name in (
                (given, GIVEN, "the given value"),
                (of_file, ISOLATED, "that of the file of isolated atoms"),
                (among, ISOLATED, "that of the isolated atoms among the frames"),
            )
            if symbol in table
        ]
        if found:
            value, source, name = found[0]
            known[symbol] = (value, source)
            spread += [
                f"E0 of {symbol} is {name}; {other} lies {there - value:+.4g} eV away."
                for there, _, other in found[1:]
                if abs(there - value) > SAME
            ]
    unused = [s for s in given if s not in elements]
    if unused:
        spread.append(f"E0 given for {', '.join(unused)} is not needed: no training frame holds it.")
    return known, spread + more


def _refuse_without_source(
    symbols: Sequence[str], known: Mapping[str, float], labelled: Sequence[Frame]
) -> None:
    if symbols and (known or labelled):
        raise ValueError(
            f"nothing to take E0 of {', '.join(symbols)} from: no training frame that holds it has an energy, there is "
            f"no isolated atom, and none is given; give one: --set e0.{symbols[0]}=<eV>, or a file with "
            "--set data.isolated_atoms=<file>"
        )


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
        if np.ptp(values) > SAME
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
    if named(GIVEN):
        text.append(f"E0 of {named(GIVEN)} as given.")
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
    rows = [f for f in frames if all(sources[s] in (GIVEN, ISOLATED) for s in f.atoms.symbols)]
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
