"""How a data set is read for training: an endless, shuffled, resumable line of rows, read and decoded ahead.

In: the rows of a data set, a seed, a position. Out: each worker's slice of every global batch. Read ``order``
first (which row comes when), then ``shard_stream`` (how it gets here).
"""
