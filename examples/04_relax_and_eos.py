"""Silicon: lattice constant, bulk modulus and elastic constants of a model, against its reference data.

    python examples/04_relax_and_eos.py                          # trains 5 minutes on the mlearn set first
    python examples/04_relax_and_eos.py --model si.safetensors

The reference values come from the labels themselves (VASP, PBE): the ground state and the cells strained along
one axis ("Elastic", modes 0 to 2). The diamond cell keeps its atoms in place under such a strain, so the stresses
give C11 and C12 without relaxation, and B = (C11 + 2 C12) / 3. The same recipe is put to the model; its bulk modulus
comes once more from an equation of state. Leaves silicon.json and silicon.png in --output.
"""

import argparse
import io
import json
import lzma
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.io import read
from ase.optimize import BFGS
from matplotlib.figure import Figure

from potential import EquivCalculator

ROOT = Path(__file__).resolve().parents[1]
BLUE, ORANGE, INK, GRID = "#0072b2", "#d55e00", "#1f2933", "#e4e7eb"
# All-electron PBE (WIEN2k): V0 = 20.453 Å^3/atom, that is a = 5.469 Å, and B = 88.5 GPa.
# Lejaeghere et al., Reproducibility in density functional theory calculations of solids, Science 351, aad3000 (2016).
LITERATURE = {"a": (8 * 20.453) ** (1 / 3), "B": 88.5}


@dataclass(frozen=True)
class Uniaxial:
    """Diamond cells strained along [100]."""

    strain: np.ndarray  # (n,) relative change of length
    volume: np.ndarray  # (n,) Å^3/atom
    energy: np.ndarray  # (n,) eV/atom
    along: np.ndarray  # (n,) GPa, stress along the strain
    across: np.ndarray  # (n,) GPa, stress across it


def read_silicon() -> list[Atoms]:
    """All frames of the mlearn set; the strained cells are spread over both of its files."""
    frames = []
    for name in ("train", "test"):
        text = lzma.decompress((ROOT / f"data/mlearn/Si_{name}.extxyz.xz").read_bytes()).decode()
        frames += read(io.StringIO(text), ":", format="extxyz")
    return frames


def reference(frames: list[Atoms]) -> tuple[float, float, Uniaxial]:
    """Lattice constant (Å), energy (eV/atom) at it, and the cells strained along one axis, from the labels."""
    ground = next(f for f in frames if f.info["description"] == "Ground state crystal")
    edge = ground.cell.lengths()[0]
    rows = [(0.0, ground.get_volume(), ground.get_potential_energy(), *ground.get_stress()[:2])]
    for frame in frames:
        for axis in range(3):
            if f"mode {axis}," in frame.info["description"]:
                stress = frame.get_stress()
                strain = frame.cell.lengths()[axis] / edge - 1
                energy = frame.get_potential_energy()
                rows.append((strain, frame.get_volume(), energy, stress[axis], stress[(axis + 1) % 3]))
    table = np.array(sorted(rows))
    per_atom, gpa = len(ground), units.GPa
    strained = Uniaxial(
        table[:, 0], table[:, 1] / per_atom, table[:, 2] / per_atom, table[:, 3] / gpa, table[:, 4] / gpa
    )
    c11, c12 = elastic(strained)
    pressure = -ground.get_stress()[:3].mean() / units.GPa  # left over; a few 0.01 GPa at most
    return edge / 2 * (1 + pressure / (c11 + 2 * c12)), ground.get_potential_energy() / per_atom, strained


def elastic(cells: Uniaxial) -> tuple[float, float]:
    """C11 and C12 in GPa: slopes at zero strain of cubic fits to the stresses."""
    return tuple(float(np.polyfit(cells.strain, s, 3)[2]) for s in (cells.along, cells.across))


def relax(atoms: Atoms) -> float:
    """Bring the cubic cell and its 8 atoms to rest; the lattice constant in Å."""
    if not BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-3, steps=300):
        print("the cell did not come to rest within 300 steps: is the model trained?", file=sys.stderr)
    return float(atoms.get_volume() ** (1 / 3))


def stretch(atoms: Atoms, strains: np.ndarray) -> Uniaxial:
    """The model's answer to the strains of the reference, from its own relaxed cell."""
    rows = []
    for strain in strains:
        cell = atoms.copy()
        cell.calc = atoms.calc
        cell.set_cell(atoms.cell.array @ np.diag([1 + strain, 1, 1]), scale_atoms=True)
        stress = cell.get_stress() / units.GPa
        rows.append((cell.get_volume(), cell.get_potential_energy(), stress[0], stress[1]))
    table = np.array(rows)
    return Uniaxial(strains, table[:, 0] / len(atoms), table[:, 1] / len(atoms), table[:, 2], table[:, 3])


