"""Data sets of images: made, defined and read.

In: a source of images, such as a folder. Out: batches of uint8 pixels with labels and attributes. Nothing here knows a
model. Read ``format`` first; then ``ingest`` or ``stream``, which do not know each other. ``ingest`` makes a data set,
``format`` defines one and reads its rows, ``stream`` delivers it to training in shuffled batches.
"""
