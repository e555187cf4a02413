"""``genlab ingest SOURCE DEST``: turn images into a data set of Arrow shards."""

from collections.abc import Sequence

from genlab.core import config as configs
from genlab.core.errors import run_command
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.data.ingest.shard_makers import ShardMaker, make_locally


def main(arguments: Sequence[str] | None = None, make_shards: ShardMaker = make_locally) -> None:
    """The command ``genlab ingest``; ``make_shards`` as of :func:`ingest`."""

    def command() -> None:
        config = configs.parse(IngestConfig, arguments, prog="genlab ingest")
        manifest = ingest(config, make_shards)
        splits = ", ".join(f"{name} {rows:,}" for name, rows in manifest.splits.items())
        print(f"{config.dest}: {manifest.rows:,} images ({splits}), {len(manifest.shards)} shard(s)")
        for what, number in manifest.converted.items():
            print(f"converted: {number:,} {what}")
        for skipped in manifest.skipped:
            print(f"skipped: {skipped.key}: {skipped.why}")

    run_command(command)
