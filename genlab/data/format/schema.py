"""Shard format 1: the Arrow schema that the one writer and the one reader share."""

from collections.abc import Sequence

import pyarrow as pa

from genlab.data.format.manifest import Attribute
from genlab.imaging.images import Encoding

MAGIC_BYTES = 8
"""An Arrow IPC file begins with ``ARROW1`` and two bytes of padding; the schema message follows."""

_KINDS = {"int": pa.int64(), "float": pa.float64(), "category": pa.int64()}


def arrow_schema(
    encoding: Encoding, shape: tuple[int, int, int] | None, labelled: bool, attributes: Sequence[Attribute]
) -> pa.Schema:
    """Columns ``image``, ``key``, ``label`` where images are labelled, then the attributes; none may be null."""
    image = pa.fixed_shape_tensor(pa.uint8(), shape) if encoding == "raw" else pa.large_binary()
    columns = [("image", image), ("key", pa.string())] + ([("label", pa.int64())] if labelled else [])
    columns += [(attribute.name, _KINDS[attribute.kind]) for attribute in attributes]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns])
