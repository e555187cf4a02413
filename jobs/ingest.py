"""Ingest on a cluster: ``ray job submit --working-dir . -- python jobs/ingest.py SOURCE DEST [options]``.

The same as ``genlab ingest``, to the byte, with one Ray task a shard.
"""

from genlab.cli.ingest import main
from genlab.data.ingest.runners import run_on_ray

if __name__ == "__main__":
    main(run=run_on_ray)
