"""An examination as one self-contained HTML page with plots."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from train.data.dataset import Array, Frame
from train.doctor.examine import Examination, coverage
from train.doctor.examine_text import TITLES, conclusion
from train.doctor.findings import place
from train.report.charts import MAX_POINTS, Chart, axis, escaped, layout, points
from train.report.markup import number, section, table
from train.report.page import document
from train.report.plots import sample, set_colors
from train.report.sections import grid

MARKS = {"problem": "#b3261e", "warning": "#b26a00", "note": "#52606d"}
N_BINS = 60
LISTED = 200  # frame numbers in a table


def page(found: Examination) -> str:
    """The whole examination as one HTML document."""
    charts: dict[str, Chart] = {}
    colors = set_colors([one.name for one in found.sets])
    name = next((one.frames[0].source for one in found.sets), "no data").rsplit("/", 1)[-1]
    parts = [
        f'<h1>Data report: {escape(name)}</h1>\n<p class="headline">{escape(conclusion(found))}</p>',
        section("Findings", findings_table(found)),
        section("What the sets hold", coverage_tables(found, colors)),
        section("Energies", grid(energy_charts(found, colors), "energy", charts)),
        section("Forces", grid(force_charts(found, colors), "force", charts)),
        section(
            "Do the labels belong to each other?", grid(agreement_charts(found, colors), "agreement", charts)
        ),
        section("Distances and neighbors", distance_tables(found)),
        section("Reference energy of each element (E0)", e0_tables(found)),
    ]
    return document(f"Data report: {name}", parts, charts)


def findings_table(found: Examination) -> str:
    """All findings, the worst first, with the frames of each."""
    items = []
    for name, f in found.findings:
        mark = f'<strong style="color:{MARKS[f.level]}">{TITLES[f.level]}</strong>'
        frames = frame_list(f.frames)
        head = f"{mark} · {escape(f.check)} · {escape(name)}"
        items.append(f'<li style="overflow-wrap:anywhere">{head}<br>{escape(f.text)}{frames}</li>')
    return f"<ul>{''.join(items)}</ul>" if items else "<p>Nothing to say.</p>"


def frame_list(frames: Sequence[Frame]) -> str:
    """Numbers of the frames by file, folded away where they are many."""
    if len(frames) < 2:
        return ""
    files: dict[str, list[str]] = {}
    for f in frames:
        files.setdefault(f.source, []).append(str(f.index))
    said = "; ".join(
        f"{escape(file)}: {', '.join(n[:LISTED])}{', ...' if len(n) > LISTED else ''}"
        for file, n in files.items()
    )
    return f'<details><summary>{len(frames)} frames</summary><p class="note">{said}</p></details>'


def coverage_tables(found: Examination, colors: dict[str, str]) -> str:
    """Frames and labels per set and config type."""
    rows = []
    for one in found.sets:
        types = coverage(one)
        dot = f'<span class="dot" style="background:{colors[one.name]}"></span>'
        for kind, row in types.items():
            if kind == "all" or len(types) > 2:
                title = f"{dot}{escape(one.name)}" if kind == "all" else f"&emsp;{escape(kind)}"
                rows.append([title, *(f"{n:,}" for n in row.values())])
    columns = next((list(coverage(one)["all"]) for one in found.sets), [])
    listed = table(["set and config type", *columns], rows)
    texts = "".join(
        f"<details><summary>{escape(one.name)}: label report</summary>"
        f'<pre class="wrap">{escape(one.report.text)}</pre></details>'
        for one in found.sets
    )
    return listed + texts if rows else ""


def energy_charts(found: Examination, colors: dict[str, str]) -> dict[str, Chart]:
    """Energies beyond E0: how they spread, and by frame."""
    values = {one.name: one.energy for one in found.sets if np.isfinite(one.energy).any()}
    unit = "energy beyond E0 (eV/atom)"
    return _charts(
        {
            "Energy per atom": histogram(values, colors, unit),
            "Energy by frame": by_frame(found, values, colors, unit),
        }
    )


def force_charts(found: Examination, colors: dict[str, str]) -> dict[str, Chart]:
    """Largest force, net force and net torque by frame, and the spread of the forces."""
    balance = {one.name: one.measured.balance for one in found.sets}
    part = {name: np.fmax(b.force_part, b.torque_part) for name, b in balance.items()}
    largest_force = {name: b.largest for name, b in balance.items()}
    y = "net over the norm of all"
    return _charts(
        {
            "Largest force of a frame": histogram(largest_force, colors, "largest force (eV/Å)"),
            "Largest force by frame": by_frame(found, largest_force, colors, "largest force (eV/Å)"),
            "Net force or torque, which must vanish": by_frame(found, part, colors, y),
        }
    )


def agreement_charts(found: Examination, colors: dict[str, str]) -> dict[str, Chart]:
    """Energies against what forces and stress say about them."""
    energy, strain = [], []
    for one in found.sets:
        labels, pairs = one.measured.consistency, one.measured.strain
        if labels is not None and np.isfinite(labels.energy).any():
            names = [place(f, one.frames) for f in labels.frames]
            energy.append(dots(labels.guessed, labels.energy, one.name, colors[one.name], names))
        if pairs.frames:
            names = [f"{place(a, one.frames)} and {place(b, one.frames)}" for a, b in pairs.frames]
            strain.append(dots(pairs.work, pairs.energy, one.name, colors[one.name], names))
    first = "from forces (eV/atom)"
    return _charts(
        {
            "Energies against forces: one rising line": parity(energy, first, "energy (eV/atom)"),
            "Strained pairs of frames": parity(
                strain, "work of the stress (eV/atom)", "energy difference (eV/atom)"
            ),
        }
    )


def _charts(charts: dict[str, Chart | None]) -> dict[str, Chart]:
    return {name: chart for name, chart in charts.items() if chart}


def histogram(values: dict[str, Array], colors: dict[str, str], title: str) -> Chart | None:
    """Counts of every set in the same bins, as lines."""
    known = {name: v[np.isfinite(v)] for name, v in values.items() if np.isfinite(v).any()}
    if not known:
        return None
    everything = np.concatenate(list(known.values()))
    low, high = float(everything.min()), float(everything.max())
    edges = np.linspace(low, high if high > low else low + 1.0, N_BINS + 1)
    data = []
    for name, v in known.items():
        count = np.histogram(v, edges)[0]
        hover = f"{escaped(name)}: %{{y}} frames near %{{x:.4g}}<extra></extra>"
        line = {"type": "scatter", "mode": "lines", "name": escaped(name), "hovertemplate": hover}
        line |= {"x": (0.5 * (edges[1:] + edges[:-1])).tolist(), "y": count.tolist()}
        data.append(line | {"line": {"color": colors[name], "width": 2, "shape": "hvh"}})
    return {"data": data, "layout": layout(axis(title), axis("frames", rangemode="tozero"))}


def by_frame(
    found: Examination, values: dict[str, Array], colors: dict[str, str], title: str
) -> Chart | None:
    """A value of every frame against its number; where not all are drawn, the extreme ones are."""
    data = []
    for one in found.sets:
        v = values.get(one.name, np.zeros(0))
        rows = np.flatnonzero(np.isfinite(v))
        if not len(rows):
            continue
        extreme = rows[np.argsort(-np.abs(v[rows] - np.median(v[rows])))[:100]]
        rows = np.union1d(rows[sample(len(rows), MAX_POINTS)], extreme)
        numbers = np.array([one.frames[int(k)].index for k in rows], dtype=np.float64)
        names = [place(one.frames[int(k)], one.frames) for k in rows]
        data.append(dots(numbers, v[rows], one.name, colors[one.name], names))
    return {"data": data, "layout": layout(axis("frame"), axis(title))} if data else None


def dots(x: Array, y: Array, name: str, color: str, names: Sequence[str]) -> dict[str, Any]:
    """Points with the frame that each stands for."""
    rows = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    rows = rows[sample(len(rows), MAX_POINTS)]
    hover = f"{escaped(name)}, %{{text}}<br>%{{x:.5g}}, %{{y:.5g}}<extra></extra>"
    drawn = points(x[rows], y[rows], name, color)
    drawn["marker"] = {**drawn["marker"], "size": 5, "opacity": 0.6}
    return drawn | {"text": [names[int(k)] for k in rows], "hovertemplate": hover}


def parity(data: list[dict[str, Any]], x: str, y: str) -> Chart | None:
    """Points about the diagonal."""
    if not data:
        return None
    low, high = (f(f(one[key]) for one in data for key in ("x", "y") if one[key]) for f in (min, max))
    diagonal = {"type": "line", "x0": low, "y0": low, "x1": high, "y1": high, "layer": "below"}
    diagonal["line"] = {"color": "#52606d", "width": 1}
    return {"data": data, "layout": layout(axis(x), axis(y), shapes=[diagonal])}


def distance_tables(found: Examination) -> str:
    """Shortest distances by pair of elements and neighbors by cutoff."""
    rows, counts = [], []
    for one in found.sets:
        geometry = one.measured.geometry
        for (a, b), (d, k) in geometry.pairs.items():
            rows.append([escape(one.name), f"{a}–{b}", f"{d:.3f}", escape(place(one.frames[k], one.frames))])
        for cutoff, (mean, low, high) in geometry.neighbors.items():
            alone = f"{len(geometry.lonely[cutoff]):,}"
            counts.append([escape(one.name), f"{cutoff:g}", f"{mean:.1f}", f"{low}", f"{high}", alone])
    lonely = "frames with an atom<small>without neighbor</small>"
    head = ["set", "cutoff<small>Å</small>", "neighbors<small>mean</small>", "<small>min</small>"]
    head += ["<small>max</small>", lonely]
    shortest = table(["set", "elements", "shortest<small>Å</small>", "frame"], rows, 2)
    return (table(head, counts) + shortest) if rows else ""


def e0_tables(found: Examination) -> str:
    """E0 per set with its source, and whether the compositions determine it."""
    rows = []
    for one in found.sets:
        if one.e0 is None:
            continue
        condition = f"{one.e0.rank} of {len(one.e0.e0)}, condition {number(one.e0.condition)}"
        rows += [
            [escape(one.name), escape(s), f"{e:,.4f}", escape(one.e0.sources[s]), condition]
            for s, e in one.e0.e0.items()
        ]
    return (
        table(["set", "element", "E0<small>eV</small>", "from", "rank of the compositions"], rows, 2)
        if rows
        else ""
    )
