"""Networks, each with its architecture values and its operations from pixels to pixels. No Ray, no files.

In: uint8 pixels, seeds, classes. Out: uint8 pixels. Read ``model`` first, then the module of a family, such as ``vae``.
"""
