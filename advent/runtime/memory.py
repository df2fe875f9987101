"""Memory of CPU runs: the C library keeps freed memory for the next tensors."""

from __future__ import annotations

import ctypes
import os
import platform

# mallopt's parameters, from malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
LARGEST = 2**31 - 1
PAD = 256 * 2**20


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory instead of returning it to the system; returns whether it was asked to.

    An iteration allocates and frees the same large tensors. glibc maps each from the system and returns it, and every
    new page is then cleared again: a fifth of a step of `quick_modern` (docs/performance.md). Environment variables of
    malloc take precedence. Other C libraries are left alone.
    """
    if platform.libc_ver()[0] != "glibc" or any(n.startswith("MALLOC_") or n == "GLIBC_TUNABLES" for n in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    values = {M_MMAP_THRESHOLD: LARGEST, M_TRIM_THRESHOLD: LARGEST, M_TOP_PAD: PAD}
    accepted = [mallopt(parameter, value) for parameter, value in values.items()]  # each, also after a refusal
    return all(accepted)
