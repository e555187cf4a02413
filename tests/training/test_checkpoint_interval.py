"""The best interval between checkpoints, against closed forms where there are any."""

import math
from pathlib import Path

import pytest

from genlab.cli.plan_checkpoints import PlanCheckpointsConfig, show_plan
from genlab.core.errors import ConfigError, RunError
from genlab.training.checkpoint_interval import Costs, best_interval, simulate


def exact(costs: Costs, interval: float) -> float:
    """The share of time that is lost, of Daly (2006), eq. 20: of work ``w``, ``M e^(R/M) (e^((w + C)/M) - 1)``."""
    mean = costs.between
    return 1 - interval / (mean * math.exp(costs.restart / mean) * (math.exp((interval + costs.cost) / mean) - 1))


@pytest.mark.parametrize("costs", [Costs(5, 60, 3600), Costs(60, 120, 3600), Costs(1, 0, 100)])
def test_the_simulation_agrees_with_dalys_formula(costs: Costs) -> None:
    for interval in (costs.young() / 3, costs.young(), 3 * costs.young()):
        [lost] = simulate(costs, [interval], interruptions=40_000)
        assert lost == pytest.approx(exact(costs, interval), abs=0.012)
    best, _ = best_interval(costs)
    assert exact(costs, best) == pytest.approx(exact(costs, costs.daly()), abs=0.01)


def test_with_notices_checkpoints_may_be_rarer() -> None:
    told, untold = Costs(5, 60, 3600, noticed=0.9), Costs(5, 60, 3600)
    assert best_interval(told)[0] > 1.5 * best_interval(untold)[0]
    assert min(lost for _, lost in best_interval(told)[1]) < min(lost for _, lost in best_interval(untold)[1])


def test_a_checkpoint_that_costs_more_than_an_interruption_is_written_once_in_the_mean_time() -> None:
    assert Costs(300, 0, 100).daly() == 100


def test_what_is_neither_given_nor_measured_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunError, match="not a run directory"):
        show_plan(PlanCheckpointsConfig(str(tmp_path)))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="--hours-between: give it, or a RUN"):
        show_plan(PlanCheckpointsConfig(str(tmp_path)))
    show_plan(PlanCheckpointsConfig(hours_between=2, checkpoint_seconds=4, restart_seconds=60, step_seconds=0.5))
    said = capsys.readouterr().out
    assert "Young" in said
    assert f"{round(math.sqrt(2 * 4 * 7200) / 0.5):,}" in said
    assert "--run.checkpoint-every " in said
