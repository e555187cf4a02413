"""The Arrow schemas of a shard and of the index, used by writers and readers."""

from collections.abc import Sequence

import pyarrow as pa

from genlab.data.format.manifest import Attribute
from genlab.imaging.images import Encoding

MAGIC_BYTES = 8
"""An Arrow IPC file begins with ``ARROW1`` and two bytes of padding; the schema message follows."""

INDEX_SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in (("bytes", pa.int64()), ("rows", pa.int32()), ("xxh3", pa.uint64()))
    ]
)
"""Columns of the index: length, rows and XXH3-64 of each block of a shard. The first block follows the shard's schema,
and each other one the block before it."""

_KINDS = {"int": pa.int64(), "float": pa.float64(), "category": pa.int64()}


def arrow_schema(
    encoding: Encoding, shape: tuple[int, int, int] | None, labelled: bool, attributes: Sequence[Attribute]
) -> pa.Schema:
    """Return the schema of a shard; no value may be null.

    Args:
        encoding: ``raw`` for uint8 tensors, ``encoded`` for image files.
        shape: (height, width, channels) of every image; needed for ``raw``.
        labelled: whether images have labels.
        attributes: further columns.

    Returns:
        Columns ``image``, ``key``, ``label`` where images are labelled, then the attributes.
    """
    image = pa.fixed_shape_tensor(pa.uint8(), shape) if encoding == "raw" else pa.large_binary()
    columns = [("image", image), ("key", pa.string())] + ([("label", pa.int64())] if labelled else [])
    columns += [(attribute.name, _KINDS[attribute.kind]) for attribute in attributes]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns])
