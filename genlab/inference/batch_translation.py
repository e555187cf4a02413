"""The Ray Data job of batch translation: many pictures on a pool of processes that each hold the model."""

import logging
import math
from collections.abc import Iterator, Sequence

from genlab.inference.sources import Picture
from genlab.inference.translation import Job, Outcome, Worker

BATCH = 8
"""Pictures that a process translates before it reports."""
MOST_BLOCKS = 10_000
"""Largest number of Ray's blocks, each of one batch or more: a block costs the driver time and memory."""
THREADS = 4
"""Most CPU threads of a process: more of them speed one picture up by less than one more process does."""


def on_ray(pictures: Sequence[Picture], job: Job) -> Iterator[Outcome]:
    """Translate pictures on a pool of actors, with a GPU each where there are GPUs; see :data:`.translation.Runner`."""
    import ray.data  # a single picture does without

    from genlab.core.ray_cluster import connected

    with connected():
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1] or [1]
        gpus = sum(int(node.get("GPU", 0)) for node in nodes)
        threads = min(THREADS, *cpus)  # a process has to fit on any node
        batches = math.ceil(len(pictures) / BATCH)
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # its plan and its warnings are not the user's business
        rows = ray.data.from_items(
            [picture._asdict() for picture in pictures], override_num_blocks=min(batches, MOST_BLOCKS)
        )
        done = rows.map_batches(
            Worker,
            fn_constructor_args=(job,),
            batch_size=BATCH,
            compute=ray.data.ActorPoolStrategy(size=min(batches, gpus or sum(cpu // threads for cpu in cpus))),
            num_cpus=1 if gpus else threads,
            num_gpus=1 if gpus else None,
        )
        for row in done.iter_rows():
            yield Outcome(**row)
