"""Helpers of the training tests: tiny configs, processes that are killed, and comparison of run directories."""

import dataclasses
import json
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, TypeVar
from unittest import mock

import safetensors.torch
import torch
import torch.distributed as dist
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from genlab.core.config import override
from genlab.core.processes import end_with_parent
from genlab.core.storage import create_exclusive
from genlab.models.stylegan import Form
from genlab.models.vae import VAEArchitecture
from genlab.recipes.cyclegan import CycleGANConfig, CycleGANData, CycleGANModel, CycleGANObjective
from genlab.recipes.growth import Growth
from genlab.recipes.options import ImageData, Optimization, Run
from genlab.recipes.recipe import Batches, Metrics, Phase, Recipe, StepContext, recipe_type
from genlab.recipes.stylegan import StyleGANAugmentation, StyleGANConfig, StyleGANModel, StyleGANObjective
from genlab.recipes.vae import VAEConfig
from genlab.store import model_directory
from genlab.training.checkpoints import Checkpoints
from genlab.training.console import ProgressUpdate
from genlab.training.loop import train
from genlab.training.notices import NoNotices, Notices
from genlab.training.plan import Plan
from genlab.training.rung import Rung
from genlab.training.state import TrainingState
from genlab.training.tracking import CLOCK_FIELDS, read_metrics

# A server that imports torch once and forks: children start in no time, and never inherit this process's threads.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["torch._inductor", "genlab.training.loop"])

T = TypeVar("T")
Moment = Literal["step", "logged", "half a checkpoint", "a checkpoint", "export"]


TINY: dict[str, dict[str, Any]] = {
    "vae": {
        "run.batch": 16,
        "run.steps": 24,
        "model.channels": [4, 8],
        "optimization.ema_images": 64,
        "optimization.schedule": "linear",
    },
    "cyclegan": {
        "run.batch": 2,
        "run.steps": 12,
        "model.width": 4,
        "model.levels": 4,
        "model.discriminator_width": 4,
        "objective.history": 3,
        "optimization.ema_images": 8,
    },
    "stylegan": {
        "run.batch": 4,
        "run.steps": 12,
        "model.channel_base": 32,
        "model.channel_max": 8,
        "model.latent_dim": 6,
        "model.mapping_layers": 2,
        "model.group": 2,
        "objective.r1_every": 2,
        "objective.path_length_every": 3,
    },
}
COMMON = {"run.workers": 0, "run.threads": 1, "run.log_every": 3, "run.checkpoint_every": 5, "run.figures_every": 6}


