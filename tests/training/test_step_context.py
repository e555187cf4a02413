"""One step: clipping, averages, noise and precision."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from genlab.core.config import override
from genlab.recipes.recipe import DomainInfo
from genlab.recipes.vae import VAEConfig, VAERecipe
from genlab.training.console import RunConsole
from genlab.training.gradients import Gradients
from genlab.training.launch import launch
from genlab.training.session import LocalSession
from genlab.training.state import EMA_RAMP, TrainingState
from genlab.training.step_context import LoopStepContext, rows_of_part
from genlab.training.tracking import read_metrics

Tiny = Callable[..., Any]


def new_state(**optimization: Any) -> TrainingState:
    torch.manual_seed(0)
    config = override(VAEConfig(), {f"optimization.{name}": value for name, value in optimization.items()})
    return TrainingState(VAERecipe(config, {"images": DomainInfo(100, (28, 28, 1), ())}), torch.device("cpu"))


def test_the_gradient_is_clipped_to_the_norm_asked_for() -> None:
    state = new_state(clip_norm=0.5)
    parameters = list(state.recipe.parameters())
    loss = sum((parameter.square().sum() for parameter in parameters), torch.zeros(())) * 100
    Gradients(parameters, alone=True).backward(loss, first=True, last=True)
    state.step_optimizer("vae")
    norm = torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None]).norm()
    assert norm.item() == pytest.approx(0.5, rel=1e-4)


def test_after_a_half_life_the_average_has_come_half_way() -> None:
    state = new_state(ema_images=1000)
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


def test_at_first_the_half_life_is_a_twentieth_of_the_images_seen() -> None:
    state = new_state(ema_images=1000)
    first = next(iter(state.averages["vae"].values())).clone()
    nn.init.constant_(next(state.recipe.networks["vae"].parameters()), 1.0)
    state.update_ema(images=100, batch=10)  # Twice 5 images.
    average = next(iter(state.averages["vae"].values()))
    assert torch.allclose(average, first / 4 + 3 / 4)


def context(
    rank: int, world_size: int, key: int = 1, part: tuple[int, int] = (0, 1), **options: Any
) -> LoopStepContext:
    """The context of a rank for its part of a global batch of 7 rows."""
    session = LocalSession(RunConsole(), rank=rank, world_size=world_size, device=torch.device("cpu"))
    rows = partial(_part, world_size, *part)
    return LoopStepContext(session, index=0, batch=7, rows_of=rows, key=(key,), precision="fp32", **options)


def _part(world_size: int, part: int, parts: int, rank: int) -> slice:
    return rows_of_part(7, rank, world_size, part, parts, group=1)


@pytest.mark.parametrize("numbers_at_once", [None, 65536, 6, 8, 1])
@pytest.mark.parametrize("draw", ["noise", "uniform"])
def test_row_noise_does_not_depend_on_the_ranks(numbers_at_once: int | None, draw: str) -> None:
    def noise(*of: Any) -> torch.Tensor:
        drawn: torch.Tensor = getattr(context(*of, numbers_at_once=numbers_at_once), draw)("z", 3)
        return drawn

    whole = noise(0, 1, 1)
    assert whole.shape == (7, 3)
    assert len(whole.unique()) == 21
    for world_size in (2, 3, 7):
        assert torch.equal(torch.cat([noise(rank, world_size, 1) for rank in range(world_size)]), whole)
    assert torch.equal(torch.cat([noise(0, 2, 1), noise(1, 2, 1, (0, 2)), noise(1, 2, 1, (1, 2))]), whole)
    assert not torch.equal(noise(0, 1, 2), whole)


def test_little_row_noise_is_that_of_earlier_versions() -> None:
    of_earlier = context(0, 1, numbers_at_once=None)
    assert torch.equal(context(0, 1).noise("z", 3), of_earlier.noise("z", 3))
    known = torch.tensor([0.0813208669424057, -0.3397260010242462, -1.3974854946136475])
    assert torch.allclose(of_earlier.noise("z", 3)[0], known, atol=1e-4)


def test_a_rank_draws_noise_of_its_own_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    randn = torch.randn

    def counting(rows: int, *shape: int, **options: Any) -> torch.Tensor:
        drawn.append(rows)
        return randn(rows, *shape, **options)

    monkeypatch.setattr(torch, "randn", counting)
    assert context(3, 7).noise("maps", 256, 256).shape == (1, 256, 256)
    assert drawn == [1]


@pytest.mark.parametrize("wanted", [None, {0, 3, 4, 6}, set()])
def test_one_rank_gathers_the_rows_that_are_wanted(wanted: set[int] | None) -> None:
    rows, values = context(0, 1).gather(torch.arange(7.0)[:, None], wanted)()
    assert list(rows) == sorted(range(7) if wanted is None else wanted)
    assert values.flatten().tolist() == list(rows)


def test_bf16_trains_as_fp32_does(tiny: Tiny, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        launch("vae", tiny("vae", {"run.precision": precision, "run.name": precision, "run.steps": 6}))
    figures = {p: [line["neg_elbo"] for line in read_metrics(tmp_path / p / "metrics.jsonl")] for p in ("fp32", "bf16")}
    assert figures["fp32"] != figures["bf16"]
    assert figures["bf16"] == pytest.approx(figures["fp32"], rel=0.01)
