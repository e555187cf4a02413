"""The stream of training batches: the rows of a data set in an endless, shuffled, resumable sequence, read ahead.

In: a data set, a seed and a position. Out: one worker's slice of each global batch, uint8 pixels with labels and
attributes, on the device. Nothing here knows a model or how data sets are made. Read ``order`` first; then
``shard_stream``. ``order`` says which row comes when, and ``shard_stream`` reads them: ``readahead`` fetches blocks
before they are needed, ``cache`` keeps them on a local disk, ``buffers`` has the memory and the threads for decoding,
``augment`` changes images at random. ``batches`` takes batches to the device.
"""
