"""EquivCalculator: a potential as an ASE calculator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from potential.checkpoint import check_device, load
from potential.chunks import predict_in_chunks
from potential.graph import Graph
from potential.model import Potential, recast
from potential.physics import Prediction, stress
from potential.recorded import Recorder
from potential.table import fits_a_table
from potential.targets import TENSOR, TargetFacts
from potential.verlet import VerletList, follow

CHUNKS = {"cpu": 256, "cuda": 16384}  # atoms at a time
RECORDED = 16384  # atoms; in larger structures edges in the skin cost more than launching kernels


class EquivCalculator(Calculator):  # type: ignore[misc]
    """ASE calculator of a Potential: `atoms.calc = EquivCalculator("model.safetensors")`.

    Results: energy, free_energy (the same), energies (eV, per atom), forces (eV/Å) and, for structures periodic in all
    three directions, stress (eV/Å^3, Voigt order xx yy zz yz xz xy, tension positive). Further targets of the
    potential, such as dipole (e Å), are there under their names, in their units: a number, a vector, or (3, 3) of a
    tensor; with an axis of atoms before it where each atom has a value. A potential may have these alone. A vector that
    was learned from its lengths has these, and a sign that is the model's own.

    Args:
        model: a Potential (copied, so training it further changes nothing here), or the path of a saved one.
        device: torch device; default: where the model is (CPU for a file).
        dtype: "float32" or "float64"; default: the model's own.
        skin: Å. Neighbors are searched this much beyond the cutoff and kept until atoms or cell have moved so far
            that one could be missing. Results are the same in every bit on a CPU; `n_searches` counts the searches.
            0.5 suits dynamics and relaxation; 0 searches every time, as single structures need it. On a GPU the
            kernels of structures of up to `chunk` and RECORDED atoms are then recorded once and replayed (recorded.py).
        chunk: atoms evaluated at a time (default: 256, on a GPU 16384). Larger structures are taken in chunks, so that
            little memory is held per atom (tens of KiB); energies and forces are those of the whole to rounding.

    Raises:
        ValueError: elements the potential does not know, non-finite positions, atoms in the same place,
            stress of a structure that is not fully periodic, a damaged file.
    """

    implemented_properties: list[str] = [  # noqa: RUF012  # of an instance: what its potential has
        "energy", "free_energy", "energies", "forces", "stress",
    ]  # fmt: skip

    def __init__(
        self,
        model: Potential | Path | str,
        device: torch.device | str | None = None,
        dtype: str | None = None,
        skin: float = 0.0,
        chunk: int | None = None,
    ):
        super().__init__()
        if dtype not in (None, "float32", "float64"):
            raise ValueError(
                f"dtype is {dtype!r}; it must be 'float32' or 'float64', or None for the model's own"
            )
        if (
            isinstance(skin, bool)
            or not isinstance(skin, (int, float, np.floating))
            or not 0 <= skin < np.inf
        ):
            raise ValueError(
                f"skin is {skin!r}; it must be a length in Å, 0 for a neighbor search at every call"
            )
        if chunk is not None and (type(chunk) is not int or chunk < 1):
            raise ValueError(f"chunk is {chunk!r}; it must be a number of atoms, 1 or more")
        check_device(device or "cpu")
        precision: torch.dtype | None = getattr(torch, dtype) if dtype else None
        if isinstance(model, Potential):
            potential = recast(model, precision or model.dtype)
            potential = potential if device is None else potential.to(device)
        elif isinstance(model, (str, Path)):
            potential = load(model, device or "cpu", precision)
        else:
            raise ValueError(
                f"model is a {type(model).__name__}; give a Potential, or the path of a saved one"
            )
        self.potential: Potential = potential.requires_grad_(False).eval()
        facts = potential.statistics
        energy = type(self).implemented_properties if facts.has_energy else []
        self.implemented_properties = [*energy, *(target.name for target in facts.targets)]
        self.device = potential.species_of.device
        self.skin, self.chunk = float(skin), chunk or CHUNKS.get(self.device.type, CHUNKS["cpu"])
        self._n_searches = 0
        self._known: VerletList | None = None
        records = self.skin > 0 and self.device.type == "cuda" and fits_a_table(potential)
        self._recorder = Recorder(self.potential, self.skin) if records else None

    @property
    def n_searches(self) -> int:
        """Neighbor searches so far."""
        return self._n_searches + (self._recorder.n_searches if self._recorder else 0)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Everything at once: one graph, one gradient."""
        super().calculate(atoms, properties, system_changes)
        self.results = {}
        if self.atoms is None:
            raise ValueError(
                "no atoms to calculate; give calculate(atoms), or ask atoms.get_potential_energy()"
            )
        with torch.inference_mode(False):  # forces are a gradient, whatever the mode of the caller
            self.results = self._evaluate(properties or [])

    def _evaluate(self, properties: list[str]) -> dict[str, Any]:
        potential = self.potential
        prediction = self._predict()
        results: dict[str, Any] = {
            target.name: shaped(target, prediction.targets[target.name].cpu().numpy())
            for target in potential.statistics.targets
        }
        if not potential.statistics.has_energy:
            return results
        results |= {
            "energy": prediction.energy.item(),
            "free_energy": prediction.energy.item(),
            "energies": prediction.node_energy.cpu().numpy(),
            "forces": prediction.forces.cpu().numpy(),
        }
        cell, pbc = self.atoms.cell.array.copy(), np.array(self.atoms.pbc, dtype=bool)
        if "stress" in properties or pbc.all():
            full = stress(prediction.virial.cpu(), torch.from_numpy(cell)[None], torch.from_numpy(pbc)[None])
            results["stress"] = full_3x3_to_voigt_6_stress(full[0].numpy())
        return results

    def _predict(self) -> Prediction:
        recorder = self._recorder
        if recorder and recorder.potential is self.potential and len(self.atoms) <= min(RECORDED, self.chunk):
            return recorder.predict(self.atoms)
        graph = self._graph()
        self.potential.check(graph.atomic_numbers)
        return predict_in_chunks(self.potential, graph, self.chunk)

    def _graph(self) -> Graph:
        graph, known = follow(self._known, self.atoms, self.potential.cutoff, self.skin)
        if known is not self._known:
            self._known = replace(known, wide=known.wide.to(self.device)) if self.skin else None
            self._n_searches += 1
        return graph.to(self.device)


def shaped(target: TargetFacts, values: Any) -> Any:
    """Values (n, dim) of a target of one structure as ASE has them: no axis of length 1, a tensor as (3, 3)."""
    shape = (3, 3) if target.irreps == TENSOR else values.shape[1:] if values.shape[1] > 1 else ()
    values = values.reshape(-1, *shape)
    return values if target.per == "atom" else values[0].item() if shape == () else values[0]
