"""The weights of a MACE as matrices, one per irrep, path and element, for optimizers that look at matrices (SOAP).

MACE keeps many matrices in one tensor: the weights of an `o3.Linear` are a single vector, those of all elements one
array. The pieces here are parameters that share the memory of the model's, so an optimizer that steps in place moves
the model, and the gradients of the pieces are views of the model's gradients: nothing is copied or recomputed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from mace import modules
from mace.modules.symmetric_contraction import Contraction
from torch import Tensor
from torch.nn import Parameter

from e3nn import o3  # after mace: it prepares e3nn 0.4.4 for new versions of torch  # isort: skip

Cut = Callable[[Tensor], list[Tensor]]  # a tensor -> its blocks, as views


@dataclass(frozen=True)
class Stack:
    """A parameter of the model, its blocks as parameters of their own, and how they are cut out of it."""

    whole: Parameter
    cut: Cut
    pieces: list[Parameter]


def unstack(model: torch.nn.Module) -> list[Stack]:
    """Every trainable parameter of a MACE in blocks; what holds one matrix only is one block."""
    cuts: dict[Parameter, Cut] = {}
    for module in model.modules():
        if (
            isinstance(module, (o3.Linear, o3.TensorProduct))
            and module.weight_numel
            and module.internal_weights
        ):
            cuts[module.weight] = _paths(module)
        elif isinstance(module, Contraction):
            cuts |= dict.fromkeys([module.weights_max, *module.weights], _elements)
    for interaction in model.interactions:
        *_, last = interaction.conv_tp_weights.children()
        cuts[last.weight] = _columns(interaction.conv_tp)
    stacks = []
    for whole in model.parameters():
        if whole.requires_grad and whole.numel():
            cut = cuts.get(whole, lambda tensor: [tensor])
            stacks.append(Stack(whole, cut, [Parameter(view) for view in cut(whole.detach())]))
    return stacks


def hand_over(stacks: list[Stack]) -> None:
    """Show the pieces the gradients that `backward` left in the model."""
    for stack in stacks:
        for piece, gradient in zip(stack.pieces, stack.cut(stack.whole.grad), strict=True):
            piece.grad = gradient


def _paths(module: Any) -> Cut:
    """One matrix for each path (and element) of a Linear or a FullyConnectedTensorProduct."""

    def cut(weight: Tensor) -> list[Tensor]:
        views = module.weight_views(weight)
        return [m for v in views for m in (v.unbind(1) if v.dim() == 3 else [v])]

    return cut


def _elements(weight: Tensor) -> list[Tensor]:
    """(paths, channels) for each element, of the symmetric contraction."""
    return list(weight.unbind(0))


def _columns(product: Any) -> Cut:
    """(hidden, channels) for each path, of the last layer of the radial network that makes the product's weights."""
    sizes = [prod(instruction.path_shape) for instruction in product.instructions if instruction.has_weight]
    return lambda weight: list(weight.split(sizes, dim=1))


def check(model: modules.ScaleShiftMACE, loss: Callable[[], Tensor]) -> str:
    """Hold the pieces against the model; the model is float64 and comes back changed.

    Raises:
        ValueError: an entry that is in no piece or in two, a piece that is no matrix, a gradient that is not the
            slope of the loss along its piece, a step of the pieces that is not the model's.
    """
    stacks = unstack(model)
    pieces = [piece for stack in stacks for piece in stack.pieces]
    _check_cover(stacks)
    loss().backward()
    hand_over(stacks)
    generator, step, worst = torch.Generator().manual_seed(0), 1e-5, 0.0
    for piece in pieces:
        direction = torch.randn(piece.shape, generator=generator, dtype=piece.dtype)
        values = []
        for sign in (1, -2):  # from x to x + h, then to x - h
            piece.data.add_(direction, alpha=sign * step)
            values.append(loss().item())
        piece.data.add_(direction, alpha=step)
        slope, expected = (values[0] - values[1]) / (2 * step), float((piece.grad * direction).sum())
        worst = max(worst, abs(slope - expected) / (abs(expected) + 1e-3 * abs(values[0])))
    if not worst < 1e-4:
        raise ValueError(f"the gradient of a block is off its slope by {worst:.1e}; expected less than 1e-4")
    wanted = [stack.whole.detach() - 0.01 * stack.whole.grad for stack in stacks]
    torch.optim.SGD(pieces, lr=0.01).step()
    if not all(
        torch.allclose(stack.whole, w, rtol=0.0, atol=1e-13) for stack, w in zip(stacks, wanted, strict=True)
    ):
        raise ValueError(
            "a step of the blocks is not the step of the model; the blocks must share its memory"
        )
    n = sum(piece.numel() for piece in pieces)
    return f"{len(stacks)} parameters in {len(pieces)} matrices, {n} weights; slopes agree to {worst:.1e}"


def _check_cover(stacks: list[Stack]) -> None:
    for stack in stacks:
        numbers = torch.arange(stack.whole.numel()).view(stack.whole.shape)
        found = torch.cat([block.flatten() for block in stack.cut(numbers)])
        if not torch.equal(found.sort().values, numbers.flatten()):
            raise ValueError(
                f"the blocks of a parameter of shape {tuple(stack.whole.shape)} miss or repeat entries"
            )
        for piece in stack.pieces:
            if piece.dim() != 2:
                raise ValueError(f"a block has shape {tuple(piece.shape)}; expected a matrix")
            if piece.untyped_storage().data_ptr() != stack.whole.untyped_storage().data_ptr():
                raise ValueError(
                    f"a block of shape {tuple(piece.shape)} is a copy; expected a view of the model"
                )
