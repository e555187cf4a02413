"""A run directory has one writer: who comes second is refused, who was taken for dead stops, and nothing is lost."""

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import pytest
import torch
from upath import UPath

from genlab.core import claims
from genlab.core.claims import ClaimError, ClaimLostError
from genlab.core.errors import GenlabError
from genlab.core.storage import create_exclusive, locate
from genlab.recipes.vae import VAERecipe
from genlab.training.attempts import SupersededError, begin_attempt
from genlab.training.checkpoints import Checkpoints
from genlab.training.launch import launch
from genlab.training.loop import train
from genlab.training.plan import Plan, make_plan, start_or_resume
from tests.s3 import Bucket
from tests.training.support import (
    PROCESSES,
    QuietSession,
    assert_same_run,
    before_each_step,
    metrics,
    train_until_killed,
    vae_config,
)

TIMEOUT_SECONDS = 120
LEASE_SECONDS = 0.5

Moment = Literal["step", "index"]


@dataclass(frozen=True)
class Store:
    """A folder of runs, on a disk or in a bucket."""

    url: str
    environment: dict[str, str]

    def local(self, run: str, folder: Path) -> Path:
        """The run as a local folder: itself, or a copy in ``folder``."""
        if not self.environment:
            return Path(self.url) / run
        source = locate(f"{self.url}/{run}")
        source.fs.get(source.path, str(folder / run), recursive=True)
        return folder / run


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(claims, "HEARTBEAT", LEASE_SECONDS / 10)
    monkeypatch.setattr(claims, "LEASE_TIMEOUT", LEASE_SECONDS)
    if request.param == "disk":
        return Store(str(tmp_path / "runs"), {})
    bucket: Bucket = request.getfixturevalue("s3")
    return Store(f"{bucket.url}/runs", bucket.environment)


@pytest.fixture(scope="module")
def unbroken(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("runs")
    launch("vae", vae_config(digits, name="unbroken", storage=str(storage)))
    return storage / "unbroken"


class Other:
    """Another process that trains a run and stands still at a moment until it is told to go on.

    Args:
        store: where the run lies.
        function: how it trains.
        moment: at the beginning of a step, or between the last look for a later attempt and an index.
        step: the step.
    """

    def __init__(self, store: Store, function: Callable[[], Any], moment: Moment, step: int) -> None:
        self._there, self._go, self._said = PROCESSES.Event(), PROCESSES.Event(), PROCESSES.Queue()
        events = self._there, self._go, self._said
        arguments = store.environment, function, moment, step, *events
        self.process: BaseProcess = PROCESSES.Process(target=_train_and_wait, args=arguments)

    def __enter__(self) -> "Other":
        self.process.start()
        assert self._there.wait(TIMEOUT_SECONDS)
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.join()

    def go(self) -> GenlabError | None:
        """Let it go on to its end; the error that it ended with."""
        self._go.set()
        error: GenlabError | None = self._said.get(timeout=TIMEOUT_SECONDS)
        self.process.join(TIMEOUT_SECONDS)
        return error


def _train_and_wait(
    environment: dict[str, str], function: Callable[[], Any], moment: Moment, step: int, there: Any, go: Any, said: Any
) -> None:
    os.environ.update(environment)
    save = Checkpoints.save

    def wait() -> None:
        if not there.is_set():
            there.set()
            go.wait()

    def wait_in_step(recipe: Any, index: int) -> None:
        if index == step:
            wait()

    def save_and_wait(self: Checkpoints, *arguments: Any, **options: Any) -> None:
        save(self, *arguments, **options)
        self.wait()

    def wait_and_create(path: UPath, data: bytes) -> bool:
        if json.loads(data)["step"] == step:
            wait()
        return create_exclusive(path, data)

    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(claims, "HEARTBEAT", LEASE_SECONDS / 10))
        patches.enter_context(mock.patch.object(claims, "LEASE_TIMEOUT", LEASE_SECONDS))
        if moment == "step":
            patches.enter_context(before_each_step(VAERecipe, wait_in_step))
            patches.enter_context(mock.patch.object(Checkpoints, "save", save_and_wait))
        else:
            patches.enter_context(mock.patch("genlab.training.checkpoints.create_exclusive", wait_and_create))
        try:
            function()
        except GenlabError as error:
            said.put(error)
        else:
            said.put(None)


@dataclass(frozen=True)
class Launch:
    """A run as ``genlab train`` starts it."""

    config: Any

    def __call__(self) -> None:
        launch("vae", self.config)


@dataclass(frozen=True)
class Train:
    """What rank 0 of a group of workers does."""

    plan: Plan

    def __call__(self) -> None:
        train(self.plan, QuietSession())


