"""Save and load a potential: one file, JSON header + tensors (safetensors), verified when loaded.

The header holds the format version, the package version, the units, the configuration, the statistics and a
self-test: a reference structure with the energy, forces and stress that the saved potential gave. A checksum
finds damage, the self-test a program that computes something else. Loading executes nothing from the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from ase import Atoms
from torch import Tensor

from potential import __version__
from potential.graph import from_atoms
from potential.model import Potential, Statistics, build, configuration
from potential.physics import predict, stress
from potential.targets import TargetFacts

FORMAT = 4  # 3: vectors of the flagship halve with every order, its envelope has a power; 4: targets
READ = (3, 4)
UNITS = {"energy": "eV", "length": "Å", "forces": "eV/Å", "stress": "eV/Å^3"}
DTYPES = {"float32": torch.float32, "float64": torch.float64}
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}  # relative to the largest force or energy difference


def write(path: Path | str, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write header and tensors as one safetensors file, completely or not at all."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    contiguous = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    # One entry of metadata: safetensors writes several in random order.
    text = json.dumps({**header, "sha256": _checksum(header, contiguous)})
    try:
        data = safetensors.torch.save(contiguous, metadata={"potential": text})
        with partial.open("wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _checksum(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """SHA-256 of the header and of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(header).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read(path: Path | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a file made by `write`.

    Raises:
        ValueError: no such file, not a safetensors file, truncated or corrupted, or without our header.
    """
    path = Path(path)
    remedy = "give the path of a file written by potential.save or potential-train"
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; {remedy}")
    data = path.read_bytes()
    try:
        tensors = safetensors.torch.load(data)
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["potential"])
        expected = header.pop("sha256")
    except (
        safetensors.SafetensorError,
        struct.error,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(f"{path}: not a potential file, or a damaged one ({error}); {remedy}") from error
    if _checksum(header, tensors) != expected:
        raise ValueError(f"{path}: damaged, its checksum is not that of its content; take an intact copy")
    return header, tensors


def save(potential: Potential, path: Path | str, notes: dict[str, Any] | None = None) -> None:
    """Save a potential with its self-test. `notes` (JSON) travel along under "notes"."""
    header = {
        "kind": "potential",
        "format": FORMAT,
        "version": __version__,
        "dtype": str(potential.dtype).removeprefix("torch."),
        "units": UNITS,
        "config": configuration(potential),
        "statistics": asdict(potential.statistics),
        "self_test": _self_test(potential, _reference_structure(potential)),
        "notes": notes or {},
    }
    write(path, header, potential.state_dict())


def load(path: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Potential:
    """Load a potential, run its self-test, and put it on `device` in `dtype` (default: as saved).

    Raises:
        ValueError: a damaged file, another kind of file, another format, or a self-test that gives other numbers.
    """
    header, tensors = read(path)
    if header.get("kind") != "potential":
        raise ValueError(
            f"{path}: holds {header.get('kind')!r}, expected a potential; in a run directory that is model.safetensors"
        )
    if header.get("format") not in READ:
        raise ValueError(
            f"{path}: format {header.get('format')}, written by version {header.get('version')}; this version "
            f"{__version__} reads formats {READ[0]} to {FORMAT}; load a newer file with a newer equiv-potential; a "
            "model of an older one is another network: use that version, or train again"
        )
    with _blaming(path):
        saved = DTYPES[header["dtype"]]
        facts = dict(header["statistics"])
        statistics = Statistics(
            tuple(facts.pop("elements")),
            tuple(facts.pop("e0")),
            facts.pop("scale"),
            facts.pop("mean_neighbors"),
            tuple(_target(**target) for target in facts.pop("targets", ())),
            facts.pop("has_energy", True),
        )
        potential = build(header["config"], statistics, dtype=dtype or saved)
        potential.load_state_dict(tensors)
    potential = potential.to(device)
    with _blaming(path):
        _verify(
            potential,
            header["self_test"],
            TOLERANCE[torch.float32 if torch.float32 in (saved, dtype) else saved],
        )
    return potential.eval()


def check_device(device: torch.device | str) -> None:
    """Refuse a device that torch does not know or this machine does not have.

    Raises:
        ValueError: naming it and those that are here.
    """
    try:
        torch.zeros(1, device=device).item()  # some known to torch, such as meta, hold no numbers
    except (RuntimeError, AssertionError) as error:
        here = "cpu or cuda" if torch.cuda.is_available() else "cpu"
        raise ValueError(
            f"device '{device}' is not here ({str(error).splitlines()[0]}); give {here}"
        ) from error


def _target(scale: list[float], offset: list[list[float]], **facts: str) -> TargetFacts:
    """JSON knows no tuples."""
    return TargetFacts(scale=tuple(scale), offset=tuple(map(tuple, offset)), **facts)


@contextmanager
def _blaming(path: Path | str) -> Iterator[None]:
    """Whatever a file's content makes go wrong is a ValueError that names the file."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        what = f"no {error} in it" if type(error) is KeyError else str(error)
        raise ValueError(
            f"{path}: does not describe a potential of version {__version__}: {what}; take an intact copy, or "
            "fit or save the model again with this version"
        ) from error


def _reference_structure(potential: Potential) -> Atoms:
    """A dense periodic jumble of all elements with neighbors at every distance up to the cutoff."""
    n = max(6, len(potential.statistics.elements))
    side = potential.cutoff * 1.1
    rng = np.random.default_rng(0)
    elements = [potential.statistics.elements[k % len(potential.statistics.elements)] for k in range(n)]
    grid = np.stack(np.meshgrid(*[np.arange(int(np.ceil(n ** (1 / 3))))] * 3, indexing="ij"), -1).reshape(
        -1, 3
    )[:n]
    spacing = side / int(np.ceil(n ** (1 / 3)))
    positions = grid * spacing + rng.uniform(-0.15, 0.15, (n, 3)) * spacing
    return Atoms(elements, positions, cell=np.diag([side, side * 1.1, side * 0.95]), pbc=True)


def _self_test(potential: Potential, atoms: Atoms) -> dict[str, Any]:
    graph = from_atoms(atoms, potential.cutoff).to(next(potential.parameters()).device)
    p = predict(potential, graph)
    energy = {
        "energy": p.energy.tolist(),
        "forces": p.forces.tolist(),
        "stress": stress(p.virial, graph.cell, graph.pbc).tolist(),
    }
    return {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
        **(energy if potential.head is not None else {}),
        "targets": {name: value.tolist() for name, value in p.targets.items()},
    }


def largest(values: Any, least: float) -> float:
    """The largest of absolute values; at least `least`."""
    return max(float(np.abs(values).max()), least)


def _verify(potential: Potential, test: dict[str, Any], tolerance: float) -> None:
    atoms = Atoms(test["numbers"], test["positions"], cell=test["cell"], pbc=True)
    potential.check(torch.from_numpy(atoms.numbers))
    now = _self_test(potential, atoms)
    facts = potential.statistics
    sizes = {t.name: (largest(test["targets"][t.name], max(t.scale)), t.unit) for t in facts.targets}
    if facts.has_energy:
        e0 = dict(zip(facts.elements, facts.e0, strict=True))
        bound = abs(test["energy"][0] - sum(e0[s] for s in atoms.get_chemical_symbols()))
        sizes["energy"] = max(bound, facts.scale * 1e-3), UNITS["energy"]
        sizes |= {k: (largest(test[k], facts.scale * 1e-3), UNITS[k]) for k in ("forces", "stress")}
    for key, (size, unit) in sizes.items():
        saved, value = (one[key] if key in UNITS else one["targets"][key] for one in (test, now))
        expected, got = np.asarray(saved), np.asarray(value)
        error = float(np.abs(got - expected).max()) if got.shape == expected.shape else np.inf
        if not error <= tolerance * size:
            raise ValueError(
                f"self-test failed, {key} differs by {error:.2e} {unit} from the saved value "
                f"(allowed {tolerance * size:.1e})"
            )
