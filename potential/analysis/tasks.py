"""Tasks of potential-bench that any ASE calculator can do, and its answers for potential-compare.

Part of worker.py, which loads it by its path: needs only Python >= 3.9 and ase.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

GAP = 15.0  # Å between molecules evaluated together
DISPLACEMENT = 0.01  # Å; atoms move between calls, as in dynamics, so that no calculator answers from memory
TEMPERATURE = 300.0  # K, at the start of dynamics
TIME_STEP = 1.0  # fs


def structures_of(described: list[dict[str, Any]]) -> list[Any]:
    """ase.Atoms of their description in JSON."""
    from ase import Atoms

    return [Atoms(**one) for one in described]


def together(structures: list[Any]) -> list[Any]:
    """Molecules in one Atoms object, too far apart to meet; periodic structures as they are.

    They stand on a grid in a periodic box: some codes pay dearly for a neighbor list without a cell.
    """
    if len(structures) == 1 or any(atoms.pbc.any() for atoms in structures):
        return structures
    side = math.ceil(len(structures) ** (1 / 3) - 1e-9)
    spacing = max(float(max(atoms.positions.max(0) - atoms.positions.min(0))) for atoms in structures) + GAP
    joined = None
    for k, atoms in enumerate(structures):
        other = atoms.copy()
        corner = [spacing * (k // side**axis % side) for axis in range(3)]
        other.positions += corner - other.positions.min(0)
        joined = other if joined is None else joined + other
    assert joined is not None
    joined.set_cell([side * spacing] * 3)
    joined.pbc = True
    return [joined]


def dynamics(calculator: Any, structures: list[Any]) -> Callable[[], Any]:
    """A step of velocity Verlet in ASE, begun at 300 K."""
    import numpy as np
    from ase import units
    from ase.md.verlet import VelocityVerlet

    runs = []
    for atoms in together(structures):
        atoms.calc = calculator
        spread = np.sqrt(units.kB * TEMPERATURE * atoms.get_masses())[:, None]
        atoms.set_momenta(spread * np.random.default_rng(0).normal(size=(len(atoms), 3)))
        runs.append(VelocityVerlet(atoms, timestep=TIME_STEP * units.fs))

    def call() -> None:
        for run in runs:
            run.run(1)
            if not np.isfinite(run.atoms.get_velocities()).all():
                raise ValueError("the atoms flew apart; give a trained model")

    return call


def forces(calculator: Any, structures: list[Any]) -> Callable[[], Any]:
    """Forces as molecular dynamics asks for them: once, after the atoms have moved a little. The energy is not asked
    for apart: nobody gains who knows it anyway, nobody loses who would compute everything again for it."""
    import numpy as np

    random = np.random.default_rng(0)
    systems = []
    for atoms in together(structures):
        atoms.calc = calculator
        systems.append((atoms, atoms.positions.copy(), DISPLACEMENT * random.normal(size=(len(atoms), 3))))
    sign = 1.0

    def call() -> None:
        nonlocal sign
        sign = -sign
        for atoms, positions, displacement in systems:
            atoms.positions = positions + sign * displacement
            forces = atoms.get_forces()
            if not np.isfinite(forces).all():
                raise ValueError("the forces are not finite")

    return call


def evaluate(calculator: Any, structure: dict[str, Any], properties: list[str]) -> dict[str, Any]:
    """Energy (eV), forces (eV/Å), stress (Voigt, eV/Å^3) of one structure; None for what the calculator lacks.
    The energy is the one whose slope the forces are, where it has two. `reasons`: why a property failed."""
    import numpy as np
    from ase.calculators.calculator import PropertyNotImplementedError

    (atoms,) = structures_of([structure])
    atoms.calc = calculator
    getters = {"energy": [atoms.get_potential_energy], "forces": [atoms.get_forces],
               "stress": [atoms.get_stress]}  # fmt: skip
    if "free_energy" in getattr(calculator, "implemented_properties", ()):
        getters["energy"].insert(0, partial(atoms.get_potential_energy, force_consistent=True))
    found: dict[str, Any] = {}
    errors: dict[str, Exception] = {}
    for name in properties:
        for get in getters[name]:
            try:
                found[name] = np.asarray(get(), dtype=float).tolist()
                break
            except PropertyNotImplementedError:
                found[name] = None
            except Exception as error:
                errors[name] = error
    if errors and all(value is None for value in found.values()):
        raise next(iter(errors.values()))
    reasons = {k: f"{type(e).__name__}: {e}" for k, e in errors.items() if found.get(k) is None}
    return {**found, "reasons": reasons}
