"""How running out of memory is told from other errors."""

from __future__ import annotations

import errno

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA has a type for it, the system a number, the allocator of the CPU and the loader of libraries only words."""
    words = ("not enough memory", "can't allocate memory", "out of memory", "failed to map segment")
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(w in str(error) for w in words)
