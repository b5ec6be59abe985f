"""Does dynamics at constant energy keep it?"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import units
from ase.calculators.calculator import Calculator
from ase.md.verlet import VelocityVerlet

from train.compare.crystal import repeats
from train.compare.subject import Subject

LIGHT = 4.0  # u; with lighter atoms steps are shorter
STEP, SHORT_STEP = 1.0, 0.5  # fs
SETTLING = 0.2  # of the run, in which atoms at rest begin to vibrate; not counted
BLOCKS = 8  # whose means the drift is fitted to: faster oscillations do not count
RUNAWAY = 20.0  # times the temperature at the start: the atoms fly apart


def dynamics(calculator: Calculator, subject: Subject) -> dict[str, Any]:
    """Drift of the total energy in NVE (meV/atom/ps, with its standard error) and RMS about it (meV/atom).

    Begun from the relaxed crystal, repeated, or the test frame nearest to rest, with velocities of twice the
    temperature where potential energy is still to be filled.

    Raises:
        ValueError: the atoms fly apart.
    """
    crystal = subject.relaxed
    atoms = subject.start.copy() if crystal is None else crystal.repeat(repeats(crystal))
    atoms.calc = calculator
    heat(atoms, (2 if crystal is not None else 1) * subject.temperature, np.random.default_rng(subject.seed))
    step = SHORT_STEP if atoms.get_masses().min() < LIGHT else STEP
    run = VelocityVerlet(atoms, timestep=step * units.fs)
    limit = RUNAWAY * max(subject.temperature, 1.0)
    rows = []
    for k in range(subject.steps):
        run.run(1)
        kinetic = atoms.get_kinetic_energy()
        temperature = kinetic / len(atoms) / (1.5 * units.kB)
        if not np.isfinite(temperature) or temperature > limit:
            raise ValueError(f"the atoms fly apart: {temperature:.0f} K after {(k + 1) * step:g} fs of NVE")
        rows.append(
            ((k + 1) * step / 1000, 1000 * (atoms.get_potential_energy() + kinetic) / len(atoms), temperature)
        )
    time, energy, temperatures = np.array(rows).T
    late = time > SETTLING * time[-1]
    drift, error = trend(time[late], energy[late])
    line = np.polyfit(time[late], energy[late], 1)
    fluctuation = float(np.std(energy[late] - np.polyval(line, time[late])))
    values = {"drift": drift, "drift_error": error, "fluctuation": fluctuation}
    values |= {"temperature": float(temperatures.mean()), "time": float(time[-1]), "atoms": float(len(atoms))}
    return {
        "values": values,
        "curve": {"time": time.tolist(), "energy": (energy - energy[0]).tolist()},
        "step": step,
    }


def heat(atoms: Any, temperature: float, rng: np.random.Generator) -> None:
    """Velocities of a temperature (K), the whole at rest."""
    masses = atoms.get_masses()[:, None]
    momenta = np.sqrt(units.kB * temperature * masses) * rng.normal(size=(len(atoms), 3))
    if len(atoms) > 1:
        momenta -= masses * momenta.sum(0) / masses.sum()
    atoms.set_momenta(momenta)


def trend(time: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Slope of the means of blocks, and its standard error."""
    blocks = [
        (t.mean(), v.mean())
        for t, v in zip(np.array_split(time, BLOCKS), np.array_split(values, BLOCKS), strict=True)
    ]
    t, v = np.array(blocks).T
    slope, base = np.polyfit(t, v, 1)
    left = v - (slope * t + base)
    return float(slope), float(np.sqrt((left**2).sum() / (BLOCKS - 2) / ((t - t.mean()) ** 2).sum()))
