"""The data of a run's domains: one worker's batches for training, and the rows of a split."""

import os
from pathlib import Path

from genlab.core.errors import RunError
from genlab.core.seeds import derived_seed
from genlab.data.format.shards import ShardSet
from genlab.data.stream.augment import Augmentation
from genlab.data.stream.batches import DeviceBatches
from genlab.data.stream.cache import BlockCache
from genlab.data.stream.shard_stream import ShardStream
from genlab.recipes.options import Data
from genlab.training.plan import Plan
from genlab.training.session import Session


def open_batches(plan: Plan, domain: str, session: Session, start: int) -> DeviceBatches:
    """Open this rank's batches of a domain: its rows of every global batch, read ahead, augmented, on the device.

    Args:
        plan: the run.
        domain: name of the domain.
        session: this rank's session.
        start: rows of the domain's sequence that were trained on before, by all ranks together.
    """
    options: Data = plan.config.data
    seed = plan.run.seed
    augmentation = None
    if options.flip or options.jitter:
        augmentation = Augmentation(options.flip, options.jitter, derived_seed(seed, "augment", domain))
    gpu = session.device.type == "cuda"
    threads = session.threads or (os.cpu_count() if gpu else 1) or 1  # Beside a GPU nothing else wants the cores.
    stream = ShardStream(
        open_split(plan, domain, options.split, threads=threads),
        batch=plan.run.batch,
        seed=derived_seed(seed, "order", domain),
        rank=session.rank,
        world_size=session.world_size,
        start=start,
        window=plan.domains[domain].window or None,
        read_ahead=int(options.read_ahead * 2**20),
        augmentation=None if gpu else augmentation,
        group=plan.group,
        pinned=gpu,
        rule=plan.domains[domain].order,
    )
    return DeviceBatches(stream, session.device, augmentation if gpu else None)


def open_split(plan: Plan, domain: str, split: str, *, threads: int = 2) -> ShardSet:
    """Open the rows of a domain's split, through the node's cache of remote data if there is one.

    Args:
        plan: the run.
        domain: name of the domain.
        split: name of the split.
        threads: see :meth:`ShardSet.open`.

    Raises:
        RunError: when there is no such split.
    """
    options: Data = plan.config.data
    cache = BlockCache(Path(options.cache), int(options.cache_gib * 2**30)) if options.cache else None
    shards = plan.domains[domain].open(split, threads=threads, cache=cache)
    if shards is None:
        raise RunError(f"{plan.domains[domain].url}: no split {split!r}")
    return shards
