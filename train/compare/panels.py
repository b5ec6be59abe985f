"""What is drawn beside errors: curves of the checks, and error against time; the same for pictures and the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from train.compare.words import common_frames


@dataclass(frozen=True)
class Line:
    """One curve of one contestant."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """Curves of all contestants; several lines of one name share an entry in the legend."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    log: bool = False  # both axes, and points instead of lines
    ticks: tuple[Sequence[float], Sequence[str]] | None = None
    span: tuple[float, float] | None = None  # of y


def panels(found: dict[str, Any]) -> dict[str, list[Panel]]:
    """Check, or "speed" -> what is drawn of it; nothing where nobody has it."""
    energy = "Total energy in dynamics", "time (ps)", "change (meV/atom)"
    volume = "Energy from its minimum", "volume (Å³/atom)", "energy (meV/atom)"
    work = "Energy that forces do not explain", "RMS displacement (Å)", "energy − work (meV)"
    made = {
        "speed": trade(found),
        "conservation": simple(found, "conservation", ("x", "unexplained"), work),
        "dynamics": simple(found, "dynamics", ("time", "energy"), energy),
        "dimers": of_pairs(found),
        "eos": simple(found, "eos", ("volume", "energy"), volume),
        "phonons": [*of_bands(found), *of_dos(found)],
    }
    return {name: drawn for name, drawn in made.items() if drawn}


def curves(found: dict[str, Any], check: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Contestants that passed through a check, and its curves."""
    for name, results in found["checks"].items():
        if "curve" in results.get(check, {}):
            yield name, results[check]["curve"]


def simple(
    found: dict[str, Any], check: str, keys: tuple[str, str], words: tuple[str, str, str]
) -> list[Panel]:
    """One panel of the curves under two keys, with its title and the titles of its axes."""
    lines = [Line(name, curve[keys[0]], curve[keys[1]]) for name, curve in curves(found, check)]
    return [Panel(*words, lines)] if lines else []


def of_pairs(found: dict[str, Any]) -> list[Panel]:
    """A panel for each pair of elements; walls beyond what bonds weigh are cut off."""
    pairs: dict[str, list[Line]] = {}
    for name, curve in curves(found, "dimers"):
        for pair, one in curve.items():
            pairs.setdefault(pair, []).append(Line(name, one["distance"], one["energy"]))
    drawn = []
    for pair, lines in pairs.items():
        depth = max(1.0, -min(min(line.y) for line in lines))
        axes = "distance (Å)", "energy (eV)"
        drawn.append(
            Panel(f"Two atoms: {pair}", *axes, lines, span=(-1.2 * min(depth, 20.0), 2 * min(depth, 20.0)))
        )
    return drawn


def of_dos(found: dict[str, Any]) -> list[Panel]:
    lines = [Line(name, c["dos"]["frequency"], c["dos"]["dos"]) for name, c in curves(found, "phonons")]
    return (
        [Panel("Phonon density of states", "frequency (THz)", "modes per THz and cell", lines)]
        if lines
        else []
    )


def of_bands(found: dict[str, Any]) -> list[Panel]:
    """All bands along one path, as long as the first contestant's: lattice constants differ a little."""
    lines: list[Line] = []
    ticks: tuple[Sequence[float], Sequence[str]] | None = None
    end = 1.0
    for name, curve in curves(found, "phonons"):
        band = curve["band"]
        x = np.array(band["x"]) / band["x"][-1]
        if ticks is None:
            end = band["x"][-1]
            ticks = joined(
                np.array(band["ticks"]) / end, [label.replace("G", "Γ") for label in band["labels"]]
            )
        lines += [Line(name, x.tolist(), one) for one in band["frequencies"]]
    return [Panel("Phonon bands", "wave vector", "frequency (THz)", lines, ticks=ticks)] if lines else []


def joined(places: np.ndarray, labels: Sequence[str]) -> tuple[list[float], list[str]]:
    """Ticks of a path; where it jumps, two labels share one."""
    at: list[float] = []
    names: list[str] = []
    for place, label in zip(places.tolist(), labels, strict=True):
        if at and place - at[-1] < 1e-9:
            names[-1] += f"|{label}"
        else:
            at.append(place)
            names.append(label)
    return at, names


def trade(found: dict[str, Any]) -> list[Panel]:
    """Force error (energy error where there are no forces), on frames of all, against time per atom (last system)."""
    known = [line for line in found["speed"] if "cpu_ms" in line]
    if not known:
        return []
    system, speed = known[-1]["system"], found["settings"]["speed_dtype"]
    quantity = next((name for name in ("forces", "energy") if name in found["ranking"]), "")
    errors = found["ranking"][quantity]["rmse"] if quantity else {}
    lines = []
    for line in known:
        error = errors.get(line["contestant"])
        if line["system"] == system and error is not None and error[0] > 1e-3:
            lines.append(Line(line["contestant"], [1000 * line["cpu_ms"] / line["atoms"]], [error[0]]))
    if not lines:
        return []
    unit = {"forces": "meV/Å", "energy": "meV/atom"}[quantity]
    shared = common_frames(found, quantity)
    about = ", ".join([unit, found["settings"]["dtype"], *([shared] if shared else [])])
    title = f"Error against time: {system}"
    return [Panel(title, f"µs per atom ({speed})", f"{quantity} RMSE ({about})", lines, log=True)]
