"""The tests of the label doctor: each looks at all frames; its sentences name frame and remedy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from train.data.dataset import Array, Frame
from train.doctor.findings import Finding, numbered, problem, warning
from train.doctor.geometry import is_flat
from train.statistics import fit_e0

SAME = 1e-6  # Å; structures that agree to this are the same
GAPS = "missing labels"
Z_ENERGY, Z_FORCES, Z_STRESS = 20.0, 20.0, 20.0  # robust standard deviations that make an outlier


def missing(frames: Sequence[Frame]) -> list[Finding]:
    """Gaps in energy and forces (problems), and gaps in stress (warnings). An isolated atom needs no forces;
    without full periodicity there is no stress; a label of weight 0 is not used."""
    gaps: list[Finding] = []
    for label in ("energy", "forces", "stress"):
        have = [f for f in frames if getattr(f, label) is not None]
        lack = [f for f in frames if getattr(f, label) is None and not _explained(f, label)]
        if not have or not lack:
            continue
        if label == "forces" and all(f.is_isolated_atom for f in have):
            continue
        example = f"frame {have[0].index}" if have[0].source == lack[0].source else have[0].name
        text = (
            f"{lack[0].name}: no {label} in this and {len(lack) - 1} more of {len(frames)} frames, while "
            f"others (e.g. {example}) have it ({numbered(lack)} lack it); "
        )
        kind = lack[0].config_type
        purpose = f", or say that it is meant with --set weights.{kind}.{label}=0" if kind else ""
        if label == "stress":
            gaps.append(warning(GAPS, f"{text}it is used where it is present", lack))
        else:
            remedy = "complete or remove these frames, or use what there is with --allow-missing"
            gaps.append(problem(GAPS, text + remedy + purpose, lack))
    others = {name: [np.isfinite(f.targets[name]).any() for f in frames] for name in frames[0].targets}
    for label, known in others.items():
        lack = [f for f, has in zip(frames, known, strict=True) if not has]
        if lack and any(known):
            text = f"{lack[0].name}: no {label} in this and {len(lack) - 1} more of {len(frames)} frames"
            gaps.append(warning(GAPS, f"{text} ({numbered(lack)}); it is used where it is present", lack))
    if any(map(any, others.values())):
        return gaps
    if not any(f.energy is not None or f.forces is not None for f in frames):
        text = (
            "no frame has energy or forces: nothing can be fitted; name them with --energy-key, --forces-key"
        )
        gaps.append(problem(GAPS, text))
    return gaps


def _explained(frame: Frame, label: str) -> bool:
    if getattr(frame.weights, label) == 0:
        return True
    if label == "forces":
        return frame.is_isolated_atom
    return label == "stress" and not bool(frame.atoms.pbc.all())


def not_finite(frames: Sequence[Frame]) -> Iterator[Finding]:
    for f in frames:
        labels = {
            "energy": f.energy,
            "forces": f.forces,
            "stress": f.stress,
            "positions": f.atoms.positions,
            "cell": f.atoms.cell.array,
            **{name: value for name, value in f.targets.items() if not np.isnan(value).all()},
        }
        bad = [n for n, v in labels.items() if v is not None and not np.isfinite(v).all()]
        if bad:
            yield problem(
                "not finite",
                f"{f.name}: {' and '.join(bad)} not finite (NaN or infinite); the calculation failed or "
                "the file is damaged: remove this frame",
                [f],
            )


def zero_volume(frames: Sequence[Frame]) -> Iterator[Finding]:
    for f in frames:
        if is_flat(f):
            yield problem(
                "no volume",
                f"{f.name}: pbc is {f.atoms.pbc.tolist()} but the cell {f.atoms.cell.array.tolist()} has no "
                'volume; give the lattice, or set pbc="F F F" for a molecule',
                [f],
            )


def is_finite(value: Array | float | None) -> bool:
    return value is not None and bool(np.isfinite(value).all())


def energy_of(frame: Frame) -> float:
    assert frame.energy is not None  # the callers pass labelled frames only
    return frame.energy


def outliers(frames: Sequence[Frame]) -> list[tuple[float, str, Frame]]:
    """Frames far from the rest, the worst first: energy per atom after E0, largest force and stress."""
    found = []
    rows = [f for f in frames if is_finite(f.energy) and not f.is_isolated_atom]
    if len(rows) > 4:
        e0 = fit_e0(rows, sorted({s for f in rows for s in f.atoms.symbols})).e0
        rest = np.array([(energy_of(f) - sum(e0[s] for s in f.atoms.symbols)) / len(f.atoms) for f in rows])
        for k, z in far(rest, Z_ENERGY, floor=1e-3):
            text = (
                f"energy {rest[k] - np.median(rest):+.3f} eV/atom from the median ({z:.0f} robust deviations)"
            )
            found.append((z / Z_ENERGY, f"{rows[k].name}: {text}", rows[k]))
    rows = [f for f in frames if is_finite(f.forces) and len(f.atoms) > 1]
    if len(rows) > 4:
        largest = np.array([np.linalg.norm(f.forces, axis=1).max() for f in rows])  # type: ignore[arg-type]
        for k, z in far(largest, Z_FORCES, floor=0.1):
            if largest[k] > np.median(largest):
                text = f"largest force {largest[k]:.2f} eV/Å ({z:.0f} robust deviations from the median)"
                found.append((z / Z_FORCES, f"{rows[k].name}: {text}", rows[k]))
    rows = [f for f in frames if is_finite(f.stress)]
    if len(rows) > 4:
        size = np.array([np.abs(f.stress).max() for f in rows])  # type: ignore[arg-type]
        for k, z in far(size, Z_STRESS, floor=0.01):
            text = f"largest stress {size[k]:.4g} eV/Å^3 ({z:.0f} robust deviations from the median)"
            found.append((z / Z_STRESS, f"{rows[k].name}: {text}", rows[k]))
    return sorted(found, key=lambda one: one[:2], reverse=True)


def far(values: Array, limit: float, floor: float) -> list[tuple[int, float]]:
    """Indices more than `limit` robust deviations from the median; `floor` for nearly equal values."""
    distance = np.abs(values - np.median(values))
    z = distance / max(1.4826 * float(np.median(distance)), floor)
    return [(int(k), float(z[k])) for k in np.flatnonzero(z > limit)]


def fingerprint(frame: Frame) -> str:
    """The same for structures with equal atomic numbers, positions, cell and periodicity (to 1e-6 Å)."""
    atoms = frame.atoms
    digest = hashlib.sha256(np.asarray(atoms.numbers, dtype=np.int64).tobytes())
    for values in (atoms.positions, atoms.cell.array):
        values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
        # + 0.0 turns -0.0 into 0.0, which are equal but not in bytes
        digest.update((np.round(values / SAME) + 0.0).tobytes())
    digest.update(np.asarray(atoms.pbc, dtype=np.uint8).tobytes())
    return digest.hexdigest()


def duplicates(frames: Sequence[Frame]) -> tuple[list[tuple[Frame, Frame]], list[tuple[Frame, Frame]]]:
    """Pairs (first, later) of identical structures: with equal labels, and with different ones."""
    seen: dict[str, Frame] = {}
    same: list[tuple[Frame, Frame]] = []
    different: list[tuple[Frame, Frame]] = []
    for f in frames:
        first = seen.setdefault(fingerprint(f), f)
        if first is not f:
            (same if _same_labels(first, f) else different).append((first, f))
    return same, different


def _same_labels(a: Frame, b: Frame) -> bool:
    """Equal within 1 meV/atom and 10 meV/Å, targets within 1 %; a label that one of them lacks does not differ."""
    pairs = (
        (a.energy, b.energy, 1e-3 * len(a.atoms)),
        (a.forces, b.forces, 1e-2),
        (a.stress, b.stress, 1e-3),
        *(
            (x, b.targets[name], 1e-2 * np.abs(x).max())
            for name, x in a.targets.items()
            if _both(x, b.targets[name])
        ),
    )
    return all(
        x is None or y is None or np.allclose(x, y, rtol=0, atol=tolerance, equal_nan=True)
        for x, y, tolerance in pairs
    )


def _both(a: Array, b: Array) -> bool:
    return not (np.isnan(a).all() or np.isnan(b).all())
