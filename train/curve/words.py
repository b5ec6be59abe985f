"""What a study says in words: protocol, budget, hardware, results with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from train.curve.frames import leading
from train.curve.study import PROTOCOLS
from train.report.markup import number

SOLVED = ("linear", "snap")  # fitters
FEW_FREEDOM = 4
ENDLESS = 1e12  # a bound beyond it is none
REACH, BELOW = (
    1000,
    10,
)  # times its data, and parts of its smallest set: what a curve says beyond that is nothing


def value(interval: Sequence[float | None], unit: str = "", relative: bool = False) -> str:
    """`3.1x [2.6, 3.9]`, `12.3 meV/Å [11, 14]`; infinity is spelled out."""
    estimate, low, high = (math.nan if x is None else x for x in interval)
    mark = "x" if relative else f" {unit}" if unit else ""
    if math.isinf(estimate):
        return "never" if math.isinf(low) else f"never [from {short(low)} on]"
    if math.isnan(low):
        return f"{short(estimate)}{mark} [interval not known]"
    return f"{short(estimate)}{mark} [{short(low)}, {'no bound' if high > ENDLESS else short(high)}]"


def short(x: float) -> str:
    """Three digits that matter, whole numbers from 1000 on; a size beyond all reach as such."""
    if abs(x) < 1e-6:
        return "0"
    if abs(x) >= 1e7:
        return f"{x:.0e}"
    return f"{x:,.0f}" if abs(x) >= 1000 else number(float(f"{x:.3g}"))


def method(found: dict[str, Any]) -> list[str]:
    """How the study was made."""
    study, fixed = found["study"], found["study"]["fixed"]
    _, unit, meaning = PROTOCOLS[fixed["protocol"]]
    fits = found["fits"]
    lines = [
        f"{found['done']} of {found['of']} fits: models: {len(study['models'])}, sizes "
        f"{', '.join(map(str, study['sizes']))}, {study['draws']} random subset{'s' * (study['draws'] > 1)} of each "
        f"size (nested) of one pool of {fixed['pool']} frames, seeds on each: {study['seeds']}. A size counts all "
        "frames that a fit may use, those for validation included.",
        f"Protocol {fixed['protocol']}: {meaning}; budget {short(fixed['budget'])} {unit}.",
        *study["facts"]["why"],
        f"Hardware: {study['facts']['machine']}; {threads(fits)} a fit. {batches(study)}".rstrip(),
        capacity(found),
        at_once(found),
    ]
    if fixed["protocol"] == "equal-time":
        lines.append(used(fits))
    if fixed["protocol"] == "converged":
        lines.append(at_bound(fits))
    return [line for line in lines if line]


def batches(study: dict[str, Any]) -> str:
    """What a step takes, of each model where they differ."""
    found: dict[str, list[str]] = {}
    for name, model in study["models"].items():
        if model["fitter"] == "network":
            own = study["fixed"]["settings"]["fit"] | {
                k.removeprefix("fit."): x
                for k, x in model.get("settings", {}).items()
                if k.startswith("fit.")
            }
            units = {"batch_size": "structures", "batch_atoms": "atoms", "batch_edges": "edges"}
            of = " and ".join(f"{own[k]} {unit}" for k, unit in units.items() if own.get(k))
            found.setdefault(of, []).append(name)
    if not found:
        return ""
    each = [of + (f" ({', '.join(names)})" if len(found) > 1 else "") for of, names in found.items()]
    return f"Batches of at most {'; '.join(each)} at every size."


def threads(fits: Sequence[dict[str, Any]]) -> str:
    counts = sorted({fit["threads"] for fit in fits if "threads" in fit}) or [1]
    return f"{' or '.join(map(str, counts))} thread{'s' * (counts != [1])}"


def capacity(found: dict[str, Any]) -> str:
    """Sizes of the models, and how they were made equal."""
    models, fixed = found["study"]["models"], found["study"]["fixed"]
    listed = []
    for name, model in models.items():
        if "parameters" in model:
            reached = f", {100 * model['matched']:.1f} % of the reference" if model.get("matched") else ""
            listed.append(f"{name} {model['parameters']:,} parameters, {pace(model)}{reached}")
    how = {
        "none": "Models as they are, not matched in size",
        "parameters": f"Widths scaled to the parameters of {fixed['reference']}",
        "time": f"Widths scaled to the time of a step of {fixed['reference']}",
    }
    return f"{how[fixed['match']]}: {'; '.join(listed)}." if listed else ""


def pace(model: Mapping[str, Any]) -> str:
    """`12.3 ms a step`, of a model that has steps."""
    if "step_seconds" not in model:
        return "solved, whatever the protocol"
    return f"{1e3 * model['step_seconds']:.3g} ms a step"


def at_bound(fits: Sequence[dict[str, Any]]) -> str:
    """How many converged fits had not converged."""
    ends = [fit["ended"] for fit in fits if fit.get("ended") in ("bound", "converged")]
    told = f"{ends.count('bound')} of {len(ends)} trainings were stopped by the bound before their validation error"
    return f"{told} had settled." if ends else ""


def at_once(found: dict[str, Any]) -> str:
    """What the protocol means for models that are solved, and what they took."""
    fitters = {name: model["fitter"] for name, model in found["study"]["models"].items()}
    seconds = [(fit["cpu_seconds"], fit["size"]) for fit in found["fits"] if fitters[fit["model"]] in SOLVED]
    if not seconds:
        return ""
    names = ", ".join(name for name, fitter in fitters.items() if fitter in SOLVED)
    size = max(n for _, n in seconds)
    most = sorted(x for x, n in seconds if n == size)
    return (
        f"Solved at once by least squares, without steps, epochs or budget for the protocol to set: {names}; CPU "
        f"seconds measured, at {size} frames: {short(most[0])} to {short(most[-1])}."
    )


def used(fits: Sequence[dict[str, Any]]) -> str:
    """What equal time came to."""
    seconds = sorted(fit["cpu_seconds"] for fit in fits if fit.get("ended") == "budget")
    if not seconds:
        return ""
    return (
        "Time was given out as epochs, from the time of a step and of a validation measured beforehand; measured in "
        f"the fits it came to {short(seconds[0])} to {short(seconds[-1])} CPU seconds of training, median "
        f"{short(seconds[len(seconds) // 2])} (of an interrupted fit: all its seconds times the CPU "
        "share of its last session)."
    )


def statistics(found: dict[str, Any]) -> list[str]:
    """How intervals were made, and which there are."""
    one = first(found)
    rows = list(one["models"].values())
    units = {(model["unit"], model["freedom"]) for model in rows}
    lines = [
        "Intervals are 95 % and for one number at a time: hierarchical bootstrap over subsets (the spread between "
        "whole draws, which holds that of their seeds) with Student's tails, and over test frames. Subsets and test "
        "frames are shared by all models, so differences are paired.",
    ]
    for unit, freedom in sorted(units):
        if not unit:
            lines.append("With one fit for a size there are no intervals: give --draws 2 or more.")
        elif unit == "seeds":
            lines.append(
                "All fits of a size share one subset: intervals hold for this subset, not for others."
            )
        elif freedom < FEW_FREEDOM:
            lines.append(
                f"{freedom + 1} draws leave {freedom} degree{'s' * (freedom > 1)} of freedom: more --draws would make "
                "intervals narrower."
            )
    at = sorted({row["size"] for row in one["pairs"] if row["what"] == "errors"})
    if at and found["study"]["draws"] > 1:
        lines.append(
            f"Errors of models are compared at {' or '.join(map(str, at))} frames, the largest size of both whose "
            "draws are different frames for the most part (at most half of the pool), slopes over sizes up to it."
        )
    elif not at and len(rows) > 1:
        lines.append(
            "Errors of models are not compared: they have no common size of at most half of the pool."
        )
    n = sum(not_nan(row["p"]) for row in one["pairs"])
    if n:
        lines.append(
            f"p-values of pairs are corrected for all {n} comparisons of a table (Holm); without correction one in "
            "twenty would be found by chance."
        )
    if any(not model["floor_fitted"] for model in rows):
        lines.append(
            "Curves of fewer than four sizes are pure power laws: a floor cannot be told from so few."
        )
    return lines


def not_nan(x: float | None) -> bool:
    return x is not None and not math.isnan(x)


def first(found: dict[str, Any]) -> dict[str, Any]:
    """The analysis that stands for all: forces, if there are any, of the first test."""
    quantities: dict[str, Any] = next(iter(found["tests"].values()))
    chosen: dict[str, Any] = quantities[leading(quantities)]
    return chosen


def frames_text(found: dict[str, Any], one: dict[str, Any]) -> str:
    """`650 frames`, or in which blocks they were resampled."""
    block = found["block"]
    return f"{one['frames']} frames" if block == 1 else f"{one['frames']} blocks of {block} test frames"


def checks(one: dict[str, Any]) -> str:
    """How forecasts of hidden sizes did."""
    hidden = one["hidden"]
    if not hidden["of"]:
        return "Forecasts are unchecked: hiding the largest sizes needs five sizes or more and several draws."
    inside = f"{hidden['inside']} of {hidden['of']}"
    return f"Forecasts of hidden sizes: {inside} measured errors inside their 95 % interval."


def told_ratios(target: dict[str, Any]) -> list[dict[str, Any]]:
    """Ratios of frames between models whose curves come to the error not too far from what was measured; whether both
    were measured there."""
    rows = {row["model"]: row for row in target["models"]}
    near = {
        name for name, row in rows.items() if row["first"] / BELOW < row["needed"][0] < REACH * row["last"]
    }
    return [
        ratio | {"measured": rows[ratio["one"]]["inside"] and rows[ratio["other"]]["inside"]}
        for ratio in target["ratios"]
        if {ratio["one"], ratio["other"]} <= near
    ]


def surely(interval: Sequence[float | None]) -> float:
    """Its lower end, 0 where it is not known: what is surest comes first."""
    low = interval[1]
    return low if low is not None and not_nan(low) else 0.0


def findings(one: dict[str, Any], unit: str) -> list[str]:
    """Ratios and forecasts as sentences; last, of what nothing can be said."""
    lines, rising = [], []
    for target in one["targets"]:
        goal = f"{short(target['error'])} {unit}"
        told = told_ratios(target)
        best = [ratio for ratio in told if ratio["one"] == told[0]["one"]]  # beside it; a table has all pairs
        for ratio in sorted(best, key=lambda ratio: -surely(ratio["ratio"])):
            note = "" if ratio["measured"] else " (extrapolated)"
            lines.append(
                f"{ratio['other']} needs {value(ratio['ratio'], relative=True)} as many frames as {ratio['one']} "
                f"for {goal}{note}."
            )
        for row in target["models"]:
            if not row["falls"]:
                rising.append(row["model"])
            elif row["needed"][0] > REACH * row["last"]:
                low = row["more"][1]
                least = f" [from {short(low)} more on]" if not_nan(low) and 0 < low < ENDLESS else ""
                lines.append(f"{row['model']} does not come to {goal} within {REACH} times its data{least}.")
            elif row["more"][0]:
                lines.append(f"To reach {goal}, {row['model']} needs {value(row['more'])} more calculations.")
    if rising:
        names = ", ".join(dict.fromkeys(rising))
        lines.append(f"Errors of {names} do not fall with N: nothing can be forecast of them.")
    return lines
