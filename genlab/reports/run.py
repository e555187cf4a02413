"""A run read from its directory: config, data, metrics, pictures, evaluations."""

import io
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image
from upath import UPath

from genlab.core.errors import DataError, RunError
from genlab.core.storage import exists, locate, names, read_bytes, read_json
from genlab.data.format.held_out import HeldOutSplits, held_out_splits
from genlab.data.format.shards import ShardSet
from genlab.data.format.splits import overlap, whole_split
from genlab.evaluation.checkpoint_evaluations import CheckpointEvaluation, read_evaluations
from genlab.imaging.images import Pixels, to_pixels
from genlab.store import model_directory
from genlab.training.branch import Branch, recorded_branch
from genlab.training.plan import HELD_OUT
from genlab.training.tracking import CLOCK_FIELDS, METRICS, TIME_FIELDS, read_metrics

EPOCHS = 5
"""Epochs whose pictures are shown, at most."""


@dataclass(frozen=True)
class RunRecord:
    """A run as it stands in its directory, finished or not."""

    directory: UPath
    family: str
    config: dict[str, Any]
    """The config as nested plain values."""
    data: dict[str, dict[str, str]]
    """The ``path`` and the manifest ``checksum`` of each domain's data set."""
    attempts: list[dict[str, Any]]
    """Each start of the run: ``started`` (ISO 8601), ``genlab``, ``torch``, ``steps`` planned, ``run`` section."""
    train: list[dict[str, Any]]
    """Lines of ``metrics.jsonl``: means over the steps since the line before; at least one."""
    test: list[dict[str, Any]]
    """Lines of ``metrics.jsonl``: metrics of the held-out rows that results are reported on."""
    val: list[dict[str, Any]] = field(default_factory=list)
    """Lines of ``metrics.jsonl``: metrics of the rows that choices are made on, where these are others."""
    recorded_splits: dict[str, Any] | None = None
    """The held-out splits as ``config.json`` has them; ``None`` in a run of an earlier genlab."""
    branch: Branch | None = None
    """The checkpoint of another run that it branched off, before its first line of metrics."""

    @staticmethod
    def read(run: str | UPath) -> "RunRecord":
        """Read the run directory ``run``, a local path or a URL.

        Raises:
            RunError: when it is not a run directory, or the run has not written a metric yet.
        """
        directory = run_directory(run)
        content = read_json(directory / "config.json")
        lines = read_metrics(directory / METRICS)
        train = [line for line in lines if line["kind"] == "train"]
        if not train:
            raise RunError(
                f"{directory / METRICS}: no training metrics yet; train longer (every run.log_every steps make a line)"
            )
        return RunRecord(
            directory,
            content["family"],
            content["config"],
            content["data"],
            content["attempts"],
            train,
            [line for line in lines if line["kind"] == "test"],
            [line for line in lines if line["kind"] == "val"],
            content.get(HELD_OUT),
            recorded_branch(directory),
        )

    @property
    def name(self) -> str:
        """The run's name."""
        return self.directory.name

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.train[-1]["step"])

    @property
    def planned_steps(self) -> int:
        """Steps of the whole run."""
        return int(self.attempts[-1]["steps"])

    @property
    def images(self) -> int:
        """Images seen (a pair counts once)."""
        return int(self.train[-1]["images"])

    @property
    def images_before(self) -> int:
        """Images that had been seen before its first step, by the run that it branched off."""
        return self.branch.step * int(self.config["run"]["batch"]) if self.branch else 0

    @property
    def images_of_its_own(self) -> int:
        """Images seen by this run itself, not by the one that it branched off."""
        return self.images - self.images_before

    @property
    def epoch(self) -> float:
        """Epochs done."""
        return float(self.train[-1]["epoch"])

    @property
    def training_seconds(self) -> float:
        """Time spent in training steps and what lies between them; starts and pauses are left out."""
        before = [self.images_before, *(line["images"] for line in self.train)]
        return sum(
            (line["images"] - images) / line["images_per_second"]
            for images, line in zip(before, self.train, strict=False)
        )

    @property
    def wall_seconds(self) -> float:
        """Time from the first start to the last metrics, pauses included."""
        return float(self.train[-1]["time"]) - datetime.fromisoformat(self.attempts[0]["started"]).timestamp()

    @property
    def losses(self) -> list[str]:
        """Names of the training metrics, clock and learning rates aside; some may come in some lines only."""
        names = dict.fromkeys(name for line in self.train for name in line)
        return [name for name in names if name not in TIME_FIELDS | CLOCK_FIELDS and name not in self.learning_rates]

    @property
    def learning_rates(self) -> dict[str, str]:
        """What each learning rate is of, by the name of its metric: ``optimization``, or a network with another."""
        names = dict.fromkeys(name for line in self.train for name in line if name.startswith("learning_rate"))
        return {name: name.removeprefix("learning_rate").removeprefix("_") or "optimization" for name in names}

    @cached_property
    def model_step(self) -> int | None:
        """Steps after which ``model/`` was exported; ``None`` when there is no model yet."""
        if not exists(self.model_directory / model_directory.DESCRIPTION):
            return None
        return int(model_directory.describe(self.model_directory)["provenance"]["step"])

    @cached_property
    def model_metrics(self) -> dict[str, float]:
        """The metrics that ``model/`` was exported with; none when there is no model yet."""
        if self.model_step is None:
            return {}
        metrics: dict[str, float] = model_directory.describe(self.model_directory)["provenance"]["metrics"]
        return metrics

    @cached_property
    def evaluations(self) -> list[CheckpointEvaluation]:
        """The evaluations of its checkpoints that were made beside training, in the order of steps."""
        return read_evaluations(self.directory)

    @property
    def model_directory(self) -> UPath:
        """The directory of the trained model; it may not exist yet."""
        return self.directory / "model"

    def pictures(self, name: str) -> dict[str, Pixels]:
        """Read what training drew under ``name`` after up to five epochs: pictures by their titles, in order."""
        drawn = {}
        for step, folder in drawn_folders(self.directory).items():
            if exists(folder / f"{name}.png"):
                drawn[step * self.epoch / self.step] = folder / f"{name}.png"
        chosen = chosen_epochs(sorted(drawn))
        return {
            f"epoch {title}": read_picture(drawn[epoch])
            for epoch, title in zip(chosen, epoch_titles(chosen), strict=True)
        }

    def shards(self, domain: str) -> ShardSet:
        """Open the data set of ``domain``, all splits.

        Raises:
            DataError: when it is gone, or is no longer the one the run was trained on.
        """
        shards = ShardSet.open(self.data[domain]["path"])
        if shards.checksum != self.data[domain]["checksum"]:
            raise DataError(f"{shards.directory}: no longer the data set that {self.name} was trained on")
        return shards

    def held_out(self) -> tuple[str, dict[str, ShardSet]]:
        """Open the rows to show: the name of the split or half of one, and the rows of each domain in it.

        They are those that results are reported on, in a sweep's run those that it is chosen on, see
        :mod:`genlab.data.format.held_out`.

        Raises:
            DataError: when a data set is gone or was changed.
        """
        split = self.held_out_splits.shown
        return split, {domain: self.shards(domain).part(split) for domain in self.data}

    @cached_property
    def held_out_splits(self) -> HeldOutSplits:
        """The rows that its checkpoints were chosen on, and those that results are reported on.

        Raises:
            DataError: when the splits are not recorded, and a data set is gone or was changed.
        """
        if self.recorded_splits is not None:
            return HeldOutSplits(**self.recorded_splits)
        options, domains = self.config["data"], [self.shards(domain) for domain in self.data]
        report = held_out_splits(domains, options["test_split"], options["split"], choosing=False).report
        return HeldOutSplits(report if self.evaluations else None, report)

    @property
    def chosen_on_these_images(self) -> bool:
        """Whether its model is one of evaluated checkpoints, chosen on the images that are shown."""
        if self.recorded_splits is None:
            return bool(self.evaluations)
        splits = HeldOutSplits(**self.recorded_splits)
        return bool(self.evaluations) and splits.choice is not None and overlap(splits.choice, splits.shown)

    def source_of(self, split: str) -> str:
        """Describe the images of ``split`` for captions: held out, or trained on."""
        if whole_split(split) == self.config["data"]["split"]:
            return f"training images (split {split!r}, for none are held out)"
        return f"held-out images (split {split!r})"


