"""Phases of a step in the loop: their order, what they see, how often they come, and groups of rows."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from genlab.core.errors import ConfigError
from genlab.recipes.recipe import Batches, Metrics, Phase, StepContext
from genlab.recipes.vae import VAERecipe
from genlab.training.launch import launch
from genlab.training.plan import make_plan
from genlab.training.tracking import read_metrics

Tiny = Callable[..., Any]
VAE_PHASES = VAERecipe.phases


class PhasedRecipe(VAERecipe):
    """A VAE with a second network, which learns the VAE's biases, and a phase that comes in every third step."""

    seen: list[tuple[str, int, float, float]]

    def __init__(self, config: Any, domains: Any) -> None:
        super().__init__(config, domains)
        self.follower = nn.Linear(1, 1)
        self.networks["follower"] = self.follower
        PhasedRecipe.seen = []

    def phases(self) -> Sequence[Phase]:
        """Return three phases: the VAE's, the follower's, and the lazy one, which moves the VAE again."""
        (main,) = VAE_PHASES(self)
        return (
            Phase("main", "vae", self._recorded("main", main.loss)),
            Phase("follow", "follower", self._recorded("follow", self._follow)),
            Phase("lazy", "vae", self._recorded("lazy", self._shrink), every=3, reads=("vae",)),
        )

    def _recorded(self, name: str, loss: Any) -> Any:
        def recorded(batches: Batches, step: StepContext) -> tuple[Tensor, Metrics]:
            networks = self.vae, self.follower
            vae, follower = (float(sum(p.detach().double().sum() for p in net.parameters())) for net in networks)
            PhasedRecipe.seen.append((name, step.index, vae, follower))
            constants = [not any(p.requires_grad for p in network.parameters()) for network in networks]
            assert constants == [name == "follow", name != "follow"]
            return loss(batches, step)

        return recorded

    def _follow(self, batches: Batches, step: StepContext) -> tuple[Tensor, Metrics]:
        distance = (self.follower.weight - next(self.vae.parameters()).flatten()[0]).square().sum()
        return distance, {"distance": distance.detach()}

    def _shrink(self, batches: Batches, step: StepContext) -> tuple[Tensor, Metrics]:
        size = next(self.vae.parameters()).square().mean()
        return size, {"size": size.detach()}


@pytest.fixture
def phased(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genlab.recipes.vae.RECIPE", PhasedRecipe)


@pytest.mark.usefixtures("phased")
def test_each_phase_sees_the_weights_that_those_before_it_moved(tiny: Tiny, tmp_path: Path) -> None:
    launch("vae", tiny("vae", {"run.steps": 5, "run.log_every": 1}))
    expected = [(name, step) for step in range(5) for name in ("main", "follow", *(["lazy"] if step % 3 == 0 else []))]
    assert [one[:2] for one in PhasedRecipe.seen] == expected
    for (_, _, vae, follower), (name, _, next_vae, next_follower) in zip(
        PhasedRecipe.seen, PhasedRecipe.seen[1:], strict=False
    ):
        match name:
            case "follow":
                assert (next_vae != vae, next_follower == follower) == (True, True), "main moved the VAE"
            case "lazy":
                # It reads the VAE alone, so the follower may move while it computes.
                assert next_vae == vae
            case "main":
                assert next_follower != follower, "follow has moved the follower by the end of its step"
    lines = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "train"]
    assert [line["step"] for line in lines if "size" in line] == [1, 4]
    assert all("distance" in line for line in lines)


def test_the_rows_of_a_group_stay_together(tiny: Tiny, tmp_path: Path) -> None:
    rows: list[tuple[int, int]] = []

    def spying(self: VAERecipe) -> list[Phase]:
        (main,) = VAE_PHASES(self)

        def loss(batches: Batches, step: StepContext) -> tuple[Tensor, Metrics]:
            rows.append((step.rows.start, step.rows.stop))
            assert len(batches["images"]) == step.rows.stop - step.rows.start
            return main.loss(batches, step)

        return [Phase("main", "vae", loss)]

    config = tiny("vae", {"run.batch": 12, "run.accumulate": 2, "run.steps": 1})
    with mock.patch.object(VAERecipe, "group", 4), mock.patch.object(VAERecipe, "phases", spying):
        launch("vae", config)
    assert rows == [(0, 8), (8, 12)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"run.batch": 10}, r"run\.batch = 10: must be a multiple of 4, the rows of a group of vae"),
        (
            {"run.batch": 8, "run.workers": 3},
            r"run\.batch = 8: a global batch needs a group of 4 rows for each of 3 workers",
        ),
        (
            {"run.batch": 8, "run.accumulate": 3},
            r"needs a group of 4 rows for each of 1 workers, in each of run\.accum",
        ),
    ],
)
def test_workers_and_parts_that_would_cut_a_group_are_refused(
    tiny: Tiny, options: dict[str, Any], message: str
) -> None:
    with mock.patch.object(VAERecipe, "group", 4), pytest.raises(ConfigError, match=message):
        make_plan("vae", tiny("vae", options))


@pytest.mark.parametrize("accumulate", [1, 2, 5])
def test_test_metrics_are_over_all_rows_whatever_the_parts(tiny: Tiny, tmp_path: Path, accumulate: int) -> None:
    """The held-out rows are no multiple of the batch, and the batch none of the parts."""
    sizes: list[int] = []
    original = VAERecipe.test_metrics

    def spying(self: VAERecipe, batches: Batches, step: StepContext) -> Metrics:
        assert len(batches["images"]) == step.rows.stop - step.rows.start
        sizes.append(len(batches["images"]))
        return original(self, batches, step)

    def measured(parts: int) -> dict[str, float]:
        sizes.clear()
        options = {"run.name": f"parts-{parts}", "run.batch": 16, "run.accumulate": parts, "run.steps": 1}
        torch.manual_seed(0)
        with mock.patch.object(VAERecipe, "test_metrics", spying):
            # A learning rate of almost nothing, so that the weights do not depend on how gradients are summed.
            launch("vae", tiny("vae", options | {"optimization.learning_rate": 1e-12}))
        [line] = [one for one in read_metrics(tmp_path / f"parts-{parts}" / "metrics.jsonl") if one["kind"] == "test"]
        assert max(sizes) <= -(-16 // parts)
        return {name: line[name] for name in ("neg_elbo", "kl")} | {"rows": sum(sizes)}

    whole = measured(1) if accumulate > 1 else None
    found = measured(accumulate)
    assert found["rows"] % 16
    if whole:
        assert found == pytest.approx(whole, rel=1e-6)