def config_of(digits: Path, store: Store) -> Any:
    return vae_config(digits, name="run", storage=store.url)


@pytest.mark.slow
def test_of_two_drivers_the_second_is_refused(digits: Path, store: Store, unbroken: Path, tmp_path: Path) -> None:
    config = config_of(digits, store)
    with Other(store, Launch(config), "step", 7) as first:
        before = (locate(store.url) / "run" / "config.json").read_bytes()
        with pytest.raises(ClaimError, match=rf"process {first.process.pid} on .*; wait for it, or choose another run"):
            launch("vae", config)
        assert (locate(store.url) / "run" / "config.json").read_bytes() == before
        assert first.go() is None
    assert_same_run(store.local("run", tmp_path / "copy"), unbroken)
    launch("vae", config)  # it is finished, and nobody's


@pytest.mark.slow
def test_a_driver_that_was_stopped_for_longer_than_a_lease(
    digits: Path, store: Store, unbroken: Path, tmp_path: Path
) -> None:
    config = config_of(digits, store)
    with Other(store, Launch(config), "step", 7) as first:
        os.kill(first.process.pid or 0, signal.SIGSTOP)
        if store.environment:
            launch("vae", config)  # takes over
        else:
            with pytest.raises(ClaimError, match=rf"process {first.process.pid} on"):
                launch("vae", config)
        os.kill(first.process.pid or 0, signal.SIGCONT)
        end = first.go()
        if store.environment:
            assert isinstance(end, ClaimLostError | SupersededError)
        else:
            assert end is None
    assert_same_run(store.local("run", tmp_path / "copy"), unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["step", "index"])
def test_an_old_rank_0_beside_a_new_group_writes_nothing(
    moment: Moment, digits: Path, store: Store, unbroken: Path, tmp_path: Path
) -> None:
    plan = make_plan("vae", config_of(digits, store))
    start_or_resume(plan)
    with Other(store, Train(plan), moment, {"step": 7, "index": 9}[moment]) as old:
        train(plan, QuietSession())
        assert isinstance(old.go(), SupersededError)
    assert_same_run(store.local("run", tmp_path / "copy"), unbroken)


@pytest.mark.slow
def test_a_checkpoint_that_an_old_rank_0_completes_too_late_does_not_count(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = vae_config(digits, name="run", storage=str(tmp_path), log_every=1, checkpoint_every=3)
    launch("vae", vae_config(digits, name="whole", storage=str(tmp_path), log_every=1, checkpoint_every=3))
    plan = make_plan("vae", config)
    start_or_resume(plan)
    with Other(Store(str(tmp_path), {}), Train(plan), "index", 9) as old:
        train_until_killed(plan, "logged", 8)  # it has taken over at step 6
        old.go()
    assert (tmp_path / "run" / "checkpoints" / "step-00000009" / "index.json").exists()
    launch("vae", config)
    said = capsys.readouterr().out
    assert "step-00000009: attempt 1 wrote it when a later one had taken over" in said
    assert "goes on from the checkpoint of step 6" in said
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def test_a_group_of_a_driver_that_lost_its_claim_takes_no_number(tmp_path: Path) -> None:
    run = locate(tmp_path / "run")
    with claims.claimed(run, "training", "") as claim:
        assert begin_attempt(run, claim).number == 1
        assert begin_attempt(run, claim).number == 2
    with claims.claimed(run, "training", "") as later:
        with pytest.raises(ClaimLostError):
            begin_attempt(run, claim)
        assert begin_attempt(run, later).number == 3


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[Checkpoints]:
    run = locate(tmp_path / "run")
    with Checkpoints(run / "checkpoints", 2, begin_attempt(run, None)) as checkpoints:
        yield checkpoints


def test_an_attempt_that_is_over_sweeps_and_deletes_nothing(checkpoints: Checkpoints, tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoints.save(step, {"x": torch.ones(1)}, {})
    checkpoints.wait()
    begin_attempt(locate(tmp_path / "run"), None)
    torn = tmp_path / "run" / "checkpoints" / "step-00000003" / "state-00002.safetensors"
    torn.parent.mkdir()
    torn.write_bytes(b"half")
    with pytest.raises(SupersededError, match=rf"attempt 2 goes on with the run \(process {os.getpid()} on"):
        checkpoints.newest()
    checkpoints.save(4, {"x": torch.ones(1)}, {})
    with pytest.raises(SupersededError):
        checkpoints.wait()
    assert torn.exists()
    assert checkpoints.steps() == [1, 2]
