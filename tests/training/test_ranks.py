"""Several workers: they may come and go, resume exactly, and never save weights that have drifted apart."""

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import safetensors.torch
import torch
import torch.distributed as dist

from genlab.core.config import override
from genlab.core.errors import RunError
from genlab.recipes.vae import VAERecipe
from genlab.training.launch import launch
from genlab.training.loop import train
from genlab.training.plan import Plan, make_plan
from genlab.training.state import TrainingState
from tests.training.support import (
    PROCESSES,
    QuietSession,
    assert_same_run,
    assert_same_state,
    before_each_step,
    cyclegan_config,
    metrics,
    vae_config,
)

pytestmark = pytest.mark.slow  # many workers


class InterruptionError(Exception):
    """Ends a run on all ranks at once."""


class Watched(TrainingState):
    """Remembers the newest state, so that a test may see every rank's."""

    newest: TrainingState

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        Watched.newest = self


def train_on_ranks(world_size: int, plans: list[Plan], folder: Path) -> None:
    """Train the plans, one after another, on ``world_size`` processes."""
    folder.mkdir()
    ranks = [PROCESSES.Process(target=_train, args=(rank, world_size, plans, folder)) for rank in range(world_size)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    assert [process.exitcode for process in ranks] == [0] * world_size


def _train(rank: int, world_size: int, plans: list[Plan], folder: Path) -> None:
    """What a rank does: the run ``interrupted`` is cut before its eighth step and goes on; in ``drifting`` the last
    rank's weights move by a hair, and the error goes to a file. The others leave each rank's weights in a file.
    """
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=world_size)
    session = QuietSession(rank, world_size)

    def fail(_: VAERecipe, step: int) -> None:
        if step == 7:
            raise InterruptionError

    def drift(recipe: VAERecipe, _: int) -> None:
        if rank == world_size - 1:
            torch.nn.init.constant_(recipe.vae.encoder.mean.bias, 1e-6)

    for plan in plans:
        match plan.run.name:
            case "drifting":
                with before_each_step(VAERecipe, drift), pytest.raises(RunError) as error:
                    train(plan, session)
                (folder / f"error-{rank}").write_text(str(error.value))
            case "interrupted":
                with before_each_step(VAERecipe, fail), pytest.raises(InterruptionError):
                    train(plan, session)
                train(plan, session)
            case name:
                with mock.patch("genlab.training.loop.TrainingState", Watched):
                    train(plan, session)
                tensors = {key: tensor.contiguous() for key, tensor in Watched.newest.tensors().items()}
                safetensors.torch.save_file(tensors, folder / f"{name}-{rank}")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def rank_runs(digits: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs on two and three workers, none of which divides the batch of five."""
    root = tmp_path_factory.mktemp("runs")

    def vae(name: str, **run: Any) -> Plan:
        config = vae_config(digits, name=name, storage=str(root), batch=5, **run)
        return make_plan("vae", override(config, {"optimization.schedule": "constant"}))

    def cyclegan(name: str, dropout: float = 0.0, **run: Any) -> Plan:
        config = cyclegan_config(scenes, dropout, name=name, storage=str(root), batch=5, **run)
        return make_plan("cyclegan", override(config, {"objective.history": 8, "optimization.clip_norm": 1.0}))

    launch("vae", vae("alone").config)
    launch("cyclegan", cyclegan("pair alone").config)
    in_parts = [vae("in parts", accumulate=2), cyclegan("pair in parts", accumulate=2)]
    train_on_ranks(2, [vae("growing", steps=6), vae("drifting", steps=6), *in_parts], root / "2")
    pairs = [cyclegan("pair shared"), cyclegan("cyclegan", dropout=0.5)]
    train_on_ranks(3, [vae("growing"), vae("unbroken"), vae("interrupted"), *pairs], root / "3")
    return root


def assert_close(run: Path, other: Path, rel: float) -> None:
    ours, theirs = metrics(run), metrics(other)
    assert [(line["kind"], line["step"]) for line in ours] == [(line["kind"], line["step"]) for line in theirs]
    for one, two in zip(ours, theirs, strict=True):
        for name in one.keys() - {"kind"}:
            assert two[name] == pytest.approx(one[name], rel=rel), (name, one["step"])


def test_a_run_goes_on_with_more_workers_as_if_it_had_one(rank_runs: Path) -> None:
    assert_close(rank_runs / "alone", rank_runs / "growing", rel=1e-4)


def test_accumulated_gradients_are_those_of_the_whole_batch(rank_runs: Path) -> None:
    assert_close(rank_runs / "alone", rank_runs / "in parts", rel=1e-4)


def test_the_history_of_generated_images_is_that_of_all_workers(rank_runs: Path) -> None:
    assert_close(rank_runs / "pair alone", rank_runs / "pair shared", rel=1e-3)
    assert_close(rank_runs / "pair alone", rank_runs / "pair in parts", rel=1e-3)


def test_three_workers_resume_bit_for_bit(rank_runs: Path) -> None:
    assert_same_run(rank_runs / "interrupted", rank_runs / "unbroken")


@pytest.mark.parametrize("name", ["growing", "unbroken", "cyclegan"])
def test_all_ranks_end_with_the_same_bits(name: str, rank_runs: Path) -> None:
    ranks = [safetensors.torch.load_file(rank_runs / "3" / f"{name}-{rank}") for rank in range(3)]
    assert_same_state(ranks[0], ranks[1])
    assert_same_state(ranks[0], ranks[2])


def test_weights_that_drift_apart_are_never_saved(rank_runs: Path) -> None:
    errors = {(rank_runs / "2" / f"error-{rank}").read_text() for rank in range(2)}
    assert errors == {
        "the workers' states have drifted apart by step 6, in 2 tensors, first in network.vae.encoder.mean.bias; "
        "the last checkpoint is still good"
    }
    assert not list((rank_runs / "drifting").glob("checkpoints/*"))
