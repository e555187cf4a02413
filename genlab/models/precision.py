"""The precision of inputs, losses and statistics, whatever autocast runs the forward pass in."""

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> Tensor:
    """``tensor`` in full precision: PyTorch's default dtype.

    That is float32 in every run. Only ``genlab verify-ddp`` makes it float64, to tell an error of the mathematics from
    rounding; hence losses are cast with this function and never with ``.float()``.
    """
    return tensor.to(torch.get_default_dtype())
