"""Making of data sets: a source of images becomes shards, here or all over a Ray cluster, and image files again.

In: a folder, an archive, a table, or a seed to draw pictures from. Out: a data set as ``data.format`` describes it.
Nothing here knows how data sets are read for training. Read ``ingest`` first; then ``shard_task``. ``ingest`` goes the
whole way from a source to a manifest. ``sources`` has a module for each kind of source, and ``synthetic`` draws
pictures; ``attributes`` gives images their labels and other columns; ``spool`` has lists on disk, for which memory may
be too small; ``shard_task`` makes one shard, ``shard_makers`` all of them, in this process or on Ray. ``to_files`` goes
the way back.
"""
