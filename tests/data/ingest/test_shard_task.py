"""What a shard is made from, as its record says it."""

import pytest

from genlab.data.format.manifest import Attribute
from genlab.data.ingest import shard_task
from genlab.data.ingest.attributes import Row
from genlab.data.ingest.shard_task import ImageFormat, ShardTask
from genlab.data.ingest.sources import Entry, Source
from genlab.data.ingest.sources.files import Folder
from genlab.data.ingest.sources.parquet import Parquet
from genlab.data.ingest.sources.webdataset import WebDataset


@pytest.mark.parametrize(
    ("source", "fingerprint"),
    [
        (Folder("/data/x"), "60cedb58514b37014d6b87d14a72aa674f59356fef8a539e527c2753bb53b75f"),
        (WebDataset("/data/x.tar"), "69aad8f848b512531215ef35ccfa2fa1b66eb17b3938b25da414404f6fe8082e"),
        (WebDataset("/data/x.tar", "png"), "69aad8f848b512531215ef35ccfa2fa1b66eb17b3938b25da414404f6fe8082e"),
        (Parquet("/data/x.parquet", None, "id"), "1d02d133289ce032aa169d2e930e277a454a8db1ec0b5aa186a902d56075c96a"),
    ],
)
def test_shards_of_an_earlier_genlab_are_still_known(
    source: Source, fingerprint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fingerprint of a shard, by which a restarted ingest knows it, is what it was when it was first written."""
    monkeypatch.setattr(shard_task, "VERSIONS", {"genlab": "1"})
    image_format = ImageFormat(3, 8, "crop", "raw", True, False, True, (Attribute("age", "int"),), (8, 8, 3), "a.png")
    rows = [Row(Entry("a.png", "train", 12, "f", 1, 512), "a.png", "train", 2, (7,))]
    assert ShardTask(source, image_format, "/out/shard-00000.arrow", "train", rows).fingerprint == fingerprint
