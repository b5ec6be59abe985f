"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner, for stacks of small matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

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

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update; closures are not needed by first-order methods and are refused."""
        if closure is not None:
            raise ValueError("Soap.step takes no closure; compute the gradient before it")
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[weight], group["betas"]
        if weight.ndim >= 2:
            gradient = gradient.reshape(-1, *weight.shape[-2:])
        if not state:
            state.update(step=0, first=torch.zeros_like(gradient), second=torch.zeros_like(gradient))
            if weight.ndim >= 2:
                begin(state, gradient, 1 - beta2)
            return
        state["step"] += 1
        rotated = rotate(gradient, state)
        first = state["first"].lerp_(rotated, 1 - beta1)
        second = state["second"].mul_(beta2).addcmul_(rotated, rotated, value=1 - beta2)
        deviation = second.sqrt()
        update = rotate(first / (deviation + group["damping"] * rms(deviation) + EPSILON), state, back=True)
        t, rate = state["step"], group["lr"]
        size = rate * math.sqrt(1 - beta2**t) / (1 - beta1**t)
        weight.sub_(update.view_as(weight), alpha=size).mul_(1 - rate * group["weight_decay"])
        if weight.ndim >= 2:
            accumulate(state, gradient, 1 - beta2)
            if t % group["every"] == 0:
                for side in SIDES:
                    turn(state, side)


def begin(state: dict[str, Any], gradient: Tensor, share: float) -> None:
    """The bases from the first gradient (n, n_in, n_out), largest eigenvalue first."""
    for side, size in zip(SIDES, gradient.shape[1:], strict=True):
        state[side] = gradient.new_zeros(len(gradient), size, size)
    accumulate(state, gradient, share)
    for side in SIDES:
        # In float64 and never singular: LAPACK can answer NaN for a float32 matrix with rows of zeros.
        matrix = state[side].double()
        matrix = matrix + 1e-30 * torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        basis = torch.linalg.eigh(matrix).eigenvectors.flip(-1)
        state[f"{side}_basis"] = basis.to(gradient.dtype).contiguous()


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


def turn(state: dict[str, Any], side: str) -> None:
    """One step of orthogonal iteration; the moments follow."""
    old = state[f"{side}_basis"]
    product = state[side] @ old
    order = (old * product).sum(-2).argsort(dim=-1, descending=True)  # by the estimated eigenvalues
    new = torch.linalg.qr(product.take_along_dim(order.unsqueeze(-2), -1)).Q
    change = old.mT @ new
    if side == "left":
        state["first"] = change.mT @ state["first"]
        state["second"] = state["second"].take_along_dim(order.unsqueeze(-1), -2)
    else:
        state["first"] = state["first"] @ change
        state["second"] = state["second"].take_along_dim(order.unsqueeze(-2), -1)
    state[f"{side}_basis"] = new
