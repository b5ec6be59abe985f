"""Where the time of energy and forces goes, read off the modules of the network from outside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ase import Atoms
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from potential.graph import from_atoms
from potential.model import Potential
from potential.networks.equivariant import Density, Equivariant, Layer, Product
from potential.physics import predict

PARTS = ("neighbors", "edge basis", "density", "product", "linear", "backward")
RANGES: dict[str, type[nn.Module]] = {
    "potential": Potential,
    "network": Equivariant,
    "layer": Layer,
    "density": Density,
    "product": Product,
}


@contextmanager
def ranges(potential: Potential) -> Iterator[None]:
    """Name the forward passes of the modules in RANGES for torch's profiler; the hooks are gone afterwards."""
    opened: list[Any] = []

    def begin(name: str, *_: Any) -> None:
        opened.append(record_function(name))
        opened[-1].__enter__()

    def end(*_: Any) -> None:
        opened.pop().__exit__(None, None, None)

    hooks = []
    for module in potential.modules():
        for name, kind in RANGES.items():
            if isinstance(module, kind):
                hooks.append(module.register_forward_pre_hook(partial(begin, f"part: {name}")))
                hooks.append(module.register_forward_hook(end))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def measure_split(potential: Potential, atoms: Atoms, repeats: int = 10) -> dict[str, float]:
    """Milliseconds of wall time per part (PARTS) of energy and forces of `atoms`, mean over `repeats`.

    Parts of the forward pass are those of the flagship network; "linear" holds the update, the head and all
    other work per atom, "edge basis" everything per edge outside the layers, "backward" the gradient and the sums
    over edges into forces. Another network's forward pass is all in "linear". The profiler itself adds about a
    microsecond or two to every operation, so that the sum is somewhat above the time without it.
    """
    with ranges(potential), profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(repeats):
            with record_function("part: neighbors"):
                graph = from_atoms(atoms, potential.cutoff).to(next(potential.parameters()).device)
            with record_function("part: predict"):
                predict(potential, graph)
    events = {event.key: event.cpu_time_total for event in profiler.key_averages()}
    total = {
        name: 1e-3 * events.get(f"part: {name}", 0.0) / repeats for name in (*RANGES, "neighbors", "predict")
    }
    parts = {name: total[name] for name in ("neighbors", "density", "product")}
    parts["edge basis"] = total["network"] - total["layer"]
    parts["linear"] = total["potential"] - total["density"] - total["product"] - parts["edge basis"]
    parts["backward"] = total["predict"] - total["potential"]
    return {name: parts[name] for name in PARTS}
