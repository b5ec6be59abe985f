"""Train a MACE for a given time and test it; run by the Python of an environment with mace-torch 0.3.16.

    python mace_fit.py --train train.xyz.xz --test test.xyz.xz --seconds 600 --output result.json
    python mace_fit.py --check

Needs mace-torch, torch-ema and pytorch-optimizer. The frames, the split, E0, the batch size, the schedule, the moving
average and the cutoff are those of `potential-train`; network, initialization, loss and Adam are those of
`mace_run_train`. E0 is taken off the labels in float64, so that float32 does not round total energies.
"""

import argparse
import io
import json
import lzma
import math
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ase.calculators.singlepoint
import ase.io
import numpy as np
import torch
from ase import Atoms
from mace import data, modules, tools
from mace.tools.scripts_utils import get_params_options
from mace.tools.torch_geometric import Batch
from torch import Tensor
from torch_ema import ExponentialMovingAverage

from e3nn import o3  # after mace: it prepares e3nn 0.4.4 for new versions of torch  # isort: skip
from mace_blocks import check, hand_over, unstack  # isort: skip

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SCHEDULES = {
    "linear": lambda done: min(1.0, (1 - done) / 0.6),  # constant, then to zero over the last 60 %
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
}
WARMUP = 100  # steps, at most one epoch
TEST_ATOMS = 300  # a batch, when testing
KEYS = data.KeySpecification(
    info_keys={"energy": "REF_energy", "virials": "REF_virials"}, arrays_keys={"forces": "REF_forces"}
)


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--check", action="store_true", help="hold the gradients of the weight blocks against slopes"
    )
    p.add_argument("--train", type=Path, metavar="FILE")
    p.add_argument("--test", type=Path, nargs="+", default=[], metavar="FILE")
    p.add_argument("--output", type=Path, metavar="FILE", help="JSON")
    p.add_argument("--seconds", type=float, default=600.0, help="of training; testing comes after")
    p.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="what the seconds are (cpu: of all threads)"
    )
    p.add_argument("--hidden", default="64x0e", metavar="IRREPS", help="e.g. 64x0e, 128x0e+128x1o")
    p.add_argument("--max-ell", type=int, default=3)
    p.add_argument("--correlation", type=int, default=3)
    p.add_argument("--cutoff", type=float, default=5.0, help="Å")
    p.add_argument("--optimizer", choices=("adam", "soap"), default="adam", help="soap: on unstacked weights")
    p.add_argument("--learning-rate", type=float, default=0.01)
    p.add_argument("--schedule", choices=SCHEDULES, default="linear")
    p.add_argument("--batch", type=int, default=0, help="structures a step; 0: about 75 atoms")
    p.add_argument("--ema", type=float, default=0.99)
    p.add_argument("--energy-weight", type=float, default=1.0, help="of (error per atom, eV)^2")
    p.add_argument("--forces-weight", type=float, default=100.0, help="of (eV/Å)^2")
    p.add_argument("--virial-weight", type=float, default=0.0, help="of (error per atom, eV)^2")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--seed", type=int, default=0, help="of split, weights and shuffling")
    args = p.parse_args()
    if not args.check and not (args.train and args.test and args.output):
        p.error("--train, --test and --output are needed (or --check)")
    return args


def read(path: Path) -> list[Atoms]:
    """All frames; an .xz is decompressed first, as ase.io would decompress it again for every frame."""
    content = path.read_bytes()
    text = (lzma.decompress(content) if path.suffix == ".xz" else content).decode()
    return list(ase.io.read(io.StringIO(text), ":", format="extxyz"))


def split(frames: list[Atoms], seed: int) -> tuple[list[Atoms], list[Atoms]]:
    """Training and validation frames, the same as those of `potential-train` with this seed."""
    order = np.random.default_rng(seed).permutation(len(frames))
    n = max(1, round(0.1 * len(frames)))
    return [frames[i] for i in np.sort(order[n:])], [frames[i] for i in np.sort(order[:n])]


def fit_e0(frames: list[Atoms], numbers: list[int]) -> np.ndarray:
    """Least squares with minimum norm of the energies per atom, eV."""
    fractions = np.array([[np.mean(f.numbers == z) for z in numbers] for f in frames])
    energies = np.array([f.get_potential_energy() / len(f) for f in frames])
    return np.asarray(np.linalg.lstsq(fractions, energies, rcond=1e-6)[0])


