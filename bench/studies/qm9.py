"""QM9 as pool and test of a study: molecules drawn once at random, with U0 or the length of their dipole."""

import lzma
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write

POOL, TEST, SEED = 50_000, 2_000, 2026
KEYS = {"energy": "InternalEnergy_0K_au", "mu": "Dipole_debye"}  # Hartree, Debye


def molecules(content: Mapping[str, np.ndarray], label: str, rows: np.ndarray) -> list[Atoms]:
    """Some molecules, with U0 as `energy` in Hartree or the length of the dipole as `mu` in Debye."""
    ends, numbers, positions = np.cumsum(content["n_atoms"]), content["Z"], content["R"].astype(np.float64)
    starts, values = ends - content["n_atoms"], content[KEYS[label]].astype(np.float64)
    return [
        Atoms(numbers[starts[k] : ends[k]], positions[starts[k] : ends[k]], info={label: float(values[k])})
        for k in rows
    ]


def drawn(source: Path, label: str, folder: Path, sizes: tuple[int, int] = (POOL, TEST)) -> tuple[Path, Path]:
    """Files of the pool and of the test, of so many molecules each; the same at every call."""
    with np.load(BytesIO(lzma.decompress(source.read_bytes()))) as file:
        content = {name: file[name] for name in ("n_atoms", "Z", "R", KEYS[label])}
    order = np.random.default_rng(SEED).permutation(len(content["n_atoms"]))
    parts = {"pool": order[sizes[1] :][: sizes[0]], "test": order[: sizes[1]]}
    folder = folder / f"qm9-{sizes[0]}-{sizes[1]}"
    files = [folder / f"qm9_{label}_{part}.xyz" for part in parts]
    folder.mkdir(parents=True, exist_ok=True)
    for file, rows in zip(files, parts.values(), strict=True):
        if not file.exists():  # a repeated command finds the same bytes
            partial = file.with_name(f"partial-{file.name}")
            write(partial, molecules(content, label, rows), format="extxyz")
            partial.replace(file)
    return files[0], files[1]
