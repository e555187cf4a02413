"""Runs that go on from a checkpoint of another run, in a directory of their own."""

from dataclasses import dataclass

from torch import Tensor
from upath import UPath

from genlab.core.errors import RunError
from genlab.core.storage import exists, locate, read_json
from genlab.training.checkpoints import Checkpoints

BRANCHED_FROM = "branched_from"
"""The key in ``config.json`` under which stands the checkpoint that a run branched off."""


@dataclass(frozen=True)
class Branch:
    """The checkpoint of another run that a run goes on from: with all of its state, as that run itself would.

    With the options of that run it takes the same steps, bit for bit. ``run.init`` takes the weights alone.
    """

    path: str
    """URL of the other run's directory."""
    step: int
    """Step of the checkpoint."""

    def read(self) -> dict[str, Tensor]:
        """Read the state, by its names.

        Raises:
            RunError: the checkpoint is gone or damaged.
        """
        try:
            return Checkpoints(locate(self.path) / "checkpoints", keep=1).read(self.step)
        except RunError as error:
            raise RunError(f"the checkpoint that this run branched off is gone: {error}") from None


def recorded_branch(directory: UPath) -> Branch | None:
    """Return the checkpoint that the run in ``directory`` branched off; ``None`` if there is none, or no such run."""
    file = directory / "config.json"
    found = read_json(file).get(BRANCHED_FROM) if exists(file) else None
    return Branch(**found) if found else None