def run_directory(run: str | UPath) -> UPath:
    """Return the directory of ``run``, a local path or a URL.

    Raises:
        RunError: it is not a run directory.
    """
    directory = locate(run)
    if not exists(directory / "config.json"):
        raise RunError(f"{run}: not a run directory (no config.json); give the folder that training printed")
    return directory


def drawn_folders(run: UPath) -> dict[int, UPath]:
    """Return the folders of the pictures that training drew in the directory of a run, by their steps, in order."""
    folder = run / "figures"
    found = (re.fullmatch(r"step-(\d+)", name) for name in names(folder))
    steps = {int(name[1]): folder / name[0] for name in found if name}
    return {step: steps[step] for step in sorted(steps)}


def read_picture(file: UPath) -> Pixels:
    """Read a picture that training drew: uint8 [H, W, C]."""
    return to_pixels(Image.open(io.BytesIO(read_bytes(file))))


def chosen_epochs(drawn: list[float]) -> list[float]:
    """Choose up to five epochs to show: 10, 20, ... of a run of 30, 40 or 50 epochs, else evenly spread ones.

    Args:
        drawn: the epochs after which pictures were drawn, in order.
    """
    if not drawn:
        return []
    last = drawn[-1]
    if last == 0:
        return drawn
    stride = 10 if round(last) in (30, 40, 50) else last / EPOCHS
    wanted = np.arange(1, round(last / stride) + 1) * stride  # the nearest are taken
    return sorted({min(drawn, key=lambda epoch: abs(epoch - target)) for target in wanted})


def epoch_titles(epochs: Sequence[float]) -> list[str]:
    """Return epochs as text: with two digits after the point, or as many more as tell them from 0 and each other."""
    rounded = (
        [np.format_float_positional(epoch, precision=digits, trim="-") for epoch in epochs]
        for digits in itertools.count(2)
    )
    return next(titles for titles in rounded if len({*titles, "0"}) == len({*epochs, 0.0}))
