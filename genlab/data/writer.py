"""The one writer of image shards (format 1).

A shard is an Arrow IPC file that any Arrow implementation opens, in record batches ("blocks") of about 1 MiB, each with
its byte range and checksum in the manifest.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray
from upath import UPath

from genlab.data.format import MAGIC_BYTES, arrow_schema
from genlab.data.manifest import Attribute, Block, Encoding, Shard
from genlab.errors import DataError
from genlab.storage import sha256, write_atomic

BLOCK_BYTES = 1 << 20
"""Pixels or encoded bytes in one record batch, at most (a larger image has a batch to itself)."""


def write_shard(
    path: UPath,
    *,
    split: str,
    encoding: Encoding,
    shape: tuple[int, int, int] | None,
    images: Sequence[NDArray[np.uint8]] | Sequence[bytes],
    keys: Sequence[str],
    labels: Sequence[int] | None,
    attributes: Mapping[Attribute, Sequence[int] | Sequence[float]] | None = None,
) -> Shard:
    """Write one shard, atomically, and return its entry for the manifest. The same input gives the same bytes.

    Args:
        path: Where to write; an existing file is replaced.
        split: Split to which all rows belong.
        encoding: ``raw`` stores pixels, ``encoded`` stores the bytes of JPEG or PNG files untouched.
        shape: (height, width, channels) of every image; needed for ``raw``.
        images: At least one; uint8 arrays [height, width, channels] for ``raw``, else bytes.
        keys: Name of each image in its source.
        labels: Index of each image's label, or ``None`` when the images are not labelled.
        attributes: Values of each attribute, one an image; of a category, indices into its names.

    Raises:
        DataError: naming the key of a raw image that is not uint8 of ``shape``.
    """
    if encoding == "raw":
        for image, key in zip(images, keys, strict=True):
            if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != shape:
                raise DataError(f"{key}: a raw shard holds uint8 images of one shape, {shape}; ingest with --size")
    attributes = attributes or {}
    schema = arrow_schema(encoding, shape, labels is not None, list(attributes))
    sink = pa.BufferOutputStream()
    ends, rows = [MAGIC_BYTES + schema.serialize().size], []
    with pa.ipc.new_file(sink, schema) as writer:
        for part in _parts(images):
            columns = [_image_array(images[part], schema), pa.array(keys[part], pa.string())]
            if labels is not None:
                columns.append(pa.array(labels[part], pa.int64()))
            columns += [
                pa.array(values[part], schema.field(attribute.name).type) for attribute, values in attributes.items()
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            ends.append(sink.tell())
            rows.append(part.stop - part.start)
    data = memoryview(sink.getvalue())

    def block(begin: int, end: int, rows: int) -> Block:
        return Block(begin, end - begin, rows, xxhash.xxh3_64_hexdigest(data[begin:end]))

    write_atomic(path, data)
    return Shard(
        file=path.name,
        split=split,
        rows=len(keys),
        bytes=len(data),
        sha256=sha256(data),
        schema=block(MAGIC_BYTES, ends[0], 0),
        blocks=tuple(block(*span) for span in zip(ends[:-1], ends[1:], rows, strict=True)),
    )


def _image_array(images: Sequence[NDArray[np.uint8]] | Sequence[bytes], schema: pa.Schema) -> pa.Array:
    kind = schema.field("image").type
    if kind == pa.large_binary():
        return pa.array(images, kind)
    pixels = pa.array(np.stack(images).reshape(-1))
    return pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(pixels, type=kind.storage_type))


def _parts(images: Sequence[NDArray[np.uint8]] | Sequence[bytes]) -> Iterator[slice]:
    """Cut images into runs of at most :data:`BLOCK_BYTES`, one image at least."""
    begin, size = 0, 0
    for index, image in enumerate(images):
        length = image.nbytes if isinstance(image, np.ndarray) else len(cast("bytes", image))
        if index > begin and size + length > BLOCK_BYTES:
            yield slice(begin, index)
            begin, size = index, 0
        size += length
    yield slice(begin, len(images))
