"""What a run's state holds, and how two states are told apart."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.core.adam import Adam
from genlab.core.config import override
from genlab.core.errors import RunError
from genlab.recipes.options import Optimization
from genlab.recipes.recipe import DomainInfo
from genlab.recipes.vae import VAEConfig, VAERecipe
from genlab.training import state as state_module
from genlab.training.state import TrainingState

INFO = {"images": DomainInfo(100, (8, 8, 1), ())}
CONFIG = override(VAEConfig(), {"model.channels": (2,), "model.hidden": 4, "optimization.ema_images": 10.0})


class RememberingRecipe(VAERecipe):
    """Has a buffer of its own, a constant, and options of its own for its network."""

    remembered: Tensor

    def __init__(self, config: VAEConfig, domains: Any) -> None:
        super().__init__(config, domains)
        self.register_buffer("remembered", torch.zeros(3, dtype=torch.int64))
        self.register_buffer("constant", torch.ones(2), persistent=False)

    def optimization(self, network: str) -> Optimization:
        return Optimization(learning_rate=0.5, beta1=0.0, ema_images=20.0)


def new_state(recipe: type[VAERecipe] = RememberingRecipe) -> TrainingState:
    torch.manual_seed(0)
    state = TrainingState(recipe(CONFIG, INFO), torch.device("cpu"))
    state.set_rates(0, 100)
    for parameter in state.recipe.parameters():
        parameter.grad = torch.ones_like(parameter)
    state.step_optimizer("vae")
    return state


def test_all_that_a_recipe_remembers_is_state() -> None:
    state = new_state()
    assert isinstance(state.recipe, RememberingRecipe)
    state.recipe.remembered += 7
    tensors = {name: tensor.clone() for name, tensor in state.tensors().items()}
    assert tensors["recipe.remembered"].tolist() == [7, 7, 7]
    assert not any("constant" in name for name in tensors)
    assert len([name for name in tensors if name.endswith("encoder.mean.bias")]) == 2, "its weight and its average"
    other = new_state()
    other.load(tensors)
    assert isinstance(other.recipe, RememberingRecipe)
    assert other.recipe.remembered.tolist() == [7, 7, 7]


def test_a_network_has_its_own_options() -> None:
    state = new_state()
    assert state.set_rates(0, 100) == {"learning_rate": 1e-3, "learning_rate_vae": 0.5}
    assert state.options["vae"].ema_images == 20.0
    assert new_state(VAERecipe).set_rates(0, 100) == {"learning_rate": 1e-3}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("shape", [(), (3,), (5, 7), (400, 300)])
@pytest.mark.parametrize("where", ["CPU", "GPU"])
def test_fingerprints_tell_a_flipped_bit_and_a_permutation(
    dtype: torch.dtype, shape: Sequence[int], where: str
) -> None:
    state = new_state()
    assert isinstance(state.recipe, RememberingRecipe)

    def fingerprint(tensor: Tensor) -> int:
        if where == "GPU":  # the same operations, on the CPU
            octets = state_module._octets(tensor)
            return int(state_module._weighted_sum(octets, state_module._odd_numbers(1 << 14, tensor.device)))
        recipe.remembered = tensor
        return state.fingerprints()["recipe.remembered"]

    recipe = state.recipe
    generator = torch.Generator().manual_seed(0)
    tensor = torch.randint(0, 2, shape, generator=generator).to(dtype)
    variants = [tensor]
    changed = tensor.clone().reshape(-1)
    changed[-1] = 1 - changed[-1].to(torch.float64)
    variants.append(changed.reshape(shape))
    if tensor.numel() > 2:
        first = int((tensor.reshape(-1) != tensor.reshape(-1)[0]).nonzero()[0])
        swapped = tensor.clone().reshape(-1)
        swapped[[0, first]] = swapped[[first, 0]]
        variants.append(swapped.reshape(shape))
    found = {fingerprint(variant) for variant in variants}
    assert len(found) == len(variants)
    assert fingerprint(tensor.clone()) in found


def test_fingerprints_are_of_weights_moments_averages_and_buffers() -> None:
    state = new_state()
    before = state.fingerprints()
    for name, tensor in state.tensors().items():
        kept = tensor.clone()
        with torch.no_grad():
            tensor[(0,) * tensor.dim()] += 1
        after = state.fingerprints()
        assert [key for key in before if before[key] != after[key]] == [name]
        with torch.no_grad():
            tensor.copy_(kept)


def test_another_dtype_is_not_cast_silently() -> None:
    tensors = new_state().tensors()
    name = "network.vae.encoder.mean.bias"
    with pytest.raises(RunError, match=rf"another architecture: {name} is float64 \(2,\), and would be float32 \(2,\)"):
        new_state().load(tensors | {name: tensors[name].double()})


def test_other_networks_are_constants_while_one_moves() -> None:
    state = new_state()
    state.parameters["other"] = dict(nn.Linear(2, 2).named_parameters())
    frozen = nn.init.zeros_(state.parameters["other"]["bias"]).requires_grad_(False)
    with state.only("vae"):
        assert not any(parameter.requires_grad for parameter in state.parameters["other"].values())
        assert all(parameter.requires_grad for parameter in state.parameters["vae"].values())
    assert state.parameters["other"]["weight"].requires_grad
    assert not frozen.requires_grad


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_adam_is_pytorchs_adamw_bit_for_bit(weight_decay: float) -> None:
    ours, theirs = (torch.linspace(-1, 1, 50).requires_grad_() for _ in range(2))
    adam = Adam({"w": ours}, 0.8, 0.9, weight_decay)
    peer = torch.optim.AdamW([theirs], lr=0.1, betas=(0.8, 0.9), weight_decay=weight_decay, fused=True)
    adam.rate = 0.1
    for step in range(3):
        ours.grad = theirs.grad = torch.sin(torch.arange(50) + step)
        adam.step()
        peer.step()
    assert torch.equal(ours, theirs)
