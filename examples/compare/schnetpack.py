"""SchNetPack's PaiNN (128 features, 3 interactions) with random weights as a contestant of potential-bench.

For schnetpack 2.1.1; the settings are those of its configuration for MD17.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, TypeVar

import torch
import torch.utils.data.dataloader
from ase import Atoms

torch.utils.data.dataloader.T_co = TypeVar("T_co", covariant=True)  # 2.1.1 imports it; torch dropped it

import schnetpack as spk  # noqa: E402

PACKAGES = ("schnetpack",)


class Untrained(spk.interfaces.SpkCalculator):
    """SpkCalculator of a model in memory in place of a file."""

    def _load_model(self, model_file: Any) -> Any:
        return model_file.eval()


def factory(elements: Sequence[str], dtype: str = "float32", cutoff: float = 5.0) -> Untrained:
    """The ASE calculator of an untrained model."""
    torch.manual_seed(0)
    painn = spk.representation.PaiNN(
        n_atom_basis=128,
        n_interactions=3,
        radial_basis=spk.nn.GaussianRBF(n_rbf=20, cutoff=cutoff),
        cutoff_fn=spk.nn.CosineCutoff(cutoff),
    )
    model = spk.model.NeuralNetworkPotential(
        representation=painn,
        input_modules=[spk.atomistic.PairwiseDistances()],
        output_modules=[spk.atomistic.Atomwise(n_in=128, output_key="energy"), spk.atomistic.Forces()],
    )
    neighbors = spk.transform.MatScipyNeighborList(cutoff=cutoff)
    return Untrained(model, neighbors, energy_unit="eV", dtype=getattr(torch, dtype))


def about(calculator: Untrained) -> dict[str, Any]:
    model = calculator.model
    n = sum(p.numel() for p in model.parameters())
    return {"parameters": n, "cutoff": float(model.representation.cutoff)}


def edges(calculator: Untrained, structures: Sequence[Atoms]) -> int:
    return len(calculator.converter(list(structures))[spk.properties.idx_i])


def evaluation(calculator: Untrained, structures: Sequence[Atoms]) -> Callable[[], Any]:
    """Energy and forces of one batch whose neighbors are known."""
    inputs = calculator.converter(list(structures))
    return lambda: calculator.model(dict(inputs))


def training(calculator: Untrained, structures: Sequence[Atoms]) -> Callable[[], None]:
    """One step of its trainer: losses of energy and forces, gradient, AdamW."""
    model = deepcopy(calculator.model).train().requires_grad_(True)
    inputs = calculator.converter(list(structures))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.0)

    def step() -> None:
        optimizer.zero_grad()
        out = model(dict(inputs))
        loss = 0.01 * out["energy"].square().mean() + 0.99 * out["forces"].square().mean()
        loss.backward()
        optimizer.step()

    return step
