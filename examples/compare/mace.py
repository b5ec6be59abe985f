"""MACE 128x0e+128x1o with random weights as a contestant of potential-bench; for mace-torch 0.3.16.

lmax 3, correlation 3, 2 layers, 8 Bessel functions: the settings of `mace_run_train` for a medium model.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers
from mace import data, modules, tools
from mace.calculators import MACECalculator
from mace.tools import torch_geometric

from e3nn import o3  # after mace: it prepares e3nn 0.4.4 for new versions of torch  # isort: skip

PACKAGES = ("mace-torch", "e3nn")
MEAN_NEIGHBORS = 20.0  # scales features, not time


def factory(
    elements: Sequence[str], dtype: str = "float32", cutoff: float = 5.0, device: str = "cpu"
) -> MACECalculator:
    """The ASE calculator of an untrained model."""
    torch.set_default_dtype(getattr(torch, dtype))
    torch.manual_seed(0)
    numbers = sorted(atomic_numbers[element] for element in elements)
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    model = modules.ScaleShiftMACE(
        r_max=cutoff,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=block,
        interaction_cls_first=block,
        num_interactions=2,
        num_elements=len(numbers),
        hidden_irreps=o3.Irreps("128x0e + 128x1o"),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(numbers)),
        avg_num_neighbors=MEAN_NEIGHBORS,
        atomic_numbers=numbers,
        correlation=3,
        gate=torch.nn.functional.silu,
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
    return MACECalculator(models=[model.to(device)], device=device, default_dtype=dtype)


def with_cuequivariance(
    elements: Sequence[str], dtype: str = "float32", cutoff: float = 5.0, device: str = "cuda"
) -> MACECalculator:
    """The same with NVIDIA's kernels; needs cuequivariance-torch and cuequivariance-ops-torch-cu12 or -cu13."""
    from mace.cli.convert_e3nn_cueq import run

    plain = factory(elements, dtype, cutoff, device).models[0]
    return MACECalculator(models=[run(plain, device=device)], device=device, default_dtype=dtype)


def about(calculator: MACECalculator) -> dict[str, Any]:
    model = calculator.models[0]
    return {"parameters": sum(p.numel() for p in model.parameters()), "cutoff": float(model.r_max)}


def batch(calculator: MACECalculator, structures: Sequence[Atoms]) -> Any:
    """All structures with labels of zero, as the data loader of `mace_run_train` gives them."""
    table = tools.AtomicNumberTable([int(z) for z in calculator.models[0].atomic_numbers])
    graphs = []
    for atoms in structures:
        labelled = atoms.copy()
        labelled.info["REF_energy"] = 0.0
        labelled.arrays["REF_forces"] = np.zeros((len(atoms), 3))
        keys = data.KeySpecification(info_keys={"energy": "REF_energy"}, arrays_keys={"forces": "REF_forces"})
        config = data.config_from_atoms(labelled, key_specification=keys)
        graphs.append(data.AtomicData.from_config(config, z_table=table, cutoff=calculator.r_max))
    loader = torch_geometric.dataloader.DataLoader(graphs, batch_size=len(graphs), shuffle=False)
    return next(iter(loader))


def edges(calculator: MACECalculator, structures: Sequence[Atoms]) -> int:
    return int(batch(calculator, structures).edge_index.shape[1])


def evaluation(calculator: MACECalculator, structures: Sequence[Atoms]) -> Callable[[], Any]:
    """Energy and forces of one batch whose neighbors are known."""
    model, inputs = calculator.models[0], batch(calculator, structures).to(calculator.device).to_dict()
    return lambda: model(inputs, training=False, compute_force=True)


def training(calculator: MACECalculator, structures: Sequence[Atoms]) -> Callable[[], None]:
    """One step of `mace_run_train` with its defaults: loss, gradient, Adam with amsgrad, moving average."""
    from copy import deepcopy

    from torch_ema import ExponentialMovingAverage

    model = deepcopy(calculator.models[0]).train().requires_grad_(True)
    labelled = batch(calculator, structures).to(calculator.device)
    inputs = labelled.to_dict()
    loss_of = modules.WeightedEnergyForcesLoss(energy_weight=1.0, forces_weight=100.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6, amsgrad=True, weight_decay=5e-7)
    average = ExponentialMovingAverage(model.parameters(), decay=0.99)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(pred=model(inputs, training=True, compute_force=True), ref=labelled)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=10.0)
        optimizer.step()
        average.update()

    return step
