"""Under which key of a file the energy, the forces and the stress are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

LABELS = ("energy", "forces", "stress")
NONE = "none"  # as an explicit key: do not read this label
CALCULATOR = "calculator"
SHOWN = 8  # frames that an error lists
# The label's own name comes first: that is where ASE keeps the results of a calculator.
PLAIN = {
    "energy": (
        "energy",
        "Energy",
        "total_energy",
        "Total_energy",
        "TotEnergy",
        "Etot",
        "etot",
        "E",
        "free_energy",
    ),
    "forces": ("forces", "force", "Forces", "Force", "F"),
    "stress": ("stress", "Stress", "virial", "virials", "Virial", "Virials"),
}
TAGGED = {
    "energy": ("energy", "Energy"),
    "forces": ("forces", "force", "Forces"),
    "stress": ("stress", "virial", "virials"),
}
OTHERS = ("momenta", "velocities", "dipole", "masses", "initial_magmoms", "magmoms", "time", "temperature")
TAGS = ("REF", "ref", "DFT", "dft", "QM", "qm")


def usual_names(label: str) -> list[str]:
    """The names a label goes by, in the order they are tried.

    >>> usual_names("energy")[0], "REF_energy" in usual_names("energy"), "forces_dft" in usual_names("forces")
    ('energy', True, True)
    """
    tagged = [name for tag in TAGS for word in TAGGED[label] for name in (f"{tag}_{word}", f"{word}_{tag}")]
    return [*PLAIN[label], *tagged]


def entries(atoms: Atoms) -> dict[str, Any]:
    """Everything a frame carries besides its structure; results of a calculator win over equal names."""
    arrays = {k: v for k, v in atoms.arrays.items() if k not in ("numbers", "positions")}
    results = atoms.calc.results if atoms.calc is not None else {}
    return {**arrays, **atoms.info, **{k: v for k, v in results.items() if v is not None}}


def choose(
    label: str, key: str | None, frames: Sequence[dict[str, Any]], source: str, optional: bool = False
) -> tuple[str | None, list[str]]:
    """The one entry that holds `label` in this file (None: nowhere), and remarks for the label report.

    Raises:
        ValueError: an explicit key no frame has (unless `optional`), frames that use different keys, a misspelt key.
    """
    if key == NONE:
        return None, [f"{label}: not read, as asked"]
    if key is not None:
        wanted = label if key == CALCULATOR else key
        if not any(wanted in f for f in frames):
            if optional:
                return None, []
            raise ValueError(_unknown_key(label, key, frames, source))
        return wanted, []
    present = {name: [i for i, f in enumerate(frames) if name in f] for name in usual_names(label)}
    present = {name: where for name, where in present.items() if where}
    name: str | None = next(iter(present), None)
    _refuse_mixed(label, name, present, source)
    _refuse_misspelt(label, set(present[name]) if name else set(), frames, source)
    return name, _rivals(label, name, present, frames)


def _unknown_key(label: str, key: str, frames: Sequence[dict[str, Any]], source: str) -> str:
    known = _names(frames)
    near = get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else "choose one of these"
    return f"{source}: no frame has the {label} key '{key}'; the frames hold {_listed(known)}; {hint}"


def _refuse_mixed(label: str, name: str | None, present: dict[str, list[int]], source: str) -> None:
    if name is None:
        return
    have = present[name]
    for other, where in present.items():
        rest = sorted(set(where) - set(have))
        if rest:
            raise ValueError(
                f"{source}, frame {rest[0]}: {label} is under '{other}' in {len(rest)} frames but "
                f"under '{name}' in {len(have)} others (e.g. frame {have[0]}); one file must use one key: "
                f"rename them, or choose with --{label}-key {other}"
            )


def _refuse_misspelt(label: str, have: set[int], frames: Sequence[dict[str, Any]], source: str) -> None:
    """Frames without the label that hold something of almost its name and of its shape."""
    for index, frame in enumerate(frames):
        if index in have:
            continue
        names = [name for name, value in frame.items() if _fits(label, value)]
        near = get_close_matches(label, names, n=1, cutoff=0.75)
        if not near and label != "stress":  # stress may be absent; its name within another is no hint
            near = [name for name in names if label.rstrip("s") in name.lower()][:1]
        if near:
            with_it = [str(k) for k, other in enumerate(frames) if k not in have and near[0] in other]
            listed = f"frames {', '.join(with_it[:SHOWN])}{', ...' * (len(with_it) > SHOWN)}"
            places = f", in {len(with_it)} of {len(frames)} ({listed})" * (len(with_it) < len(frames))
            raise ValueError(
                f"{source}, frame {index}: no {label} under a usual name ({label}, REF_{label}, dft_{label}, "
                f"...); did you mean '{near[0]}'{places}? Rename it, or say --{label}-key {near[0]}; "
                f"--{label}-key {NONE} if it is not a label"
            )


def _fits(label: str, value: Any) -> bool:
    shape: tuple[int, ...] = np.shape(value)
    if np.asarray(value).dtype.kind not in "if":
        return False
    if label == "energy":
        return shape == ()
    if label == "forces":
        return len(shape) == 2 and shape[1] == 3
    return shape in ((3, 3), (9,), (6,))


def _rivals(
    label: str, name: str | None, present: dict[str, list[int]], frames: Sequence[dict[str, Any]]
) -> list[str]:
    """Other usual names that hold other values: which one is meant is for the user to say."""
    remarks = []
    for other, where in present.items():
        if other in (name, "free_energy") or label == "stress":
            continue
        pairs = [(np.asarray(frames[i][name]), np.asarray(frames[i][other])) for i in where]  # type: ignore[index]
        if any(_differ(a, b) for a, b in pairs):
            remarks.append(
                f"{label}: '{name}' is used; '{other}' holds different values in {len(where)} frames "
                f"(--{label}-key {other} to use it)"
            )
    return remarks


def _differ(a: NDArray[Any], b: NDArray[Any]) -> bool:
    if a.shape != b.shape or a.dtype.kind not in "iuf" or b.dtype.kind not in "iuf":
        return True
    return not np.allclose(a, b, atol=1e-6, equal_nan=True)


def unclaimed(
    names: dict[str, str | None], asked: Sequence[str | None], frames: Sequence[dict[str, Any]]
) -> dict[str, tuple[str, ...]]:
    """Entries of every frame that have the shape of an energy or of forces nowhere found; not where none was asked for.

    Single numbers are many things: they are listed only where no frame has forces or energies to train on.
    """
    found = {}
    for label, key in zip(("energy", "forces"), asked, strict=True):
        if names[label] is not None or key == NONE or (label == "energy" and names["forces"] is None):
            continue
        shared = [
            name for name, value in frames[0].items() if name not in OTHERS and all(name in f for f in frames)
            and _fits(label, value) and np.asarray(value).dtype.kind == "f"
        ]  # fmt: skip
        if shared:
            found[label] = tuple(shared)
    return found


def refuse_two_methods(names: dict[str, str | None], frames: Sequence[dict[str, Any]], source: str) -> None:
    """Energy of one method and forces of another, when the file offers a matching pair."""
    energy, forces = names["energy"], names["forces"]
    if energy is None or forces is None or _tag(energy) == _tag(forces):
        return
    known = set(_names(frames))
    for label, other in (("energy", _tag(forces)), ("forces", _tag(energy))):
        match = next((n for n in usual_names(label) if n in known and _tag(n) == other), None)
        if match:
            raise ValueError(
                f"{source}: energy is under '{energy}' and forces under '{forces}', but there is also "
                f"'{match}'; both must come from one method: choose with --energy-key and --forces-key"
            )


def _tag(name: str) -> str:
    """The method in a name: 'ref' for REF_energy, '' for energy."""
    parts = name.lower().split("_")
    return next((tag.lower() for tag in TAGS if tag.lower() in parts), "")


def _names(frames: Iterable[dict[str, Any]]) -> list[str]:
    return sorted({name for frame in frames for name in frame})


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:12])
    return (shown or "nothing but structures") + (", ..." if len(names) > 12 else "")


def refuse_unlabelled(
    names: dict[str, str | None], frames: Sequence[dict[str, Any]], source: str, others: Sequence[str] = ()
) -> None:
    if names["energy"] is None and names["forces"] is None:
        raise ValueError(
            f"{source}: neither energy nor forces found in any of its {len(frames)} frames; "
            f"they hold {_listed(_names(frames))}; expected e.g. energy and forces, or name them with "
            f"--energy-key and --forces-key{''.join(f'; {one}' for one in others)}"
        )
