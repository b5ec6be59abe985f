"""The two pictures of a run, for a paper or a talk: matplotlib figures without pyplot's global state."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullFormatter

from train.data.targets import unit_text
from train.report.run_directory import (
    Integers,
    Pairs,
    PredictedSet,
    Run,
    energy_pairs,
    energy_zero,
    force_pairs,
    rmse,
    stress_pairs,
    symbols,
)
from train.target import Target, title

# Okabe and Ito's palette, told apart by the color-blind: training steps back, validation and tests stand out.
TRAIN, VALID = "#8a8f98", "#0072b2"
TESTS = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK, GRID = "#1f2933", "#e4e7eb"

# More dots of one set than this change nothing in a picture but the time it takes.
MAX_DOTS = 50_000
PANEL, SIDE = 4.8, 3.7  # inches: a parity plot with its labels, and its axes
SEED = 0

Curve = tuple[list[float], list[float]]

# Quantity -> title, unit, and the unit of its errors in metrics.jsonl and summary.json (1000 times smaller).
UNITS = {
    "energy": ("Energy", "eV/atom", "meV/atom"),
    "forces": ("Forces", "eV/Å", "meV/Å"),
    "stress": ("Stress", "eV/Å³", "meV/Å³"),
}


def units(run: Run) -> dict[str, tuple[str, str, str]]:
    """The same with the targets that this run has beside the energy."""
    found = dict(UNITS)
    for one in run.summary.get("targets") or []:
        unit, title = unit_text(one["unit"]), in_words(run, one["name"])
        found[one["name"]] = (title[:1].upper() + title[1:], unit or "its unit", f"10⁻³ {unit}".strip())
    return found


def in_words(run: Run, key: str) -> str:
    """What the values of a quantity are called: a vector of which only lengths are known is told as such."""
    irreps = {t["name"]: str(t["irreps"]) for t in run.summary.get("targets") or []}
    return title(key, Target(irreps=irreps.get(key, "")))


def set_colors(names: Sequence[str]) -> dict[str, str]:
    """One color for each set, the same in every picture."""
    tests = [name for name in names if name not in ("train", "valid")]
    colors = {name: TESTS[index % len(TESTS)] for index, name in enumerate(tests)}
    return {"train": TRAIN, "valid": VALID, **colors}


def series(metrics: Sequence[dict[str, float]], key: str) -> Curve:
    """Steps and values of one column of the metrics, where it has a value."""
    rows = [row for row in metrics if row.get("step") is not None and row.get(key) is not None]
    kept = [(float(row["step"]), float(row[key])) for row in rows if np.isfinite(row[key])]
    return [step for step, _ in kept], [value for _, value in kept]


def quantity_pairs(run: Run) -> dict[str, dict[str, Pairs]]:
    """Quantity -> set -> labelled values; what has no label anywhere is left out."""
    _, zeros = energy_zero(run)
    pairs = {
        "energy": {one.name: energy_pairs(one, zero) for one, zero in zip(run.sets, zeros, strict=True)},
        "forces": {one.name: force_pairs(one) for one in run.sets},
        "stress": {one.name: stress_pairs(one) for one in run.sets},
    }
    for key in [key for key in units(run) if key not in UNITS]:
        pairs[key] = {one.name: target_pairs(one, key) for one in run.sets if key in one.targets}
    found = {
        key: {name: pair for name, pair in sets.items() if len(pair.reference)} for key, sets in pairs.items()
    }
    return {key: sets for key, sets in found.items() if sets}


def target_pairs(one: PredictedSet, name: str) -> Pairs:
    """Components of a target beside the energy."""
    target = one.targets[name]
    keep = np.isfinite(target.reference) & np.isfinite(target.predicted)
    row = np.nonzero(keep)[0]
    values = target.reference[keep], target.predicted[keep]
    if not target.of_atoms:
        return Pairs(*values, one.frame[row], np.full(len(row), -1), np.full(len(row), ""))
    return Pairs(*values, one.frame[one.system[row]], one.atom[row], symbols(one.atomic_numbers[row]))


# What a parity axis shows, with its unit; that of the energy depends on the run.
PARITY_AXES = {
    "forces": "force component (eV/Å)",
    "stress": "stress component (eV/Å³)",
}


def parity_title(key: str, run: Run) -> str:
    """Heading of a parity plot; energies say what they are relative to, and whether that has a meaning."""
    if key != "energy":
        return units(run)[key][0]
    zero = energy_zero(run)[0]
    if zero == "sum of E0" and run.e0_is_isolated:
        return "Energy relative to isolated atoms (E0)"
    return f"Energy minus {zero}"


def parity_axis(key: str, run: Run) -> str:
    """What an axis of a parity plot shows, with its unit."""
    if key == "energy":
        return f"energy minus {energy_zero(run)[0]} (eV/atom)"
    name = in_words(run, key)
    what = name if name != key else f"{key} component"
    return PARITY_AXES.get(key, f"{what} ({units(run)[key][1]})")


def layers(sets: dict[str, Pairs]) -> dict[str, int]:
    """Set -> layer: the larger its errors the further back, or it would hide the others."""
    return {name: layer for layer, name in enumerate(sorted(sets, key=lambda name: -rmse(sets[name].error)))}


def log_ticks(values: Sequence[float]) -> list[float]:
    """Round numbers that cover positive values on a logarithmic axis: at most about six of them."""
    low, high = np.log10(min(values)), np.log10(max(values))
    if high - low < 1e-9:
        return [float(min(values))]
    if high - low < 0.5:
        return [float(tick) for tick in MaxNLocator(4).tick_values(min(values), max(values)) if tick > 0]
    powers = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [digit * 10.0**power for power in powers for digit in digits]
        inside = [tick for tick in ticks if low - 0.2 <= np.log10(tick) <= high + 0.2]
        if len(inside) <= 6:
            break
    return inside


def span(sets: dict[str, Pairs]) -> tuple[float, float]:
    """One range for both axes of a parity plot, with a margin, never empty."""
    values = np.concatenate([part for pair in sets.values() for part in (pair.reference, pair.predicted)])
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 0.04 * abs(high) or 1.0
    return low - margin, high + margin


def sample(n: int, limit: int) -> Integers:
    """Which of n points are drawn: all, or a choice of `limit` that is the same every time."""
    if n <= limit:
        return np.arange(n)
    return np.sort(np.random.default_rng(SEED).choice(n, limit, replace=False))


def plain(name: str) -> str:
    """A set's name as matplotlib shall print it: no mathematics, and never hidden by an underscore."""
    return name.replace("$", r"\$") if not name.startswith("_") else " " + name.replace("$", r"\$")


