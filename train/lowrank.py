"""Training a sum: the weights of a potential stay, and products of two thin matrices are learned and added to them.

Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (ICLR 2022).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from potential.model import Potential, build, configuration


class LowRank(Potential):
    """A potential whose matrices W (..., n_in, n_out) are W + A B, of which A (..., n_in, rank) and B train.

    It begins as the potential it is made of: B is zero. Weights that have no more numbers than A and B would have are
    trained themselves; frozen ones stay. `merged` is the sum, an ordinary potential.
    """

    def __init__(self, base: Potential, rank: int, seed: int, whole: Collection[str] = ()):
        """`whole`: names of weights that are trained themselves."""
        super().__init__(base.network, base.head, base.statistics, base.targets)
        self.base = [base]  # in a list: its weights are already here
        self.names = [
            name
            for name, w in base.named_parameters()
            if w.requires_grad
            and name not in whole
            and w.ndim >= 2
            and rank * sum(w.shape[-2:]) < math.prod(w.shape[-2:])
        ]
        generator = torch.Generator().manual_seed(seed)
        self.down, self.up = nn.ParameterList(), nn.ParameterList()
        for name in self.names:
            w = base.get_parameter(name).requires_grad_(False)
            *stack, n_in, n_out = w.shape
            drawn = torch.randn(*stack, n_in, rank, dtype=torch.float64, generator=generator)
            self.down.append(nn.Parameter((drawn / math.sqrt(n_in)).to(w)))
            self.up.append(nn.Parameter(w.new_zeros(*stack, rank, n_out)))

    def sums(self) -> dict[str, Tensor]:
        """The weights that are sums, by name."""
        pairs = zip(self.names, self.down, self.up, strict=True)
        return {name: self.get_parameter(name) + a @ b for name, a, b in pairs}

    def forward(self, *graph: Tensor) -> Any:
        return functional_call(self.base[0], self.sums(), graph)

    def merged(self) -> Potential:
        """An ordinary potential with the same predictions to rounding."""
        base = self.base[0]
        out = build(configuration(base), base.statistics, dtype=base.dtype).to(self.species_of.device)
        out.load_state_dict({**base.state_dict(), **{k: v.detach() for k, v in self.sums().items()}})
        return out


def ordinary(potential: Potential) -> Potential:
    """The potential to use and save: low-rank updates added to its weights."""
    return potential.merged() if isinstance(potential, LowRank) else potential
