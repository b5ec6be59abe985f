"""The comparison itself: contestants one after another on the test set and the checks, then in turns on the clock."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from potential.analysis.contestants import Contestant
from potential.analysis.speed import Settings, commit, machine, measure
from potential.analysis.systems import System, build_system
from train.compare.checks import CHECKS, function_of
from train.compare.crystal import find_crystal, relaxed, repeats
from train.compare.errors import errors_of, groups_of, pairs_of, ranking_of
from train.compare.frames import Failure, predict_frames
from train.compare.remote import Remote, described
from train.compare.shift import align, doubts
from train.compare.subject import Subject, choose
from train.data.dataset import Frame
from train.origin import command, now, sha256
from train.report.run_directory import PredictedSet

LARGE = 500  # atoms, about; periodic test frames are repeated to this size for the clock
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What is compared, and how."""

    contestants: Sequence[Contestant]
    checks: Sequence[str] = tuple(CHECKS)
    crystal: str = ""
    group_key: str = "config_type"
    align: str = "auto"
    measure: str = "rmse"
    block: int = 1
    dtype: str = "float64"  # of errors and checks
    speed_dtype: str = (
        "float64"  # of the clock: errors and times beside each other are those of one precision
    )
    systems: Sequence[str] = ()  # empty: of the test set; "none": no clock
    rounds: int = 15
    seconds: float = 30.0
    cutoff: float = 5.0
    skin: float = 0.0
    limit: float = 600.0  # s for each answer of a contestant
    steps: int = 400
    temperature: float = 300.0
    seed: int = 0
    known: Mapping[str, float] = field(default_factory=dict)  # values of the checks from elsewhere


@dataclass(frozen=True)
class Answers:
    """What the contestants said."""

    sets: list[PredictedSet]
    failures: dict[str, list[Failure]]
    gaps: dict[str, list[Failure]]  # frames without one property
    checks: dict[str, dict[str, Any]]
    facts: dict[str, dict[str, Any]]
    broken: dict[str, str]  # contestants that could not be made


def compare(
    frames: Sequence[Frame], request: Request, tell: Tell
) -> tuple[dict[str, Any], list[PredictedSet]]:
    """All that the report is made of, as plain numbers and text, and the predictions as they were compared.

    Raises:
        ValueError: no contestant could be made, or none predicted a frame.
    """
    needed = any(CHECKS[name].crystal for name in request.checks)
    crystal, where = (
        find_crystal(request.crystal, frames) if request.crystal or needed else (None, "no check needs one")
    )
    structures, names, start = choose(frames)
    elements = sorted({int(z) for frame in frames for z in frame.atoms.numbers})
    how: dict[str, Any] = {
        "elements": elements,
        "seed": request.seed,
        "steps": request.steps,
        "temperature": request.temperature,
    }
    subject = Subject(structures, names, start, crystal, where, **how)
    tell(f"crystal: {where}")
    answers = ask_all(frames, request, subject, tell)
    if not answers.sets:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in answers.broken.items())
        raise ValueError(f"no contestant could be made: {reasons}")
    sets, shifts = align(answers.sets, request.align)
    kinds = kinds_of(frames, request.group_key)
    usable = [one for one in request.contestants if one.name in answers.facts]
    return {
        "files": {name: sha256(Path(name)) for name in dict.fromkeys(frame.source for frame in frames)},
        "frames": len(frames),
        "atoms": int(sum(len(frame.atoms) for frame in frames)),
        "contestants": {one.name: about(one, answers.facts.get(one.name)) for one in request.contestants},
        "broken": answers.broken,
        "failures": answers.failures,
        "gaps": answers.gaps,
        "shifts": {name: {**vars(shift), "needed": shift.is_needed} for name, shift in shifts.items()},
        "doubtful_zeros": doubts(answers.sets),
        "unshifted": {one.name: errors_of(one, request.block).get("energy") for one in answers.sets}
        if shifts
        else {},
        "errors": {one.name: errors_of(one, request.block) for one in sets},
        "ranking": ranking_of(sets, request.block),
        "groups": {one.name: groups_of(one, kinds, request.block) for one in sets},
        "pairs": pairs_of(sets, request.measure, request.block),
        "checks": answers.checks,
        "crystal": where,
        "speed": speed(frames, usable, request, tell),
        "settings": {key: value for key, value in vars(request).items() if key != "contestants"},
        "date": now(),
        "command": command(),
        "machine": machine(),
        "commit": commit(),
    }, sets


def about(one: Contestant, facts: Mapping[str, Any] | None) -> dict[str, Any]:
    """Who a contestant is."""
    return {"calculator": one.calculator, "python": one.python, "options": dict(one.options), **(facts or {})}


