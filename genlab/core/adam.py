"""Adam (Kingma & Ba 2015, ICLR) over tensors with names."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim.adam import adam

EPSILON = 1e-8
"""Number that is added to the root of the mean square."""


class Adam:
    """The optimiser ``torch.optim.AdamW(fused=True)``, bit for bit, with its moments under the parameters' names.

    It calls the same function as PyTorch's class. That class imports torch.compile when it is created, which nothing
    here uses and which takes each worker a second of CPU time.

    Args:
        parameters: the tensors that are optimised, by name.
        beta1: decay of the mean of gradients.
        beta2: decay of the mean of squared gradients.
        weight_decay: share of each weight, times the learning rate, that a step takes from it; 0 makes it Adam.
    """

    def __init__(self, parameters: Mapping[str, Tensor], beta1: float, beta2: float, weight_decay: float = 0.0) -> None:
        self.rate = 0.0
        """Learning rate, set before each step."""
        self.state: dict[str, dict[str, Tensor]] = {}
        """Moments ``step``, ``exp_avg`` and ``exp_avg_sq`` of each parameter that has had a gradient."""
        self._parameters = parameters
        self._betas = beta1, beta2
        self._weight_decay = weight_decay

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters that have a gradient."""
        moving = {name: parameter for name, parameter in self._parameters.items() if parameter.grad is not None}
        for name, parameter in moving.items():
            if name not in self.state:
                self.state[name] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                }
        state = [self.state[name] for name in moving]
        adam(
            list(moving.values()),
            [parameter.grad for parameter in moving.values() if parameter.grad is not None],
            [moments["exp_avg"] for moments in state],
            [moments["exp_avg_sq"] for moments in state],
            [],
            [moments["step"] for moments in state],
            fused=True,
            amsgrad=False,
            beta1=self._betas[0],
            beta2=self._betas[1],
            lr=self.rate,
            weight_decay=self._weight_decay,
            decoupled_weight_decay=True,
            eps=EPSILON,
            maximize=False,
        )
