"""``genlab ingest SOURCE DEST``: turn images into a data set of Arrow shards."""

from collections.abc import Sequence

from genlab.core import config as configs
from genlab.core.errors import run_command
from genlab.core.text import counted
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.data.ingest.shard_makers import ShardMaker, ShardMeter, make_locally, measure_locally
from genlab.imaging.value_range import range_text


def main(
    arguments: Sequence[str] | None = None,
    make_shards: ShardMaker = make_locally,
    measure_shards: ShardMeter = measure_locally,
) -> None:
    """Run the command ``genlab ingest``; for ``make_shards`` and ``measure_shards`` see :func:`ingest`."""

    def command() -> None:
        config = configs.parse(IngestConfig, arguments, prog="genlab ingest")
        manifest = ingest(config, make_shards, measure_shards)
        splits = ", ".join(f"{name} {rows:,}" for name, rows in manifest.splits.items())
        print(f"{config.dest}: {counted(manifest.rows, 'image')} ({splits}), {counted(len(manifest.shards), 'shard')}")
        for what, number in manifest.converted.items():
            print(f"converted: {number:,} {what}")
        if manifest.value_range:
            print(f"range: {range_text(manifest.value_range)}")
        for skipped in manifest.skipped:
            print(f"skipped: {skipped.key}: {skipped.why}")

    run_command(command)
