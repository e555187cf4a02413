"""Layers that do the same as PyTorch's, faster on a CPU. No model needs to know how.

In and out: the tensors of the PyTorch layer that each replaces; results differ by rounding. Read ``winograd`` first.
"""
