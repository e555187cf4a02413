"""Trained models at work on pictures: one engine, which the command line, batch translation and the server share. The
input is a model directory and pictures, as files, pixels, a folder or a data set; the output is pixels and PNG files,
or a model's graphs for other runtimes. Nothing here trains, measures, or knows HTTP. Read ``engine`` first: it loads a
model and does its operations. ``operations`` says what may be asked of a model before its weights are loaded;
``translation`` takes many pictures through the engine, and ``batch_translation`` spreads that over Ray.
"""
