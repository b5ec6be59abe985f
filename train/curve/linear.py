"""A linear model as a contestant: least squares on the subset of a job. It has no length for a protocol to set."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from potential.checkpoint import load
from potential.model import Potential, Statistics, build
from train.config import Config, Fit
from train.curve.contestants import LINEAR_MODEL, Contestant
from train.curve.match import matched
from train.curve.network import settings
from train.curve.study import Job, Study
from train.data.dataset import Frame
from train.linear.fit import TRAINED, choose, fit_linear
from train.plan import elements
from train.toml import update


def resolve(
    name: str, entry: Mapping[str, Any], study: Study, what: tuple[Config, Sequence[Frame], Any]
) -> dict[str, Any]:
    """Its settings and number of parameters; as many functions as give the parameters of the reference, if asked.

    It has no steps: where models are matched in the time of a step it stays as it is.
    """
    config, pool, target = what
    own = update(config, Contestant(name, LINEAR_MODEL, entry["asked"]).sections())
    model, _ = choose(own, pool)
    names = elements(pool)

    def parameters(dials: Mapping[str, Any]) -> float:
        facts = Statistics(names, (0.0,) * len(names), 1.0, 10.0)
        potential = build({k: v for k, v in dials.items() if k != "preset"}, facts)
        return float(sum(p.numel() for p in potential.parameters()))

    reached = None
    if target and "parameters" in target and study.fixed["match"] == "parameters":
        model, reached = matched(model, target["parameters"], parameters)
    resolved = {f"model.{k}": v for k, v in model.items()}
    resolved |= {k: v for k, v in entry["asked"].items() if not k.startswith("model.")}
    return {"settings": resolved, "matched": reached, "parameters": round(parameters(model))}


def fit(study: Study, job: Job) -> tuple[Potential, dict[str, Any]]:
    """The solution for a job, and facts. One that was killed begins anew."""
    directory = study.run_directory(job)
    shutil.rmtree(directory, ignore_errors=True)
    config = settings(study, job.model)
    data = replace(
        config.data,
        train=(str(study.subset(job)),),
        isolated_atoms=(str(study.isolated),) if study.isolated else (),
        allow_missing=True,  # what is missing has been looked at in the whole pool
    )
    own = Contestant(job.model, LINEAR_MODEL, study.models[job.model]["settings"]).sections().get("fit", {})
    # what others of the study are trained with, it does not have
    others = {name: getattr(Fit, name) for name in TRAINED if name not in own}
    config = replace(config, data=data, fit=replace(config.fit, seed=job.fit_seed, **others))
    summary = fit_linear(config, directory)
    used = summary["resources"]
    facts = {
        "parameters": summary["parameters"],
        "steps": 0,
        "seconds": summary["seconds"],
        "cpu_seconds": summary["seconds"] * used["cpu_share"],
        "ended": "solved",
        "machine": used["machine"],
        "threads": used["threads"],
    }
    return load(directory / "model.safetensors"), facts