def swell(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Volumes (Å^3/atom) within 6 % of the relaxed one, and energies (eV/atom)."""
    rows = []
    for ratio in np.linspace(0.94, 1.06, 13):
        cell = atoms.copy()
        cell.calc = atoms.calc
        cell.set_cell(atoms.cell.array * ratio ** (1 / 3), scale_atoms=True)
        rows.append((cell.get_volume() / len(atoms), cell.get_potential_energy() / len(atoms)))
    volumes, energies = np.array(rows).T
    return volumes, energies


def draw(labels: tuple[float, Uniaxial], model: Uniaxial, eos: EquationOfState, path: Path) -> None:
    """Energies against volume, and stresses against strain; the points are labels, the lines the model."""
    lowest, dft = labels
    figure = Figure(figsize=(9.6, 4.2), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    volumes = np.linspace(eos.v.min(), eos.v.max(), 100)
    left.plot(eos.v, 1e3 * (eos.e - eos.e0), "o", color=INK, markersize=4, label="model, all directions")
    curve = 1e3 * (np.asarray(eos.func(volumes, *eos.eos_parameters)) - eos.e0)
    left.plot(volumes, curve, color=INK, linewidth=1.2, label="Birch-Murnaghan fit")
    left.plot(
        model.volume, 1e3 * (model.energy - eos.e0), color=BLUE, linewidth=1.6, label="model, along [100]"
    )
    energies = 1e3 * (dft.energy - lowest)
    left.plot(dft.volume, energies, "o", color=BLUE, markersize=5, mfc="white", label="PBE, along [100]")
    left.set_title("Energy from its minimum", fontsize=10, loc="left")
    left.set(xlabel="volume (Å³/atom)", ylabel="energy (meV/atom)")
    for name, line, dots, color in (
        ("along", model.along, dft.along, BLUE),
        ("across", model.across, dft.across, INK),
    ):
        right.plot(100 * model.strain, line, color=color, linewidth=1.6, label=f"model, {name} [100]")
        right.plot(
            100 * dft.strain, dots, "o", color=color, markersize=5, mfc="white", label=f"PBE, {name} [100]"
        )
    right.set_title("Stress of a cell strained along [100]", fontsize=10, loc="left")
    right.set(xlabel="strain (%)", ylabel="stress (GPa)")
    for axes in (left, right):
        axes.grid(True, color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, format="png")
    partial.replace(path)


def train(args: argparse.Namespace) -> Path:
    """A model fitted to the training part of the mlearn set."""
    from train.cli import main as potential_train

    run = args.output / "run"
    if run.exists():
        sys.exit(f"{run} exists: use it with --model {run / 'model.safetensors'}, or give another --output")
    silicon = ROOT / "data" / "mlearn"
    command = [str(silicon / "Si_train.extxyz.xz"), "--test", str(silicon / "Si_test.extxyz.xz")]
    command += ["--minutes", str(args.minutes), "--output", str(run)]
    code = potential_train(command + (["--preset", args.preset] if args.preset else []))
    if code:
        sys.exit(code)
    return run / "model.safetensors"


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=Path, help="a model of silicon (default: train one)")
    p.add_argument("--minutes", type=float, default=5.0, help="of training without --model (default: 5)")
    p.add_argument("--preset", help="size of the network (default: from the data)")
    p.add_argument("--output", type=Path, default=ROOT / "runs/silicon", metavar="DIR")
    args = p.parse_args()
    if args.model and not args.model.is_file():
        p.error(f"{args.model} does not exist; leave --model out to train one")
    path = args.model or train(args)

    a_dft, lowest, dft = reference(read_silicon())
    silicon = bulk("Si", "diamond", a=5.4, cubic=True)
    silicon.calc = EquivCalculator(path, dtype="float64")
    a = relax(silicon)
    eos = EquationOfState(*swell(silicon), eos="birchmurnaghan")
    try:
        b_eos = float(eos.fit()[2] / units.GPa)
    except (RuntimeError, ValueError) as error:
        sys.exit(f"no equation of state fits the energies of {path} ({error}): is the model trained?")
    model = stretch(silicon, np.unique(dft.strain.round(6)))
    smooth = stretch(silicon, np.linspace(dft.strain.min(), dft.strain.max(), 60))

    table = {"a (Å)": (a, a_dft, LITERATURE["a"]), "B, E(V) (GPa)": (b_eos, None, LITERATURE["B"])}
    (c11, c12), (d11, d12) = elastic(model), elastic(dft)
    table["B, stress (GPa)"] = ((c11 + 2 * c12) / 3, (d11 + 2 * d12) / 3, LITERATURE["B"])
    table["C11 (GPa)"] = (c11, d11, None)
    table["C12 (GPa)"] = (c12, d12, None)
    args.output.mkdir(parents=True, exist_ok=True)
    results = {
        "model": str(path),
        **{k: dict(zip(("model", "data", "literature"), v, strict=True)) for k, v in table.items()},
    }
    partial = args.output / ".silicon.json.partial"
    partial.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(args.output / "silicon.json")
    draw((lowest, dft), smooth, eos, args.output / "silicon.png")

    print(f"\n{'silicon, diamond':17s} {'model':>8s} {'its data':>9s} {'PBE, all-electron':>18s}")
    for name, (ours, data, other) in table.items():
        cells = [
            f"{x:{w}.{3 if name[0] == 'a' else 1}f}" if x is not None else " " * (w - 1) + "-"
            for x, w in ((ours, 8), (data, 9), (other, 18))
        ]
        print(f"{name:17s} {' '.join(cells)}")
    print(f"\npicture: {args.output / 'silicon.png'}; numbers: {args.output / 'silicon.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
