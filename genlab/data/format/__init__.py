"""What a data set is: a manifest and Arrow shards (format 1), with their one writer and their one reader.

In: rows of images, labels and attributes. Out: a directory that is trusted block by block, and rows of it by their
numbers. Read ``manifest`` first, then ``shards``.
"""
