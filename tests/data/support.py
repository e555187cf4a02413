"""Shards written row by row, and commands that must refuse."""

from collections.abc import Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from genlab.cli import ingest
from genlab.data.format.index import IndexWriter
from genlab.data.format.manifest import Attribute, IndexFile, Shard
from genlab.data.format.shards import ShardSet
from genlab.data.format.writer import ShardWriter
from genlab.imaging.images import Encoding


def write_shard(
    path: UPath,
    *,
    split: str,
    encoding: Encoding,
    shape: tuple[int, int, int] | None,
    images: Sequence[Any],
    keys: Sequence[str],
    labels: Sequence[int] | None,
    attributes: Mapping[Attribute, Sequence[int] | Sequence[float]] | None = None,
) -> Shard:
    """One shard of images that lie in memory; arguments as :class:`ShardWriter` has them."""
    attributes = attributes or {}
    values = list(zip(*attributes.values(), strict=True)) if attributes else [()] * len(keys)
    writer = ShardWriter(
        path, split=split, encoding=encoding, shape=shape, labelled=labels is not None, attributes=list(attributes)
    )
    try:
        for image, key, label, others in zip(images, keys, labels or repeat(None, len(keys)), values, strict=True):
            writer.add(image, key, label, others)
        return writer.close()
    finally:
        writer.drop()


def indexed(directory: UPath, shards: Sequence[Shard]) -> tuple[IndexFile, tuple[Shard, ...]]:
    """Write the index of shards; returns its entry for the manifest, and theirs."""
    writer = IndexWriter()
    for shard in shards:
        writer.add(shard)
    return writer.save(directory)


def assert_ingest_refuses(source: Path, destination: Path, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """``genlab ingest`` ends with one line that holds ``message``, and leaves no data set."""
    with pytest.raises(SystemExit) as ended:
        ingest.main([str(source), str(destination)])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (destination / "manifest.json").exists()


def block_bytes(shards: ShardSet) -> list[int]:
    """The bytes of each block, through all shards."""
    return [size for shard in shards.shards for size in shards.index.blocks(shard).bytes.tolist()]
