"""What the model carries of each target beside the energy: an offset of each element and a scale, measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from potential.model import Potential, Statistics
from potential.targets import MAGNITUDE, TENSOR, TargetFacts, layout, tensor_basis
from train.columns import labelled
from train.config import Config, Fit
from train.data.dataset import Frame
from train.data.labels import LABELS
from train.data.targets import UNITS
from train.target import Target

Array = NDArray[np.float64]
RIDGE = 1e-4  # pull of offsets that the compositions do not determine to their mean
DIRECTED = 1e-3  # in units of the target; what an atom alone has of l > 0 and is no rounding
NOTHING = 1e-12  # of the largest label; a scalar that varies less is the offset alone


def target_facts(
    frames: Sequence[Frame],
    elements: Sequence[str],
    targets: Mapping[str, Target],
    isolated: Sequence[Frame] = (),
) -> tuple[TargetFacts, ...]:
    """Facts of the targets of the training frames; invariants of `isolated` atoms are the offsets of their elements.

    Raises:
        ValueError: a target that no frame has.
    """
    alone = {name: _alone(name, target.irreps, isolated) for name, target in targets.items()}
    return tuple(_facts(name, target, frames, elements, alone[name]) for name, target in targets.items())


def unmeasured(targets: Mapping[str, Target], n_elements: int) -> tuple[TargetFacts, ...]:
    """Facts of (resolved) targets before anything is measured: no offsets, and scales of one."""
    found = []
    for name, one in targets.items():
        own = layout(one.irreps)
        offset = ((0.0,) * own.count("0e"),) * n_elements
        found.append(TargetFacts(name, one.irreps, one.per, one.unit, (1.0,) * len(own), offset))
    return tuple(found)


def _alone(name: str, irreps: str, isolated: Sequence[Frame]) -> dict[str, Array]:
    """Element -> what its isolated atoms have of a target (1, dim), on average."""
    found: dict[str, list[Array]] = {}
    for f in isolated:
        if name in f.targets and np.isfinite(f.targets[name]).all():
            found.setdefault(str(f.atoms.symbols[0]), []).append(_irreps(f.targets[name], irreps))
    return {symbol: np.mean(rows, axis=0) for symbol, rows in found.items()}


def _irreps(value: Array, irreps: str) -> Array:
    """A value (n, dim) in the order of its irreps."""
    return value @ tensor_basis().numpy().T if irreps == TENSOR else value


def _invariant(irreps: str) -> NDArray[np.bool_]:
    """(dim,) whether a number of a label, in the order of its irreps, has no direction, and is no length of one."""
    if irreps == MAGNITUDE:
        return np.zeros(1, dtype=bool)
    found: NDArray[np.bool_] = np.concatenate([[ir.l == 0] * mul * ir.dim for mul, ir in layout(irreps)])
    return found


def with_more(facts: TargetFacts, symbols: Sequence[str], isolated: Sequence[Frame]) -> TargetFacts:
    """The same for more elements, offset by the invariants of their isolated atoms, or the mean of the others."""
    alone, invariant = _alone(facts.name, facts.irreps, isolated), _invariant(facts.irreps)
    wide = facts.with_more(len(symbols))
    rows = [tuple(alone[s][0, invariant].tolist()) if s in alone else wide.offset[-1] for s in symbols]
    return replace(wide, offset=(*facts.offset, *rows))


def told_of_isolated(
    isolated: Sequence[Frame], facts: Statistics, before: Statistics | None = None
) -> list[str]:
    """What becomes of the targets of isolated atoms, in words.

    Args:
        facts: of the potential that trains.
        before: of the one it starts from, which keeps what it gives the elements that it knows.
    """
    said = []
    kept = {one.name for one in before.targets} if before else set()
    for one in facts.targets:
        name, alone = one.name, _alone(one.name, one.irreps, isolated)
        alone = {s: alone[s] for s in sorted(alone) if s in facts.elements}
        known = [s for s in alone if before and name in kept and s in before.elements]
        used, invariant = [s for s in alone if s not in known], _invariant(one.irreps)
        if used and invariant.any():
            said.append(f"{name} of isolated {', '.join(used)}: what the model gives an atom alone")
        if known and invariant.any():
            said.append(
                f"{name} of isolated {', '.join(known)}: not used, the starting model keeps what it gives an atom alone"
            )
        odd = [s for s, value in alone.items() if np.abs(value[:, ~invariant]).max(initial=0.0) > DIRECTED]
        if odd:
            said.append(
                f"WARNING: {name} of isolated {', '.join(odd)} has a direction, which an atom alone has not; the model "
                "gives it none: look at the origin of the calculation, or remove the label"
            )
    return said


def _facts(
    name: str, target: Target, frames: Sequence[Frame], elements: Sequence[str], alone: Mapping[str, Array]
) -> TargetFacts:
    have = [f for f in frames if np.isfinite(f.targets[name]).any()]
    if not have:
        raise ValueError(f"no training frame has the target {name}; give frames with it, or leave it out")
    counts = np.concatenate([_counts(f, elements, target.per) for f in have])
    labels = np.concatenate([f.targets[name] for f in have])
    known = np.isfinite(labels).all(axis=1)
    counts, labels = counts[known], labels[known]
    labels = _irreps(labels, target.irreps)
    n_atoms = counts.sum(axis=1) if target.per == "structure" else np.ones(len(counts))
    fractions = counts / counts.sum(axis=1, keepdims=True)
    offsets, scales, at = [], [], 0
    for mul, ir in layout(target.irreps):
        width = mul * ir.dim
        block = labels[:, at : at + width]
        if ir.l == 0:
            own = {elements.index(s): v[0, at : at + width] for s, v in alone.items() if s in elements}
            offset = _fitted(fractions, block / n_atoms[:, None], own)
            offsets.append(offset)
            block = block - n_atoms[:, None] * (fractions @ offset)
        size = float(np.sqrt(np.mean(block**2 / n_atoms[:, None])))
        size /= np.sqrt(width) if target.irreps == MAGNITUDE else 1.0  # of a component
        scales.append(size if size > NOTHING * np.abs(labels).max() else 1.0)
        at += width
    table = np.concatenate(offsets, axis=1) if offsets else np.zeros((len(elements), 0))
    unit = next(iter(UNITS.get(name, {target.unit: 1.0})))
    rows = tuple(tuple(row) for row in table.tolist())
    return TargetFacts(name, target.irreps, target.per, unit, tuple(scales), rows)


def _counts(frame: Frame, elements: Sequence[str], per: str) -> Array:
    """(1 or n_atoms, n_elements): atoms of each element that a value is of."""
    symbols = np.array(frame.atoms.get_chemical_symbols())
    of_atoms = (symbols[:, None] == np.array(elements)).astype(np.float64)
    found: Array = of_atoms if per == "atom" else of_atoms.sum(axis=0, keepdims=True)
    return found


def _fitted(fractions: Array, values: Array, known: Mapping[int, Array]) -> Array:
    """(n_elements, n): least squares of values (rows, n) by fractions of elements, beside those of `known` columns;
    what these do not determine stays at the mean, as for E0."""
    if known:
        rest = np.setdiff1d(np.arange(fractions.shape[1]), list(known))
        left = values - sum(fractions[:, [k]] * own for k, own in known.items())
        part = fractions[:, rest].sum(axis=1, keepdims=True)
        rows = part[:, 0] > 0
        found = np.zeros((fractions.shape[1], values.shape[1]))
        if len(rest) and rows.any():  # values per atom of the elements that are not known
            found[rest] = _fitted(fractions[rows][:, rest] / part[rows], left[rows] / part[rows], {})
        for k, own in known.items():
            found[k] = own
        return found
    mean = values.mean(axis=0)
    matrix = fractions.T @ fractions / len(fractions) + RIDGE * np.eye(fractions.shape[1])
    right = fractions.T @ (values - mean) / len(fractions)
    offset: Array = mean + np.asarray(np.linalg.solve(matrix, right), dtype=np.float64)
    return offset


def require_energies(start: Potential, config: Config, frames: Sequence[Frame]) -> None:
    """A run that starts from a saved model trains the energies that it predicts, or keeps all that they come from.

    Raises:
        ValueError: energies where the model has none, or none where the model has them.
    """
    energies = labelled(frames).intersection(LABELS)
    if energies and not start.statistics.has_energy:
        raise ValueError(
            f"the model to start from ({config.fit.start}) predicts no energies, but the frames have "
            f"{', '.join(sorted(energies))}; leave them out with --energy-key none, --forces-key none and --stress-key "
            "none, or train anew"
        )
    parts = list(dict.fromkeys(name.split(".")[0] for name in _of_energies(start)))
    if (
        start.statistics.has_energy
        and not energies & weighed(config.fit)
        and _moving(start, config.fit.freeze)
    ):
        raise ValueError(
            f"the model to start from ({config.fit.start}) predicts energies, but no training frame has energy, forces "
            "or stress of a weight above 0: its energies would change unseen; add frames that have them with --replay, "
            "raise --set fit.energy_weight or fit.forces_weight, or keep all that "
            f'energies come from: --set "fit.freeze={parts}"'
        )


def weighed(fit: Fit) -> set[str]:
    """Labels of energies whose weight is above 0 in any stage."""
    stages = ("", "stage_two_")[: 1 + (fit.stage_two > 0)]
    return {label for label in LABELS if any(getattr(fit, f"{stage}{label}_weight") for stage in stages)}


def _of_energies(start: Potential) -> list[str]:
    """Names of the weights that energies depend on."""
    return [n.removeprefix("network.") for n, _ in start.named_parameters() if not n.startswith("targets.")]


def _moving(start: Potential, freeze: Sequence[str]) -> bool:
    words = tuple(f"{prefix.removeprefix('network.').rstrip('.')}." for prefix in freeze)
    return not all(f"{name}.".startswith(words) for name in _of_energies(start))
