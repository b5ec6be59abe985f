"""An ASE calculator whose work a contestant's process does: every check runs here, the potential runs there."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from potential.analysis.contestants import Contestant, Running, ask, start

DEATHS = 3  # of a contestant's process, after which it is not started again


class Remote(Calculator):  # type: ignore[misc]
    """Energy, forces and, with full periodicity, stress of a contestant; a process that died is started again.

    `options` are for its factory, as far as that names them. `stack` ends the process, and so does an answer that takes
    longer than `limit` (s). `reasons`: why it failed to give a property of the last structure.

    Raises:
        ValueError: the calculator cannot be made; later: it failed, died, or gave what is not finite.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012

    def __init__(
        self,
        contestant: Contestant,
        threads: int,
        options: Mapping[str, Any],
        stack: contextlib.ExitStack,
        limit: float,
    ):
        super().__init__()
        self.contestant, self.n_calls, self.n_deaths = contestant, 0, 0
        self._given: set[str] = set()
        self._refused: set[str] = set()
        self.reasons: dict[str, str] = {}
        self._how = (threads, dict(options), stack, limit)
        self.running: Running | None = start(contestant, *self._how)
        self.facts: dict[str, Any] = self.running.facts

    @property
    def lacks(self) -> set[str]:
        """Properties that it was asked for and never gave."""
        return self._refused - self._given

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Energy, forces and stress in one order, as far as the contestant has them.

        Raises:
            ValueError: it failed, or gave nothing finite, of what is asked for.
        """
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        self.results = {}
        wanted = [
            "energy",
            "forces",
            *(["stress"] if self.atoms.pbc.all() and "stress" not in self.lacks else []),
        ]
        found = self._ask(structure=described(self.atoms), properties=wanted)
        self.reasons = found.pop("reasons")
        for name, value in found.items():
            if name in self.reasons:
                continue
            if value is None:  # ASE says so if it is asked for
                self._refused.add(name)
                continue
            self._given.add(name)
            if not np.isfinite(value).all():
                self.reasons[name] = f"{name} is not finite"
                continue
            self.results[name] = np.array(value) if name != "energy" else value
        if "energy" in self.results:
            self.results["free_energy"] = self.results["energy"]
        for name, reason in self.reasons.items():
            if name in (properties or []) or not self.results:
                raise ValueError(reason)

    def _ask(self, **order: Any) -> dict[str, Any]:
        if self.running is None:
            if self.n_deaths >= DEATHS:
                raise ValueError(f"its process ended {DEATHS} times; it is not asked again")
            self.running = start(self.contestant, *self._how)
        self.n_calls += 1
        try:
            return ask(self.running, do="evaluate", **order)
        except ValueError as error:
            if self.running.process.poll() is not None:
                self.running = None
                self.n_deaths += 1
            raise ValueError(str(error).removeprefix(f"{self.contestant.name}: ")) from error


def described(atoms: Atoms) -> dict[str, Any]:
    """What ase.Atoms takes to build the structure again, as JSON; of its info what is a number or a word."""
    plain = {
        key: value.item() if isinstance(value, np.generic) else value for key, value in atoms.info.items()
    }
    info = {key: value for key, value in plain.items() if type(value) in (int, float, str, bool)}
    return {
        "symbols": atoms.get_chemical_symbols(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
        "pbc": [bool(p) for p in atoms.pbc],
        "info": info,
    }


def forces_of(atoms: Atoms, calculator: Calculator) -> tuple[float, np.ndarray]:
    """Energy (eV) and forces (n, 3) (eV/Å) of a structure, which stays as it is."""
    one = atoms.copy()
    one.calc = calculator
    return float(one.get_potential_energy()), one.get_forces()
