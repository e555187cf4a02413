"""The format of a data set: a manifest, an index and Arrow shards, with their one writer and their one reader.

In: rows of images, labels and attributes. Out: a folder in which every block has a checksum; and any of its rows, by
their numbers, each block checked before its first row is used. Nothing here knows where images come from or what they
are read for. Read ``manifest`` first; then ``shards``. ``manifest`` describes a data set, ``index`` says where the
blocks of its shards lie, and ``schema`` has the columns of both. ``writer`` writes shards and ``shards`` reads them: it
takes rows out of ``shard_bytes``, has ``block_fetcher`` fetch blocks of remote shards, and decodes image files by
``decode``.
"""
