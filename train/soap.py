"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner, for stacks of small matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from potential.recorded import Recording

EPSILON = 1e-8  # Adam's
SIDES = ("left", "right")


class Soap(torch.optim.Optimizer):
    """Adam, for a matrix in the eigenbases of the running averages of G G^T and G^T G, G its gradient.

    A weight (..., n_in, n_out) is a stack of matrices, each with bases of its own; a vector gets plain Adam. The bases
    follow by one step of orthogonal iteration every `every` steps. As in the paper, the first gradient only sets up
    the bases. The first moment is kept in the rotated basis, which saves a rotation a step and changes nothing.

    Args:
        betas: decay of the first moment, and of the second moment and the matrices.
        weight_decay: decoupled from the gradient, after the step.
        every: steps between two renewals of the bases.
        damping: share of a matrix's own deviation that is added to Adam's denominator. Without it a direction that has
            no gradient but its rounding error would be walked at full length (not in the paper; 0 is the paper).

    Source: Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam (ICLR 2025), algorithm 3.
    """

    # Share of a matrix's mean eigenvalue that is added to its diagonal before its bases are found, or bases of
    # directions without gradient would be rounding errors (not in the paper; 0 is the paper).
    ridge = 1e-3
    record = True  # the kernels of a step, on a GPU
    recorded: RecordedUpdate | None = None  # of all weights that have moved before

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.95, 0.95),
        weight_decay: float = 0.0,
        every: int = 10,
        damping: float = 1e-4,
    ):
        defaults = {
            "lr": lr,
            "betas": betas,
            "weight_decay": weight_decay,
            "every": every,
            "damping": damping,
        }
        super().__init__(params, defaults)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's; a recording of the tensors that were there before is dropped."""
        super().load_state_dict(state_dict)
        self.recorded = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update; closures are not needed by first-order methods and are refused."""
        if closure is not None:
            raise ValueError("Soap.step takes no closure; compute the gradient before it")
        found = [(w, group) for group in self.param_groups for w in group["params"] if w.grad is not None]
        moved = found and all(weight.is_cuda and self.state[weight] for weight, _ in found)
        if moved and self.record and self._replay(found):
            return
        for weight, group in found:
            assert weight.grad is not None
            self._update(weight, weight.grad, group)

    def _replay(self, found: list[tuple[Tensor, dict[str, Any]]]) -> bool:
        """The same with one launch for all kernels: nothing but the gradients and the two factors differs from step to
        step, but for the turns. False: nothing was done, since there is no memory for a recording; none is made again.
        """
        weights = [weight for weight, _ in found]
        if self.recorded is None or not self.recorded.serves(weights):
            try:
                self.recorded = RecordedUpdate([(w, self.state[w], group) for w, group in found])
            except torch.OutOfMemoryError:
                self.record, self.recorded = False, None
                return False
        for weight, _ in found:
            self.state[weight]["step"] += 1
        self.recorded([factors(self.state[w]["step"], group) for w, group in found])
        turn([self.state[weight] for weight, group in found if is_due(self.state[weight], group)], self.ridge)
        return True

    def _update(self, weight: Tensor, slope: Tensor, group: dict[str, Any]) -> None:
        state, beta2 = self.state[weight], group["betas"][1]
        gradient = stack(slope)
        if not state:
            state.update(step=0, first=torch.zeros_like(gradient), second=torch.zeros_like(gradient))
            if weight.ndim >= 2:
                begin(state, gradient, 1 - beta2, self.ridge)
            return
        state["step"] += 1
        size, kept = factors(state["step"], group)
        weight.sub_(direction(state, gradient, group).view_as(weight), alpha=size).mul_(kept)
        if weight.ndim >= 2:
            accumulate(state, gradient, 1 - beta2)
        if is_due(state, group):
            turn([state], self.ridge)


class RecordedUpdate:
    """Updates of several weights as they are between two turns of the bases, recorded on a GPU.

    Args:
        moved: weights with their state, in which all tensors must stay where they are, and their settings.
    """

    def __init__(self, moved: list[tuple[Tensor, dict[str, Any], dict[str, Any]]]):
        self.moved = moved
        device = moved[0][0].device
        self.slopes = [torch.zeros_like(weight) for weight, *_ in moved]
        self.factors = torch.ones(len(moved), 2, dtype=torch.float64, device=device)
        kept = [x.clone() for x in self.touched()]
        try:
            self.recording = Recording(self._update, device)
        finally:
            torch._foreach_copy_(self.touched(), kept)  # undoes what was done to record

    def touched(self) -> list[Tensor]:
        """All that an update changes."""
        states = [x for _, state, _ in self.moved for x in state.values() if isinstance(x, Tensor)]
        return [*(weight for weight, *_ in self.moved), *states]

    def serves(self, weights: list[Tensor]) -> bool:
        mine = [weight for weight, *_ in self.moved]
        return len(mine) == len(weights) and all(a is b for a, b in zip(mine, weights, strict=True))

    def __call__(self, scales: list[tuple[float, float]]) -> None:
        """`scales`: what `factors` says of each weight."""
        torch._foreach_copy_(self.slopes, [w.grad for w, *_ in self.moved if w.grad is not None])
        self.factors.copy_(torch.tensor(scales, dtype=torch.float64))
        self.recording()

    @torch.no_grad()
    def _update(self) -> Tensor:
        for (weight, state, group), slope, (size, kept) in zip(
            self.moved, self.slopes, self.factors, strict=True
        ):
            gradient = stack(slope)
            weight.sub_(direction(state, gradient, group).view_as(weight) * size).mul_(kept)
            if weight.ndim >= 2:
                accumulate(state, gradient, 1 - group["betas"][1])
        return self.factors


def stack(slope: Tensor) -> Tensor:
    """A gradient as a stack of matrices (n, n_in, n_out); that of a vector as it is."""
    return slope.reshape(-1, *slope.shape[-2:]) if slope.ndim >= 2 else slope


def factors(step: int, group: dict[str, Any]) -> tuple[float, float]:
    """How far a weight goes in its direction, and what it is multiplied by afterwards."""
    (beta1, beta2), rate = group["betas"], group["lr"]
    return rate * math.sqrt(1 - beta2**step) / (1 - beta1**step), 1 - rate * group["weight_decay"]


def direction(state: dict[str, Any], gradient: Tensor, group: dict[str, Any]) -> Tensor:
    """Adam's in the eigenbases, after its moments have taken the gradient in."""
    beta1, beta2 = group["betas"]
    rotated = rotate(gradient, state)
    first = state["first"].lerp_(rotated, 1 - beta1)
    second = state["second"].mul_(beta2).addcmul_(rotated, rotated, value=1 - beta2)
    deviation = second.sqrt()
    return rotate(first / (deviation + group["damping"] * rms(deviation) + EPSILON), state, back=True)


