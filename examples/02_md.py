"""Molecular dynamics of acetylacetone: is energy conserved, is the temperature kept, where is the proton?

    python examples/02_md.py
    python examples/02_md.py --model my.safetensors --output runs/md --picoseconds 20

Relaxes the molecule, runs Langevin dynamics (NVT) to bring it to the temperature, draws new velocities without
net momentum and rotation, and runs velocity Verlet (NVE). Leaves md.json (the numbers), energy.png,
temperature.png, proton.png, and both trajectories as extended XYZ. Exit code 1 if the molecule broke.
"""

import argparse
import datetime
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.data import covalent_radii
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.velocitydistribution import Stationary, ZeroRotation
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.sparse.csgraph import connected_components

from potential import EquivCalculator

ROOT = Path(__file__).resolve().parents[1]
RECORD = 2.0  # fs between two records
KEEP = 10.0  # fs between two frames of a trajectory file
BROKEN = 1.5  # a bond is broken beyond this many sums of covalent radii
BLUE, ORANGE, INK, GRID = "#0072b2", "#d55e00", "#1f2933", "#e4e7eb"


@dataclass(frozen=True)
class Record:
    """What was noted along one run, at regular times."""

    time: np.ndarray  # (n,) ps
    potential: np.ndarray  # (n,) eV
    kinetic: np.ndarray  # (n,) eV
    positions: np.ndarray  # (n, n_atoms, 3) Å
    freedoms: int  # degrees of freedom that share the kinetic energy

    @property
    def temperature(self) -> np.ndarray:
        """(n,) K."""
        return 2 * self.kinetic / (self.freedoms * units.kB)

    @property
    def energy(self) -> np.ndarray:
        """Total energy (n,) in meV/atom, from its first value."""
        total = self.potential + self.kinetic
        return 1e3 * (total - total[0]) / self.positions.shape[1]


