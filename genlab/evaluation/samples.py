"""Measurements of samples: their distance from real images, and what they depend on besides the model."""

from typing import Any

import torch
from torch import Tensor

from genlab.core.config import to_dict
from genlab.core.seeds import derived_seed
from genlab.data.stream.order import permutation
from genlab.evaluation.extractors import Extractor
from genlab.evaluation.features import extract, held_out_features, measure_distances
from genlab.evaluation.held_out import HeldOut
from genlab.evaluation.measurements import Measurement, Settings
from genlab.models.model import Sampler
from genlab.models.noise import RULE


def measure_samples(
    model: Sampler, held_out: HeldOut, extractor: Extractor, count: int, seed: int, options: Any = None
) -> dict[str, Measurement]:
    """Measure KID and FID of samples; a conditional model draws the classes of the rows.

    Args:
        model: the model.
        held_out: the real images.
        extractor: the network in whose features they are taken.
        count: the number of samples.
        seed: seed of the samples.
        options: the options that they are drawn by; by default the model's defaults.
    """
    reference = held_out_features(held_out, extractor)
    label = classes_to_sample(held_out, count, seed) if model.classes else None
    made = extract(extractor, model.sample_in_parts(count, seed, label, options), count, "features of samples")
    settings = held_out.settings | sample_settings(model, options)
    return measure_distances(extractor, reference, settings, made, seed)


def sample_settings(model: Sampler, options: Any) -> Settings:
    """Return the settings of a measurement of samples: how noise is drawn, and the options of the model's own."""
    values = to_dict(model.operations["sample"]() if options is None else options)
    return {"noise": RULE} | {
        f"sample_{name}": value if isinstance(value, int | float) else str(value) for name, value in values.items()
    }


def classes_to_sample(held_out: HeldOut, count: int, seed: int) -> Tensor | None:
    """Return the labels of rows in a random order, repeated: int64 [count], with the rows' fraction of each class.

    Args:
        held_out: the rows; ``None`` is returned where they have no labels.
        count: the number of labels.
        seed: seed of the order.
    """
    labels = held_out.labels
    if labels is None:
        return None
    order = torch.from_numpy(permutation(derived_seed(seed, "classes"), 0, len(labels)))
    return labels[order[torch.arange(count) % len(order)]]
