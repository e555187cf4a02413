"""All that training changes: networks, optimisers and averages of weights, as tensors with names."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from genlab.core.errors import RunError
from genlab.recipes.options import Optimization
from genlab.recipes.recipe import Recipe
from genlab.training.adam import Adam

EMA_RAMP = 0.05
"""The half-life of the average is at most this fraction of the images seen so far, as in StyleGAN3."""


class TrainingState:
    """A recipe's networks with an Adam optimiser each and, for the averaged ones, an EMA of their parameters.

    Its state is tensors with names, so a checkpoint is a flat dictionary. What depends on time (the learning rate,
    the EMA's decay) is computed from the images seen and never stored.

    Args:
        recipe: the recipe, which is moved to ``device``.
        optimization: options of the optimisers and of the averages.
        device: the device to train on.
    """

    def __init__(self, recipe: Recipe[Any], optimization: Optimization, device: torch.device) -> None:
        self.recipe = recipe.to(device)
        self.optimization = optimization
        self.parameters: dict[str, dict[str, Tensor]] = {
            name: dict(network.named_parameters()) for name, network in recipe.networks.items()
        }
        self.optimizers = {
            name: Adam(parameters, optimization.beta1, optimization.beta2)
            for name, parameters in self.parameters.items()
        }
        self.averages: dict[str, dict[str, Tensor]] = {}
        if optimization.ema_images:
            self.averages = {
                name: {key: value.detach().clone() for key, value in self.parameters[name].items()}
                for name in recipe.averaged
            }

    def set_rate(self, images: int, total: int) -> float:
        """Set and return the learning rate for the step that begins after ``images`` of ``total``."""
        rate = self.optimization.rate(images, total)
        for optimizer in self.optimizers.values():
            optimizer.rate = rate
        return rate

    def update_ema(self, images: int, batch: int) -> None:
        """Move the averages towards the weights, after a step of ``batch`` rows that ends at ``images`` seen."""
        for name, averages in self.averages.items():
            half_life = min(self.optimization.ema_images, images * EMA_RAMP)
            weights = [parameter.detach() for parameter in self.parameters[name].values()]
            torch._foreach_lerp_(list(averages.values()), weights, 1 - 0.5 ** (batch / half_life))

    @contextmanager
    def ema_weights(self) -> Iterator[None]:
        """Put the networks in evaluation mode, and the averages in place of the weights, until the context ends."""
        with torch.no_grad():
            self._swap()
            self.recipe.eval()
            try:
                yield
            finally:
                self.recipe.train()
                self._swap()

    def _swap(self) -> None:
        for name, averages in self.averages.items():
            for key, parameter in self.parameters[name].items():
                average = averages[key]
                kept = parameter.detach().clone()
                parameter.copy_(average)
                average.copy_(kept)

    def tensors(self) -> dict[str, Tensor]:
        """Return all state: ``network.NAME.PARAMETER``, ``optimizer.NAME.PARAMETER.MOMENT``, ``ema.NAME.PARAMETER``."""
        tensors: dict[str, Tensor] = {}
        for name, network in self.recipe.networks.items():
            tensors |= {f"network.{name}.{key}": value for key, value in network.state_dict().items()}
            for key, moments in self.optimizers[name].state.items():
                for moment, value in moments.items():
                    tensors[f"optimizer.{name}.{key}.{moment}"] = value
        for name, averages in self.averages.items():
            tensors |= {f"ema.{name}.{key}": value for key, value in averages.items()}
        return {name: tensor.detach() for name, tensor in tensors.items()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy in a state that :meth:`tensors` returned, from any device.

        Raises:
            RunError: when the names or shapes of ``tensors`` are those of another architecture.
        """
        for name, optimizer in self.optimizers.items():
            for key, parameter in self.parameters[name].items():
                prefix = f"optimizer.{name}.{key}."
                moments = {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}
                if moments:
                    # In the memory format of the parameter, which the fused Adam requires.
                    optimizer.state[key] = {
                        moment: torch.empty_like(parameter if value.dim() else value, device=parameter.device)
                        for moment, value in moments.items()
                    }
        own = self.tensors()
        if own.keys() != tensors.keys():
            odd = sorted(own.keys() ^ tensors.keys())
            raise RunError(f"the checkpoint is of another architecture: {len(odd)} tensors differ, such as {odd[0]}")
        for name, tensor in own.items():
            if tensor.shape != tensors[name].shape:
                raise RunError(f"the checkpoint is of another architecture: {name} is {tuple(tensors[name].shape)}")
            tensor.copy_(tensors[name])

    def finite(self) -> bool:
        """Return whether all weights are finite numbers."""
        return bool(torch.stack([parameter.isfinite().all() for parameter in self.recipe.parameters()]).all())

    @torch.no_grad()
    def fingerprint(self) -> int:
        """Return a number that almost surely differs between weights that differ in any bit."""
        total = torch.zeros((), dtype=torch.int64, device=next(self.recipe.parameters()).device)
        for index, parameter in enumerate(self.recipe.parameters()):
            bits = parameter.detach().contiguous().view(torch.int32)
            total = total * 31 + bits.sum(dtype=torch.int64) + index
        return int(total.item())