def graphs(frames: list[Atoms], numbers: list[int], e0: np.ndarray, cutoff: float) -> list[data.AtomicData]:
    """Labelled graphs in torch's default dtype; the energy is what E0 leaves."""
    table, found = tools.AtomicNumberTable(numbers), []
    for frame in frames:
        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
        atoms.info["REF_energy"] = (
            frame.get_potential_energy() - e0[np.searchsorted(numbers, frame.numbers)].sum()
        )
        atoms.arrays["REF_forces"] = frame.get_forces()
        if "stress" in frame.calc.results:
            atoms.info["REF_virials"] = -frame.get_stress(voigt=False) * frame.get_volume()
        config = data.config_from_atoms(atoms, key_specification=KEYS)
        found.append(data.AtomicData.from_config(config, z_table=table, cutoff=cutoff))
    return found


def build(
    args: argparse.Namespace, numbers: list[int], samples: list[data.AtomicData]
) -> modules.ScaleShiftMACE:
    """An untrained model; its scale is the force RMS, its shift and E0 are zero."""
    torch.manual_seed(args.seed)
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    forces = torch.cat([s.forces for s in samples])
    return modules.ScaleShiftMACE(
        r_max=args.cutoff,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=args.max_ell,
        interaction_cls=block,
        interaction_cls_first=block,
        num_interactions=2,
        num_elements=len(numbers),
        hidden_irreps=o3.Irreps(args.hidden),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(numbers)),
        avg_num_neighbors=sum(s.edge_index.shape[1] for s in samples)
        / sum(len(s.positions) for s in samples),
        atomic_numbers=numbers,
        correlation=args.correlation,
        gate=torch.nn.functional.silu,
        atomic_inter_scale=float(forces.square().mean().sqrt()),
        atomic_inter_shift=0.0,
    )


def objective(args: argparse.Namespace, model: torch.nn.Module, batch: Batch) -> Tensor:
    virials = args.virial_weight > 0
    weights = {"energy_weight": args.energy_weight, "forces_weight": args.forces_weight}
    if virials:
        loss = modules.WeightedEnergyForcesVirialsLoss(**weights, virials_weight=args.virial_weight)
    else:
        loss = modules.WeightedEnergyForcesLoss(**weights)
    predicted = model(batch.to_dict(), training=True, compute_force=True, compute_virials=virials)
    return loss(pred=predicted, ref=batch)


def make_optimizer(
    args: argparse.Namespace, model: torch.nn.Module
) -> tuple[torch.optim.Optimizer, list[Any]]:
    """The optimizer and, for SOAP, the stacks of weights whose pieces it moves."""
    if args.optimizer == "soap":
        from pytorch_optimizer import SOAP

        stacks = unstack(model)
        pieces = [piece for stack in stacks for piece in stack.pieces]
        rest = {"betas": (0.95, 0.95), "weight_decay": 0.0, "precondition_frequency": 10}
        return SOAP(pieces, lr=args.learning_rate, **rest), stacks
    settings = {"lr": args.learning_rate, "weight_decay": 5e-7, "amsgrad": True, "beta": 0.9}
    options = get_params_options(argparse.Namespace(**settings, lr_params_factors="{}", freeze=None), model)
    return torch.optim.Adam(**options), []


