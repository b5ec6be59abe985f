"""What a comparison says in words: findings, worries, method, and what cannot be concluded."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Any

from train.compare.checks import CHECKS, worries
from train.compare.errors import COMPARED, EXACT, UNITS
from train.curve.words import short, value

LEVEL = 0.05
FEW_FRAMES = 50
SHOWN = 5  # failed frames in a sentence


def told(error: Sequence[float], unit: str = "") -> str:
    """An error with its interval; below a thousandth of its unit it is rounding."""
    return f"below {EXACT:g} {unit}".rstrip() if error[0] < EXACT else value(error, unit)


def findings(found: dict[str, Any]) -> list[str]:
    """Who has the smallest errors, and how others differ from the first contestant."""
    lines = []
    for quantity in COMPARED:
        if quantity not in found["ranking"]:
            continue
        known = found["ranking"][quantity]["rmse"]
        if not known:
            lines.append(f"{quantity}: nobody is ranked: no frame was predicted by all")
            continue
        best = min(known, key=lambda name: known[name][0])
        shared = common_frames(found, quantity)
        where = f", on {shared}, those that all predicted" if shared else ""
        text = f"{quantity}{where}: {best} has an RMSE of {told(known[best], UNITS[quantity])}"
        rest = [f"{name} {told(one)}" for name, one in known.items() if name != best]
        lines.append(text + (f"; {', '.join(rest)}" if rest else ""))
    first = next(iter(found["errors"]))
    some = [row for row in found["pairs"] if row["one"] == first]
    return [*lines, *(difference(row, found["settings"]["measure"]) for row in some)]


def common_frames(found: dict[str, Any], quantity: str) -> str:
    """`9 of 12 frames` that all predicted; nothing where nobody failed on any."""
    shared = found["ranking"][quantity]["frames"]
    most = max(one[quantity]["frames"] for one in found["errors"].values() if quantity in one)
    return f"{shared} of {found['frames']} frames" if shared < most else ""


def difference(row: dict[str, Any], measure: str) -> str:
    """One pair of contestants as a sentence."""
    names = f"{row['other']} against {row['one']}, {row['quantity']} {measure.upper()}"
    size = (
        row["difference"]
        if row["difference"][0] > 0
        else [-x for x in (row["difference"][k] for k in (0, 2, 1))]
    )
    ratio = f", {value(row['ratio'], relative=True)}" if row["ratio"] else ""
    if isnan(row["p_holm"]):
        what = "one frame" if row["frames"] == 1 else f"{row['frames']} frames in one block"
        return f"{names}: {what}: nothing can be said ({value(row['difference'], UNITS[row['quantity']])}{ratio})"
    if row["p_holm"] >= LEVEL:
        return f"{names}: no difference is shown ({value(row['difference'], UNITS[row['quantity']])}{ratio})"
    way = "larger" if row["difference"][0] > 0 else "smaller"
    return f"{names}: {way} by {value(size, UNITS[row['quantity']])}{ratio}"


def worry_lines(found: dict[str, Any]) -> list[str]:
    """What the checks found, contestant by contestant; what failed for one reason as one."""
    lines = []
    for name, results in found["checks"].items():
        lines += [f"{name}: {text}" for check, result in results.items() for text in worries(check, result)]
        reasons: dict[str, list[str]] = {}
        for check, result in results.items():
            if "failed" in result:
                reasons.setdefault(result["failed"], []).append(CHECKS[check].title)
        lines += [f"{name}: {', '.join(titles)}: failed: {reason}" for reason, titles in reasons.items()]
    return lines


def skipped(found: dict[str, Any]) -> list[str]:
    """Checks that were not made, and why."""
    reasons: dict[str, list[str]] = {}
    for name, results in found["checks"].items():
        for check, result in results.items():
            if "skipped" in result:
                reasons.setdefault(f"{CHECKS[check].title}: {result['skipped']}", []).append(name)
    everyone = set(found["checks"])
    given = {key for of in found["checks"].values() for one in of.values() for key in one.get("values", {})}
    unused = [
        f"--known {key}={x:g} stands beside nothing: no contestant has a value of it"
        for key, x in found["settings"]["known"].items()
        if key not in given
    ]
    return unused + [
        text if set(names) == everyone else f"{text} ({', '.join(names)})" for text, names in reasons.items()
    ]


def failure_lines(found: dict[str, Any]) -> list[str]:
    """Contestants and frames that failed, with the reasons."""
    lines = [f"{name} could not be made: {reason}" for name, reason in found["broken"].items()]
    for name, failures in found["failures"].items():
        reasons: dict[tuple[str, str], list[str]] = {}
        for one in [*failures, *found["gaps"][name]]:
            what = f" to give {one['property']}" if "property" in one else ""
            reasons.setdefault((what, one["reason"]), []).append(str(one["frame"]))
        for (what, reason), frames in reasons.items():
            more = f" and {len(frames) - SHOWN} more" if len(frames) > SHOWN else ""
            lines.append(
                f"{name} failed{what} on {len(frames)} of {found['frames']} frames: frame{'s' * (len(frames) > 1)} "
                f"{', '.join(frames[:SHOWN])}{more}, counted from 0: {reason}"
            )
    return lines


def zero_lines(found: dict[str, Any]) -> list[str]:
    """What was done about the zero of the energies, said openly."""
    if not found["shifts"]:
        lines = ["Energies are compared as they are: nobody's zero was moved."]
        if found["doubtful_zeros"]:
            lines.append(
                f"Whether {', '.join(found['doubtful_zeros'])} has another zero or errors, so few frames with their "
                "compositions cannot tell: a fitted shift would take the error away. More frames can; --align always "
                "shifts anyway."
            )
        return lines
    needed = [name for name, shift in found["shifts"].items() if shift["needed"]]
    why = f"since the zero of {', '.join(needed)} is not that of the labels" if needed else "as asked for"
    lines = [
        "Energies are compared after a shift of each element, fitted to the labels of this test by least squares, of "
        f"all contestants alike, {why}. That flatters: a constant error of an element is no longer seen, and the "
        "shifts were fitted to this very test. Intervals take them as known."
    ]
    for name, shift in found["shifts"].items():
        moves = ", ".join(f"{symbol} {amount:+.4f}" for symbol, amount in shift["per_element"].items())
        lines.append(
            f"{name}: {moves} eV; energy RMSE {1000 * shift['before']:.4g} before, {1000 * shift['after']:.4g} "
            f"meV/atom after: {shift['rank']} shifts fitted to {shift['frames']} frames leave "
            f"{shift['frames'] - shift['rank']} degrees of freedom."
        )
        if shift["rank"] < len(shift["per_element"]):
            lines.append(
                f"{name}: compositions leave the shifts of single elements open; only their sums have a meaning."
            )
    return lines


def method(found: dict[str, Any]) -> list[str]:
    """How it was measured."""
    settings = found["settings"]
    frames = f"{found['frames']} frames, {found['atoms']:,} atoms of {', '.join(found['files'])}"
    return [
        f"Test set: {frames}. Every contestant gets the same frames, one at a time, through ASE.",
        f"Hardware: {found['machine']}; one thread. Each contestant runs in a process of its own, with its own Python "
        "where one was given.",
        f"Precision of errors and checks: {settings['dtype']}, of the clock: {settings['speed_dtype']}, for those "
        "that can be told; others have their own.",
        f"Crystal of the checks: {found['crystal']}. Each contestant relaxes it first, atoms and cell (without stress "
        "atoms and volume, if it is cubic): its numbers hold at its own minimum.",
        f"Random choices have seed {settings['seed']}; dynamics of {settings['steps']} steps begins with "
        f"velocities of {settings['temperature']:g} K, from a crystal at rest with twice that, half of which goes into "
        "its potential energy.",
    ]


def statistics(found: dict[str, Any]) -> list[str]:
    """What intervals are, and what they are not."""
    block = found["settings"]["block"]
    lines = [
        "Intervals are 95 %, for one number at a time: test frames weighted at random (Bayesian bootstrap) with "
        "Student's tails. Differences are paired: the same frames, those that both predicted, with the same weights.",
        "An error of stress is of its 9 components: those off the diagonal count twice, as in its norm.",
        "p-values of differences are corrected for the number of pairs of each quantity (Holm).",
    ]
    if block > 1:
        lines.append(f"{block} neighboring frames were resampled together.")
    if found["frames"] < FEW_FRAMES:
        lines.append(
            f"{found['frames']} frames are few: rare large errors may be missing from the test and from its intervals."
        )
    return lines


def limits(found: dict[str, Any]) -> list[str]:
    """What cannot be concluded."""
    lines = [
        "Errors hold for frames like those of the test, intervals for other samples of such frames. Nothing is said "
        "about other compositions, temperatures or phases.",
        "It is not known here on which frames a contestant was trained: one that knows the test, or frames near it, "
        "looks better than it is.",
        "The labels are taken as the truth: a contestant made for another method (functional, basis, dispersion) "
        "differs from them by that too.",
        "Frames next to each other in a trajectory are alike; without --block, intervals are then too narrow.",
        "Properties are compared with each other, and with what was given by --known; the labels say nothing about "
        "them. Temperature and zero-point motion are in none of them.",
        "Times hold for this machine, one thread, these sizes and precisions; on a GPU or many cores the order may "
        "differ.",
    ]
    missing = sorted(
        {
            f"{name} has no {what}"
            for name, one in found["contestants"].items()
            for what in one.get("lacks", [])
        }
    )
    return [*lines, *(f"{text}: nothing is said about it." for text in missing)]


def notes(found: dict[str, Any], check: str) -> list[str]:
    """What must be known to read the values of a check; what is said of everyone once."""
    said: dict[str, list[str]] = {}
    for name, results in found["checks"].items():
        for text in results.get(check, {}).get("notes", []):
            said.setdefault(text, []).append(name)
    return [f"{', '.join(names)}: {text}" for text, names in said.items()]


def checks_rows(found: dict[str, Any], check: str) -> tuple[list[str], list[list[str]]]:
    """Contestants with values, and a row for each value: label, unit, its numbers, what was given."""
    names = [name for name, results in found["checks"].items() if "values" in results.get(check, {})]
    known = found["settings"]["known"]
    rows = []
    for key, (label, unit) in CHECKS[check].values.items():
        values = [found["checks"][name][check]["values"].get(key) for name in names]
        if any(v is not None for v in values):
            rows.append([label, unit, *(tidy(v) for v in values), tidy(known.get(key))])
    return names, rows


def tidy(x: float | None) -> str:
    """Five digits of what is large, three of what is small; what is rounding only as 0."""
    if x is None:
        return "–"
    return short(x) if abs(x) < 1 else f"{x:.5g}"


def speed_rows(lines: Sequence[dict[str, Any]]) -> list[list[str]]:
    """System, contestant, precision, ms, its quartiles, µs per atom, ratio with quartiles, peak MiB."""
    rows = []
    for line in lines:
        if "contestant" not in line:
            continue
        start = [line["system"], line["contestant"], line["dtype"]]
        if "error" in line:
            rows.append([*start, "failed", "", "", "", ""])
            continue
        low, high = line["cpu_quartiles"]
        ratio = "1"
        if "cpu_ratio" in line:
            ends = " to ".join(short(end) for end in line["cpu_ratio_quartiles"])
            ratio = f"{short(line['cpu_ratio'])} ({ends})"
        time = [
            short(line["cpu_ms"]),
            f"{short(low)} to {short(high)}",
            short(1000 * line["cpu_ms"] / line["atoms"]),
        ]
        rows.append([*start, *time, ratio, short(line["peak_mib"])])
    return rows
