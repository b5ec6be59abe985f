"""Targets beside the energy put to the question: outliers, missing ones written as zero, and for molecules whether
dipole and polarizability have a size, a sign and a direction that nature allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy.optimize import least_squares

from train.columns import spaced
from train.data.dataset import Array, Frame
from train.data.targets import UNITS
from train.doctor.checks import far
from train.doctor.findings import Finding, numbered, warning
from train.target import MAGNITUDE, TENSOR, Target, terms

CHECK = "targets"
Z = 20.0  # robust deviations that make an outlier
FEW = 10  # frames; fewer judge nothing
SAMPLE = 2000  # frames that the charges are fitted to
ELECTRONEGATIVITY = {"H": 2.20, "B": 2.04, "C": 2.55, "N": 3.04, "O": 3.44, "F": 3.98, "Si": 1.90, "P": 2.19, "S": 2.58,
                     "Cl": 3.16, "Br": 2.96, "I": 2.66}  # fmt: skip
# Å^3 an atom in a molecule, roughly (Miller, JACS 112, 8533 (1990), ahp; boron by its free atom)
POLARIZABILITY = {"H": 0.39, "B": 3.0, "C": 1.3, "N": 1.0, "O": 0.6, "F": 0.3, "Si": 3.0, "P": 1.7, "S": 2.9, "Cl": 2.3,
                  "Br": 3.1, "I": 5.4}  # fmt: skip
CHARGE = 1.6  # e; no atom of a molecule has more on average, where a dipole is made of charges
SAME_SIZE = 2.5  # factor within which polarizabilities are those of their atoms


def odd_targets(frames: Sequence[Frame], targets: Mapping[str, Target]) -> Iterator[Finding]:
    """What is odd about the labels of each target; `targets` are those of the files, resolved."""
    for name, target in targets.items():
        have = [f for f in frames if np.isfinite(f.targets[name]).all() and len(f.atoms) > 1]
        yield from _zeros(name, have)
        molecules = [f for f in have if not f.atoms.pbc.any()]
        if name == "dipole" and target.per == "structure" and target.irreps in ("1o", MAGNITUDE):
            yield from _dipoles(molecules, target.irreps == MAGNITUDE)
        if name == "polarizability" and target.per == "structure" and target.irreps == TENSOR:
            yield from _polarizabilities(have, molecules)


def outliers(frames: Sequence[Frame], targets: Mapping[str, Target]) -> list[tuple[float, str, Frame]]:
    """Frames whose targets are far from the rest: size in units of what makes an outlier, sentence, frame."""
    found = []
    for name, target in targets.items():
        rows = [f for f in frames if np.isfinite(f.targets[name]).all() and not f.is_isolated_atom]
        if len(rows) <= 4:
            continue
        for what, size in _sizes(name, target, rows).items():
            middle = float(np.median(size))
            for k, z in far(size, Z, floor=max(0.05 * middle, 1e-12)):
                if size[k] > middle:
                    text = f"{name}, {what}: {size[k]:.3g} where the median is {middle:.3g} ({z:.0f} robust deviations)"
                    found.append((z / Z, f"{rows[k].name}: {text}", rows[k]))
    return found


def _sizes(name: str, target: Target, rows: Sequence[Frame]) -> dict[str, Array]:
    """(n_frames,) each: what invariants have beyond the elements of a structure, and the length of the rest; per atom,
    or per root of atoms where directions add up."""
    invariant, directed = zip(*(_split(target.irreps, f.targets[name]) for f in rows), strict=True)
    n = (
        np.array([len(f.atoms) for f in rows], dtype=np.float64)
        if target.per == "structure"
        else np.ones(len(rows))
    )
    found = {}
    if invariant[0].size:
        symbols = sorted({s for f in rows for s in f.atoms.symbols})
        of_atoms = [np.array(f.atoms.get_chemical_symbols())[:, None] == symbols for f in rows]
        counts = [x if target.per == "atom" else x.mean(axis=0, keepdims=True) for x in of_atoms]
        values = [x / m for x, m in zip(invariant, n, strict=True)]
        own = np.linalg.lstsq(np.concatenate(counts).astype(np.float64), np.concatenate(values), rcond=None)[
            0
        ]
        found["beyond its elements"] = np.array(
            [np.abs(v - c @ own).max() for v, c in zip(values, counts, strict=True)]
        )
    if directed[0].size:
        lengths = [np.linalg.norm(x, axis=1).max() for x in directed]
        found["length"] = np.array(lengths) / np.sqrt(n)
    return found


def _split(irreps: str, value: Array) -> tuple[Array, Array]:
    """Invariants (rows, n) and all else (rows, n) of a value (rows, dim)."""
    if irreps == MAGNITUDE:
        return value[:, :0], value
    if irreps == TENSOR:
        mean = value[:, [0, 4, 8]].mean(axis=1, keepdims=True)
        return mean, value - mean * np.eye(3).reshape(-1)
    invariant = np.concatenate([[l == 0] * (mul * (2 * l + 1)) for mul, l in terms(irreps)])
    return value[:, invariant], value[:, ~invariant]


def _zeros(name: str, rows: Sequence[Frame]) -> Iterator[Finding]:
    """Exactly zero in every number, although no symmetry makes it vanish; in some frames, or in all molecules."""
    zero = [f for f in rows if not f.targets[name].any() and (f.atoms.pbc.any() or _uneven(f))]
    if zero and len(zero) < len(rows):
        yield warning(
            CHECK,
            f"{zero[0].name}: {name} is exactly zero, although the structure has no symmetry, in {len(zero)} of "
            f"{len(rows)} frames ({numbered(zero)}); a missing label must be absent, not zero: remove the value",
            zero,
        )
    uneven = [f for f in zero if not f.atoms.pbc.any()]
    if uneven and len(zero) == len(rows):
        yield warning(
            CHECK,
            f"{uneven[0].name}: {name} is exactly zero in all {len(rows)} frames, though structures have no symmetry: "
            "nothing to learn; is its key right? A missing label must be absent, not zero: remove it, or the target",
            uneven,
        )


def _uneven(frame: Frame) -> bool:
    """Whether atoms of some kind stand to one side of the others."""
    x = frame.atoms.positions - frame.atoms.positions.mean(axis=0)
    crowd = np.exp(-np.linalg.norm(x[:, None] - x[None], axis=2)).sum(axis=1) * frame.atoms.numbers
    return bool(np.linalg.norm(crowd @ x) > 1e-3 * np.linalg.norm(crowd[:, None] * x))


def _dipoles(rows: Sequence[Frame], only_lengths: bool) -> Iterator[Finding]:
    """Charges of the elements, fitted to the dipoles of molecules: they must be of a size and sign that atoms have, and
    the dipoles must turn with the structures. Of lengths only the size is judged."""
    rows = [rows[k] for k in spaced(len(rows), SAMPLE)]
    symbols = sorted({s for f in rows for s in f.atoms.symbols})
    if len(rows) < FEW or len(symbols) < 2:
        return
    moments = np.array([_moments(f, symbols) for f in rows])  # (n, 3, elements)
    labels = np.array([f.targets["dipole"][0] for f in rows])
    if not labels.any():  # `_zeros` has said so
        return
    lengths, explained = np.linalg.norm(labels, axis=1), 0.0
    if not only_lengths:
        charges = np.linalg.lstsq(moments.reshape(-1, len(symbols)), labels.reshape(-1), rcond=1e-3)[0]
        fitted = moments @ charges
        explained = 1 - np.sum((labels - fitted) ** 2) / np.sum(labels**2)
    if explained < 0.5:
        charges, of_lengths = _by_length(moments, lengths, symbols)
        if of_lengths < 0.4:
            return
        if explained < 0.1 and not only_lengths:
            yield warning(
                CHECK,
                f"{rows[0].name} and the other molecules: charges of the elements describe the lengths of the dipoles "
                f"({100 * of_lengths:.0f} % of their variation), but not their directions; are they in the orientation "
                "of the positions, and of the same frames? Some programs print both in an orientation of their own",
                rows,
            )
    told = ", ".join(f"{s} {q:+.2f}" for s, q in zip(symbols, charges, strict=True))
    if np.abs(charges).max() > CHARGE:
        yield warning(
            CHECK,
            f"{rows[0].name} and the other molecules: their dipoles would take charges of {told} e, more than atoms "
            f"have; is targets.dipole.unit right ({', '.join(UNITS['dipole'])}), and are these neutral?",
            rows,
        )
    if explained > 0.8:
        yield from _signs(rows, labels, fitted, dict(zip(symbols, charges, strict=True)))


def _signs(
    rows: Sequence[Frame], labels: Array, fitted: Array, charges: Mapping[str, float]
) -> Iterator[Finding]:
    """The sign of all, against electronegativities, and of some, against the others."""
    known = sorted((s for s in charges if s in ELECTRONEGATIVITY), key=ELECTRONEGATIVITY.__getitem__)
    if len(known) > 1 and ELECTRONEGATIVITY[known[-1]] - ELECTRONEGATIVITY[known[0]] > 0.8:
        first, last = charges[known[0]], charges[known[-1]]
        if last > 0.1 and last > first:
            yield warning(
                CHECK,
                f"{rows[0].name} and the other molecules: by their dipoles {known[-1]} is positive ({last:+.2f} e) and "
                f"{known[0]} {first:+.2f} e: the sign of the dipoles seems to be reversed; they point from - to +",
                rows,
            )
    against = np.einsum("kx,kx->k", labels, fitted) < -0.8 * np.linalg.norm(fitted, axis=1) ** 2
    large = np.linalg.norm(fitted, axis=1) > 0.5 * np.median(np.linalg.norm(fitted, axis=1))
    odd = [f for f, bad in zip(rows, against & large, strict=True) if bad]
    if odd:
        yield warning(
            CHECK,
            f"{odd[0].name}: the dipole points against those of similar structures, in {len(odd)} of {len(rows)} "
            f"frames ({numbered(odd)}); is its sign reversed?",
            odd,
        )


def _moments(frame: Frame, symbols: Sequence[str]) -> Array:
    """(3, n_elements) Å: sums of the positions of each element, about the middle of the atoms."""
    x = frame.atoms.positions - frame.atoms.positions.mean(axis=0)
    of = np.array(frame.atoms.get_chemical_symbols())[:, None] == np.array(symbols)
    moments: Array = x.T @ of
    return moments


def _by_length(moments: Array, lengths: Array, symbols: Sequence[str]) -> tuple[Array, float]:
    """Charges that give dipoles of these lengths, in whatever direction, and the part of their variation explained."""
    start = np.array([2.4 - ELECTRONEGATIVITY.get(s, 2.4) for s in symbols]) + 0.1
    found = least_squares(lambda q: np.linalg.norm(moments @ q, axis=1) - lengths, start, max_nfev=100)
    left = float(np.sum(found.fun**2) / max(np.sum((lengths - lengths.mean()) ** 2), 1e-12))
    return np.asarray(found.x - found.x.mean(), dtype=np.float64), 1 - left


def _polarizabilities(have: Sequence[Frame], molecules: Sequence[Frame]) -> Iterator[Finding]:
    """Positive in every direction, and of the size that the atoms have."""
    lowest = [np.linalg.eigvalsh(f.targets["polarizability"].reshape(3, 3))[0] for f in have]
    odd = [f for f, low in zip(have, lowest, strict=True) if low < 0]
    if odd:
        yield warning(
            CHECK,
            f"{odd[0].name}: polarizability is negative in a direction, which no ground state is, in {len(odd)} of "
            f"{len(have)} frames ({numbered(odd)}); wrong sign, order of components, or another quantity",
            odd,
        )
    for what, rows, most in (("molecules", molecules, SAME_SIZE), ("cells", _cells(have), np.inf)):
        rows = [f for f in rows if POLARIZABILITY.keys() >= set(f.atoms.symbols)]
        if len(rows) < FEW:
            continue
        expected = np.array([sum(POLARIZABILITY[s] for s in f.atoms.symbols) for f in rows])
        ratio = float(np.median([f.targets["polarizability"][0, [0, 4, 8]].mean() for f in rows] / expected))
        if not 1 / SAME_SIZE < ratio < most:
            yield warning(
                CHECK,
                f"{rows[0].name} and the other {what}: their polarizabilities are {ratio:.3g} times those of their "
                f"atoms (median); is targets.polarizability.unit right ({', '.join(UNITS['polarizability'])})?",
                rows,
            )


def _cells(frames: Sequence[Frame]) -> list[Frame]:
    """Crystals and liquids, in which atoms are at least as polarizable as in molecules."""
    return [f for f in frames if f.atoms.pbc.all()]
