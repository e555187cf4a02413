"""A run of one worker in a process that Ray gave it, such as a trial of Ray Tune's, without Ray Train.

Ray Train takes a controller, an actor for messages and a worker to train with, seconds of processes that start. One
worker that is watched already needs none of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import ray

from genlab.training.console import ProgressUpdate, RunConsole
from genlab.training.loop import train
from genlab.training.notices import Notice, Notices
from genlab.training.plan import Plan
from genlab.training.ray.driver import draining, node_name
from genlab.training.ray.telemetry import RunTelemetry
from genlab.training.ray.worker import AskedNotices, DriverSession
from genlab.training.rung import Rung

Report = Callable[[Mapping[str, float]], None]
OnRung = Callable[[Rung], bool]


@dataclass(frozen=True)
class AloneSession(DriverSession):
    """The session of a run that is trained here: it reports to a function."""

    on_report: Report | None = None
    """Called with the metrics that the run reports."""

    on_rung: OnRung | None = None
    """Called with each rung that the run reaches; says whether it stops there."""

    telemetry: RunTelemetry | None = None
    """Records its progress."""

    def progress(self, update: ProgressUpdate) -> None:
        """Show the progress, and record it."""
        super().progress(update)
        if self.telemetry:
            self.telemetry.progress(update)

    def report(self, metrics: Mapping[str, float]) -> None:
        """Report to the function."""
        if self.on_report:
            self.on_report(metrics)

    def reach(self, rung: Rung) -> bool:
        """Ask the function."""
        return self.on_rung is not None and self.on_rung(rung)

    def notices(self) -> Notices:
        """Listen for the notice that Ray is to give up this node."""
        node = ray.get_runtime_context().get_node_id()
        leaves = Notice(f"Ray gives up {node_name(node)}", ends=False)
        return AskedNotices(lambda: leaves if node in draining() else None)


def train_alone(
    plan: Plan, console: RunConsole, on_report: Report | None = None, on_rung: OnRung | None = None
) -> None:
    """Train ``plan``, a run of one worker, to its end, on the GPU of this process if it has one.

    Args:
        plan: the run; its ``run.threads`` CPU threads compute.
        console: shows its progress.
        on_report: called with the metrics that the run reports.
        on_rung: called with each of the plan's rungs that the run reaches; says whether it stops there.

    Raises:
        GenlabError: when training fails.
        ClaimLostError: when another process took over the run.
        PreemptedError: when this node is given up, and the run is saved.
    """
    telemetry = RunTelemetry(str(plan.run.name), plan.family)
    session = AloneSession(
        console, plan.run.threads, claim=plan.claim, on_report=on_report, on_rung=on_rung, telemetry=telemetry
    )
    try:
        train(plan, session)
    finally:
        telemetry.end()