def train(args: argparse.Namespace, model: torch.nn.Module, samples: list[data.AtomicData]) -> dict[str, Any]:
    """Train until the clock has run out; leaves the averaged weights in the model."""
    size = args.batch or max(1, min(16, round(75 * len(samples) / sum(len(s.positions) for s in samples))))
    optimizer, stacks = make_optimizer(args, model)
    weights = [p for p in model.parameters() if p.requires_grad]
    ema = ExponentialMovingAverage(weights, decay=args.ema)
    generator = np.random.default_rng(args.seed)
    warmup, step, order = min(WARMUP, -(-len(samples) // size)), 0, np.zeros(0, dtype=int)
    for _ in range(3):  # TorchScript compiles in the first calls
        objective(args, model, Batch.from_data_list(samples[:size])).backward()
    clock, wall, cpu = CLOCKS[args.clock], time.perf_counter(), time.process_time()
    begun = clock()
    while (done := (clock() - begun) / args.seconds) < 1:
        if not len(order):
            order = generator.permutation(len(samples))
        chosen, order = order[:size], order[size:]
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate * min(1.0, (step + 1) / warmup) * SCHEDULES[args.schedule](done)
        model.zero_grad(set_to_none=True)
        loss = objective(args, model, Batch.from_data_list([samples[i] for i in chosen]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 10.0)
        hand_over(stacks)
        optimizer.step()
        ema.update()
        step += 1
        if not math.isfinite(loss.item()):
            raise SystemExit(f"the loss is {loss.item()} after {step} steps; lower --learning-rate")
    spent = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    ema.copy_to()
    return {"steps": step, **{key: round(value, 1) for key, value in spent.items()}, "batch": size}


def errors(model: torch.nn.Module, samples: list[data.AtomicData]) -> dict[str, float | int]:
    """As in summary.json of potential-train: energies in meV/atom (and meV per structure), forces in meV/Å."""
    energy, forces, sizes = [], [], np.array([len(s.positions) for s in samples])
    n = max(1, TEST_ATOMS // int(sizes.max()))
    for k in range(0, len(samples), n):
        batch = Batch.from_data_list(samples[k : k + n])
        out = model(batch.to_dict(), training=False, compute_force=True)
        energy.append((out["energy"] - batch.energy).detach().numpy())
        forces.append((out["forces"] - batch.forces).detach().numpy().ravel())
    e, f = 1e3 * np.concatenate(energy), 1e3 * np.concatenate(forces)
    found: dict[str, float | int] = {"frames": len(samples)}
    for name, difference in (("energy", e / sizes), ("forces", f)):
        found[f"{name}_rmse"] = float(np.sqrt(np.mean(difference**2)))
        found[f"{name}_mae"] = float(np.mean(np.abs(difference)))
    found["energy_rmse_per_structure"] = float(np.sqrt(np.mean(e**2)))
    found["energy_mae_per_structure"] = float(np.mean(np.abs(e)))
    return found


def check_blocks(args: argparse.Namespace) -> str:
    """The check of mace_blocks on a small model of two elements with vectors."""
    torch.set_default_dtype(torch.float64)
    random = np.random.default_rng(0)
    frame = Atoms("HCHC", random.normal(size=(4, 3)) + np.arange(4)[:, None] * 0.6)
    frame.calc = ase.calculators.singlepoint.SinglePointCalculator(
        frame, energy=1.0, forces=random.normal(size=(4, 3))
    )
    samples = graphs([frame], [1, 6], np.zeros(2), args.cutoff)
    args.hidden = "8x0e+8x1o"
    model = build(args, [1, 6], samples)
    return check(model, lambda: objective(args, model, Batch.from_data_list(samples)))


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    if args.check:
        print(check_blocks(args))
        return
    torch.set_default_dtype(torch.float32)
    frames, valid = split(read(args.train), args.seed)
    numbers = sorted({int(z) for frame in [*frames, *valid] for z in frame.numbers})
    e0 = fit_e0(frames, numbers)
    samples = graphs(frames, numbers, e0, args.cutoff)
    model = build(args, numbers, samples)
    spent = train(args, model, samples)
    torch.set_default_dtype(torch.float64)
    model.double().requires_grad_(False)
    sets = {"valid": valid} | {path.name.split(".")[0]: read(path) for path in args.test}
    found = {name: errors(model, graphs(f, numbers, e0, args.cutoff)) for name, f in sets.items()}
    recipe = {k: v for k, v in vars(args).items() if k not in ("check", "train", "test", "output", "seed")}
    result = {
        "errors": found,
        **{k: v for k, v in spent.items() if k != "batch"},
        "parameters": sum(p.numel() for p in model.parameters()),
        "recipe": recipe | {"batch": spent["batch"]},
        "versions": {name: version(name) for name in ("mace-torch", "e3nn", "torch", "pytorch-optimizer")},
        "seed": args.seed,
        "e0": dict(zip(map(str, numbers), e0.tolist(), strict=True)),
    }
    partial = args.output.with_name(f".{args.output.name}.partial")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(args.output)


if __name__ == "__main__":
    main()
