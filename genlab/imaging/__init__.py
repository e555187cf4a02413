"""Pictures and charts made from arrays: decode, encode, fit, lay out in sheets, scatter.

In: bytes of image files, uint8 arrays [H, W, C], points. Out: pixels, PNG files. Knows no data set and no model. Read
``images`` first: how one picture of any kind becomes 8-bit grey or RGB.
"""
