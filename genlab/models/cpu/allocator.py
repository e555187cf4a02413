"""Settings of glibc's allocator for the memory of tensors on the CPU."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
"""The numbers of ``mallopt``'s parameters, from glibc's malloc.h."""
_LARGEST_HEAP_BLOCK = 32 * 2**20
"""Bytes up to which a block comes from a heap rather than from a mapping of its own: the most that glibc allows."""
_HEAP = 2 * _LARGEST_HEAP_BLOCK
"""``M_TOP_PAD`` in bytes. Threads other than the first, such as the one in which Ray Train runs the training loop, have
several heaps of this size, and an empty heap goes back to the system unless the heap before it has less room left than
``M_TOP_PAD``."""


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next step, instead of giving it back to the system.

    Each step asks for blocks of the same few sizes and frees them, and memory from the system costs a page fault and a
    page of zeros for every 4 KiB: a quarter of the VAE's step on a CPU. This holds for blocks of up to 32 MiB. Under
    another C library nothing is done.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None and hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_HEAP_BLOCK)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_TOP_PAD, _HEAP)