def draw_velocities(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Maxwell and Boltzmann's distribution at `temperature` (K)."""
    width = np.sqrt(units.kB * temperature / atoms.get_masses())
    atoms.set_velocities(rng.standard_normal((len(atoms), 3)) * width[:, None])


def follow(dynamics: MolecularDynamics, n_steps: int, freedoms: int) -> Record:
    """Run and record."""
    atoms, rows = dynamics.atoms, []

    def note() -> None:
        now = dynamics.get_time() / (1e3 * units.fs)
        rows.append((now, atoms.get_potential_energy(), atoms.get_kinetic_energy(), atoms.get_positions()))

    dynamics.attach(note, interval=max(1, round(RECORD * units.fs / dynamics.dt)))
    dynamics.run(n_steps)
    time, potential, kinetic, positions = (np.array(column) for column in zip(*rows, strict=True))
    return Record(time, potential, kinetic, positions, freedoms)


def drift(run: Record) -> tuple[float, float]:
    """Slope of the total energy in meV/atom/ps, and the RMS deviation from that line in meV/atom."""
    slope, start = np.polyfit(run.time, run.energy, 1)
    return float(slope), float(np.sqrt(np.mean((run.energy - start - slope * run.time) ** 2)))


def integrity(start: Atoms, runs: list[Record]) -> tuple[float, bool]:
    """The longest that any bond of the start became, in sums of covalent radii, and: always one molecule?

    A proton may pass from one oxygen to another: its distance is that to the nearest oxygen.
    """
    radii = covalent_radii[start.numbers]
    normal = radii[:, None] + radii[None, :]
    bonded = np.triu(start.get_all_distances() < 1.25 * normal, 1)
    oxygens = np.flatnonzero(start.symbols == "O")
    longest, whole = 0.0, True
    for positions in np.concatenate([run.positions for run in runs]):
        ratio = np.linalg.norm(positions[:, None] - positions[None, :], axis=-1) / normal
        for i, j in np.argwhere(bonded):
            a, b = (i, j) if start.numbers[i] == 1 else (j, i)
            shared = start.numbers[a] == 1 and start.numbers[b] == 8
            longest = max(longest, float(ratio[a, oxygens].min() if shared else ratio[i, j]))
        whole = whole and connected_components(ratio < BROKEN)[0] == 1
    return longest, whole


def proton(start: Atoms, runs: list[Record]) -> tuple[np.ndarray, np.ndarray]:
    """Along all runs: d(O1-H) - d(O2-H) of the enol proton, zero halfway, and d(O1-O2); (n,) Å."""
    distances = start.get_all_distances()
    o1, o2 = np.flatnonzero(start.symbols == "O")[:2]
    hydrogens = np.flatnonzero(start.symbols == "H")
    h = hydrogens[np.minimum(distances[hydrogens, o1], distances[hydrogens, o2]).argmin()]
    r = np.concatenate([run.positions for run in runs])
    to_1, to_2, apart = (np.linalg.norm(r[:, a] - r[:, b], axis=1) for a, b in ((o1, h), (o2, h), (o1, o2)))
    return to_1 - to_2, apart


def style(axes: Axes, x: str, y: str) -> None:
    axes.set(xlabel=x, ylabel=y)
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """Completely or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, format="png")
    partial.replace(path)


def draw_energy(nve: Record) -> Figure:
    """Total energy on the scale of its fluctuation, and beside the exchange of kinetic and potential energy."""
    figure = Figure(figsize=(9, 3.6), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    slope, rms = drift(nve)
    left.plot(nve.time, nve.energy, color=BLUE, linewidth=0.6)
    left.plot(nve.time, np.polyval(np.polyfit(nve.time, nve.energy, 1), nve.time), color=INK, linewidth=1.4)
    left.set_title("Total energy and its linear fit", fontsize=10, loc="left")
    text = f"drift {slope:+.4f} meV/atom/ps\nRMS {rms:.3f} meV/atom about the line"
    left.text(0.02, 0.98, text, transform=left.transAxes, va="top", fontsize=9)
    low, high = nve.energy.min(), nve.energy.max()
    left.set_ylim(low - 0.05 * (high - low), high + 0.3 * (high - low))
    style(left, "time (ps)", "energy change (meV/atom)")
    n_atoms, shown = nve.positions.shape[1], nve.time <= nve.time[0] + 0.5
    for name, values, color in (
        ("potential", nve.potential - nve.potential.min(), ORANGE),
        ("kinetic", nve.kinetic, BLUE),
        ("total", nve.potential - nve.potential.min() + nve.kinetic, INK),
    ):
        right.plot(nve.time[shown], 1e3 * values[shown] / n_atoms, color=color, linewidth=1.2, label=name)
    right.set_title("What it is made of, first 0.5 ps", fontsize=10, loc="left")
    right.set_ylim(0, 1e3 * 1.25 * (nve.potential - nve.potential.min() + nve.kinetic).max() / n_atoms)
    right.legend(frameon=False, fontsize=9, ncols=3, loc="upper left")
    style(right, "time (ps)", "energy (meV/atom)")
    return figure


def draw_temperature(nvt: Record, nve: Record, wanted: float) -> Figure:
    figure = Figure(figsize=(9, 3.6), dpi=150, layout="constrained")
    axes_of_both = figure.subplots(1, 2, sharey=True)
    for axes, run, name, color in zip(
        axes_of_both, (nvt, nve), ("Langevin (NVT)", "velocity Verlet (NVE)"), (ORANGE, BLUE), strict=True
    ):
        mean = np.cumsum(run.temperature) / np.arange(1, len(run.time) + 1)
        axes.plot(run.time, run.temperature, color=color, linewidth=0.5, alpha=0.55, label="now")
        axes.plot(run.time, mean, color=color, linewidth=2.0, label="mean so far")
        axes.axhline(wanted, color=INK, linewidth=1.0, linestyle="--", label=f"{wanted:g} K")
        axes.set_title(name, fontsize=10, loc="left")
        axes.legend(frameon=False, fontsize=9, ncols=3, loc="upper right")
        style(axes, "time (ps)", "temperature (K)" if run is nvt else "")
    axes_of_both[0].set_ylim(0, 1.2 * max(nvt.temperature.max(), nve.temperature.max()))
    return figure


def draw_proton(place: np.ndarray, apart: np.ndarray) -> Figure:
    """The proton changes sides when the oxygens come close."""
    figure = Figure(figsize=(9, 3.6), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.hist(place, bins=40, color=BLUE)
    left.axvline(0, color=INK, linewidth=1.0, linestyle="--")
    left.set_title("Where the proton is", fontsize=10, loc="left")
    style(left, "d(O1-H) - d(O2-H) (Å)", "records")
    right.scatter(place, apart, s=4, color=BLUE, alpha=0.3, linewidth=0)
    right.axvline(0, color=INK, linewidth=1.0, linestyle="--")
    right.set_title("It passes when the oxygens are close", fontsize=10, loc="left")
    style(right, "d(O1-H) - d(O2-H) (Å)", "d(O1-O2) (Å)")
    return figure


def write_trajectory(atoms: Atoms, run: Record, path: Path) -> None:
    every = round(KEEP / RECORD)
    frames = [Atoms(atoms.numbers, positions) for positions in run.positions[::every]]
    partial = path.with_name(f".{path.name}.partial")
    write(partial, frames, format="extxyz")
    partial.replace(path)


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=Path, default=ROOT / "runs/quickstart/run/model.safetensors")
    p.add_argument("--output", type=Path, default=ROOT / "runs/md", help="directory of the results")
    p.add_argument("--picoseconds", type=float, default=5.0, help="length of each of the two runs")
    p.add_argument("--timestep", type=float, default=0.5, help="fs")
    p.add_argument("--temperature", type=float, default=300.0, help="K")
    p.add_argument("--seed", type=int, default=0, help="of velocities and Langevin noise")
    args = p.parse_args()
    if not args.model.is_file():
        p.error(f"{args.model} does not exist; run `make quickstart` first, or give a model with --model")
    if not min(args.picoseconds, args.timestep, args.temperature) > 0:
        p.error("--picoseconds, --timestep and --temperature must be positive")
    return args


def main() -> int:
    args = arguments()
    begun = time.perf_counter()
    rng = np.random.default_rng(args.seed)
    n_steps = max(2, round(1e3 * args.picoseconds / args.timestep))
    atoms = read(ROOT / "data/acac/test_H_transfer.xyz", index=0)
    atoms.calc = EquivCalculator(args.model)
    BFGS(atoms, logfile=None).run(fmax=0.01, steps=300)
    start = atoms.copy()

    print(f"Langevin (NVT): {args.picoseconds:g} ps at {args.temperature:g} K", flush=True)
    draw_velocities(atoms, 2 * args.temperature, rng)  # half of it goes into the bonds
    kind = {"temperature_K": args.temperature, "friction": 0.01 / units.fs}
    langevin = Langevin(atoms, args.timestep * units.fs, **kind, fixcm=False, rng=rng)
    nvt = follow(langevin, n_steps, 3 * len(atoms))
    warm = nvt.time[-1] / 4  # the first quarter warms up
    settled = nvt.temperature[nvt.time >= warm]

    print(f"velocity Verlet (NVE): {args.picoseconds:g} ps", flush=True)
    draw_velocities(atoms, args.temperature, rng)
    Stationary(atoms)
    ZeroRotation(atoms)
    freedoms = 3 * len(atoms) - 6
    # The total energy that belongs to this temperature: what this moment lacks of the mean potential energy
    # goes into the velocities.
    average = freedoms / 2 * units.kB * args.temperature
    missing = nvt.potential[nvt.time >= warm].mean() - atoms.get_potential_energy()
    wanted = np.clip(average + missing, 0.5 * average, 1.5 * average)
    atoms.set_velocities(atoms.get_velocities() * np.sqrt(wanted / atoms.get_kinetic_energy()))
    nve = follow(VelocityVerlet(atoms, args.timestep * units.fs), n_steps, freedoms)

    slope, rms = drift(nve)
    longest, whole = integrity(start, [nvt, nve])
    place, apart = proton(start, [nvt, nve])
    results = {
        "model": str(args.model),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "seed": args.seed,
        "picoseconds": args.picoseconds,
        "timestep_fs": args.timestep,
        "temperature_K": args.temperature,
        "nvt_temperature_K": float(settled.mean()),
        "nve_temperature_K": float(nve.temperature.mean()),
        "nve_drift_meV_per_atom_per_ps": slope,
        "nve_rms_fluctuation_meV_per_atom": rms,
        "longest_bond_in_covalent_radii": longest,
        "one_molecule": bool(whole),
        "proton_transfers": int(np.count_nonzero(np.diff(np.sign(place)))),
        "seconds": round(time.perf_counter() - begun, 1),
    }
    args.output.mkdir(parents=True, exist_ok=True)
    write_trajectory(atoms, nvt, args.output / "nvt.xyz")
    write_trajectory(atoms, nve, args.output / "nve.xyz")
    save(draw_energy(nve), args.output / "energy.png")
    save(draw_temperature(nvt, nve, args.temperature), args.output / "temperature.png")
    save(draw_proton(place, apart), args.output / "proton.png")
    partial = args.output / ".md.json.partial"
    partial.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    partial.replace(args.output / "md.json")

    print(f"NVE drift {slope:+.4f} meV/atom/ps, RMS fluctuation {rms:.3f} meV/atom")
    print(f"temperature {settled.mean():.0f} K (Langevin), {nve.temperature.mean():.0f} K (NVE)")
    print(f"longest bond {longest:.2f} x the sum of covalent radii (broken beyond {BROKEN})")
    print(f"numbers: {args.output / 'md.json'}; pictures: energy.png, temperature.png, proton.png beside it")
    if longest > BROKEN or not whole:
        print("the molecule BROKE: train longer, or look at the trajectories", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
