"""Our SOAP takes the steps of an independent implementation, matrix by matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytorch_optimizer import SOAP

from train.soap import Soap


def walk(
    optimizer: torch.optim.Optimizer, weights: list[torch.Tensor], gradients: list[list[torch.Tensor]]
) -> None:
    for step in gradients:
        for weight, gradient in zip(weights, step, strict=True):
            weight.grad = gradient.clone()
        optimizer.step()


def paper(soap: Soap) -> Soap:
    soap.ridge = 0.0
    return soap


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_a_stack_of_matrices_is_as_many_matrices(weight_decay: float) -> None:
    """The independent one is given each matrix of the stack as a weight of its own."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 6, 5, generator=generator)
    mixing = torch.randn(6, 6, generator=generator)  # unequal eigenvalues
    gradients = [mixing @ torch.randn(3, 6, 5, generator=generator) for _ in range(45)]
    stack = [start.clone().requires_grad_()]
    ours = paper(Soap(stack, lr=0.02, weight_decay=weight_decay, damping=0.0))
    walk(ours, stack, [[g] for g in gradients])
    single = [x.clone().requires_grad_() for x in start]
    other = SOAP(single, lr=0.02, betas=(0.95, 0.95), weight_decay=weight_decay, precondition_frequency=10)
    walk(other, single, [list(g) for g in gradients])
    assert (stack[0] - start).abs().max() > 0.1
    torch.testing.assert_close(stack[0].detach(), torch.stack(single).detach(), rtol=0, atol=1e-5)


def test_a_vector_gets_adam() -> None:
    generator = torch.Generator().manual_seed(1)
    gradients = [torch.randn(7, generator=generator) for _ in range(30)]
    ours, theirs = [torch.zeros(7, requires_grad=True)], [torch.zeros(7, requires_grad=True)]
    walk(Soap(ours, lr=0.01, damping=0.0), ours, [[g] for g in gradients])
    walk(torch.optim.Adam(theirs, lr=0.01, betas=(0.95, 0.95)), theirs, [[g] for g in gradients[1:]])
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-6)


def test_rotated_problems_take_rotated_steps() -> None:
    """What Adam does not do: the path does not depend on the axes of the weights."""
    generator = torch.Generator().manual_seed(2)
    q, p = (torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q for n in (4, 3))
    gradients = [torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(25)]
    one, other = (torch.zeros(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    walk(paper(Soap([one], lr=0.01)), [one], [[g] for g in gradients])
    walk(paper(Soap([other], lr=0.01)), [other], [[q @ g @ p] for g in gradients])
    torch.testing.assert_close(q @ one @ p, other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("soap", "is_rounding"), [(lambda w: Soap(w, lr=0.01), True), (lambda w: paper(Soap(w, lr=0.01)), False)]
)
def test_rounding_stays_rounding(soap: Callable[[list[torch.Tensor]], Soap], is_rounding: bool) -> None:
    """Gradients of low rank, as those of small batches are; without a ridge their bases are not defined by them."""
    generator = torch.Generator().manual_seed(3)
    made: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    gradients = [torch.randn(2, 8, 2, **made) @ torch.randn(2, 2, 6, **made) for _ in range(25)]
    one, other = (torch.zeros(2, 8, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    walk(soap([one]), [one], [[g] for g in gradients])
    rounded = [[g * (1 + 1e-15 * torch.randn(2, 8, 6, **made))] for g in gradients]
    walk(soap([other]), [other], rounded)
    assert (float((one - other).detach().abs().max()) < 1e-10) == is_rounding


@pytest.mark.parametrize("n_rows", [0, 1, 6, 29])
def test_weights_without_a_gradient_stay(n_rows: int) -> None:
    """Rows of zeros, as for an element that is in no batch, give no update, and no NaN elsewhere."""
    generator = torch.Generator().manual_seed(4)
    weight = torch.zeros(3, 30, 64, requires_grad=True)
    pattern = torch.zeros(3, 30, 1)
    pattern[:, torch.randperm(30, generator=generator)[:n_rows]] = 1e-2
    gradients = [pattern * torch.randn(3, 30, 64, generator=generator) for _ in range(25)]
    walk(Soap([weight], lr=0.01), [weight], [[g] for g in gradients])
    assert bool(weight.isfinite().all())
    assert bool((weight[pattern.expand_as(weight) == 0].abs() < 2e-3).all())  # without damping: 2e-2
    assert n_rows == 0 or float(weight.detach().abs().max()) > 0.05


def test_a_minimum_is_found() -> None:
    generator = torch.Generator().manual_seed(3)
    x, target = torch.randn(40, 5, generator=generator), torch.randn(5, 4, generator=generator)
    weight = torch.zeros(5, 4, requires_grad=True)
    optimizer = Soap([weight], lr=0.05)
    for k in range(400):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - k / 400)
        optimizer.zero_grad()
        (x @ weight - x @ target).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(weight.detach(), target, rtol=0, atol=1e-3)


def test_a_closure_is_refused() -> None:
    with pytest.raises(ValueError, match="takes no closure"):
        Soap([torch.zeros(2, requires_grad=True)], lr=0.1).step(lambda: 0.0)
