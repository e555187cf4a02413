"""Makers of an ingest's shards, which also measure the range of their values: this process, or the workers of a Ray
cluster. The bytes are the same."""

import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from genlab.core.errors import GenlabError
from genlab.core.progress import progress
from genlab.core.storage import is_remote
from genlab.data.ingest.shard_task import (
    ShardResult,
    ShardTask,
    ShardTasks,
    begin_shard,
    load,
    load_finished_result,
    make_shard,
    measure,
)
from genlab.data.ingest.sources import Source
from genlab.imaging.value_range import ValueRange

T = TypeVar("T")

ShardMaker = Callable[[ShardTasks], Iterable[ShardResult]]
"""A function that does the tasks in any order, and yields each result when its shard is finished."""

ShardMeter = Callable[[ShardTasks], Iterable[ValueRange | None]]
"""A function that measures the images of each task, in any order: see :func:`genlab.data.ingest.shard_task.measure`."""

REMOTE_THREADS = 16
"""Threads that load images from an object store, one request each, to hide its latency."""

RETRIES = 10
"""Times that a shard is begun again on another worker because its worker or node died."""


def make_locally(tasks: ShardTasks) -> Iterator[ShardResult]:
    """Make shards in this process: one thread for each CPU prepares images, and another one writes the shards."""
    if not tasks:
        return
    threads = _threads(tasks.source)
    with (
        _progress("ingest", tasks) as advance,
        ThreadPoolExecutor(threads, "genlab-ingest") as pool,
        ThreadPoolExecutor(1, "genlab-write") as writer,
    ):
        writing: Future[ShardResult] | None = None
        for task in tasks:
            result = load_finished_result(task)
            if result is not None:
                advance(len(task.rows))
                yield result
                continue
            helpers = None if _is_copied(task) else pool
            finish = begin_shard(task, load(task, helpers, ahead=2 * threads + 2, on_images=advance))
            before, writing = writing, writer.submit(finish)
            if before is not None:
                yield before.result()
        if writing is not None:
            yield writing.result()


def measure_locally(tasks: ShardTasks) -> Iterator[ValueRange | None]:
    """Measure the images of shards in this process, by as many threads as there are CPUs."""
    threads = _threads(tasks.source)
    with _progress("range", tasks) as advance, ThreadPoolExecutor(threads, "genlab-range") as pool:
        for task in tasks:
            yield measure(task, pool, ahead=2 * threads + 2, on_images=advance)


def _threads(source: Source) -> int:
    """Return how many threads are to load images."""
    # Decoders release the GIL; drawing holds it, and more threads only slow it down.
    threads = len(os.sched_getaffinity(0)) if source.encoded else 1
    return max(threads, REMOTE_THREADS) if is_remote(source.path) and not source.ordered else threads


def _progress(what: str, tasks: ShardTasks) -> AbstractContextManager[Callable[[int], None]]:
    return progress(what, tasks.images, "images")


def _is_copied(task: ShardTask) -> bool:
    """Return whether a shard's images are local JPEGs that are stored without decoding them.

    Reading these is so little work between waits for the GIL that several threads would make it slower.
    """
    image_format = task.image_format
    untouched = image_format.encoding == "encoded" and image_format.size is None and not image_format.validate
    return untouched and not is_remote(task.source.path) and task.rows[0].key.lower().endswith((".jpg", ".jpeg"))


def make_on_ray(tasks: ShardTasks) -> Iterator[ShardResult]:
    """Make shards on a Ray cluster, one Ray task and one CPU for each shard.

    The tasks of a node that died are repeated on other nodes.

    Every node needs access to the source and the destination: a shared file system, or S3.
    """
    return _on_ray("ingest", tasks, _make)


def measure_on_ray(tasks: ShardTasks) -> Iterator[ValueRange | None]:
    """Measure the images of shards on a Ray cluster, as :func:`make_on_ray` makes them."""
    return _on_ray("range", tasks, _measure)


def _on_ray(what: str, tasks: ShardTasks, work: Callable[[bytes], T | GenlabError]) -> Iterator[T]:
    """Run ``work`` on each task on Ray, and yield each result when it is there."""
    import ray  # local ingest does without

    from genlab.core.ray_cluster import connected

    with connected(), _progress(what, tasks) as advance:
        remote = ray.remote(work).options(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")
        # Enough tasks for all CPUs, those that an autoscaler may add included, without holding all tasks at once.
        ahead = max(64, 2 * int(ray.cluster_resources().get("CPU", 1)))
        waiting: dict[Any, int] = {}
        rest = iter(tasks)
        # After an error, the tasks that are left end with the connection. They are not cancelled: cancelling a task at
        # the moment when it ends by itself has aborted this process (a failed check in Ray 2.60's task manager).
        while True:
            while len(waiting) < ahead and (task := next(rest, None)) is not None:
                waiting[remote.remote(pickle.dumps(task))] = len(task.rows)
            if not waiting:
                return
            (done, *_), _ = ray.wait(list(waiting))
            result = ray.get(done)
            if isinstance(result, GenlabError):
                raise result
            advance(waiting.pop(done))
            yield result


def _make(task: bytes) -> ShardResult | GenlabError:
    """Do one task on a Ray worker.

    Returns:
        The result, or the error that the user can put right: raised here, Ray would wrap it in a traceback.
    """
    try:
        return make_shard(pickle.loads(task))
    except GenlabError as error:
        return error


def _measure(task: bytes) -> ValueRange | GenlabError | None:
    """Measure the images of one task on a Ray worker; see :func:`_make`."""
    try:
        return measure(pickle.loads(task))
    except GenlabError as error:
        return error
