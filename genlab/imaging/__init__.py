"""Pictures and charts made from arrays: decoding, encoding, sheets of images, and scatter charts.

In: bytes of image files, uint8 arrays [H, W, C], and points of a plane. Out: pixels and PNG files. Nothing here opens a
data set or a file, or knows a model, torch or Ray. Read ``images`` first; then ``sheets``. ``images`` makes 8-bit grey
or RGB of one picture of any kind, ``value_range`` by a range of values where the picture has more than 8 bits;
``headers`` says what a file from a stranger claims to be, and refuses what would cost beyond its pixels; ``codecs``
encodes what is sent and not kept; ``sheets`` lays many images out in one picture; ``scatter`` draws points in the style
of ``charts``; ``latent_plane`` has the points of a latent space that are shown.
"""
