"""Training of a classifier where there is none yet: ``genlab evaluate`` recognises classes by it, and ``genlab
directions`` reads attributes."""

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from upath import UPath

from genlab.core.errors import DataError, RunError
from genlab.core.storage import locate
from genlab.data.format.manifest import LABEL
from genlab.data.format.shards import ShardSet
from genlab.recipes.classifier import ClassifierConfig, ClassifierObjective
from genlab.recipes.options import ImageData
from genlab.store import model_directory
from genlab.training.launch import launch
from genlab.training.plan import default_storage

NO_CLASSIFIER = "none"
FEWEST_STEPS = 1000
"""The least steps that a classifier is trained for: on a small data set its usual epochs would teach it little."""
EPOCHS_OF_ATTRIBUTES = 12
"""Epochs of one that reads other columns than the label, such as ages, which take longer to learn."""


def split_to_train_on(shards: ShardSet, provenance: Mapping[str, Any]) -> str:
    """Choose the split to train a classifier on: the one that the model was trained on, else the usual one.

    Raises:
        DataError: the data set has neither.
    """
    usual = ImageData().split
    splits = provenance["config"].get("data", {}).get("split", usual), usual  # An imported model has no config.
    for split in splits:
        if split in shards.manifest.splits:
            return split
    raise DataError(
        f"{shards.directory}: no split {splits[0]!r} to train a classifier on; give one with --classifier RUN, "
        f"or do without: --classifier {NO_CLASSIFIER}"
    )


def trained_classifier(shards: ShardSet, split: str, columns: Sequence[str] = (LABEL,)) -> UPath:
    """Return the model directory of a classifier of these images, after training it on ``split`` if it does not exist.

    Its run is an ordinary one in the runs folder, named after the data set's checksum, the split, and the columns that
    it predicts if they are others than the label.
    """
    checksum = shards.checksum
    of_label = tuple(columns) == (LABEL,)
    suffix = "" if of_label else "-" + re.sub(r"\W+", "_", "-".join(columns))
    run = locate(default_storage()) / f"classifier-{checksum[:12]}-{split}{suffix}"
    try:
        if model_directory.describe(run / "model")["provenance"]["data"]["images"]["checksum"] == checksum:
            return run / "model"
    except RunError:
        print(f"training a classifier of {shards.directory}, once for this data set (--classifier names another)")
    config = ClassifierConfig(
        data=ImageData(images=str(shards.directory), split=split), objective=ClassifierObjective(tuple(columns))
    )
    rows = shards.manifest.splits[split]
    batch = min(config.run.batch, rows)
    epochs = (config.run.epochs or 0) if of_label else EPOCHS_OF_ATTRIBUTES
    steps = max(FEWEST_STEPS, math.ceil(epochs * rows / batch))
    options = dataclasses.replace(config.run, name=run.name, workers=0, batch=batch, steps=steps)
    with _torch_settings_kept():
        launch("classifier", dataclasses.replace(config, run=options), otherwise="name one with --classifier")
    return run / "model"


@contextlib.contextmanager
def _torch_settings_kept() -> Iterator[None]:
    """Restore the settings of torch that training changes for the whole process."""
    mode, threads = torch.get_deterministic_debug_mode(), torch.get_num_threads()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark = torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.set_num_threads(threads)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = benchmark
