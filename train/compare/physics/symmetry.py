"""Laws that hold exactly: turned, mirrored, moved, renumbered, repeated structures; net force and net torque."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from scipy.stats import ortho_group

from train.compare.remote import forces_of
from train.compare.subject import LARGEST, Subject


def symmetry(calculator: Calculator, subject: Subject) -> dict[str, Any]:
    """Largest deviations over a few test frames: energies in meV/atom, force components in meV/Å, torque in meV."""
    rng = np.random.default_rng(subject.seed)
    worst: dict[str, float] = {}

    def note(name: str, value: float) -> None:
        worst[name] = max(worst.get(name, 0.0), 1000 * float(np.abs(value).max()))

    for atoms in subject.structures:
        energy, forces = forces_of(atoms, calculator)
        n = len(atoms)
        for name, turn in (("rotation", rotation(rng)), ("mirror", -rotation(rng))):
            e, f = forces_of(turned(atoms, turn), calculator)
            note(f"{name}_energy", (e - energy) / n)
            note(f"{name}_forces", f - forces @ turn.T)
        e, f = forces_of(moved(atoms, rng.uniform(-2, 2, 3)), calculator)
        note("translation_energy", (e - energy) / n)
        note("translation_forces", f - forces)
        order = rng.permutation(n)
        e, f = forces_of(atoms[order], calculator)
        note("permutation_energy", (e - energy) / n)
        note("permutation_forces", f - forces[order])
        note("net_force", forces.sum(0))
        if not atoms.pbc.any():
            note("net_torque", np.cross(atoms.positions - atoms.positions.mean(0), forces).sum(0))
        if atoms.pbc[0] and 2 * n <= LARGEST:
            e, _ = forces_of(atoms.repeat((2, 1, 1)), calculator)
            note("repetition_energy", (e - 2 * energy) / (2 * n))
    return {"values": worst, "on": list(subject.names)}


def rotation(rng: np.random.Generator) -> np.ndarray:
    """A random proper rotation (3, 3)."""
    turn: np.ndarray = ortho_group.rvs(3, random_state=rng)
    turn *= np.linalg.det(turn)
    return turn


def turned(atoms: Atoms, turn: np.ndarray) -> Atoms:
    """Positions and cell turned about the origin."""
    one = atoms.copy()
    one.set_cell(atoms.cell.array @ turn.T)
    one.positions = atoms.positions @ turn.T
    return one


def moved(atoms: Atoms, by: np.ndarray) -> Atoms:
    """All atoms moved by a vector (Å), and back into the cell where there is one."""
    one = atoms.copy()
    one.positions += by
    one.wrap()
    return one
