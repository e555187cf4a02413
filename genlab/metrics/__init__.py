"""Pure functions of tensors that measure: losses, bounds, distances between images and between sets of features.

In: tensors. Out: tensors and numbers. Read the module of the measure you look for.
"""
