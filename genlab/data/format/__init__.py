"""The format of a data set (shard format 1): a manifest and Arrow shards, with their one writer and their one reader.
The writer takes rows of images, labels and attributes and makes a folder in which every block has a checksum; the
reader returns any rows of it by their numbers, and checks each block before its first row is used. Read ``manifest``
first, then ``shards``, the reader: it takes rows out of ``shard_bytes`` and has ``block_fetcher`` fetch blocks of
remote shards.
"""