def empty_panel(figure: Figure, text: str) -> None:
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color=INK, fontsize=12)


def style(axes: Axes) -> None:
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def draw_learning_curve(run: Run) -> Figure:
    """Errors on training and validation frames against the step, and the learning rate."""
    curves = {
        key: {name: series(run.metrics, f"{name}_{key}_rmse") for name in ("train", "valid")}
        for key in units(run)
    }
    panels = [key for key in curves if any(steps for steps, _ in curves[key].values())]
    rate = series(run.metrics, "lr")
    n_panels = len(panels) + bool(rate[0])
    figure = Figure(figsize=(4.2 * max(n_panels, 1), 3.6), dpi=150, layout="constrained")
    if not n_panels:
        empty_panel(figure, "no validations were recorded")
        return figure
    all_axes = figure.subplots(1, n_panels, squeeze=False)[0]
    colors = set_colors(run.names)
    for axes, key in zip(all_axes, panels, strict=False):
        for name, (steps, values) in curves[key].items():
            draw_curve(axes, (steps, values), name, colors[name])
        axes.set_title(units(run)[key][0], loc="left", fontsize=11, color=INK)
        axes.set_ylabel(f"RMSE ({units(run)[key][2]})")
        set_log_axes(axes, list(curves[key].values()))
        if axes.lines:
            axes.legend(frameon=False, fontsize=9)
        style(axes)
    if rate[0]:
        draw_curve(all_axes[-1], rate, "learning rate", INK)
        all_axes[-1].set_title("Learning rate", loc="left", fontsize=11, color=INK)
        all_axes[-1].set(xlabel="optimizer step", ylabel="learning rate")
        all_axes[-1].set_ylim(bottom=0)
        style(all_axes[-1])
    return figure


def draw_curve(axes: Axes, curve: Curve, name: str, color: str) -> None:
    """One line, for logarithmic axes, with points while there are few of them."""
    kept = [(step, value) for step, value in zip(*curve, strict=True) if step > 0 and value > 0]
    if not kept:
        return
    steps, values = zip(*kept, strict=True)
    marker = "o" if len(kept) <= 40 else ""
    axes.plot(steps, values, color=color, linewidth=1.6, marker=marker, markersize=3, label=plain(name))


def set_log_axes(axes: Axes, curves: Sequence[Curve]) -> None:
    """Logarithmic axes with round numbers at their ticks."""
    points = [point for curve in curves for point in zip(*curve, strict=True) if min(point) > 0]
    axes.set_xlabel("optimizer step")
    if not points:
        return
    axes.set(xscale="log", yscale="log")
    for ax, values in zip((axes.xaxis, axes.yaxis), zip(*points, strict=True), strict=True):
        ticks = log_ticks(values)
        ax.set_major_locator(FixedLocator(ticks))
        ax.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))
        ax.set_minor_formatter(NullFormatter())


def draw_parity(run: Run) -> Figure:
    """Predicted against reference for every quantity that has labels; its RMSE counts all points."""
    pairs = quantity_pairs(run)
    n_rows = max((len(sets) for sets in pairs.values()), default=0)
    below = (
        0.8 + 0.19 * n_rows
    )  # inches for the labels of the axis and the legend, which inside covers points
    width, height = PANEL * max(len(pairs), 1), below + SIDE + 0.4
    figure = Figure(figsize=(width, height), dpi=150)
    if not pairs:
        empty_panel(figure, "no labelled predictions")
        return figure
    colors = set_colors(run.names)
    for column, (key, sets) in enumerate(pairs.items()):
        left = PANEL * column + PANEL - SIDE - 0.2
        axes = figure.add_axes((left / width, below / height, SIDE / width, SIDE / height))
        error_unit, layer = units(run)[key][2], layers(sets)
        low, high = span(sets)
        axes.plot([low, high], [low, high], color=INK, linewidth=0.8, zorder=2)
        for name, pair in sets.items():
            text = f"{plain(name)}: RMSE {1000 * rmse(pair.error):.3g} {error_unit}"
            kept = sample(len(pair.reference), MAX_DOTS)
            x, y = pair.reference[kept], pair.predicted[kept]
            dots = axes.scatter(x, y, s=7, color=colors[name], label=text)
            dots.set(linewidth=0, alpha=0.5, zorder=3 + layer[name])
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        axes.set_title(parity_title(key, run), loc="left", fontsize=11, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel(f"reference {parity_axis(key, run)}", fontsize=9)
        axes.set_ylabel(f"predicted {parity_axis(key, run)}", fontsize=9)
        place = (0.5, -0.55 / SIDE)
        legend = axes.legend(
            frameon=False, fontsize=8, markerscale=2, loc="upper center", bbox_to_anchor=place
        )
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1.0)
        style(axes)
    return figure
