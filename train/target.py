"""Targets beside the energy, as settings: what is known of dipole and polarizability; others must be described."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from train.option import option

RESERVED = (
    "energy",
    "energies",
    "free_energy",
    "forces",
    "stress",
    "virial",
    "loss",
    "noise",
    "frames",
    "step",
    "lr",
)


TENSOR, MAGNITUDE = "tensor", "magnitude"  # as in potential.targets, which would load torch
SPECIAL = {TENSOR: [(1, 0), (1, 2)], MAGNITUDE: [(1, 1)]}  # the terms of what is no irreps


@dataclass(frozen=True)
class Target:
    """[targets.<name>]: what the potential predicts beside the energy: dipole, polarizability, or any irreps."""

    key: str = option("", "its name in the files; empty: find it")
    unit: str = option(
        "",
        "unit in the files: e*Ang, e*Bohr or Debye for dipole, Ang^3, Bohr^3 or e^2*Ang^2/eV for polarizability; "
        "empty: as length_unit says; of other targets a name for tables and plots, nothing is converted",
    )
    irreps: str = option(
        "",
        "components of a value, in e3nn's order, such as 0e, 1o, 2x0e+1o; or tensor: symmetric, 3x3, 9 or 6 numbers "
        "(xx yy zz yz xz xy); or magnitude: a vector (1o) of which the files give the length alone, which is then "
        "trained on and measured; empty: 1o for dipole, tensor for polarizability",
    )
    per: str = option(
        "",
        "what has a value: structure (the sum over its atoms), mean (their mean) or atom; empty: structure",
        choices=("", "structure", "mean", "atom"),
    )
    weight: float = option(
        1.0, "of its squared error per atom, in units of its spread in the data", bounds="[0, inf)"
    )
    stage_two_weight: float = option(1.0, "weight of the second stage", bounds="[0, inf)")


KNOWN = {"dipole": Target(irreps="1o"), "polarizability": Target(irreps="tensor")}


def title(name: str, target: Target) -> str:
    """What is compared with labels, in words, as `potential.targets.TargetFacts.title`."""
    return f"{name} {MAGNITUDE}" if target.irreps == MAGNITUDE else name


def weights(targets: Mapping[str, Target], stage: int) -> dict[str, float]:
    """The weight of each target in stage 1 or 2 of a run."""
    return {name: t.weight if stage == 1 else t.stage_two_weight for name, t in targets.items()}


def resolved(targets: Mapping[str, Target]) -> dict[str, Target]:
    """The targets with their irreps, and what has a value.

    Raises:
        ValueError: a name that cannot be one, no irreps where none are known, or irreps that are none.
    """
    found = {}
    for name, target in targets.items():
        if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) or name in RESERVED:
            raise ValueError(
                f"[targets.{name}]: that name cannot be a target; choose another of letters, digits and _, none of "
                f"{', '.join(RESERVED)}, and say where it is in the files with key"
            )
        irreps = target.irreps or KNOWN.get(name, target).irreps
        if not irreps:
            raise ValueError(
                f"[targets.{name}]: nothing is known of {name}; give potential-train its irreps, for example "
                f"--set targets.{name}.irreps=1o (known everywhere are {', '.join(KNOWN)})"
            )
        _check_irreps(name, irreps)
        found[name] = replace(target, irreps=irreps, per=target.per or "structure")
    return found


def order(targets: Mapping[str, Target]) -> int:
    """The highest l of any target."""
    return max((l for t in targets.values() for _, l in terms(t.irreps)), default=0)


def dimension(irreps: str) -> int:
    """Numbers of a label.

    >>> dimension("1o"), dimension("2x0e+2e"), dimension("tensor"), dimension("magnitude")
    (3, 7, 9, 1)
    """
    given = {TENSOR: 9, MAGNITUDE: 1}
    return given[irreps] if irreps in given else sum(mul * (2 * l + 1) for mul, l in terms(irreps))


def terms(irreps: str) -> list[tuple[int, int]]:
    """(multiplicity, l) of each term, in the order of the text; none where it is no irreps. Without e3nn, which is
    heavy."""
    found = [re.fullmatch(r"(?:([1-9]\d*)x)?(\d)[eo]", term.strip()) for term in irreps.split("+")]
    if irreps in SPECIAL:
        return SPECIAL[irreps]
    return [(int(one[1] or 1), int(one[2])) for one in found if one] if all(found) else []


def _check_irreps(name: str, irreps: str) -> None:
    if not terms(irreps):
        raise ValueError(
            f"[targets.{name}] irreps is {irreps!r}; expected irreps as e3nn writes them, such as 0e, 1o or 2x0e+1o, "
            "or tensor or magnitude"
        )