def begin(state: dict[str, Any], gradient: Tensor, share: float, ridge: float) -> None:
    """The bases from the first gradient (n, n_in, n_out), largest eigenvalue first."""
    for side, size in zip(SIDES, gradient.shape[1:], strict=True):
        state[side] = gradient.new_zeros(len(gradient), size, size)
    accumulate(state, gradient, share)
    for side in SIDES:
        # In float64 and never singular: LAPACK can answer NaN for a float32 matrix with rows of zeros. No two
        # eigenvalues are equal, or rounding would choose what spans the null space, which one gradient leaves large.
        matrix = state[side].double()
        ramp = torch.linspace(1.0, 2.0, matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        basis = torch.linalg.eigh(matrix + (ridge * mean(matrix) + 1e-30) * ramp.diag()).eigenvectors.flip(-1)
        state[f"{side}_basis"] = basis.to(gradient.dtype).contiguous()


def mean(matrix: Tensor) -> Tensor:
    """Of the eigenvalues of each matrix (..., n, n), to multiply one."""
    return matrix.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]


def rms(x: Tensor) -> Tensor:
    """Root mean square of each matrix (..., n, m), or of a vector, to be added to it."""
    return x.square().mean((-2, -1) if x.ndim > 1 else -1, keepdim=True).sqrt()


def accumulate(state: dict[str, Any], gradient: Tensor, share: float) -> None:
    state["left"].lerp_(gradient @ gradient.mT, share)
    state["right"].lerp_(gradient.mT @ gradient, share)


def rotate(x: Tensor, state: dict[str, Any], back: bool = False) -> Tensor:
    """Into the eigenbases, or back; a vector has none."""
    if x.ndim < 2:
        return x
    left: Tensor = state["left_basis"]
    right: Tensor = state["right_basis"]
    return left @ x @ right.mT if back else left.mT @ x @ right


def is_due(state: dict[str, Any], group: dict[str, Any]) -> bool:
    """Whether the bases of a weight that has some are to turn."""
    return "left" in state and state["step"] % group["every"] == 0


def turn(states: Sequence[dict[str, Any]], ridge: float) -> None:
    """One step of orthogonal iteration; the moments follow."""
    for side in SIDES:
        orders, products = [], []
        for state in states:
            basis = state[f"{side}_basis"]
            product = state[side] @ basis
            estimate = (basis * product).sum(-2)  # of the eigenvalues
            product += ridge * mean(state[side]) * basis
            orders.append(estimate.argsort(dim=-1, descending=True))
            products.append(product.take_along_dim(orders[-1].unsqueeze(-2), -1))
        for state, order, new in zip(states, orders, orthogonal(products), strict=True):
            old, (first, second) = state[f"{side}_basis"], (state["first"], state["second"])
            change = old.mT @ new
            first.copy_(change.mT @ first if side == "left" else first @ change)
            place, axis = (order.unsqueeze(-1), -2) if side == "left" else (order.unsqueeze(-2), -1)
            second.copy_(second.take_along_dim(place, axis))
            old.copy_(new)


def orthogonal(stacks: Sequence[Tensor]) -> list[Tensor]:
    """Q of each stack (n, size, size); those of one size together, as a GPU is slow to begin."""
    found = list(stacks)
    for size in dict.fromkeys(x.shape[-1] for x in stacks):
        where = [k for k, x in enumerate(stacks) if x.shape[-1] == size]
        q = torch.linalg.qr(torch.cat([stacks[k] for k in where])).Q
        for k, part in zip(where, torch.split(q, [len(stacks[k]) for k in where]), strict=True):
            found[k] = part
    return found
