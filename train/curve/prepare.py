"""From data files and names of models to a study: pool, subsets, tests, and what each model is and costs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potential import __version__
from train.columns import prints
from train.config import Config
from train.curve import linear
from train.curve.contestants import LINEAR_MODEL, NETWORK, Contestant
from train.curve.ledger import locked
from train.curve.resolve import network_settings
from train.curve.snap import snap_settings
from train.curve.study import Study, extended, read_study, save_study
from train.curve.words import pace
from train.data.dataset import Frame
from train.data.files import expand
from train.data.hdf5 import write_hdf5
from train.leaks import shared
from train.origin import commit, now, sha256
from train.plan import choose_fit, elements
from train.resources import machine
from train.sets import Sets, read_sets
from train.toml import as_sections

HELD_OUT = 0.2  # of the pool, where no test file is given
KEPT = ("valid_fraction", "folds", "fold", "split", "group_key")  # settings of [data] that fits use
FILES = (
    "train",
    "valid",
    "test",
    "isolated_atoms",
    "replay",
    "replay_ratio",
)  # the others say where labels are
Say = Callable[[str], None]
COSTS = {"parameters": "parameters", "time": "step_seconds"}  # what models are matched in -> where it stands
FITTED = {"snap": snap_settings}  # fitters beside the network that have dials -> who resolves them


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    config: Config  # [data] names pool and tests; the rest holds for all models
    directory: Path
    sizes: tuple[str, ...]
    draws: int
    seeds: int
    models: Sequence[Contestant]
    protocol: str
    budget: float
    match: str
    reference: str


def prepare(request: Request, say: Say) -> Study:
    """Make the study, or extend the one that is in the directory.

    Raises:
        ValueError: anything wrong with files, labels, sizes, models or settings.
    """
    directory = request.directory
    if directory.exists() and not (directory / "study.json").is_file() and any(directory.iterdir()):
        there = {path.name for path in directory.iterdir()}
        if ".study.lock" not in there or there - {"data", ".study.lock"}:  # else a start that was killed
            raise ValueError(f"{directory} exists and holds no study; give another --output")
    with locked(directory / ".study.lock"):
        old = read_study(directory) if (directory / "study.json").is_file() else None
        if not old and (directory / "data").is_dir():
            shutil.rmtree(directory / "data")  # perhaps of other files
        sets = read_sets(request.config)
        within = shared({part: sets.frames[part] for part in ("train", "valid")})  # a split that no fit takes
        warnings = [text for text in sets.why if text.startswith("WARNING") and text not in within]
        say("\n".join([sets.labels, *warnings]))
        pool, tests = _pool(sets, request.config), _tests(sets)
        why = []
        if not tests:
            _require_no_groups(request.config)
            pool, tests["held_out"] = _held_out(pool)
            why.append(
                f"no test file was given: {len(tests['held_out'])} frames of the pool, chosen at random, are the test"
            )
        sizes = resolved(request.sizes, len(pool))
        batch_size = old.fixed["settings"]["fit"]["batch_size"] if old else 0
        config = _common(request.config, batch_size, pool[: max(2, int(0.9 * sizes[0]))])
        fixed = _fixed(request, config, list(tests), len(pool))
        asked = {c.name: {"fitter": c.fitter, "asked": dict(c.settings)} for c in request.models}
        facts: dict[str, Any] = {
            "date": now(),
            "machine": machine(),
            "commit": commit(),
            "version": __version__,
            "why": why,
        }
        facts["threads"] = torch.get_num_threads()
        facts["warnings"] = [_without_folders(text, request.config) for text in warnings]
        wanted = Study(directory, sizes, request.draws, request.seeds, asked, fixed, facts)
        study = extended(old, wanted) if old else wanted
        _require_apart(pool, tests)
        _require_elements(wanted, pool, tests)
        _write_data(study, pool, tests, [f for f in sets.isolated if f.energy is not None])
        study = replace(study, models=_models(study, config, pool, say))
        save_study(study)
    return study


def resolved(texts: Sequence[str], n: int) -> tuple[int, ...]:
    """Sizes in order; `all` is the whole pool; none: 25, 50, 100 ... and all.

    >>> resolved(["25", "all", "100"], 400)
    (25, 100, 400)

    Raises:
        ValueError: no number, less than three frames, or more than there are.
    """
    found = set()
    doubled = [str(size) for size in (25 * 2**k for k in range(20)) if size < n]
    for text in texts or [*doubled, "all"]:
        if not (text == "all" or text.isdecimal()):
            raise ValueError(
                f"size {text!r}: expected a number of frames or all, such as --sizes 25,50,100,all"
            )
        size = n if text == "all" else int(text)
        if not 3 <= size <= n:
            raise ValueError(f"size {size}: the pool has {n} frames; give sizes from 3 to {n}")
        found.add(size)
    return tuple(sorted(found))


def _pool(sets: Sets, config: Config) -> list[Frame]:
    """All frames for training and validation, in the order of the files."""
    order = {path: k for k, path in enumerate(expand(config.data.train))}
    both = [
        *sets.frames["train"],
        *(sets.frames["valid"] if sets.frames["valid"] is not sets.frames["train"] else []),
    ]
    return sorted(both, key=lambda frame: (order.get(frame.source, 0), frame.index))


def _tests(sets: Sets) -> dict[str, list[Frame]]:
    safe = {name: re.sub(r"[^\w() +-]", "_", name) for name in sets.frames if name not in ("train", "valid")}
    return {safe[name]: list(sets.frames[name]) for name in safe}


def _without_folders(warning: str, config: Config) -> str:
    """A warning with files by name: a study may be shown to others."""
    for path in expand([*config.data.train, *config.data.test]):
        warning = warning.replace(path, Path(path).name)
    return warning.removeprefix("WARNING: ")


def _require_no_groups(config: Config) -> None:
    data = config.data
    if data.group_key or data.split != "random":
        name = "group_key" if data.group_key else "split"
        raise ValueError(
            f"data.{name} = {getattr(data, name)}, and no test file: a test held out of the pool is chosen frame by "
            "frame, so groups and stretches of trajectories would be in both; give a test file with --test"
        )


def _require_apart(pool: Sequence[Frame], tests: Mapping[str, Sequence[Frame]]) -> None:
    own = dict(zip(prints(pool), pool, strict=True))
    for test, frames in tests.items():
        both = [(own[p], frame) for p, frame in zip(prints(frames), frames, strict=True) if p in own]
        if both:
            raise ValueError(
                f"{len(both)} frames of the test {test} are in the pool too, the first is {both[0][1].name} "
                f"({both[0][0].name}): errors on them say nothing; leave them out of one"
            )


def _require_elements(study: Study, pool: Sequence[Frame], tests: Mapping[str, Sequence[Frame]]) -> None:
    """Every subset has all elements of the tests; those of one draw are nested, so the smallest counts."""
    size = min(study.sizes)
    for draw in range(study.draws):
        known = set(elements([pool[k] for k in subset(len(pool), size, draw)]))
        for test, frames in tests.items():
            if unknown := [name for name in elements(frames) if name not in known]:
                raise ValueError(
                    f"the subset of {size} frames of draw {draw} has no {', '.join(unknown)}, which the test {test} "
                    "has: a model fitted to it cannot predict them; give larger --sizes"
                )


def _held_out(pool: list[Frame]) -> tuple[list[Frame], list[Frame]]:
    n = max(1, round(HELD_OUT * len(pool)))
    if len(pool) < 5:
        raise ValueError(
            f"the pool has {len(pool)} frames, too few to hold some out; give a test file with --test"
        )
    out = set(np.random.default_rng(2026).permutation(len(pool))[:n].tolist())
    return [f for k, f in enumerate(pool) if k not in out], [pool[k] for k in sorted(out)]


def _common(config: Config, batch_size: int, smallest: Sequence[Frame]) -> Config:
    """The configuration with one batch size for all sizes: that of the smallest."""
    fit = config.fit
    if not fit.batch_size and not fit.batch_atoms and not fit.batch_edges:
        chosen = choose_fit(replace(fit, epochs=1), smallest, config.targets)[0].batch_size
        fit = replace(fit, batch_size=batch_size or chosen)
    return replace(config, fit=replace(fit, epochs=0, minutes=0.0))


def _fixed(request: Request, config: Config, tests: list[str], n_pool: int) -> dict[str, Any]:
    data = request.config.data
    sections = as_sections(config)
    own = ("fit", "weights", "e0", "targets")
    settings: dict[str, Any] = {name: sections[name] for name in own if name in sections}
    settings["data"] = {name: sections["data"][name] for name in KEPT}
    fixed: dict[str, Any] = {
        "files": {
            part: [[Path(name).name, sha256(Path(name))] for name in expand(names)]  # in order: it counts
            for part, names in (("pool", data.train), ("test", data.test))
        },
        "labels": {k: v for k, v in sections["data"].items() if k not in (*KEPT, *FILES)},
        "pool": n_pool,
        "tests": tests,
        "protocol": request.protocol,
        "budget": request.budget,
        "match": request.match,
        "reference": request.reference,
        "model": dict(request.config.model),
        "settings": settings,
    }
    return dict(json.loads(json.dumps(fixed)))


def _write_data(
    study: Study, pool: Sequence[Frame], tests: Mapping[str, Sequence[Frame]], isolated: Sequence[Frame]
) -> None:
    """Subsets, tests and isolated atoms as files of frames; those that are there stay."""
    (study.directory / "data").mkdir(parents=True, exist_ok=True)
    for name, path in study.tests.items():
        if not path.is_file():
            write_hdf5(path, tests[name], study.targets)
    if isolated:
        write_hdf5(study.directory / "data" / "isolated_atoms.h5", isolated, study.targets)
    for job in study.jobs:
        path = study.subset(job)
        if not path.is_file():
            write_hdf5(path, [pool[k] for k in subset(len(pool), job.size, job.draw)], study.targets)


def subset(n: int, size: int, draw: int) -> list[int]:
    """Frames of a subset, sorted. Those of one draw are nested: a larger one holds all smaller ones."""
    return sorted(np.random.default_rng([2026, draw]).permutation(n)[:size].tolist())


def _models(study: Study, config: Config, pool: Sequence[Frame], say: Say) -> dict[str, Any]:
    """Each model with its resolved settings and what it costs; what is known of it already stays."""
    reference = str(study.fixed["reference"])
    order = sorted(study.models, key=lambda name: name != reference)  # the reference first
    done: dict[str, Any] = {}
    for name in order:
        entry = dict(study.models[name])
        if "settings" not in entry and entry["fitter"] in (NETWORK, LINEAR_MODEL):
            target = done.get(reference) if name != reference else None
            resolve = network_settings if entry["fitter"] == NETWORK else linear.resolve
            try:
                entry |= resolve(name, entry, study, (config, pool, target))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            reached = entry.get("matched")
            ratio = f", {100 * reached:.1f} % of {reference} in {study.fixed['match']}" if reached else ""
            say(f"{name}: {entry['parameters']:,} parameters, {pace(entry)}{ratio}")
        if "settings" not in entry and entry["fitter"] in FITTED:
            settings, parameters, why = FITTED[entry["fitter"]](entry["asked"], config, pool)
            entry |= {"settings": settings, "parameters": parameters}
            say(f"{name}: {'; '.join(why)}")
        cost = COSTS.get(study.fixed["match"])
        if name == reference and cost and cost not in entry:
            raise ValueError(
                f"--match {study.fixed['match']}: {name}, the reference, has none; give another --reference"
            )
        done[name] = entry
    return {name: done[name] for name in study.models}
