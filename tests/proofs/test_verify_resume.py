"""The proof of exact resume on real Ray Train workers: kills of workers and of the driver at random steps."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch

from genlab.proofs import verify_resume
from genlab.proofs.verify_resume import Kill, KillSchedule
from genlab.recipes.recipe import Phase
from tests.cluster_support import TIMEOUT_SECONDS, Cluster

SMALL_STYLEGAN = [
    *["--run.batch", "8", "--model.channel-base", "32", "--model.channel-max", "8", "--model.latent-dim", "6"],
    *["--model.mapping-layers", "2", "--model.group", "2", "--model.conditional", "--objective.r1-every", "2"],
    *["--objective.path-length-every", "3", "--augmentation.adaptive", "--optimization.ema-images", "100"],
]
FAMILIES = {
    "vae": ["--run.batch", "32", "--optimization.ema-images", "500"],
    "cvae": ["--run.batch", "32"],
    "classifier": ["--run.batch", "32"],
    "cyclegan": [
        "--run.batch",
        "5",
        "--model.width",
        "4",
        "--model.discriminator-width",
        "4",
        "--objective.history",
        "3",
    ],
    "stylegan": SMALL_STYLEGAN,
    "stylegan progressive": [
        *SMALL_STYLEGAN,
        *["--model.form", "progressive", "--model.styles", "adain", "--growth.first", "4"],
        *["--growth.stable-images", "24", "--growth.fade-images", "40"],
    ],
}
GRID = [
    pytest.param("vae", 2, 2, 0, marks=pytest.mark.cluster, id="2 workers-vae"),
    *(
        pytest.param(
            family, workers, 4, seed, marks=pytest.mark.reliability, id=f"{workers} workers-{family}, seed {seed}"
        )
        for workers in (1, 2, 3, 5)
        for family in FAMILIES
        for seed in (1, 2)
        if workers < 5 or not family.startswith("stylegan")  # whose batch has four groups
    ),
]


@pytest.mark.parametrize(("family", "workers", "kills", "seed"), GRID)
def test_a_run_killed_at_random_steps_ends_as_one_that_was_not(
    family: str, workers: int, kills: int, seed: int, cluster: Cluster, drawn: Callable[[str], Path]
) -> None:
    name = family.partition(" ")[0]
    data = {"a": "scenes-a", "b": "scenes-b"} if name == "cyclegan" else {"images": "digits"}
    if name == "stylegan":
        data = {"images": "digits-16"}
    options = [word for domain, source in data.items() for word in (f"--data.{domain}", str(drawn(source)))]
    job = cluster.submit(
        *["genlab", "verify-resume", name, "--workers", str(workers), "--kills", str(kills), "--seed", str(seed)],
        *[*options, *FAMILIES[family], "--run.threads", "1"],
    )
    log, _ = job.communicate(timeout=kills * TIMEOUT_SECONDS)
    assert job.returncode == 0, log
    assert "PASS: equal bit for bit" in log
    assert log.count("killed: worker") == (kills + 1) // 2
    assert log.count("killed: the driver") == kills // 2


@pytest.mark.parametrize("step", [0, 1])
def test_a_kill_takes_place_whichever_phase_is_the_first_of_its_step(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(batches: Any, context: Any) -> Any:
        return torch.zeros(()), {}

    class LazyFirst:
        def phases(self) -> list[Phase]:
            return [Phase("penalty", "network", loss, every=2), Phase("main", "network", loss)]

    monkeypatch.setattr(verify_resume, "recipe_type", lambda family: LazyFirst)
    plan: Any = SimpleNamespace(family="lazy")
    session: Any = SimpleNamespace(rank=0)
    context: Any = SimpleNamespace(index=step)
    KillSchedule((Kill(step, 0),), str(tmp_path))(plan, session)
    due = [phase for phase in LazyFirst().phases() if step % phase.every == 0]
    with mock.patch.object(os, "kill", side_effect=InterruptedError) as kill:
        with pytest.raises(InterruptedError):
            due[0].loss({}, context)
        for phase in due:
            phase.loss({}, context)
    kill.assert_called_once_with(os.getpid(), signal.SIGKILL)
