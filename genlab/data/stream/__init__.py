"""The stream of training batches: the rows of a data set in an endless, shuffled, resumable sequence, read and
decoded ahead. It takes a data set, a seed and a position, and returns one worker's slice of each global batch: uint8
pixels with labels and attributes. Read ``order`` first (which row comes when), then ``shard_stream`` (how it is read,
with the help of ``readahead``, ``cache`` and ``augment``).
"""
