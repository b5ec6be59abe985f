"""Force error against training time, a panel for each test set: docs/results/accuracy.png.

python -m bench.accuracy.figure
"""

import json
from collections import defaultdict
from statistics import median

from matplotlib.figure import Figure

from bench.provenance import ROOT

RESULTS = ROOT / "docs" / "results"
COLORS = {"potential-train": "#0072b2", "mace-64": "#d55e00", "mace-64-l3": "#8c510a", "mace-stock": "#e69f00",
          "painn-128": "#009e73", "painn-128-fast": "#cc79a7"}  # fmt: skip
TITLES = {
    ("acac", "test_MD_300K"): "acetylacetone, 300 K",
    ("acac", "test_MD_600K"): "acetylacetone, 600 K",
    ("3bpa", "test_300K"): "3BPA, 300 K",
    ("Si", "Si_test"): "silicon (mlearn)",
    ("Mo", "Mo_test"): "molybdenum (mlearn)",
}
PUBLISHED = {  # RMSE, meV/Å, of MACE fully trained: Batatia et al., arXiv:2206.07697
    ("acac", "test_MD_300K"): 5.1,
    ("acac", "test_MD_600K"): 22.4,
    ("3bpa", "test_300K"): 8.8,
}


def main() -> None:
    rows = [json.loads(line) for line in (RESULTS / "accuracy.jsonl").read_text().splitlines()]
    points: dict[tuple[str, str], dict[str, dict[int, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for row in rows:
        for test, errors in row["errors"].items():
            points[row["data"], test][row["contestant"]][round(row["minutes"] * row["threads"])].append(
                errors["forces_rmse"]
            )
    panels = [key for key in TITLES if key in points]
    figure = Figure(figsize=(3.1 * len(panels), 3.4), layout="constrained")
    entries = {}
    for axes, key in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name, color in COLORS.items():
            found = sorted(points[key][name].items())
            if not found:
                continue
            every = [(minutes, value) for minutes, values in found for value in values]
            axes.plot(*zip(*every, strict=True), ".", color=color, alpha=0.5)
            (entries[name],) = axes.plot(
                [m for m, _ in found],
                [median(v) for _, v in found],
                "o-",
                color=color,
                markerfacecolor="white",
            )
        if key in PUBLISHED:
            entries["MACE, published, fully trained"] = axes.axhline(
                PUBLISHED[key], color="#666666", linestyle=":"
            )
        times = sorted({minutes for series in points[key].values() for minutes in series})
        axes.set(xscale="log", yscale="log", title=TITLES[key], xlabel="core minutes of training")
        axes.title.set_fontsize(10)
        axes.set_xticks(times, [f"{minutes}" for minutes in times])
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_formatter("{x:.0f}")
        axes.yaxis.set_minor_formatter("{x:.0f}")
        axes.tick_params(axis="y", which="both", labelsize=7)
        low, high = axes.get_ylim()
        axes.set_ylim(low / 1.2, high * 1.2)
        axes.set_xlim(times[0] / 2, times[-1] * 2)
        axes.grid(True, which="both", color="#e6e6e6", linewidth=0.6)
    figure.axes[0].set_ylabel("force RMSE, meV/Å")
    figure.legend(entries.values(), entries, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(RESULTS / "accuracy.png", dpi=120)
    print(RESULTS / "accuracy.png")


if __name__ == "__main__":
    main()
