"""Batches of a data set as tensors on a device: the one way from read rows to a batch, in training and measuring.

Training iterates :class:`DeviceBatches`; pictures and evaluations read chosen rows with :func:`read_batch`, and test
metrics one range of rows after another with :func:`read_batches`.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from genlab.data.format.shards import Ints, ShardSet
from genlab.data.stream.augment import Augmentation
from genlab.data.stream.shard_stream import ShardStream


@dataclass(frozen=True)
class Batch:
    """Rows of one data set, on one device."""

    image: Tensor
    """uint8 [N, H, W, C], 0..255"""
    label: Tensor | None
    """int64 [N]; ``None`` when the images are not labelled."""
    attributes: Mapping[str, Tensor] = field(default_factory=dict)
    """[N] each, by name: int64 (a category's are indices into its names), or float64."""
    rows: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """int64 [N], numbers of the rows in their split, on the host; empty for images of no data set."""

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, part: slice) -> "Batch":
        """Return some of the rows."""
        label = None if self.label is None else self.label[part]
        attributes = {name: values[part] for name, values in self.attributes.items()}
        return Batch(self.image[part], label, attributes, self.rows[part])

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on ``device``."""
        label = None if self.label is None else self.label.to(device)
        attributes = {name: values.to(device) for name, values in self.attributes.items()}
        return Batch(self.image.to(device), label, attributes, self.rows)


def to_batch(image: Tensor, columns: Mapping[str, Tensor], rows: Ints, device: torch.device) -> Batch:
    """Make a batch of rows that were read.

    Args:
        image: uint8 [N, H, W, C]. Pinned memory is copied to a GPU without waiting for the end of the copy.
        columns: [N] each, by name; ``label`` (int64) is the label, the others are attributes.
        rows: int64 [N], numbers of the rows in their split.
        device: the device to copy to.
    """
    attributes = {name: values.to(device, non_blocking=True) for name, values in columns.items()}
    label = attributes.pop("label", None)
    return Batch(image.to(device, non_blocking=True), label, attributes, rows)


def read_batch(shards: ShardSet, rows: Ints, device: torch.device | str = "cpu") -> Batch:
    """Read rows of a split, in the order asked for.

    Args:
        shards: the split; its images are of one size.
        rows: int64 [N], numbers of the rows.
        device: the device to copy to.

    Raises:
        DataError: as :meth:`genlab.data.format.shards.ShardSet.read`.
    """
    read = shards.read(rows)
    columns = {name: torch.from_numpy(values) for name, values in read.columns.items()}
    return to_batch(torch.from_numpy(read.image), columns, rows, torch.device(device))


@contextmanager
def read_batches(
    splits: Mapping[str, ShardSet], ranges: Sequence[range], device: torch.device
) -> Iterator[Iterator[dict[str, Batch]]]:
    """Read ranges of rows of some splits, one after another; while one is in use, a thread reads the next.

    The context gives an iterator of the batches of each range by the names of the splits; its end waits for the thread.

    Args:
        splits: the splits by name, each of images of one size.
        ranges: the numbers of the rows to read, the same of each split.
        device: the device to copy to.

    Raises:
        DataError: as :meth:`genlab.data.format.shards.ShardSet.read`.
    """

    def read(rows: range) -> dict[str, Batch]:
        return {name: read_batch(shards, np.arange(rows.start, rows.stop)) for name, shards in splits.items()}

    def batches() -> Iterator[dict[str, Batch]]:
        due = deque(thread.submit(read, rows) for rows in ranges[:1])
        for number in range(len(ranges)):
            due.extend(thread.submit(read, rows) for rows in ranges[number + 1 : number + 2])
            yield {name: batch.to(device) for name, batch in due.popleft().result().items()}

    with ThreadPoolExecutor(1, thread_name_prefix="read-batches") as thread:
        yield batches()


class DeviceBatches(Iterator[Batch]):
    """The batches of a stream on a device; a context manager that closes the stream.

    On a GPU a batch is copied as bytes and then augmented, on a CUDA stream of its own, while the model works on the
    batch before it.

    Args:
        stream: the batches in host memory.
        device: the device to copy to.
        augmentation: random changes to the images that are made on a GPU; on a CPU the stream makes them.
    """

    def __init__(self, stream: ShardStream, device: torch.device, augmentation: Augmentation | None = None) -> None:
        self.stream = stream
        self._device = device
        self._augmentation = augmentation
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._next: Batch | None = None

    def __next__(self) -> Batch:
        if self._copies is None:
            read = next(self.stream)
            return to_batch(read.image, read.columns, read.row, self._device)
        batch = self._next or self._copy(self._copies)
        compute = torch.cuda.current_stream(self._device)
        compute.wait_stream(self._copies)
        for tensor in (batch.image, batch.label, *batch.attributes.values()):
            if tensor is not None:
                tensor.record_stream(compute)
        self._next = self._copy(self._copies)
        return batch

    def __enter__(self) -> "DeviceBatches":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stream.close()

    def _copy(self, copies: torch.cuda.Stream) -> Batch:
        """Copy the stream's next batch to the GPU and augment it there."""
        read = next(self.stream)
        with torch.cuda.stream(copies):
            batch = to_batch(read.image, read.columns, read.row, self._device)
            # The stream uses a pinned buffer again when nothing refers to it; a copy under way does not count as that.
            copied = torch.cuda.Event()
            copied.record(copies)
            copied.synchronize()
            if self._augmentation:
                self._augmentation.apply(batch.image, self._augmentation.draw(read.epoch, read.row), out=batch.image)
        return batch
