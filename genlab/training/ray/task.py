"""What the driver sends to each worker. Free of torch, as the driver is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genlab.training.plan import Plan
    from genlab.training.session import Session


@dataclass(frozen=True)
class Task:
    """What one worker has to do, and with what."""

    plan: "Plan"
    threads: int
    gpu: bool
    prepare: "Callable[[Plan, Session], None] | None"
    """Called before the loop."""
