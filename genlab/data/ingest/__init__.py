"""Making of data sets: a source of images becomes shards, here or all over a Ray cluster, and image files again.

In: a folder, an archive, a table, or a seed to draw pictures from. Out: a data set as ``data.format`` describes it.
Read ``ingest`` first, which goes the whole way from a source to a manifest; ``sources`` has a file for each kind of
source.
"""
