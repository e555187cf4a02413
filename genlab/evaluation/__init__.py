"""A trained model measured on held-out data: extractors of features, measurements with their settings and intervals.

In: a model and held-out images. Out: numbers that can be compared. Trains nothing. Read ``measurements`` first, then
``translation`` or ``latent_models``.
"""
