"""Precision of the products of matrices on a GPU, for as long as a context lasts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def tf32(on: bool) -> Iterator[None]:
    """float32 products of CUDA in TensorFloat-32 within the context, if `on`; afterwards as before.

    A product then keeps 10 bits of each factor instead of 23. torch has only one switch for the process, so it is put
    back, and whatever else the process evaluates is as precise as it was. Nothing changes on a CPU or in float64.
    """
    if not on:
        yield
        return
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    products.fp32_precision = "tf32"
    try:
        yield
    finally:
        products.fp32_precision = before
