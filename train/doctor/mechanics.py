"""What forces must obey without any model: their sum and, for molecules, their torque vanish."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from train.data.dataset import Array, Frame
from train.doctor.checks import is_finite
from train.doctor.findings import Finding, numbered, warning
from train.doctor.geometry import Integers

PART = 0.05  # of the forces' (torques') norm; grids and loose convergence leave less
NET_FORCE = 0.1  # eV/Å
NET_TORQUE = 0.2  # eV
MOST = 0.5  # of the frames; so many are no mishap of single frames


@dataclass(frozen=True)
class Mechanics:
    """Sums per frame; NaN where there are no forces or, for the torque, where the frame is periodic."""

    net_force: Array  # (n_frames,) eV/Å
    net_torque: Array  # (n_frames,) eV, about the center of the atoms
    largest: Array  # (n_frames,) eV/Å
    rms: Array  # (n_frames,) eV/Å, of the components
    torque_part: Array  # (n_frames,) net torque over the norm of the torques of the atoms
    force_part: Array  # (n_frames,) net force over the norm of the forces


def balance(frames: Sequence[Frame]) -> Mechanics:
    """Net force, net torque and size of the forces of every frame."""
    n = len(frames)
    rows = [
        k
        for k, f in enumerate(frames)
        if is_finite(f.forces) and is_finite(f.atoms.positions) and len(f.atoms) > 1
    ]
    out = {name: np.full(n, np.nan) for name in Mechanics.__dataclass_fields__}
    if not rows:
        return Mechanics(**out)
    sizes = np.array([len(frames[k].atoms) for k in rows])
    first = np.cumsum(sizes) - sizes
    forces = np.concatenate([frames[k].forces for k in rows])
    x = np.concatenate([frames[k].atoms.positions for k in rows])
    x = x - np.repeat(np.add.reduceat(x, first) / sizes[:, None], sizes, axis=0)
    torques = np.cross(x, forces)
    squared = np.square(forces).sum(axis=1)
    norm = np.sqrt(np.add.reduceat(squared, first))
    out["net_force"][rows] = np.linalg.norm(np.add.reduceat(forces, first), axis=1)
    out["largest"][rows] = np.sqrt(np.maximum.reduceat(squared, first))
    out["rms"][rows] = norm / np.sqrt(3 * sizes)
    out["force_part"][rows] = out["net_force"][rows] / np.maximum(norm, 1e-12)
    net = np.linalg.norm(np.add.reduceat(torques, first), axis=1)
    part = net / np.maximum(np.sqrt(np.add.reduceat(np.square(torques).sum(axis=1), first)), 1e-12)
    free = ~np.array([bool(frames[k].atoms.pbc.any()) for k in rows])
    where = np.array(rows)[free]
    out["net_torque"][where], out["torque_part"][where] = net[free], part[free]
    return Mechanics(**out)


def unbalanced(frames: Sequence[Frame], found: Mechanics) -> Iterator[Finding]:
    """Frames with a net force or torque, which no isolated system has."""
    pushed = np.flatnonzero((found.net_force > NET_FORCE) & (found.force_part > PART))
    turned = np.flatnonzero((found.net_torque > NET_TORQUE) & (found.torque_part > PART))
    turned = np.setdiff1d(turned, pushed)  # a net force makes a torque as well
    if len(pushed):
        yield _told(frames, pushed, "net force", (found.net_force, found.force_part), "eV/Å")
    if len(turned):
        yield _told(frames, turned, "net torque", (found.net_torque, found.torque_part), "eV")


def _told(
    frames: Sequence[Frame], rows: Integers, what: str, sizes: tuple[Array, Array], unit: str
) -> Finding:
    size, part = sizes
    worst = int(rows[np.argmax(part[rows])])
    chosen = [frames[int(k)] for k in rows]
    n_known = int(np.isfinite(size).sum())
    why = (
        "forces and positions may be in different orientations, atoms may be held fixed or an outer field may act"
        if len(rows) > MOST * n_known
        else "the forces may belong to another frame or order of atoms; check or remove these frames"
    )
    return warning(
        what,
        f"{frames[worst].name}: the {what} is {size[worst]:.3g} {unit}, {100 * part[worst]:.0f} % of the size of "
        f"all, where it must vanish; so in {len(rows)} of {n_known} frames ({numbered(chosen)}): {why}",
        chosen,
    )