@dataclass(frozen=True)
class QuietSession:
    """A worker's place in a run that nobody watches."""

    rank: int = 0
    world_size: int = 1
    threads: int | None = 1
    reserved: bool = False

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def report(self, metrics: Mapping[str, float]) -> None:
        pass

    def reach(self, rung: Rung) -> bool:
        return False

    def notices(self) -> Notices:
        return NoNotices()

    def progress(self, update: ProgressUpdate) -> None:
        pass

    def say(self, message: str) -> None:
        pass

    def background(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        # Not niced, as the real ones are, and with torch imported: a test waits for it.
        executor = ProcessPoolExecutor(1, PROCESSES, initializer=_begin_in_background)
        future = executor.submit(function, *arguments)
        executor.shutdown(wait=False)
        return future


def _begin_in_background() -> None:
    end_with_parent()
    torch.set_num_threads(1)


def vae_config(data: Path, **run: Any) -> VAEConfig:
    """Everything that is a function of time is on; 12 steps with checkpoints after 6, 9 and 12."""
    return VAEConfig(
        run=dataclasses.replace(Run(steps=12, batch=6, workers=0, threads=1, log_every=3, checkpoint_every=4), **run),
        data=ImageData(images=str(data)),
        model=VAEArchitecture(channels=(4, 8), hidden=8),
        optimization=Optimization(schedule="linear", decay_from=0.25, warmup_images=12, ema_images=30, clip_norm=200.0),
    )


def cyclegan_config(data: Path, dropout: float = 0.5, **run: Any) -> CycleGANConfig:
    """Six steps with checkpoints after 4 and 6, on ``data/a`` and ``data/b``, read by windows and augmented."""
    return CycleGANConfig(
        run=dataclasses.replace(Run(steps=6, batch=2, workers=0, threads=1, log_every=2, checkpoint_every=3), **run),
        data=CycleGANData(a=str(data / "a"), b=str(data / "b"), window=1.0, flip=True, jitter=4),
        model=CycleGANModel(width=4, dropout=dropout, discriminator_width=4),
        objective=CycleGANObjective(history=3),
    )


def stylegan_config(data: Path, form: Form = "skip", **run: Any) -> StyleGANConfig:
    """Ten steps with checkpoints after 2, 4, ..., and everything on; of images with labels.

    Progressive networks begin with 4x4 pixels. They fade in 8x8 in the steps from number 3 on, counted from 0, and
    16x16 from number 8 on, so there are checkpoints within a fade and just before a resolution begins.
    """
    networks: dict[str, Any] = {"styles": "adain", "noise": True} if form == "progressive" else {}
    return StyleGANConfig(
        run=dataclasses.replace(Run(steps=10, batch=8, workers=0, threads=1, log_every=1, checkpoint_every=2), **run),
        data=ImageData(images=str(data), flip=True),
        model=StyleGANModel(
            channel_base=32,
            channel_max=8,
            latent_dim=6,
            mapping_layers=2,
            form=form,
            conditional=True,
            group=2,
            **networks,
        ),
        objective=StyleGANObjective(r1_every=2, path_length_every=3),
        # Above this target nearly any discriminator is: from step 4 on images are augmented.
        augmentation=StyleGANAugmentation(adaptive=True, target=-1.0, adjustment_images=100),
        growth=Growth(first=4, stable_images=16, fade_images=24),
        optimization=Optimization(learning_rate=2e-3, beta1=0.0, beta2=0.99, ema_images=40, schedule="linear"),
    )


def tiny_config(family: str, data: dict[str, str], changes: dict[str, Any]) -> Any:
    """A config of ``family`` on its part of ``data``."""
    config = recipe_type(family).config_type()
    # Digits are of 28x28 pixels, which a StyleGAN does not draw.
    source = {"images": "a"} if family == "stylegan" else {}
    mine = {f"data.{domain}": data[f"data.{source.get(domain, domain)}"] for domain in config.data.domains}
    return override(config, TINY[family] | COMMON | mine | changes)


def train_until_killed(plan: Plan, moment: Moment, step: int, workers: int = 1, target: int = 0) -> None:
    """Train in processes of their own until the rank ``target`` is killed (SIGKILL) at the ``moment`` of ``step``.

    The other ranks are killed after it, as Ray Train does.
    """
    with _ranks(workers, _train_and_die, plan, moment, step, target) as ranks:
        ranks[target].join(120)
    assert ranks[target].exitcode == -signal.SIGKILL


def train_to_the_end(plan: Plan, workers: int) -> None:
    """Train in ``workers`` processes."""
    with _ranks(workers, _train_rank, plan) as ranks:
        for process in ranks:
            process.join(120)
    assert [process.exitcode for process in ranks] == [0] * workers


@contextmanager
def _ranks(workers: int, target: Callable[..., None], *arguments: Any) -> Iterator[list[BaseProcess]]:
    """Processes of one world; those that are alive in the end are killed."""
    with tempfile.TemporaryDirectory(prefix="genlab-ranks-") as folder:
        store = f"{folder}/store" if workers > 1 else None
        ranks: list[BaseProcess] = [
            PROCESSES.Process(target=target, args=(QuietSession(rank, workers), store, *arguments))
            for rank in range(workers)
        ]
        for process in ranks:
            process.start()
        yield ranks
        for process in ranks:
            process.kill()
            process.join()


def _train_rank(session: QuietSession, store: str | None, plan: Plan) -> None:
    if store:
        dist.init_process_group("gloo", f"file://{store}", rank=session.rank, world_size=session.world_size)
    train(plan, session)
    if store:
        dist.destroy_process_group()


def _train_and_die(
    session: QuietSession, store: str | None, plan: Plan, moment: Moment, step: int, target: int
) -> None:
    def die() -> None:
        if session.rank == target:
            os.kill(os.getpid(), signal.SIGKILL)

    write, save = Checkpoints._write, Checkpoints.save

    def die_in_step(index: int) -> None:
        if index == step:
            die()

    def save_and_wait(self: Checkpoints, *arguments: Any, **options: Any) -> None:
        save(self, *arguments, **options)
        self.wait()

    def progress_or_die(self: QuietSession, update: ProgressUpdate) -> None:
        if update.step >= step:
            die()

    def create_or_die(path: Any, data: bytes) -> bool:
        if json.loads(data)["step"] == step:
            die()
        return create_exclusive(path, data)

    def write_and_die(self: Any, now: int, *state: Any) -> None:
        write(self, now, *state)
        if now == step:
            die()

    def save_and_die(*arguments: Any) -> None:
        die()

    with ExitStack() as patches:
        if moment in ("step", "logged"):
            # Whether the checkpoint before is whole by then must not hang on how fast the steps are.
            patches.enter_context(mock.patch.object(Checkpoints, "save", save_and_wait))
        match moment:
            case "step":
                # After a step, in which the ranks meet, and so rank 0 has saved what was due.
                patches.enter_context(after_each_step(die_in_step))
            case "logged":
                patches.enter_context(mock.patch.object(QuietSession, "progress", progress_or_die))
            case "half a checkpoint":
                patches.enter_context(mock.patch("genlab.training.checkpoints.create_exclusive", create_or_die))
            case "a checkpoint":
                patches.enter_context(mock.patch.object(Checkpoints, "_write", write_and_die))
            case "export":
                patches.enter_context(mock.patch.object(model_directory, "save", save_and_die))
        _train_rank(session, store, plan)


def before_each_step(recipe: type[Recipe[Any]], function: Callable[[Any, int], None]) -> AbstractContextManager[Any]:
    """Patch a recipe to call ``function(recipe, step.index)`` before it computes a step."""
    phases = recipe.phases

    def patched(self: Any) -> list[Phase]:
        first, *others = phases(self)

        def loss(batches: Batches, step: StepContext) -> tuple[Tensor, Metrics]:
            function(self, step.index)
            return first.loss(batches, step)

        return [dataclasses.replace(first, loss=loss), *others]

    return mock.patch.object(recipe, "phases", patched)


def after_each_step(function: Callable[[int], None]) -> AbstractContextManager[Any]:
    """Patch training to call ``function(step)`` when the optimisers have made step number ``step``, from 0."""
    update = TrainingState.update_ema

    def patched(self: TrainingState, images: int, batch: int) -> None:
        update(self, images, batch)
        function(images // batch - 1)

    return mock.patch.object(TrainingState, "update_ema", patched)


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl`` without what the clock decides."""
    lines = read_metrics(run / "metrics.jsonl")
    return [{name: value for name, value in line.items() if name not in CLOCK_FIELDS} for line in lines]


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every TensorBoard event of each tag in all event files, sorted; nothing is purged."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}, purge_orphaned_data=False)
    events.Reload()
    return {tag: sorted((event.step, event.value) for event in events.Scalars(tag)) for tag in events.Tags()["scalars"]}


def checkpoint_steps(run: Path) -> list[int]:
    """Steps of the checkpoint folders that are not set aside."""
    return sorted(int(folder.name.removeprefix("step-")) for folder in (run / "checkpoints").glob("step-*"))


def state(run: Path, step: int) -> dict[str, Tensor]:
    """Every tensor of a checkpoint."""
    return safetensors.torch.load_file(state_file(run / "checkpoints" / f"step-{step:08d}"))


def state_file(checkpoint: Path) -> Path:
    """The file of a checkpoint's tensors, which the index names after the attempt."""
    (name,) = json.loads((checkpoint / "index.json").read_text())["files"]
    return checkpoint / name


def truncate(checkpoint: Path, dice: random.Random) -> None:
    """Cut the file of a checkpoint's tensors short."""
    file = state_file(checkpoint)
    file.write_bytes(file.read_bytes()[: dice.randrange(file.stat().st_size)])


def flip(checkpoint: Path, dice: random.Random) -> None:
    """Change one bit of the file of a checkpoint's tensors."""
    file = state_file(checkpoint)
    data = bytearray(file.read_bytes())
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    file.write_bytes(data)


def delete(checkpoint: Path, dice: random.Random) -> None:
    """Delete a checkpoint."""
    shutil.rmtree(checkpoint)


def assert_same_state(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Equal names and equal bits."""
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def assert_same_run(one: Path, other: Path) -> None:
    """Two run directories that differ in nothing but the clock."""
    assert metrics(one) == metrics(other)
    assert checkpoint_steps(one) == checkpoint_steps(other)
    for step in checkpoint_steps(one):
        assert_same_state(state(one, step), state(other, step))
    for files in ("figures/**/*.png", "model/model.safetensors"):
        found = sorted(file.relative_to(one) for file in one.glob(files))
        assert found == sorted(file.relative_to(other) for file in other.glob(files))
        assert [file for file in found if (one / file).read_bytes() != (other / file).read_bytes()] == []
    mine, theirs = scalars(one), scalars(other)
    assert mine.keys() == theirs.keys()
    for tag in mine:
        assert [step for step, _ in mine[tag]] == [step for step, _ in theirs[tag]]
        assert tag.split("/")[1] in CLOCK_FIELDS or mine[tag] == theirs[tag]
