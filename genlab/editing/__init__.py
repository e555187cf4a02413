"""Pictures of a StyleGAN edited: directions in its styles along which attributes change, and pictures projected, which
finds the styles that draw them.

In: a generator and what reads attributes of pictures, or an encoder and pictures. Out: directions with what they change
and how far (:mod:`genlab.store.directions`); styles w+ and noise, what the generator draws of them, how near that is to
the pictures, and the files of all this. Nothing is trained here. Read ``projection`` first, which is the mathematics;
``projection_files`` takes files, folders and data sets through it, and ``provenance`` makes the notes that written
pictures carry. ``directions`` finds directions and measures them, and ``edits`` goes along them, as ``edit_tasks`` does
for servers, in batches; ``latent_fits`` has three methods of finding them as functions of tensors, ``attributes`` reads
pictures by a classifier.
"""
