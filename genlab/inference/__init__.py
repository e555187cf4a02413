"""Trained models at work on pictures: one engine, which the command line, batch translation and the server share.

In: a model directory and pictures, as files, pixels, a folder or a data set. Out: pixels and PNG files, or a model's
graphs for other runtimes. Nothing here trains, measures, or knows HTTP. Read ``engine`` first; then ``operations``.
``engine`` loads a model and does its operations; ``operations`` says what may be asked of a model before its weights
are loaded. ``kinds`` says which work may share a batch, ``batch_sizes`` in which sizes, and ``batching`` computes the
work of many callers together. ``pictures`` reads and writes the files of single pictures, ``latent_files`` those of
latent vectors; ``sources`` lists the pictures of folders and data sets, and tells which are done. ``translation`` takes
many pictures through the engine, and ``batch_translation`` spreads that over Ray. ``graph_export`` writes graphs as
ONNX or for torch.export.
"""
