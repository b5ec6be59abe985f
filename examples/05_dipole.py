"""A dipole beside energies and forces: trained on, then read from the calculator, for example along dynamics.

    python examples/05_dipole.py --output runs/dipole

The labels are made up so that the example needs no data: water by ASE's EMT (nobody's water), with the dipole of
fixed charges. With data of your own: potential-train train.xyz --targets dipole
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from potential import EquivCalculator
from train.cli import main as potential_train

ROOT = Path(__file__).resolve().parents[1]
CHARGES = np.array([-0.8, 0.4, 0.4])  # e


def waters(n: int, seed: int) -> list:
    """Distorted molecules, turned at random, with energy, forces and dipole (e Å)."""
    rng, frames = np.random.default_rng(seed), []
    for _ in range(n):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(scale=0.06, size=(3, 3))
        atoms.rotate(rng.uniform(0, 360), rng.normal(size=3))
        atoms.calc = EMT()
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **labels, dipole=CHARGES @ atoms.positions)
        frames.append(atoms)
    return frames


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--output", type=Path, default=ROOT / "runs/dipole", metavar="DIR")
    p.add_argument("--epochs", type=int, default=60)
    args = p.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    train, test, run = (str(args.output / name) for name in ("train.xyz", "test.xyz", "run"))
    write(train, waters(100, seed=0))
    write(test, waters(20, seed=1))
    options = ["--targets", "dipole", "--epochs", str(args.epochs), "--preset", "tiny", "--output", run]
    if code := potential_train([train, "--test", test, *options]):
        return code

    atoms = read(test, index=0)
    reference = atoms.get_dipole_moment()
    atoms.calc = EquivCalculator(f"{run}/model.safetensors")
    numbers = "predicted {:.4f} {:.4f} {:.4f}, reference {:.4f} {:.4f} {:.4f}"
    print("dipole in e Å:", numbers.format(*atoms.get_dipole_moment(), *reference))
    return 0


if __name__ == "__main__":
    sys.exit(main())
