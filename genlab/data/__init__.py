"""Data sets of images: ``ingest`` makes one, ``format`` says what one is, ``stream`` reads it for training.

In: a source of images. Out: batches of uint8 pixels with labels and attributes. Read ``format`` first.
"""
