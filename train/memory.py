"""How running out of memory is told from other errors."""

from __future__ import annotations

import errno


def is_out_of_memory(error: BaseException) -> bool:
    """Python has a type for it, the system a number, allocators of torch and the loader of libraries words. Without
    torch, which may be what does not fit."""
    words = ("not enough memory", "can't allocate memory", "out of memory", "failed to map segment")
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)
