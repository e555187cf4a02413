"""What TensorBoard's HParams page needs of a trial: its point, and the metrics of the sweep."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from upath import UPath

from genlab.core.storage import exists, write_atomic
from genlab.training import event_file
from genlab.training.run_files import TENSORBOARD

FILE_NAME = "events.out.tfevents.0000000000.hparams"
"""TensorBoard reads files in the order of their names, and none that comes before one that it has read."""


def write_hyperparameters(directory: UPath, options: Mapping[str, Any], metrics: Sequence[str]) -> None:
    """Write the event file of a run by which TensorBoard sets it beside others; does nothing where it is there.

    Args:
        directory: the run directory.
        options: the values of the options that vary; lists and ``None`` are written as JSON.
        metrics: the metrics of the sweep.
    """
    file = directory / TENSORBOARD / FILE_NAME
    if exists(file):
        return
    values = {
        name: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for name, value in options.items()
    }
    write_atomic(file, event_file.header() + event_file.hyperparameters(values, metrics))
