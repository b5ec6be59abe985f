"""A SNAP as LAMMPS keeps it: coefficients in name.snapcoeff, the rest in name.snapparam (pair_style snap)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from potential.linear.snap import Descriptor, Snap

COEFFICIENTS, PARAMETERS = ".snapcoeff", ".snapparam"
HOW = ("chunksize", "parallelthresh", "diagonalstyle")  # say how LAMMPS computes, or are of the past
# Not here: with a density for each element (chemflag) pair_style snap gives forces that are not the gradient of its
# energy, unless the coefficients are alike under exchange of elements.
OFF = ("chemflag", "wselfallflag", "switchinnerflag")
FLOATS = ("rcutfac", "rfac0", "rmin0")
KNOWN = tuple(f.name for f in fields(Descriptor) if f.name not in ("elements", "radii", "weights"))


def pair_of(path: str | Path) -> tuple[Path, Path]:
    """name, name.snapcoeff or name.snapparam -> both files."""
    path = Path(path)
    if path.suffix in (COEFFICIENTS, PARAMETERS):
        path = path.with_suffix("")
    return path.with_name(path.name + COEFFICIENTS), path.with_name(path.name + PARAMETERS)


def read_snap(path: str | Path) -> Snap:
    """A SNAP from its two files; `path` is either, or what their names have in common.

    Raises:
        ValueError: a file that is not there or not what LAMMPS would read, or holds a setting that is not known.
    """
    coefficients, parameters = pair_of(path)
    settings = _read_parameters(parameters)
    blocks = _lines(coefficients)
    try:
        (n_elements, n_each), *rest = blocks
        n = int(n_each)
        if len(rest) != int(n_elements) * (n + 1):
            raise ValueError(
                f"{len(rest)} lines after the first, where {n_elements} x ({n} + 1) are announced"
            )
        heads = [rest[k * (n + 1)] for k in range(int(n_elements))]
        values = [float(x) for k, (x, *_) in enumerate(rest) if k % (n + 1)]
        radii, weights = ([float(head[k]) for head in heads] for k in (1, 2))
    except (ValueError, IndexError) as error:
        raise ValueError(f"{coefficients}: {error}; expected a snapcoeff file of LAMMPS") from error
    try:
        descriptor = Descriptor(
            tuple(head[0] for head in heads),
            tuple(radii),
            tuple(weights),
            **settings,  # type: ignore[arg-type]
        )
        return Snap(descriptor, np.array(values))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{coefficients} with {parameters.name}: {error}") from error


def write_snap(path: str | Path, snap: Snap, comments: Sequence[str] = ()) -> None:
    """Write both files, each completely or not at all; every number reads back as it was.

    `comments`: lines that open the coefficients, such as what they were fitted to.
    """
    d = snap.descriptor
    lines = [*(f"# {line}" for line in comments), "", f"{len(d.elements)} {d.n_components + 1}"]
    of_elements = snap.coefficients.reshape(len(d.elements), -1)
    for element, radius, weight, own in zip(d.elements, d.radii, d.weights, of_elements, strict=True):
        lines += [f"{element} {radius!r} {weight!r}", *(repr(float(x)) for x in own)]
    parameters = [f"{name} {getattr(d, name)!r}" for name in KNOWN]
    for file, text in zip(pair_of(path), (lines, parameters), strict=True):
        partial = file.with_name(f".{file.name}.partial")
        partial.write_text("\n".join([*text, ""]), encoding="utf-8")
        partial.replace(file)


def _lines(path: Path) -> list[list[str]]:
    """Words of each line; comments and empty lines are left out."""
    if not path.is_file():
        raise ValueError(f"{path} is not there; a SNAP is two files, name{COEFFICIENTS} and name{PARAMETERS}")
    rows = (line.split("#")[0].split() for line in path.read_text(encoding="utf-8").splitlines())
    return [words for words in rows if words]


def _read_parameters(path: Path) -> dict[str, float]:
    settings: dict[str, float] = {}
    for words in _lines(path):
        if len(words) != 2 or not (words[0] in (*KNOWN, *HOW) or (words[0] in OFF and words[1] == "0")):
            raise ValueError(
                f"{path}: {' '.join(words)!r}; expected one of {', '.join(KNOWN)} and its value ({', '.join(OFF)} "
                "are known to LAMMPS, not here)"
            )
        try:
            if words[0] in KNOWN:
                settings[words[0]] = float(words[1]) if words[0] in FLOATS else int(words[1])
        except ValueError as error:
            raise ValueError(f"{path}: {' '.join(words)!r}: {error}") from error
    return settings
