"""How a data set is made: sources of images become shards, here or all over a Ray cluster, and files again.

In: a folder, an archive, a table, a seed. Out: a data set of ``data.format``. Read ``ingest`` first: the whole way from
a source to a manifest; ``sources`` has a file for each kind of source.
"""
