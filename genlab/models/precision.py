"""Full precision: that of inputs, losses and statistics, also where autocast runs the forward pass in bf16.

And the precision of fp32 itself: a GPU may be allowed to compute products of fp32 numbers in TF32.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> Tensor:
    """Cast ``tensor`` to full precision, PyTorch's default dtype.

    That is float32 in every run. Only ``genlab verify-ddp`` makes it float64, to tell an error in the mathematics from
    rounding; so losses are cast by this function and never by ``.float()``.
    """
    return tensor.to(torch.get_default_dtype())


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which operations on ``device`` keep the dtypes of their arguments."""
    # The meta device knows no autocast.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def autocast_dtype(tensor: Tensor) -> torch.dtype:
    """Return the dtype in which autocast computes with ``tensor``; its own where autocast is off."""
    device = tensor.device.type
    enabled = device != "meta" and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if enabled else tensor.dtype


def allow_tf32(allowed: bool) -> None:
    """Say whether GPUs may round the factors of fp32 matrix products and convolutions to TF32, 10 bits of mantissa.

    By default PyTorch allows it for convolutions. It holds for the process, and changes nothing on a CPU.
    """
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed
