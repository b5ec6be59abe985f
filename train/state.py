"""Nested state (optimizer, moving average, counters) <-> JSON + tensors, without pickle."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A JSON description of dicts, lists, tuples, numbers, strings, None and tensors; tensors go into `tensors`.

    Raises:
        TypeError: anything else.
    """
    if isinstance(value, Tensor):
        name = f"t{len(tensors)}"
        tensors[name] = value.detach().clone()
        return {"tensor": name, "strides": list(value.stride())}
    if isinstance(value, dict):
        return {"dict": [[pack(k, tensors), pack(v, tensors)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [pack(v, tensors) for v in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"cannot store a {type(value).__name__} without pickle: {value!r}")


def unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `pack`. Strides come back too: a matrix product rounds differently on a transposed layout."""
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        tensor = tensors[value["tensor"]]
        laid_out = torch.empty_strided(tensor.shape, value["strides"], dtype=tensor.dtype)
        return laid_out.copy_(tensor)
    ((kind, content),) = value.items()
    if kind == "dict":
        return {unpack(k, tensors): unpack(v, tensors) for k, v in content}
    items = [unpack(v, tensors) for v in content]
    return tuple(items) if kind == "tuple" else items
