"""NequIP (lmax 2, 4 layers, 32 features) with random weights as a contestant of potential-bench; for nequip 0.19.

The network as it stands before `nequip-compile`.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from ase import Atoms
from nequip.data import AtomicDataDict, from_ase
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from nequip.integrations.ase import NequIPCalculator
from nequip.model import NequIPGNNModel
from nequip.utils.global_state import set_global_state

PACKAGES = ("nequip", "e3nn")
MEAN_NEIGHBORS = 20.0  # scales features, not time


def factory(elements: Sequence[str], dtype: str = "float32", cutoff: float = 5.0) -> NequIPCalculator:
    """The ASE calculator of an untrained model."""
    set_global_state()
    names = list(elements)
    model = NequIPGNNModel(
        seed=0,
        model_dtype=dtype,
        r_max=cutoff,
        type_names=names,
        num_layers=4,
        l_max=2,
        num_features=32,
        avg_num_neighbors=MEAN_NEIGHBORS,
        per_type_energy_scales=1.0,
        per_type_energy_shifts=0.0,
    )
    transforms = [ChemicalSpeciesToAtomTypeMapper(names), NeighborListTransform(r_max=cutoff)]
    calculator = NequIPCalculator(model.eval(), device="cpu", transforms=transforms)
    calculator.cutoff = cutoff
    return calculator


def about(calculator: NequIPCalculator) -> dict[str, Any]:
    n = sum(p.numel() for p in calculator.model.parameters())
    return {"parameters": n, "cutoff": calculator.cutoff}


def batch(calculator: NequIPCalculator, structures: Sequence[Atoms]) -> dict[str, torch.Tensor]:
    """All structures as one graph."""
    data = []
    for atoms in structures:
        one = from_ase(atoms)
        for transform in calculator.transforms:
            one = transform(one)
        data.append(one)
    return AtomicDataDict.batched_from_list(data)


def edges(calculator: NequIPCalculator, structures: Sequence[Atoms]) -> int:
    return int(batch(calculator, structures)[AtomicDataDict.EDGE_INDEX_KEY].shape[1])


def evaluation(calculator: NequIPCalculator, structures: Sequence[Atoms]) -> Callable[[], Any]:
    """Energy and forces of one batch whose neighbors are known."""
    inputs = batch(calculator, structures)
    return lambda: calculator.model(dict(inputs))


def training(calculator: NequIPCalculator, structures: Sequence[Atoms]) -> Callable[[], None]:
    """One step: losses of energy per atom and forces, gradient, Adam."""
    model = deepcopy(calculator.model).train().requires_grad_(True)
    inputs = batch(calculator, structures)
    n_atoms = inputs[AtomicDataDict.NUM_NODES_KEY].unsqueeze(-1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6)

    def step() -> None:
        optimizer.zero_grad()
        out = model(dict(inputs))
        energy = out[AtomicDataDict.TOTAL_ENERGY_KEY] / n_atoms
        loss = energy.square().mean() + out[AtomicDataDict.FORCE_KEY].square().mean()
        loss.backward()
        optimizer.step()

    return step
