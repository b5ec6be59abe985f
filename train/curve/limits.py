"""What cannot be concluded from a study, in words."""

from __future__ import annotations

from typing import Any

from train.curve.words import at_bound, short

FEW_FRAMES = 50
NEAR = 0.1  # of the reference: matched


def limits(found: dict[str, Any]) -> list[str]:
    """What cannot be concluded."""
    fixed = found["study"]["fixed"]
    largest, pool = max(found["study"]["sizes"]), fixed["pool"]
    lines = [
        "Models were compared with these settings, this budget and this trainer; others may order them otherwise.",
        "Beyond the largest size curves are extrapolated: that errors go on falling like a power law is an assumption; "
        + (
            "beside the forecasts stands how it did on hidden sizes."
            if any(one["hidden"]["of"] for of in found["tests"].values() for one in of.values())
            else "here it was not checked on hidden sizes."
        ),
    ]
    if fixed["protocol"] == "converged" and any(fit.get("ended") == "bound" for fit in found["fits"]):
        lines.append(f"{at_bound(found['fits'])} With more steps (--budget) their errors may be smaller.")
    if fixed["protocol"] != "converged":
        lines.append(
            "Fits of a fixed budget may end before they have learned what there is in their frames: where curves "
            "flatten, it may be the budget that ends, and not the data that do not help. --protocol converged tells."
        )
    if 2 * largest > pool and found["study"]["draws"] > 1:
        lines.append(
            f"Subsets of more than half of the pool ({pool} frames) overlap, and of the whole pool are all the same: "
            "there intervals of errors are not known and models are not compared; those of curves and of forecasts, "
            "which use these sizes too, may be too narrow."
        )
    if found["block"] == 1:
        lines.append("Test frames count as independent; frames of a trajectory are not: give --block.")
    frames = {test: next(iter(of.values()))["frames"] for test, of in found["tests"].items()}
    few = [f"{test} ({n})" for test, n in frames.items() if n < FEW_FRAMES]
    if few:
        lines.append(
            f"Few test frames, or blocks of them: {', '.join(few)}. Their intervals may be too narrow."
        )
    if fixed["match"] == "none" and len(found["study"]["models"]) > 1:
        lines.append(
            "Sizes of the models differ: a difference may be one of capacity. --match makes them equal."
        )
    if unequal := unmatched(found):
        lines.append(f"Not as large as the reference: {', '.join(unequal)}; differences may be of capacity.")
    lines += [f"Of the data: {text}." for text in found["study"]["facts"].get("warnings", ())]
    if "held_out" in fixed["tests"]:
        lines.append("The test frames come from the pool itself: nothing is said about other conditions.")
    if found["failed"]:
        lines.append(
            f"{len(found['failed'])} fits failed and are missing; if bad luck chose them, the rest looks too good."
        )
    return lines


def unmatched(found: dict[str, Any]) -> list[str]:
    """Models that are not as large as the reference although it was asked for, and what they have."""
    fixed = found["study"]["fixed"]
    names = {"parameters": "parameters", "time": "the time of a step"}
    out = []
    for name, model in found["study"]["models"].items():
        reached = model.get("matched")
        if fixed["match"] == "none" or name == fixed["reference"]:
            continue
        if reached and abs(reached - 1) > NEAR:
            out.append(f"{name} ({short(100 * reached)} % in {names[fixed['match']]})")
        elif not reached and fixed["match"] == "parameters" and "parameters" in model:
            out.append(f"{name} ({model['parameters']:,} parameters)")
    return out
