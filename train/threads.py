"""Threads of torch on the CPU, for as long as a context lasts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """`n` threads within the context, afterwards as many as before. torch has only one number for the process, so it is
    put back, also after an error.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
