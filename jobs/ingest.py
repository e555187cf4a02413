"""Ingest on a cluster: ``ray job submit --working-dir . -- python jobs/ingest.py SOURCE DEST [options]``.

The same as ``genlab ingest``, to the byte, with one Ray task a shard.
"""

from genlab.cli.ingest import main
from genlab.data.ingest.shard_makers import make_on_ray, measure_on_ray

if __name__ == "__main__":
    main(make_shards=make_on_ray, measure_shards=measure_on_ray)
