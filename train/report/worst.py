"""The frames that are most wrong: which they are, worst.xyz, and what is drawn of each in three dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.data.colors import jmol_colors

from train.report.breakdown import force_errors
from train.report.markup import number
from train.report.run_directory import Floats, Integers, PredictedSet

N_WORST = 10  # in each table
N_VIEWED = 5  # of each table, in three dimensions
MAX_ATOMS = 300  # drawn of a frame: those about its worst atom
BOND = 1.2  # times the sum of covalent radii
ARROW = 1.6  # Å, the longest force as drawn
VIEW = 200  # pixels, about what a frame takes on a phone
REFERENCE, PREDICTED = "#1f2933", "#d55e00"

Scene = dict[str, Any]
FrameErrors = tuple[str, int, int, float, float, float]


def frame_errors(one: PredictedSet) -> list[FrameErrors]:
    """Per frame: set, frame, atoms, energy error (meV/atom), RMS and largest force error (meV/Å)."""
    kept, _, error = force_errors(one)
    n_frames, system = len(one.n_atoms), one.system[kept]
    squared = np.square(error).sum(axis=1)
    count = np.bincount(system, minlength=n_frames)
    mean = np.bincount(system, weights=squared, minlength=n_frames) / np.maximum(3 * count, 1)
    largest = np.zeros(n_frames)
    np.maximum.at(largest, system, squared)
    energy = 1000 * (one.energy_predicted - one.energy_reference) / np.maximum(one.n_atoms, 1)
    forces = [np.where(count > 0, 1000 * np.sqrt(values), np.nan).tolist() for values in (mean, largest)]
    name = [one.name] * n_frames
    return list(zip(name, one.frame.tolist(), one.n_atoms.tolist(), energy.tolist(), *forces, strict=True))


def worst(sets: Sequence[PredictedSet]) -> dict[str, list[tuple[int, int]]]:
    """The worst frames by forces and by energy, the worst first: position of the set, position in the set."""
    places = [(k, row) for k, one in enumerate(sets) for row in range(len(one.n_atoms))]
    errors = [row for one in sets for row in frame_errors(one)]
    found = {}
    for title, column in (("By forces", 4), ("By energy", 3)):
        size = np.abs(np.array([row[column] for row in errors], dtype=np.float64))
        size[np.isnan(size)] = -1.0
        order = np.argsort(-size, kind="stable")[:N_WORST]
        found[title] = [places[index] for index in order if size[index] >= 0]
    return found


def write_worst(path: Path, sets: Sequence[PredictedSet], atoms_of: Callable[[str, int], Atoms]) -> None:
    """Write the frames that are drawn as extended XYZ; `atoms_of(set, position)` gives a structure."""
    from ase.io import write

    viewed = dict.fromkeys(place for places in worst(sets).values() for place in places[:N_VIEWED])
    frames = []
    for k, row in viewed:
        one, atoms = sets[k], atoms_of(sets[k].name, row)
        bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        bare.info = {"set": one.name, "frame": int(one.frame[row])}
        for label in ("energy_reference", "energy_predicted"):
            bare.info[label] = float(getattr(one, label)[row])
        for label in ("forces_reference", "forces_predicted"):
            bare.set_array(label, getattr(one, label)[one.system == row])
        frames.append(bare)
    partial = path.with_name(f".{path.name}.partial")
    write(partial, frames, format="extxyz")
    partial.replace(path)


def scene(atoms: Atoms) -> Scene:
    """One frame: its name and errors, and a plotly figure with atoms, bonds, cell and both kinds of forces."""
    reference, predicted = atoms.arrays["forces_reference"], atoms.arrays["forces_predicted"]
    error = 1000 * np.linalg.norm(predicted - reference, axis=1)
    known = error[np.isfinite(error)]
    centre = int(np.argmax(np.where(np.isfinite(error), error, -1.0)))
    distance = np.linalg.norm(atoms.positions - atoms.positions[centre], axis=1)
    kept = np.sort(np.argsort(distance, kind="stable")[:MAX_ATOMS])
    longest = max((float(np.nanmax(np.abs(f), initial=0.0)) for f in (reference, predicted)), default=0.0)
    energy = 1000 * (atoms.info["energy_predicted"] - atoms.info["energy_reference"]) / len(atoms)
    said = [f"energy error {number(energy)} meV/atom"] if np.isfinite(energy) else []
    if len(known):
        said.insert(0, f"force RMSE {number(float(np.sqrt(np.mean(known**2) / 3)))} meV/Å")
    if len(kept) < len(atoms):
        said.append(f"{len(kept)} of {len(atoms)} atoms, about the worst")
    data = [*_lines(atoms, kept), *_balls(atoms, kept, error)]
    for name, forces, color in (("reference", reference, REFERENCE), ("predicted", predicted, PREDICTED)):
        if longest > 0 and np.isfinite(forces[kept]).any():
            data.append(_arrows(atoms.positions[kept], forces[kept] * ARROW / longest, name, color))
    label = f"{atoms.info['set']}, frame {atoms.info['frame']}: {', '.join(said)}"
    return {"label": label, "data": data, "layout": _layout(data)}


def _layout(data: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A cube that holds everything: the same scale along its sides, and nothing beyond the frame."""
    at = np.array([[value for trace in data for value in trace[axis]] for axis in "xyz"])
    low, high = np.nanmin(at, axis=1), np.nanmax(at, axis=1)
    middle, half = (low + high) / 2, 0.55 * float((high - low).max()) + 0.5
    look = {"visible": False, "showspikes": False}
    sides = {
        f"{a}axis": {**look, "range": [m - half, m + half]}
        for a, m in zip("xyz", middle.tolist(), strict=True)
    }
    camera = {"eye": {"x": 0.7, "y": 0.7, "z": 0.55}, "projection": {"type": "orthographic"}}
    space = {**sides, "aspectmode": "cube", "camera": camera}
    legend = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "itemsizing": "constant"}
    font = {
        "family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif",
        "size": 13,
        "color": REFERENCE,
    }
    margin = {"l": 0, "r": 0, "t": 60, "b": 0}
    return {"scene": space, "legend": legend, "font": font, "margin": margin, "paper_bgcolor": "white"}


