"""The input that the driver sends to each worker. Free of torch, as the driver is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genlab.training.plan import Plan
    from genlab.training.session import Session


@dataclass(frozen=True)
class Task:
    """The run that a worker takes part in, and the resources it has for that."""

    plan: "Plan"
    threads: int
    """CPU threads to compute with."""
    gpu: bool
    """Whether the worker has a GPU."""
    prepare: "Callable[[Plan, Session], None] | None"
    """A function that is called before the loop."""
