"""Dense layers whose rows do not depend on the batch.

A matrix library takes another kernel for one row than for many, and sums in another order: the same row differs then by
rounding. In inference mode each row is multiplied on its own here, by the same kernel however many there are. So what
a model makes of a picture is the same bits whatever else is in the batch: oneDNN's convolutions are so by themselves.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def multiply(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Map float [N, inputs] by a weight [outputs, inputs] to [N, outputs], on a CPU.

    In inference mode row i of the result is a pure function of row i. Sums of few rows take no longer than in one
    product; of 64 rows, three times as long.
    """
    if not torch.is_inference_mode_enabled() or input.dim() != 2:
        return F.linear(input, weight, bias)
    rows = len(input)
    columns = weight.t().expand(rows, -1, -1)
    if bias is None:
        return torch.bmm(input[:, None], columns)[:, 0]
    return torch.baddbmm(bias.expand(rows, 1, -1), input[:, None], columns)[:, 0]
