"""What a trained model does, shown by what it can do: samples, reconstructions, translations.

It is all of the report on the model of a family that has no report of its own.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from genlab.data.stream.batches import read_batch
from genlab.models.model import Model, Sampler, Translator, images_per_pass
from genlab.reports.family import ModelReport
from genlab.reports.page import Figure, Section, image_grid
from genlab.reports.run import RunRecord

COLUMNS = 14
SAMPLE_ROWS = 6
TRANSLATED = 6
"""The most images of a domain whose translations are shown."""


def report_model(run: RunRecord, model: Model) -> ModelReport:
    """Show what the model can do, on held-out images where it needs some.

    Raises:
        DataError: when the run's data is gone or was changed.
    """
    sections = []
    if isinstance(model, Sampler):
        classes = ", its classes in turn" if model.classes else ""
        figure = samples(run, model, f"The first pictures of seed {_seed(run)}{classes}.")
        sections.append(Section("Samples", figures=(figure,)))
    if "reconstruct" in model.operations:
        split, domains = run.held_out()
        shards = domains["images"]
        batch = read_batch(shards, np.arange(min(COLUMNS, len(shards))))
        caption = f"Top: {run.source_of(split)}. Below: their reconstructions."
        figure = reconstructions(model, batch.image, batch.label if model.classes else None, caption)
        sections.append(Section("Reconstructions", figures=(figure,)))
    if isinstance(model, Translator):
        figures = tuple(_translations(run, model, direction) for direction in model.directions)
        sections.append(Section("Translations", figures=figures))
    return ModelReport(tuple(sections))


def samples(run: RunRecord, model: Sampler, caption: str) -> Figure:
    """Show the first pictures of the run's seed."""
    pixels = model.sample(COLUMNS * SAMPLE_ROWS, _seed(run)).cpu().numpy()
    return image_grid("samples", caption, pixels, COLUMNS)


def reconstructions(model: Any, images: Tensor, label: Tensor | None, caption: str) -> Figure:
    """Show images, uint8 [N, H, W, C], above their reconstructions; ``label`` is int64 [N] or ``None``."""
    pixels = torch.cat([images, model.reconstruct(images, label, model.operations["reconstruct"]()).cpu()]).numpy()
    return image_grid("reconstructions", caption, pixels, len(images), ("input", "output"))


def _translations(run: RunRecord, model: Translator, direction: str) -> Figure:
    """Show held-out images above their translations in one direction."""
    split, domains = run.held_out()
    source, _, target = direction.partition("_to_")
    shards = domains[source]
    images = torch.from_numpy(shards.read(np.arange(min(TRANSLATED, len(shards)))).image)
    options = model.operations["translate"]()
    parts = images.split(images_per_pass(model.image_shape))
    translated = torch.cat([model.translate(part, direction, options).cpu() for part in parts])
    caption = f"From {source} to {target}: {run.source_of(split)}, and their translations."
    pixels = torch.cat([images, translated]).numpy()
    return image_grid(direction, caption, pixels, len(images), (source, f"{source} → {target}"))


def _seed(run: RunRecord) -> int:
    seed: int = run.config["run"]["seed"]
    return seed
