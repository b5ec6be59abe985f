"""The plan of a study: `study.json` and the jobs that follow from it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from train.target import Target

FORMAT = 2
PROTOCOLS = {  # name -> default budget, its unit, what is said of it
    "converged": (20000.0, "steps at most", "until the validation error stops to improve"),
    "equal-steps": (5000.0, "steps", "the same number of optimizer steps at every size"),
    "equal-time": (120.0, "CPU seconds of training", "the same time at every size and for every model"),
    "equal-epochs": (200.0, "epochs", "the same number of passes over the training frames"),
}


@dataclass(frozen=True)
class Job:
    """One fit: a model on a subset of the pool."""

    model: str
    size: int
    draw: int
    seed: int

    @property
    def name(self) -> str:
        """Its name in files."""
        return f"{re.sub(r'[^A-Za-z0-9.=_-]', '_', self.model)}-n{self.size}-d{self.draw}-s{self.seed}"

    @property
    def fit_seed(self) -> int:
        """Seed of weights, validation split and shuffling: another one for each fit of a size, the same for all
        models."""
        return 1000 * self.draw + self.seed


@dataclass(frozen=True)
class Study:
    """All that decides about results. `sizes`, `draws`, `seeds` and `models` may grow later, `fixed` never changes."""

    directory: Path
    sizes: tuple[int, ...]
    draws: int
    seeds: int
    models: Mapping[
        str, Mapping[str, Any]
    ]  # name -> fitter, settings as asked for and as resolved, what was measured
    fixed: Mapping[str, Any]  # files and their checksums, tests, protocol, budget, settings of all
    facts: Mapping[str, Any] = field(
        default_factory=dict
    )  # machine, commit, versions, sentences about the data

    @property
    def jobs(self) -> list[Job]:
        """In the order in which they are done: whole curves first, then more of them."""
        names = [job.name for job in self._jobs()]
        assert len(set(names)) == len(names)
        return self._jobs()

    def _jobs(self) -> list[Job]:
        order = sorted((max(d, s), d, s) for d in range(self.draws) for s in range(self.seeds))
        return [Job(model, n, d, s) for _, d, s in order for n in self.sizes for model in self.models]

    def subset(self, job: Job) -> Path:
        """The frames that a job may use."""
        return self.directory / "data" / f"draw{job.draw}-n{job.size}.h5"

    @property
    def targets(self) -> dict[str, Target]:
        """What is learned beside the energy, resolved."""
        return {name: Target(**one) for name, one in self.fixed["settings"].get("targets", {}).items()}

    @property
    def tests(self) -> dict[str, Path]:
        return {name: self.directory / "data" / f"{name}.h5" for name in self.fixed["tests"]}

    @property
    def isolated(self) -> Path | None:
        """Isolated atoms of the pool, which every fit may use."""
        path = self.directory / "data" / "isolated_atoms.h5"
        return path if path.is_file() else None

    def run_directory(self, job: Job) -> Path:
        return self.directory / "fits" / job.name


def save_study(study: Study) -> None:
    """Write study.json."""
    from train.directory import write_text  # loads torch, which those who only read need not wait for

    content = {k: v for k, v in asdict(study).items() if k != "directory"}
    write_text(study.directory / "study.json", json.dumps({"format": FORMAT, **content}, indent=1))


def read_study(directory: Path) -> Study:
    """The study of a directory.

    Raises:
        ValueError: none is there, or not of this version.
    """
    path = directory / "study.json"
    if not path.is_file():
        raise ValueError(f"{directory} holds no study (no study.json); give the --output of potential-curve")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError("another version wrote it")
        content["sizes"] = tuple(content["sizes"])
        return Study(directory, **content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: no study of this version ({error}); begin a new one in another --output"
        ) from error


def extended(old: Study, new: Study) -> Study:
    """The old study with the sizes, draws, seeds and models of the new one added.

    Raises:
        ValueError: anything else differs.
    """
    for name, value in new.fixed.items():
        if name == "reference" and new.fixed["match"] == "none":
            continue  # nothing is matched to it
        if old.fixed.get(name) != value:
            raise ValueError(
                f"{old.directory} holds a study with other {name} ({old.fixed.get(name)!r}, now {value!r}); a study "
                "may get more sizes, draws, seeds and models, nothing else: give another --output"
            )
    for name in old.models.keys() & new.models.keys():
        for key in ("fitter", "asked"):
            if old.models[name][key] != new.models[name][key]:
                raise ValueError(
                    f"{old.directory} holds a study in which {name} has other {key} ({old.models[name][key]!r}, now "
                    f"{new.models[name][key]!r}); give another --output"
                )
    return Study(
        old.directory,
        tuple(sorted({*old.sizes, *new.sizes})),
        max(old.draws, new.draws),
        max(old.seeds, new.seeds),
        {**new.models, **old.models},  # what was measured of a model stays
        old.fixed,
        old.facts,
    )
