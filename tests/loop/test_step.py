"""One step: the mean over the global batch, clipping, averages, precision; on one worker and on several."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from genlab.recipes.options import Optimization
from genlab.recipes.recipe import DomainInfo
from genlab.recipes.vae import VAEConfig, VAERecipe
from genlab.training.launch import launch
from genlab.training.loop import train
from genlab.training.plan import Plan, make_plan
from genlab.training.progress import Console
from genlab.training.session import LocalSession
from genlab.training.state import EMA_RAMP, TrainingState
from genlab.training.step import LoopStep
from genlab.training.tracking import read_metrics
from tests.loop.support import tiny_config

Tiny = Callable[..., Any]
WORLDS = (1, 2, 3)


def new_state(optimization: Optimization) -> TrainingState:
    torch.manual_seed(0)
    recipe = VAERecipe(VAEConfig(), {"images": DomainInfo(100, (28, 28, 1), ())})
    return TrainingState(recipe, optimization, torch.device("cpu"))


def loop_step(state: TrainingState) -> LoopStep:
    session = LocalSession(Console())
    return LoopStep(state, session, index=0, rows=slice(0, 8), batch=8, key=("test",), precision="fp32")


def test_the_gradient_is_clipped_to_the_norm_asked_for() -> None:
    state = new_state(Optimization(clip_norm=0.5))
    loss = sum((parameter.square().sum() for parameter in state.recipe.parameters()), torch.zeros(())) * 100
    loop_step(state).update("vae", loss)
    norm = torch.cat([p.grad.flatten() for p in state.recipe.parameters() if p.grad is not None]).norm()
    assert norm.item() == pytest.approx(0.5, rel=1e-4)


def test_after_a_half_life_the_average_has_come_half_way() -> None:
    state = new_state(Optimization(ema_images=1000))
    first = next(iter(state.averages["vae"].values())).clone()
    weight = next(state.recipe.networks["vae"].parameters())
    nn.init.constant_(weight, 1.0)
    for step in range(100):
        state.average(images=1000 / EMA_RAMP + 10 * step, batch=10)  # type: ignore[arg-type]
    average = next(iter(state.averages["vae"].values()))
    assert torch.allclose(average, (first + 1) / 2, atol=1e-5)
    with state.averaged():
        assert torch.allclose(weight, (first + 1) / 2, atol=1e-5)
    assert torch.equal(weight, torch.ones_like(weight)), "the weights themselves come back"


def test_row_noise_is_one_draw_of_the_global_batch_sliced() -> None:
    state = new_state(Optimization())
    session = LocalSession(Console())

    def noise(rows: slice, key: int) -> torch.Tensor:
        return LoopStep(state, session, index=0, rows=rows, batch=7, key=(key,), precision="fp32").noise("z", 3)

    whole = noise(slice(0, 7), 1)
    assert torch.equal(torch.cat([noise(slice(0, 4), 1), noise(slice(4, 7), 1)]), whole)
    assert not torch.equal(noise(slice(0, 7), 2), whole)


def test_bf16_trains_as_fp32_does(tiny: Tiny, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        launch("vae", tiny("vae", {"run.precision": precision, "run.name": precision, "run.steps": 6}))
    figures = {p: [line["neg_elbo"] for line in read_metrics(tmp_path / p / "metrics.jsonl")] for p in ("fp32", "bf16")}
    assert figures["fp32"] != figures["bf16"]
    assert figures["bf16"] == pytest.approx(figures["fp32"], rel=0.01)


class Member(LocalSession):
    """A worker of a world of processes on this machine."""


def work(rank: int, world_size: int, plans: list[Plan], folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    for plan in plans:
        train(plan, Member(Console(), threads=1, rank=rank, world_size=world_size))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def worlds(tiny_data: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same runs, of a batch that no world size divides evenly, on one, two and three workers."""
    root = tmp_path_factory.mktemp("worlds")
    changes = {"run.batch": 5, "run.steps": 4, "run.log_every": 1, "run.storage": str(root), "run.figures_every": 4}
    for world_size in WORLDS:
        plans = []
        for family, more in (("vae", {}), ("cyclegan", {"model.dropout": 0.0})):
            name = {"run.name": f"{family}-{world_size}"}
            plans.append(make_plan(family, tiny_config(family, tiny_data, changes | name | more)))
        (root / str(world_size)).mkdir()
        mp.spawn(work, args=(world_size, plans, str(root / str(world_size))), nprocs=world_size)
    return root


@pytest.mark.cluster
@pytest.mark.parametrize("family", ["vae", "cyclegan"])
@pytest.mark.parametrize("world_size", WORLDS[1:])
def test_the_global_batch_decides_not_the_number_of_workers(family: str, world_size: int, worlds: Path) -> None:
    # The loop itself compares the ranks' weights bit for bit before it saves the last checkpoint.
    alone, together = (read_metrics(worlds / f"{family}-{size}" / "metrics.jsonl") for size in (1, world_size))
    assert [line["step"] for line in alone] == [line["step"] for line in together]
    for one, other in zip(alone, together, strict=True):
        for name in one.keys() - {"kind", "time", "images_per_second", "data_wait_share"}:
            assert other[name] == pytest.approx(one[name], rel=2e-3), (name, one["step"])
