"""The batches of one domain as they reach a recipe: read ahead, changed at random, on the device."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import torch

from genlab.core.errors import RunError
from genlab.core.seeds import derived_seed
from genlab.data.format.shards import ShardSet
from genlab.data.stream.augment import Augmentation
from genlab.data.stream.cache import BlockCache
from genlab.data.stream.shard_stream import ShardStream, StreamBatch
from genlab.recipes.options import Data
from genlab.recipes.recipe import Batch
from genlab.training.plan import Plan
from genlab.training.session import Session


class Feed(Iterator[Batch]):
    """This rank's rows of one domain, batch by batch; a context manager.

    On a GPU a batch is copied, as bytes, and augmented on a stream of its own, while the one before is trained on.

    Args:
        plan: the run.
        domain: which of its domains.
        session: this rank's place.
        start: rows of the line that were trained on before.
    """

    def __init__(self, plan: Plan, domain: str, session: Session, *, start: int) -> None:
        options: Data = plan.config.data
        seed = plan.run.seed
        cache = BlockCache(Path(options.cache), int(options.cache_gib * 2**30)) if options.cache else None
        augmentation = None
        if options.flip or options.jitter:
            augmentation = Augmentation(options.flip, options.jitter, derived_seed(seed, "augment", domain))
        gpu = session.device.type == "cuda"
        self.stream = ShardStream(
            open_split(plan, domain, options.split, threads=session.threads or 1, cache=cache),
            batch=plan.run.batch,
            seed=derived_seed(seed, "order", domain),
            rank=session.rank,
            world_size=session.world_size,
            start=start,
            window=plan.domains[domain].window or None,
            augmentation=None if gpu else augmentation,
        )
        self._device = session.device
        self._augmentation = augmentation if gpu else None
        self._copies = torch.cuda.Stream(session.device) if gpu else None
        self._coming: Batch | None = None

    def __next__(self) -> Batch:
        if self._copies is None:
            return self._moved(next(self.stream))
        batch = self._coming or self._ahead(self._copies)
        now = torch.cuda.current_stream(self._device)
        now.wait_stream(self._copies)
        for tensor in (batch.image, batch.label, *batch.attributes.values()):
            if tensor is not None:
                tensor.record_stream(now)
        self._coming = self._ahead(self._copies)
        return batch

    def __enter__(self) -> "Feed":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stream.close()

    def _ahead(self, copies: torch.cuda.Stream) -> Batch:
        host = next(self.stream)
        with torch.cuda.stream(copies):
            batch = self._moved(host)
            # The stream will use the pinned buffer again once nothing refers to it, and a copy under way does not.
            copied = torch.cuda.Event()
            copied.record(copies)
            copied.synchronize()
            if self._augmentation:
                self._augmentation.apply(batch.image, self._augmentation.draw(host.epoch, host.row), out=batch.image)
        return batch

    def _moved(self, batch: StreamBatch) -> Batch:
        columns = {name: values.to(self._device, non_blocking=True) for name, values in batch.columns.items()}
        label = columns.pop("label", None)
        return Batch(batch.image.to(self._device, non_blocking=True), label, columns)


def open_split(plan: Plan, domain: str, split: str, *, threads: int = 2, cache: BlockCache | None = None) -> ShardSet:
    """The rows of a domain's split. Arguments as of :meth:`ShardSet.open`.

    Raises:
        RunError: when there is no such split.
    """
    shards = plan.domains[domain].open(split, threads=threads, cache=cache)
    if shards is None:
        raise RunError(f"{plan.domains[domain].url}: no split {split!r}")
    return shards
