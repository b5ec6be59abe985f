"""Targets that a run adds to the model it starts from, or drops; energies and forces stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from potential.model import Potential, build, configuration
from train.config import Config
from train.data.dataset import Frame
from train.option import suggest
from train.target import Target, order, resolved
from train.target_facts import target_facts


def added(start: Potential, config: Config) -> dict[str, Target]:
    """The targets that are asked for and that the starting model does not predict.

    Raises:
        ValueError: a target that the model predicts is neither asked for, as it is, nor dropped.
    """
    path, drop = config.fit.start, config.fit.drop_targets
    has = {t.name: (t.irreps, t.per) for t in start.statistics.targets}
    asked = resolved(config.targets)
    for name in drop:
        if name not in has or name in asked:
            why = "is asked for as well" if name in asked else f"is none of the model{suggest(name, has)}"
            raise ValueError(
                f"[fit] drop_targets: {name} {why}; the model to start from ({path}) predicts {_told(has)}"
            )
    for name, one in has.items():
        same = name in asked and (asked[name].irreps, asked[name].per) == one
        if not same and name not in drop:
            other = (
                f"asked for as {asked[name].irreps} per {asked[name].per}"
                if name in asked
                else "not asked for"
            )
            raise ValueError(
                f"the model to start from ({path}) predicts {_told(has)} beside the energy, but {name} is {other}; "
                f"give --targets {' '.join(has)}, or say that the new model need not predict it: "
                f"--set fit.drop_targets={name}"
            )
    return {name: target for name, target in asked.items() if name not in has}


def _told(targets: Mapping[str, tuple[str, str]]) -> str:
    return ", ".join(f"{name} ({irreps}, per {per})" for name, (irreps, per) in targets.items()) or "nothing"


def raised(own: dict[str, Any], start: Potential, config: Config) -> tuple[dict[str, Any], list[str]]:
    """The settings of the starting model, its lmax_out raised where targets that are added need it, and why."""
    new = added(start, config)
    why = [f"targets {', '.join(new)}: added to the starting model"] if new else []
    why += [f"targets {', '.join(config.fit.drop_targets)}: dropped"] if config.fit.drop_targets else []
    needed = order(new)
    if needed <= own.get("lmax_out", needed):
        return own, why
    why.append(f"lmax_out {needed} instead of {own['lmax_out']}: for {', '.join(new)}")
    return {**own, "lmax_out": needed}, why


def with_targets(
    potential: Potential, frames: Sequence[Frame], config: Config, isolated: Sequence[Frame] = ()
) -> Potential:
    """The potential with the targets that are asked for: its own heads as they are, new ones with facts of the frames.

    Raises:
        ValueError: a target that no frame has, or for which the network would need other weights.
    """
    new, asked = added(potential, config), resolved(config.targets)
    if not new and not config.fit.drop_targets:
        return potential
    facts = {one.name: one for one in potential.statistics.targets}
    facts |= {one.name: one for one in target_facts(frames, potential.statistics.elements, new, isolated)}
    dials, _ = raised(configuration(potential), potential, config)
    statistics = replace(potential.statistics, targets=tuple(facts[name] for name in asked))
    other = build(dials, statistics, config.fit.seed, potential.dtype)
    weights, old = dict(other.named_parameters()), dict(potential.named_parameters())
    for name, was in carried(potential, other).items():
        if name not in weights or weights[name].shape != old[was].shape:
            before = configuration(potential)["lmax_out"]
            raise ValueError(
                f"{', '.join(new)}: the network of the model to start from ({config.fit.start}, {dials['network']}) "
                f"would need other weights to give more than lmax_out {before}; start from a model that was trained "
                f"with model.lmax_out={dials['lmax_out']}, or train anew"
            )
        with torch.no_grad():
            weights[name].copy_(old[was])
    return other.to(next(potential.parameters()).device)


def carried(start: Potential, potential: Potential) -> dict[str, str]:
    """Names of the weights that a potential has from the one it starts from, and what they are called there."""
    places = {one.name: k for k, one in enumerate(start.statistics.targets)}
    names = {name: name for name, _ in start.named_parameters() if not name.startswith("targets.")}
    for k, facts in enumerate(potential.statistics.targets):
        if facts.name in places:
            head = potential.targets[k]
            names |= {
                f"targets.{k}.{n}": f"targets.{places[facts.name]}.{n}" for n, _ in head.named_parameters()
            }
    return names
