"""``genlab plan-checkpoints [RUN]``: how often a run should write a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from annotated_types import Gt, Interval
from rich.console import Console

from genlab.cli.rows import print_rows
from genlab.core.config import parse
from genlab.core.errors import ConfigError, run_command
from genlab.reports.run import run_directory
from genlab.training.checkpoint_interval import Costs, best_interval, simulate
from genlab.training.ledger import Ledger, read_ledger

SHOWN = 4
"""One interval in so many that were tried is shown."""


@dataclass(frozen=True)
class PlanCheckpointsConfig:
    """Simulate interruptions of a run against the cost of its checkpoints, and print the best interval between them.

    What is not given is taken from the ledger of RUN, as far as it has it. Beside the best of the simulation stand the
    intervals of Young (1974) and Daly (2006), which know no notices.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = ""
    """Directory or s3:// URL of a run like the one that is planned."""
    hours_between: Annotated[float, Gt(0)] | None = None
    """Mean hours between two interruptions of the whole run: those of one node divided by the number of nodes."""
    checkpoint_seconds: Annotated[float, Gt(0)] | None = None
    """Seconds that training waits for a checkpoint."""
    restart_seconds: Annotated[float, Interval(ge=0)] | None = None
    """Seconds from an interruption to the first step after it."""
    step_seconds: Annotated[float, Gt(0)] | None = None
    """Seconds of a step."""
    noticed: Annotated[float, Interval(ge=0, le=1)] | None = None
    """Share of the interruptions before which the run gets a notice, and saves: 0 unless given or in the ledger."""
    seed: Annotated[int, Interval(ge=0)] = 0
    """Seed of the simulated interruptions."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab plan-checkpoints``."""
    run_command(lambda: show_plan(parse(PlanCheckpointsConfig, arguments, prog="genlab plan-checkpoints")))


def show_plan(config: PlanCheckpointsConfig) -> None:
    """Print what intervals between checkpoints cost, and the best.

    Raises:
        ConfigError: something is neither given nor in the run's ledger.
        RunError: RUN is not a run directory.
    """
    ledger = read_ledger(run_directory(config.run)) if config.run else Ledger(())
    between, noticed = ledger.seconds_between_losses, config.noticed
    if noticed is None:
        noticed = ledger.noticed or 0.0
    hours = _given("hours-between", config.hours_between, None if between is None else between / 3600)
    costs = Costs(
        _given("checkpoint-seconds", config.checkpoint_seconds, ledger.checkpoint_seconds),
        _given("restart-seconds", config.restart_seconds, ledger.restart_seconds),
        3600 * hours,
        noticed,
    )
    step = _given("step-seconds", config.step_seconds, ledger.step_seconds)
    best, tried = best_interval(costs, config.seed)
    young, daly = costs.young(), costs.daly()
    losses = dict(zip((young, daly), simulate(costs, [young, daly], seed=config.seed), strict=True))

    def row(name: str, seconds: float, lost: float) -> tuple[str, ...]:
        return name, f"{max(1, round(seconds / step)):,}", f"{seconds:.3g}", f"{lost:.2%}"

    rows: list[tuple[str, ...]] = [("", "steps", "seconds", "time lost")]
    rows += [row("", seconds, lost) for seconds, lost in tried[::SHOWN]]
    rows += [row("Young", young, losses[young]), row("Daly", daly, losses[daly])]
    rows.append(row("best", best, dict(tried)[best]))
    told = f", {noticed:.0%} of them with a notice" if noticed else ""
    console = Console(soft_wrap=True, highlight=False)
    console.print(
        f"a checkpoint costs {costs.cost:.3g} s, a restart {costs.restart:.3g} s, a step {step:.3g} s; an interruption "
        f"every {hours:.3g} hours{told}"
    )
    print_rows(console, rows)
    console.print(f"--run.checkpoint-every {max(1, round(best / step))}")


def _given(option: str, value: float | None, measured: float | None) -> float:
    if value is not None:
        return value
    if measured is None:
        raise ConfigError(f"--{option}: give it, or a RUN whose ledger has it")
    return measured
