"""What the C library does with memory that tensors on the CPU have given back."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
"""``mallopt``'s numbers of its parameters, from glibc's malloc.h."""
_LARGEST_HEAP_BLOCK = 32 * 2**20
"""glibc takes no larger threshold."""
_HEAP = 2 * _LARGEST_HEAP_BLOCK
"""Size of the heaps of threads other than the first, each of which is given back when it is empty unless the one before
it has less room than ``M_TOP_PAD``. Ray Train runs the loop in such a thread."""


def keep_freed_memory() -> None:
    """Have glibc keep what is freed, for the next step, instead of giving it back to the system.

    A step frees and asks for the same few sizes again and again, and memory that comes from the system costs a page
    fault and a page of zeros for every 4 KiB: a quarter of the VAE's step on a CPU. Blocks of up to 32 MiB take part.
    Does nothing under another C library.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None and hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_HEAP_BLOCK)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_TOP_PAD, _HEAP)