def _balls(atoms: Atoms, kept: Integers, error: Floats) -> list[dict[str, Any]]:
    """A trace for each element."""
    traces = []
    for z in np.unique(atoms.numbers[kept]):
        some = kept[atoms.numbers[kept] == z]
        symbol = atoms.symbols[int(some[0])]
        diameter = covalent_radii[z] * VIEW / max(float(np.ptp(atoms.positions[kept], axis=0).max()), 5.0)
        size = [round(float(np.clip(diameter, 4, 28)), 1)] * len(some)
        color = "#" + "".join(f"{round(255 * c):02x}" for c in jmol_colors[z])
        marker = {"size": size, "color": color, "line": {"color": "#52606d", "width": 1}, "opacity": 1}
        text = [f"{symbol}, atom {k}<br>force error {number(float(error[k]))} meV/Å" for k in some]
        trace = {"type": "scatter3d", "mode": "markers", "name": symbol, "marker": marker, "text": text}
        traces.append(trace | {"hovertemplate": "%{text}<extra></extra>"} | _xyz(atoms.positions[some]))
    return traces


def _lines(atoms: Atoms, kept: Integers) -> list[dict[str, Any]]:
    """Bonds between atoms as they stand (not across the cell), and the edges of a cell."""
    at, radius = atoms.positions[kept], covalent_radii[atoms.numbers[kept]]
    distance = np.linalg.norm(at[:, None] - at[None], axis=-1)
    one, other = np.nonzero(np.triu(distance < BOND * (radius[:, None] + radius[None]), 1))
    traces = [_segments(at[one], at[other], "#9aa5b1", 6)] if len(one) else []
    if atoms.pbc.any():
        corners = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)], dtype=np.float64)
        pairs = [(p, q) for p in range(8) for q in range(p) if np.abs(corners[p] - corners[q]).sum() == 1]
        ends = corners @ atoms.cell.array
        start, end = (ends[[pair[k] for pair in pairs]] for k in (0, 1))
        traces.append(_segments(start, end, "#9aa5b1", 1))
    return traces


def _segments(start: Floats, end: Floats, color: str, width: int) -> dict[str, Any]:
    gap = np.full_like(start, np.nan)
    line = {"type": "scatter3d", "mode": "lines", "line": {"color": color, "width": width}}
    joined = np.stack([start, end, gap], axis=1).reshape(-1, 3)
    return line | {"hoverinfo": "skip", "showlegend": False} | _xyz(joined)


def _arrows(start: Floats, forces: Floats, name: str, color: str) -> dict[str, Any]:
    """Forces as lines with a dot at the tip."""
    trace = _segments(start, start + forces, color, 5)
    marker = {"size": [0, 4, 0] * len(start), "color": color, "line": {"width": 0}, "opacity": 1}
    look = {"mode": "lines+markers", "name": f"{name} force", "showlegend": True, "marker": marker}
    return trace | look


def _xyz(points: Floats) -> dict[str, list[float]]:
    return {axis: np.round(points[:, k], 3).tolist() for k, axis in enumerate("xyz")}
