"""Small data sets written with the shard writer itself."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import from_numpy
from torchvision.io import encode_png
from upath import UPath

from genlab.core.storage import locate
from genlab.data.format import writer
from genlab.data.format.manifest import Manifest, Origin
from genlab.imaging.images import Encoding
from tests.data.support import indexed, write_shard

MakeData = Callable[..., UPath]


@pytest.fixture
def make_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeData:
    """``make_data(images, labels=None, encoding="raw", splits=("train",), url=None)``: a data set of one shard for
    each name in ``splits``, the rows shared out evenly; its blocks are of 1 KiB, so that a few rows fill several.
    Images are an array [n, height, width, channels] (stored as PNG when encoded), or the bytes of files.
    """
    monkeypatch.setattr(writer, "BLOCK_BYTES", 1024)

    def make(
        images: Sequence[Any] | np.ndarray,
        labels: Sequence[int] | None = None,
        *,
        encoding: Encoding = "raw",
        splits: Sequence[str] = ("train",),
        url: str | None = None,
    ) -> UPath:
        directory = locate(url or tmp_path / "data")
        shape = (images.shape[1], images.shape[2], images.shape[3]) if isinstance(images, np.ndarray) else None
        stored = [png(image) for image in images] if shape and encoding == "encoded" else list(images)
        written = [
            write_shard(
                directory / f"shard-{number:05}.arrow",
                split=split,
                encoding=encoding,
                shape=shape,
                images=[stored[row] for row in part],
                keys=[f"image-{row:02}" for row in part],
                labels=None if labels is None else [labels[row] for row in part],
            )
            for number, (split, part) in enumerate(
                zip(splits, np.array_split(np.arange(len(images)), len(splits)), strict=True)
            )
        ]
        index, shards = indexed(directory, written)
        Manifest(
            encoding=encoding,
            channels=shape[2] if shape else 3,
            shape=shape,
            label_names=() if labels is None else tuple(f"label-{label}" for label in range(max(labels) + 1)),
            attributes=(),
            shards=shards,
            origin=Origin("test", "", {}, {}),
            converted={},
            index=index,
        ).save(directory)
        return directory

    return make


def png(image: np.ndarray) -> bytes:
    """The PNG file of a uint8 image [height, width, channels]."""
    return encode_png(from_numpy(image).permute(2, 0, 1).contiguous()).numpy().tobytes()
