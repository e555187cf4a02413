"""Where the shards of an ingest are made: in this process, or all over a Ray cluster. The bytes are the same."""

import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from genlab.core.errors import GenlabError
from genlab.core.progress import progress
from genlab.core.storage import is_remote
from genlab.data.ingest.shard_task import ShardResult, ShardTask, begin_shard, finished, load, make_shard

ShardMaker = Callable[[Sequence[ShardTask]], Iterable[ShardResult]]
"""Makes shards, in any order, somewhere; results are handed out as they come."""

REMOTE_THREADS = 16
"""Threads that load images which lie on an object store, one request each, to hide its latency."""

RETRIES = 10
"""Times that a shard whose node or worker died is begun again on another."""


def make_locally(tasks: Sequence[ShardTask]) -> Iterator[ShardResult]:
    """Make shards in this process: images by as many threads as there are CPUs, while another waits for the disk."""
    if not tasks:
        return
    source = tasks[0].source
    # Decoders release the GIL; drawing holds it, and more threads only slow it down.
    threads = len(os.sched_getaffinity(0)) if source.encoded else 1
    if is_remote(source.path) and not source.ordered:
        threads = max(threads, REMOTE_THREADS)
    total = sum(len(task.rows) for task in tasks)
    with (
        progress("ingest", total, "images") as advance,
        ThreadPoolExecutor(threads, "genlab-ingest") as pool,
        ThreadPoolExecutor(1, "genlab-write") as writer,
    ):
        writing: Future[ShardResult] | None = None
        for task in tasks:
            result = finished(task)
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


def _is_copied(task: ShardTask) -> bool:
    """Whether a shard's images are local JPEGs to be stored unseen: reading these is so little work between waits for
    the GIL that threads which share it make it slower."""
    image_format = task.image_format
    untouched = image_format.encoding == "encoded" and image_format.size is None and not image_format.validate
    return untouched and not is_remote(task.source.path) and task.rows[0].key.lower().endswith((".jpg", ".jpeg"))


def make_on_ray(tasks: Sequence[ShardTask]) -> Iterator[ShardResult]:
    """Make shards on a Ray cluster, one task and one CPU a shard; Ray does the tasks of a node that died elsewhere.

    Every node needs access to the source and the destination: a shared file system, or S3.
    """
    import ray  # local ingest does without

    from genlab.core.ray_cluster import connected

    total = sum(len(task.rows) for task in tasks)
    with connected(), progress("ingest", total, "images") as advance:
        make = ray.remote(_make).options(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")
        # Enough waiting for every CPU that there is or that an autoscaler may bring, without holding all tasks at once.
        ahead = max(64, 2 * int(ray.cluster_resources().get("CPU", 1)))
        waiting: dict[Any, int] = {}
        rest = iter(tasks)
        # After an error, tasks that are left end with the connection. Cancelling one at the moment when it ended by
        # itself has aborted this process (a failed check in Ray 2.60's task manager).
        while True:
            while len(waiting) < ahead and (task := next(rest, None)) is not None:
                waiting[make.remote(pickle.dumps(task))] = len(task.rows)
            if not waiting:
                return
            (done, *_), _ = ray.wait(list(waiting))
            result = ray.get(done)
            if isinstance(result, GenlabError):
                raise result
            advance(waiting.pop(done))
            yield result


def _make(task: bytes) -> ShardResult | GenlabError:
    """One task on Ray. What the user can put right is a result: raised here it would drown in Ray's traceback."""
    try:
        return make_shard(pickle.loads(task))
    except GenlabError as error:
        return error
