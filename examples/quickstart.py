"""What `make quickstart` runs: train on real quantum-chemistry data, test, run molecular dynamics.

    python examples/quickstart.py --output runs/quickstart

Fills DIR/run (model, errors, report) and DIR/md (energy conservation, temperature, proton transfer). Results of an
earlier call are moved to DIR/earlier-1, DIR/earlier-2, ...: nothing is overwritten.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from train.cli import main as potential_train

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("run", "md")


def set_aside(output: Path) -> None:
    """Move what an earlier call left out of the way."""
    found = [output / part for part in PARTS if (output / part).exists()]
    if not found:
        return
    number = 1
    while (output / f"earlier-{number}").exists():
        number += 1
    shelf = output / f"earlier-{number}"
    shelf.mkdir()
    for part in found:
        part.rename(shelf / part.name)
    print(f"found the results of an earlier call; they are now in {shelf}", flush=True)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--output", type=Path, default=ROOT / "runs/quickstart", metavar="DIR")
    p.add_argument("--minutes", type=float, default=5.0, help="of training (default: 5)")
    p.add_argument("--picoseconds", type=float, default=2.0, help="of each of the two MD runs (default: 2)")
    args = p.parse_args()
    run, md = (args.output / part for part in PARTS)
    set_aside(args.output)

    acac = ROOT / "data" / "acac"
    tests = [acac / name for name in ("test_MD_300K.xyz.xz", "test_MD_600K.xyz.xz", "test_dihedral.xyz.xz")]
    print(
        f"1/2  training for {args.minutes:g} minutes on 500 structures of acetylacetone, C5H8O2", flush=True
    )
    command = [str(acac / "train_300K.xyz.xz"), "--minutes", str(args.minutes), "--output", str(run)]
    code = potential_train([*command, "--test", *map(str, tests)])
    if code:
        return code

    print("\n2/2  molecular dynamics with EquivCalculator", flush=True)
    command = [sys.executable, str(ROOT / "examples" / "02_md.py"), "--model", str(run / "model.safetensors")]
    command += ["--output", str(md), "--picoseconds", str(args.picoseconds)]
    code = subprocess.run(command, check=False).returncode
    if code:
        return code

    print("\nDone. Open first:")
    for path, what in (
        (run / "report.html", "errors, learning curve, parity plots"),
        (md / "energy.png", "energy along NVE dynamics"),
        (md / "temperature.png", "temperature along NVT and NVE dynamics"),
        (md / "proton.png", "the proton between the two oxygens"),
        (run / "model.safetensors", 'the model: EquivCalculator("...")'),
    ):
        print(f"  {path}  ({what})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
