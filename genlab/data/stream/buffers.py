"""The arrays that batches are decoded into, and the threads that decode."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray


class Buffers:
    """Arrays that are used again once nothing else refers to them: a new one costs a page fault for every 4 KiB.

    Args:
        shape: shape of each array, uint8.
        most: how many arrays are kept.
        pinned: whether they are page-locked memory, which makes a CUDA context.
    """

    def __init__(self, shape: tuple[int, ...], most: int, pinned: bool = False) -> None:
        self._shape = shape
        self._most = most
        self._pinned = pinned
        self._arrays: list[NDArray[np.uint8]] = []
        # How many references Python counts when only a list holds an array; versions of Python differ in that.
        alone = [np.empty(0)]
        self._idle = sys.getrefcount(alone[0])

    def take(self) -> NDArray[np.uint8]:
        """Return an array that nothing else refers to."""
        for index in range(len(self._arrays)):
            # Tensors made of an array, and views of it, hold further references.
            if sys.getrefcount(self._arrays[index]) <= self._idle:
                return self._arrays[index]
        array = torch.empty(self._shape, dtype=torch.uint8, pin_memory=self._pinned).numpy()
        if len(self._arrays) < self._most:
            self._arrays.append(array)
        return array


def decoders(threads: int) -> ThreadPoolExecutor:
    """Return a pool of threads in which PyTorch's operations run on one CPU each.

    Without that, each thread would start as many further threads for every image. PyTorch keeps the number of CPUs for
    each thread, and one for threads to come, which is set back to what it was.
    """
    before, begun = torch.get_num_threads(), threading.Barrier(threads + 1)

    def begin() -> None:
        torch.set_num_threads(1)
        begun.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="genlab-stream", initializer=begin)
    for _ in range(threads):
        pool.submit(int)
    begun.wait()
    torch.set_num_threads(before)
    return pool
