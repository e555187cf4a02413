"""What batches are decoded into, and by which threads."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray


class Buffers:
    """Arrays for chunks, used again once nothing refers to them: a fresh one costs a page fault for every 4 KiB.

    Args:
        shape: of each array, uint8.
        most: how many are kept.
    """

    def __init__(self, shape: tuple[int, ...], most: int) -> None:
        self._shape = shape
        self._most = most
        self._pinned = torch.cuda.is_available()
        self._arrays: list[NDArray[np.uint8]] = []
        # How many references Python counts while a list alone holds an array; that differs between its versions.
        alone = [np.empty(0)]
        self._idle = sys.getrefcount(alone[0])

    def take(self) -> NDArray[np.uint8]:
        """An array that nobody else has."""
        for index in range(len(self._arrays)):
            # Tensors made of an array, and views of it, hold further references.
            if sys.getrefcount(self._arrays[index]) <= self._idle:
                return self._arrays[index]
        array = torch.empty(self._shape, dtype=torch.uint8, pin_memory=self._pinned).numpy()
        if len(self._arrays) < self._most:
            self._arrays.append(array)
        return array


def decoders(threads: int) -> ThreadPoolExecutor:
    """Threads that run PyTorch's operations by themselves: each would else start as many more for every image.

    PyTorch keeps that number for each thread, and one for threads that have none yet, which is set back here.
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
