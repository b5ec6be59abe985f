"""What a network of a study is: its settings, from preset and data, made as large as the reference, and their cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from potential.model import Statistics, build
from train.choice import choose_model
from train.config import Config
from train.curve.contestants import NETWORK, Contestant
from train.curve.match import matched
from train.curve.network import measure
from train.curve.study import Study
from train.data.dataset import Frame
from train.plan import elements
from train.target_facts import unmeasured
from train.toml import update


def network_settings(
    name: str, entry: Mapping[str, Any], study: Study, what: tuple[Config, Sequence[Frame], Any]
) -> dict[str, Any]:
    """Its settings, costs, and how near they come to the reference, where models are matched.

    Args:
        what: settings of all models, the pool, and the entry of the reference.

    Raises:
        ValueError: dials that cannot be, or a target that the network cannot give; with the name of the model.
    """
    config, pool, target = what
    own = update(config, Contestant(name, NETWORK, entry["asked"]).sections())
    model, _ = choose_model(own, pool)
    first = study.subset(study.jobs[0])

    def cost(dials: Mapping[str, Any]) -> dict[str, Any]:
        return measure(replace(own, model=dict(dials)), study.run_directory(study.jobs[0]), [first])

    def parameters(dials: Mapping[str, Any]) -> float:
        names = elements(pool)
        own_targets = unmeasured(config.targets, len(names))
        facts = Statistics(names, (0.0,) * len(names), 1.0, 10.0, own_targets)
        potential = build({k: v for k, v in dials.items() if k != "preset"}, facts)
        return float(sum(p.numel() for p in potential.parameters()))

    reached = None
    if target and "parameters" in target and study.fixed["match"] == "parameters":
        model, reached = matched(model, target["parameters"], parameters)
    if target and "step_seconds" in target and study.fixed["match"] == "time":
        model, reached = matched(
            model, target["step_seconds"], lambda dials: float(cost(dials)["step_seconds"])
        )
    settings = {f"model.{k}": v for k, v in model.items()}
    settings |= {k: v for k, v in entry["asked"].items() if not k.startswith("model.")}
    return {"settings": settings, "matched": reached, **cost(model)}
