"""Pictures of a StyleGAN edited: first they are projected, which finds the styles that draw them.

In: a generator, an encoder of it, and pictures. Out: styles w+ and noise, what the generator draws of them, how near
that is to the pictures, and the files of all this. Nothing is trained here. Read ``projection`` first, which is the
mathematics; ``projection_files`` takes files, folders and data sets through it, and ``provenance`` makes the notes that
written pictures carry.
"""
