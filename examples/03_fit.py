"""Fitting from Python instead of the command line: 50 structures, a tiny network, well under a minute.

    python examples/03_fit.py --output runs/fit

`fit` leaves the same run directory as potential-train and returns what it writes to summary.json.
"""

import argparse
import io
import lzma
import sys
from pathlib import Path

from ase.io import read, write

from potential import EquivCalculator
from train.config import Config, Data, Fit
from train.fit import fit

ROOT = Path(__file__).resolve().parents[1]


def take(source: Path, n: int, target: Path) -> str:
    """The first n frames of a compressed file as a file of their own; your data need nothing of the kind."""
    text = lzma.decompress(source.read_bytes()).decode()
    write(target, read(io.StringIO(text), f":{n}", format="extxyz"), format="extxyz")
    return str(target)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--output", type=Path, default=ROOT / "runs/fit", metavar="DIR")
    p.add_argument("--frames", type=int, default=50, help="to train and to test with")
    p.add_argument("--epochs", type=int, default=60)
    args = p.parse_args()
    run = args.output / "run"
    if run.exists():
        p.error(f"{run} exists; remove it or give another --output")
    args.output.mkdir(parents=True, exist_ok=True)
    acac = ROOT / "data" / "acac"
    train = take(acac / "train_300K.xyz.xz", args.frames, args.output / "train.xyz")
    test = take(acac / "test_MD_300K.xyz.xz", args.frames, args.output / "test.xyz")

    config = Config(
        data=Data(train=(train,), test=(test,)),
        model={"preset": "tiny", "cutoff": 5.0},
        fit=Fit(epochs=args.epochs, batch_size=5, seed=0),
    )
    try:
        summary = fit(config, run)
    except ValueError as error:
        sys.exit(str(error))
    if "errors" not in summary:  # Ctrl-C
        return 130

    print("set    forces RMSE (meV/Å)  energy RMSE (meV/atom)")
    for name, errors in summary["errors"].items():
        print(f"{name:5s}  {errors['forces_rmse']:19.1f}  {errors['energy_rmse']:22.2f}")
    atoms = read(test, index=0)
    reference = atoms.get_potential_energy()
    atoms.calc = EquivCalculator(run / "model.safetensors")
    print(f"first test structure: {atoms.get_potential_energy():.3f} eV, reference {reference:.3f} eV")
    return 0


if __name__ == "__main__":
    sys.exit(main())
