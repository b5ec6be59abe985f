"""Optimizers by name: ours, those of torch.optim, those of pytorch-optimizer (an extra)."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from train.config import Fit
from train.option import suggest
from train.soap import Soap
from train.state import pack, unpack

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Make = Callable[..., torch.optim.Optimizer]


def make_optimizer(weights: Sequence[Tensor], fit: Fit) -> torch.optim.Optimizer:
    """The optimizer of a run, with its options.

    Raises:
        ValueError: an unknown name or option, or an optimizer that cannot be stopped and resumed exactly, or that
            needs more than a gradient.
        ImportError: pytorch-optimizer is not installed.
    """
    given = parse_options(fit.optimizer_options)
    if fit.optimizer == "soap":
        soap = build(Soap, weights, fit, given)
        soap.record = fit.record  # type: ignore[attr-defined]
        return soap
    make = find(fit.optimizer)
    require_exact(make, fit, given)
    return build(make, weights, fit, given)


def require_optimizer(fit: Fit) -> None:
    """Make the optimizer for a matrix and a vector.

    Raises:
        ValueError, ImportError: see `make_optimizer`.
    """
    make_optimizer([torch.zeros(2, 2, requires_grad=True), torch.zeros(2, requires_grad=True)], fit)


def parse_options(lines: Sequence[str]) -> dict[str, Any]:
    """`["momentum=0.9", "betas=[0.9, 0.99]"]` -> {"momentum": 0.9, "betas": (0.9, 0.99)}; values as in TOML."""
    found: dict[str, Any] = {}
    for line in lines:
        name, equals, value = (part.strip() for part in line.partition("="))
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = None
        if not name.isidentifier() or not equals or parsed is None:
            raise ValueError(
                f"[fit] optimizer_options has {line!r}; expected name=value, such as momentum=0.9"
            )
        found[name] = tuple(parsed) if isinstance(parsed, list) else parsed
    return found


def of_torch() -> dict[str, Make]:
    """Lower-case name -> optimizer of torch that needs nothing but dense gradients."""
    others = ("Optimizer", "LBFGS", "SparseAdam")
    found = {k: v for k, v in vars(torch.optim).items() if isinstance(v, type) and k not in others}
    return {k.lower(): v for k, v in found.items() if issubclass(v, torch.optim.Optimizer)}


def find(name: str) -> Make:
    """An optimizer of torch, or else of pytorch-optimizer."""
    known = of_torch()
    if name.lower() in known:
        return known[name.lower()]
    try:
        from pytorch_optimizer import get_supported_optimizers, load_optimizer
    except ImportError:
        raise ValueError(
            f"[fit] optimizer is {name!r}{suggest(name, ['soap', *known])}; there are soap, {', '.join(known)}, and "
            "more with pytorch-optimizer, which is not installed: pip install 'equiv-potential[optimizers]'"
        ) from None
    more = [str(n) for n in get_supported_optimizers()]
    if name.lower() not in more:
        names = ["soap", *known, *more]
        raise ValueError(
            f"[fit] optimizer is {name!r}{suggest(name.lower(), names)}; there are soap, {', '.join(known)}, and "
            f"of pytorch-optimizer {', '.join(n for n in more if n not in known and n != 'soap')}"
        )
    if name.lower().startswith("schedulefree"):
        raise ValueError(
            f"[fit] optimizer is {name!r}, which keeps averages of its own to evaluate with; here the moving average "
            "(fit.ema) and fit.schedule do that: take adamw or sgd with schedule = 'constant'"
        )
    found: Make = load_optimizer(name.lower())
    return found


def build(make: Make, weights: Sequence[Tensor], fit: Fit, given: dict[str, Any]) -> torch.optim.Optimizer:
    """Learning rate and weight decay come from the settings, the rest as given.

    Raises:
        ValueError: an option that the optimizer does not have or does not like.
    """
    takes = [k for k in inspect.signature(make).parameters if k not in ("self", "params", "kwargs")]
    own = {"lr": fit.learning_rate, "weight_decay": fit.weight_decay}
    if fit.weight_decay and "weight_decay" not in takes:
        raise ValueError(f"[fit] optimizer {fit.optimizer!r} has no weight_decay; set fit.weight_decay to 0")
    for name in given:
        if name in own:
            setting = {"lr": "learning_rate"}.get(name, name)
            raise ValueError(f"[fit] optimizer_options has {name}; set fit.{setting} instead")
        if name not in takes:
            rest = [k for k in takes if k not in own]
            hint = f"{suggest(name, rest)}; it has {', '.join(rest)}"
            raise ValueError(f"[fit] optimizer {fit.optimizer!r} has no option {name!r}{hint}")
    try:
        return make(weights, **{k: v for k, v in own.items() if k in takes}, **given)
    except (TypeError, ValueError, NotImplementedError, AssertionError) as error:  # how they refuse an option
        raise ValueError(f"[fit] optimizer {fit.optimizer!r}: {error}") from error


def require_exact(make: Make, fit: Fit, given: dict[str, Any]) -> None:
    """A toy problem, stopped and resumed: it must end in the same bits as without the stop.

    Raises:
        ValueError: it does not, or the optimizer needs a closure, second derivatives or the like.
    """

    def steps(optimizer: torch.optim.Optimizer, weights: list[Tensor], n: int) -> None:
        for _ in range(n):
            for w in weights:
                w.grad = (3 * w + 0.1 * w.flip(-1)).detach()
            optimizer.step()

    start = [
        torch.linspace(-1, 1, n).reshape(shape) for n, shape in ((6, (2, 3)), (24, (2, 3, 4)), (5, (5,)))
    ]
    one = [w.clone().requires_grad_() for w in start]
    optimizer = build(make, one, fit, given)
    try:
        steps(optimizer, one, 3)
        tensors: dict[str, Tensor] = {}
        saved = pack(optimizer.state_dict(), tensors)
        two = [w.detach().clone().requires_grad_() for w in one]
        resumed = build(make, two, fit, given)
        resumed.load_state_dict(copy.deepcopy(unpack(saved, tensors)))
        steps(optimizer, one, 12)
        steps(resumed, two, 12)
    except Exception as error:  # whatever it needs, it is not what a training step gives
        raise ValueError(
            f"[fit] optimizer {fit.optimizer!r} cannot be used here ({type(error).__name__}: {error}); take one that "
            "needs gradients only and whose state can be saved, such as soap, adamw or lion"
        ) from error
    if not all(torch.equal(a, b) and bool(torch.isfinite(a).all()) for a, b in zip(one, two, strict=True)):
        raise ValueError(
            f"[fit] optimizer {fit.optimizer!r} does not go on exactly from its saved state, or is not finite on a toy "
            "problem; take another one, such as soap, adamw or lion"
        )
