"""Full precision: that of inputs, losses and statistics, also where autocast runs the forward pass in bf16."""

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> Tensor:
    """Cast ``tensor`` to full precision, PyTorch's default dtype.

    That is float32 in every run. Only ``genlab verify-ddp`` makes it float64, to tell an error in the mathematics from
    rounding; so losses are cast by this function and never by ``.float()``.
    """
    return tensor.to(torch.get_default_dtype())