def ask_all(frames: Sequence[Frame], request: Request, subject: Subject, tell: Tell) -> Answers:
    """Every contestant on every frame and in every check. One that fails leaves the others to go on."""
    answers = Answers([], {}, {}, {}, {}, {})
    elements = sorted({int(z) for frame in frames for z in frame.atoms.numbers})
    options = {"dtype": request.dtype, "elements": symbols_of(elements), "cutoff": request.cutoff}
    kinds = typed(frames, request.group_key)
    for one in request.contestants:
        with contextlib.ExitStack() as stack:
            try:
                remote = Remote(one, 1, options, stack, request.limit)
            except ValueError as error:
                answers.broken[one.name] = str(error)
                tell(f"{error}")
                continue
            predicted, failed, answers.gaps[one.name] = predict_frames(remote, frames, kinds)
            answers.facts[one.name] = {k: remote.facts[k] for k in ("dtype", "versions", "about")}
            answers.sets.append(predicted)
            answers.failures[one.name] = failed
            tell(f"{one.name}: {len(frames) - len(failed)} of {len(frames)} frames")
            answers.checks[one.name] = check_all(remote, request, subject, tell)
            answers.facts[one.name] |= {"lacks": sorted(remote.lacks), "calls": remote.n_calls}
    return answers


def check_all(remote: Remote, request: Request, subject: Subject, tell: Tell) -> dict[str, Any]:
    """The results of the checks of one contestant: values, or why there are none."""
    own = with_crystal(remote, subject) if any(CHECKS[name].crystal for name in request.checks) else subject
    results: dict[str, Any] = {}
    for name in request.checks:
        if CHECKS[name].crystal and own.trouble:
            results[name] = {"failed": own.trouble}
        elif CHECKS[name].crystal and own.relaxed is None:
            results[name] = {"skipped": own.crystal_text}
        else:
            results[name] = answer(name, remote, own)
        said = {key: text for key, text in results[name].items() if key in ("failed", "skipped")}
        tell(f"{remote.contestant.name}: {name}" + "".join(f": {key}: {text}" for key, text in said.items()))
    return results


def answer(name: str, remote: Remote, subject: Subject) -> dict[str, Any]:
    """The result of one check; `failed` with the reason where there is none."""
    from ase.calculators.calculator import PropertyNotImplementedError

    try:
        return function_of(name)(remote, subject)
    except PropertyNotImplementedError as error:
        return {"skipped": str(error)}
    except (ValueError, ArithmeticError, np.linalg.LinAlgError, RuntimeError) as error:
        return {"failed": str(error)}


def with_crystal(remote: Remote, subject: Subject) -> Subject:
    """The subject with the crystal as this contestant relaxes it, or with the reason why it cannot."""
    if subject.crystal is None:
        return subject
    try:
        return replace(subject, relaxed=relaxed(subject.crystal, remote))
    except (ValueError, ArithmeticError, RuntimeError, np.linalg.LinAlgError) as error:
        return replace(subject, trouble=str(error))


def typed(frames: Sequence[Frame], key: str) -> list[str]:
    """The kind of every frame: its config_type, or another entry of its info; "" for none."""
    return [str(f.config_type or "" if key == "config_type" else f.atoms.info.get(key, "")) for f in frames]


def kinds_of(frames: Sequence[Frame], key: str) -> dict[str, Any]:
    """What frames are grouped by: kind and file, where there are several."""
    tables = {
        key: [kind or "(none)" for kind in typed(frames, key)],
        "file": [frame.source for frame in frames],
    }
    return {name: np.array(values) for name, values in tables.items() if len(set(values)) > 1}


def symbols_of(numbers: Sequence[int]) -> list[str]:
    from ase.data import chemical_symbols

    return [chemical_symbols[z] for z in numbers]


def speed(
    frames: Sequence[Frame], contestants: Sequence[Contestant], request: Request, tell: Tell
) -> list[Any]:
    """Lines as potential-bench writes them: energy and forces through ASE, in turns, on one thread."""
    if "none" in request.systems:
        return []
    systems = [build_system(name) for name in request.systems] or own_systems(frames)
    settings = Settings(
        systems=systems,
        tasks=("forces",),
        dtypes=(request.speed_dtype,),
        cutoff=request.cutoff,
        skin=request.skin,
        rounds=request.rounds,
        seconds=request.seconds,
        limit=request.limit,
    )
    lines = []
    try:
        for line in measure(contestants, settings):
            lines.append(line)
            said = line["error"] if "error" in line else f"{line['cpu_ms']:.3g} ms"
            tell(f"{line['contestant']}, {line['system']}: {said}")
    except ValueError as error:
        tell(f"speed: {error}")
        lines.append({"error": str(error)})
    return lines


def own_systems(frames: Sequence[Frame]) -> list[System]:
    """The largest test frame, and if it is periodic the same repeated to about 500 atoms."""
    largest = max((frame.atoms for frame in frames), key=len)
    systems = [largest]
    if largest.pbc.all() and 2 * len(largest) <= LARGE:
        systems.append(largest.repeat(repeats(largest, 1e3, LARGE)))
    names = ["largest test frame", "the same, repeated"]
    return [
        System(
            f"{name}, {len(atoms)} atoms", ({key: x for key, x in described(atoms).items() if key != "info"},)
        )
        for name, atoms in zip(names, systems, strict=False)
    ]
