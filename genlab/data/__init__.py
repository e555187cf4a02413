"""Data sets of images: ``ingest`` makes one, ``format`` defines one and reads its rows, ``stream`` delivers it to
training in shuffled batches. The input is a source of images, such as a folder; the output is batches of uint8 pixels
with labels and attributes. Read ``format`` first.
"""
