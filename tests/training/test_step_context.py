"""One step: clipping, averages, noise and precision."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from genlab.core.errors import ConfigError
from genlab.recipes.options import Optimization
from genlab.recipes.recipe import DomainInfo
from genlab.recipes.vae import VAEConfig, VAERecipe
from genlab.training.console import RunConsole
from genlab.training.launch import launch
from genlab.training.session import LocalSession
from genlab.training.state import EMA_RAMP, TrainingState
from genlab.training.step_context import LoopStepContext
from genlab.training.tracking import read_metrics

Tiny = Callable[..., Any]


def new_state(optimization: Optimization) -> TrainingState:
    torch.manual_seed(0)
    recipe = VAERecipe(VAEConfig(), {"images": DomainInfo(100, (28, 28, 1), ())})
    return TrainingState(recipe, optimization, torch.device("cpu"))


def loop_step(state: TrainingState) -> LoopStepContext:
    session = LocalSession(RunConsole())
    return LoopStepContext(state, session, index=0, batch=8, key=("test",), precision="fp32")


def test_the_gradient_is_clipped_to_the_norm_asked_for() -> None:
    state = new_state(Optimization(clip_norm=0.5))
    loss = sum((parameter.square().sum() for parameter in state.recipe.parameters()), torch.zeros(())) * 100
    loop_step(state).update("vae", loss)
    norm = torch.cat([p.grad.flatten() for p in state.recipe.parameters() if p.grad is not None]).norm()
    assert norm.item() == pytest.approx(0.5, rel=1e-4)


def test_an_update_of_an_unknown_network_names_those_that_are_known() -> None:
    state = new_state(Optimization())
    with pytest.raises(ConfigError, match=r"recipes/vae\.py: step\.update\('decoder', .*: no such network; .*: vae"):
        loop_step(state).update("decoder", torch.zeros(()))


def test_after_a_half_life_the_average_has_come_half_way() -> None:
    state = new_state(Optimization(ema_images=1000))
    first = next(iter(state.averages["vae"].values())).clone()
    weight = next(state.recipe.networks["vae"].parameters())
    nn.init.constant_(weight, 1.0)
    for step in range(100):
        state.update_ema(images=1000 / EMA_RAMP + 10 * step, batch=10)  # type: ignore[arg-type]
    average = next(iter(state.averages["vae"].values()))
    assert torch.allclose(average, (first + 1) / 2, atol=1e-5)
    with state.ema_weights():
        assert torch.allclose(weight, (first + 1) / 2, atol=1e-5)
    assert torch.equal(weight, torch.ones_like(weight)), "the weights themselves come back"


def test_row_noise_is_one_draw_of_the_global_batch_sliced() -> None:
    state = new_state(Optimization())

    def noise(rank: int, world_size: int, key: int, part: tuple[int, int] = (0, 1)) -> torch.Tensor:
        session = LocalSession(RunConsole(), rank=rank, world_size=world_size)
        step = LoopStepContext(state, session, index=0, batch=7, key=(key,), precision="fp32", part=part)
        return step.noise("z", 3)

    whole = noise(0, 1, 1)
    assert torch.equal(torch.cat([noise(0, 2, 1), noise(1, 2, 1)]), whole)
    assert torch.equal(torch.cat([noise(0, 2, 1), noise(1, 2, 1, (0, 2)), noise(1, 2, 1, (1, 2))]), whole)
    assert not torch.equal(noise(0, 1, 2), whole)


def test_bf16_trains_as_fp32_does(tiny: Tiny, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        launch("vae", tiny("vae", {"run.precision": precision, "run.name": precision, "run.steps": 6}))
    figures = {p: [line["neg_elbo"] for line in read_metrics(tmp_path / p / "metrics.jsonl")] for p in ("fp32", "bf16")}
    assert figures["fp32"] != figures["bf16"]
    assert figures["bf16"] == pytest.approx(figures["fp32"], rel=0.01)
