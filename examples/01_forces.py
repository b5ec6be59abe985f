"""Energy and forces of a molecule: python examples/01_forces.py [model.safetensors]"""

import sys
from pathlib import Path

from ase.io import read

from potential import EquivCalculator

root = Path(__file__).resolve().parents[1]
model = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "runs/quickstart/run/model.safetensors"
if not model.is_file():
    sys.exit(f"{model} does not exist; run `make quickstart` first, or give the path of a model")

atoms = read(root / "data/acac/test_H_transfer.xyz", index=0)  # acetylacetone, C5H8O2
atoms.calc = EquivCalculator(model)

print(f"energy {atoms.get_potential_energy():.4f} eV")
print("forces (eV/Å)")
for symbol, force in zip(atoms.symbols, atoms.get_forces(), strict=True):
    print(f"{symbol:2s} {force[0]:9.4f} {force[1]:9.4f} {force[2]:9.4f}")
