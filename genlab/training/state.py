"""All that training changes: networks, optimisers, averages of weights and buffers, as tensors with names."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
import xxhash
from torch import Tensor

from genlab.core.adam import Adam
from genlab.core.errors import RunError
from genlab.recipes.recipe import Recipe

EMA_RAMP = 0.05
"""The half-life of the average is at most this fraction of the images seen so far, as in StyleGAN3."""
FINGERPRINT_COLUMNS = 1 << 14
"""Different factors in a fingerprint on a GPU, used again and again; each row of so many words counts differently."""


class TrainingState:
    """A recipe with an Adam optimiser for each network, for the averaged ones an EMA of their parameters, and buffers.

    Its state is tensors with names, so a checkpoint is a flat dictionary. What depends on time (the learning rate,
    the EMA's decay) is computed from the images seen and never stored.

    Args:
        recipe: the recipe, which is moved to ``device``.
        device: the device to train on.
        trained: the run begins with weights of another run, whose averages are no less steady for being taken over.
    """

    def __init__(self, recipe: Recipe[Any], device: torch.device, trained: bool = False) -> None:
        self.recipe = recipe.to(device)
        self._ramp = math.inf if trained else EMA_RAMP
        self.options = {name: recipe.optimization(name) for name in recipe.networks}
        self.parameters: dict[str, dict[str, Tensor]] = {
            name: dict(network.named_parameters()) for name, network in recipe.networks.items()
        }
        self.optimizers = {
            name: Adam(parameters, options.beta1, options.beta2, options.weight_decay)
            for (name, parameters), options in zip(self.parameters.items(), self.options.values(), strict=True)
        }
        self.averages = {
            name: {key: value.detach().clone() for key, value in self.parameters[name].items()}
            for name in recipe.averaged
            if self.options[name].ema_images
        }
        everything = recipe.state_dict(keep_vars=True)
        in_networks = {id(tensor) for key, tensor in everything.items() if key.startswith("networks.")}
        self._outside = [key for key, tensor in everything.items() if id(tensor) not in in_networks]

    def set_rates(self, images: int, total: int) -> dict[str, float]:
        """Set the learning rates for the step that begins after ``images`` of ``total``.

        Returns:
            The rate of ``optimization`` as ``learning_rate``, and ``learning_rate_NETWORK`` for each network that has
            another.
        """
        rates = {"learning_rate": self.recipe.config.optimization.rate(images, total)}
        for name, optimizer in self.optimizers.items():
            optimizer.rate = self.options[name].rate(images, total)
            if optimizer.rate != rates["learning_rate"]:
                rates[f"learning_rate_{name}"] = optimizer.rate
        return rates

    def restart_optimizers(self) -> None:
        """Forget all moments."""
        for optimizer in self.optimizers.values():
            optimizer.state.clear()

    def step_optimizer(self, network: str) -> None:
        """Clip the gradients of ``networks[network]``, if its options say so, and step its optimiser."""
        if (norm := self.options[network].clip_norm) is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters[network].values(), norm)
        self.optimizers[network].step()

    @contextmanager
    def only(self, network: str) -> Iterator[None]:
        """Make the parameters of all networks but ``network`` constants, until the context ends."""
        others = [p for name, parameters in self.parameters.items() if name != network for p in parameters.values()]
        moving = [parameter for parameter in others if parameter.requires_grad]
        for parameter in moving:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in moving:
                parameter.requires_grad_(True)

    def update_ema(self, images: int, batch: int) -> None:
        """Move the averages towards the weights, after a step of ``batch`` rows that ends at ``images`` seen."""
        for name, averages in self.averages.items():
            half_life = min(self.options[name].ema_images, images * self._ramp)
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
        """Return all state.

        Names are ``network.NAME.PARAMETER``, ``optimizer.NAME.PARAMETER.MOMENT``, ``ema.NAME.PARAMETER``, and
        ``recipe.BUFFER`` for what a recipe remembers outside of its networks.
        """
        tensors: dict[str, Tensor] = {}
        for name, network in self.recipe.networks.items():
            tensors |= {f"network.{name}.{key}": value for key, value in network.state_dict().items()}
            for key, moments in self.optimizers[name].state.items():
                for moment, value in moments.items():
                    tensors[f"optimizer.{name}.{key}.{moment}"] = value
        for name, averages in self.averages.items():
            tensors |= {f"ema.{name}.{key}": value for key, value in averages.items()}
        everything = self.recipe.state_dict()
        tensors |= {f"recipe.{key}": everything[key] for key in self._outside}
        return {name: tensor.detach() for name, tensor in tensors.items()}

    @torch.no_grad()
    def begin_with(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy in networks and averages of another run, by the names of :meth:`tensors`; others are ignored."""
        own = self.tensors()
        for name in own.keys() & tensors.keys():
            own[name].copy_(tensors[name])

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy in a state that :meth:`tensors` returned, from any device.

        Raises:
            RunError: when the names, shapes or dtypes of ``tensors`` are those of another architecture.
        """
        tensors = {self.recipe.present_name(name): tensor for name, tensor in tensors.items()}
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
            found = tensors[name]
            if (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
                raise RunError(
                    f"the checkpoint is of another architecture: {name} is {_dtype(found)} {tuple(found.shape)}, "
                    f"and would be {_dtype(tensor)} {tuple(tensor.shape)}"
                )
            tensor.copy_(found)

    def finite(self) -> bool:
        """Return whether all weights are finite numbers."""
        return bool(torch.stack([parameter.isfinite().all() for parameter in self.recipe.parameters()]).all())

    @torch.no_grad()
    def fingerprints(self) -> dict[str, int]:
        """Return for each tensor a number that almost surely differs between tensors that differ in any bit."""
        tensors = {name: _octets(tensor) for name, tensor in self.tensors().items()}
        if all(octets.device.type == "cpu" for octets in tensors.values()):
            return {name: xxhash.xxh3_64_intdigest(octets.numpy().data) for name, octets in tensors.items()}
        factors = _odd_numbers(FINGERPRINT_COLUMNS, next(iter(tensors.values())).device)
        sums = torch.stack([_weighted_sum(octets, factors) for octets in tensors.values()])
        return dict(zip(tensors, sums.tolist(), strict=True))


def _octets(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor in the order of its memory, uint8 [n]; a copy only where there are gaps."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.permute(order).contiguous().flatten().view(torch.uint8)


def _odd_numbers(count: int, device: torch.device) -> Tensor:
    """Return pseudo-random odd numbers, int32 [count]: odd ones lose no bit of what they multiply."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randint(0, 2**30, (count,), generator=generator, dtype=torch.int32) * 2 + 1).to(device)


def _weighted_sum(octets: Tensor, factors: Tensor) -> Tensor:
    """Return the sum of bytes, 4 at a time as a whole number, each times the factor of its place: int64, on a GPU."""
    words = F.pad(octets, (0, -len(octets) % 4)).view(torch.int32)
    whole = len(words) // len(factors) * len(factors)
    rest = (words[whole:] * factors[: len(words) - whole]).sum(dtype=torch.int64)
    if not whole:
        return rest
    rows = (words[:whole].view(-1, len(factors)) * factors).sum(1, dtype=torch.int64)
    places = torch.arange(1, len(rows) + 1, device=octets.device)
    return rest * (len(rows) + 1) + (rows * places).sum()


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
