"""Measurements of samples: how far they are from real images, and how far each lie within the other."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genlab.core.config import to_dict
from genlab.core.seeds import derived_seed
from genlab.data.stream.batches import read_batch
from genlab.data.stream.order import permutation
from genlab.evaluation.extractors import Extractor
from genlab.evaluation.features import extract, features_of, measure_distances
from genlab.evaluation.held_out import HeldOut
from genlab.evaluation.measurements import Measurement, Settings
from genlab.imaging.images import Pixels
from genlab.imaging.sheets import sheet
from genlab.metrics.copies import nearer_share
from genlab.metrics.neighbours import nearest_among
from genlab.metrics.precision_recall import NEIGHBOURS, precision_recall
from genlab.models.model import Model, Sampler
from genlab.models.noise import RULE

WHITE = 255


def measure_samples(
    model: Sampler,
    held_out: HeldOut,
    extractor: Extractor,
    count: int,
    seed: int,
    options: Any = None,
    training: HeldOut | None = None,
) -> dict[str, Measurement]:
    """Measure KID, FID, precision and recall of samples; a conditional model draws the classes of the rows.

    Args:
        model: the model.
        held_out: the real images.
        extractor: the network in whose features they are taken.
        count: the number of samples.
        seed: seed of the samples.
        options: the options that they are drawn by; by default the model's defaults.
        training: the rows that the model was trained on, to measure whether samples are copies of them.
    """
    reference = features_of(held_out, extractor)
    label = classes_to_sample(held_out, count, seed) if model.classes else None
    made = extract(extractor, model.sample_in_parts(count, seed, label, options), count, "features of samples")
    settings = held_out.settings | sample_settings(model, options)
    measurements = measure_distances(extractor, reference, settings, made, seed)
    measurements |= measure_precision_recall(extractor, reference, settings, made, seed)
    if training is not None:
        measurements |= measure_copies(extractor, training, reference, settings, made, seed)
    return measurements


def measure_precision_recall(
    extractor: Extractor, reference: Tensor, reference_settings: Settings, samples: Tensor, seed: int
) -> dict[str, Measurement]:
    """Measure ``precision`` and ``recall`` of samples, see :func:`genlab.metrics.precision_recall.precision_recall`.

    Both sides must be of one number. Where there are more real images, as many as there are samples are drawn by the
    seed; where there are more samples, the first ones are taken.

    Args:
        extractor: the network of the features.
        reference: features of real images, [N, D].
        reference_settings: the settings of the real images.
        samples: features of the model's samples in the order of their draws, [M, D].
        seed: seed of the model's draws.
    """
    count = min(len(reference), len(samples))
    drawn = torch.from_numpy(permutation(derived_seed(seed, "precision"), 0, len(reference))[:count])
    found = precision_recall(reference[drawn], samples[:count])
    settings = reference_settings | extractor.settings | {"samples": len(samples), "seed": seed}
    settings |= {"images_a_side": count, "neighbours": NEIGHBOURS}
    title = f"in {extractor.label} features"
    return {
        name: Measurement(f"{name} {title}", share.value, settings, "share", "higher", share.interval)
        for name, share in (("precision", found.precision), ("recall", found.recall))
    }


def measure_copies(
    extractor: Extractor,
    training: HeldOut,
    reference: Tensor,
    reference_settings: Settings,
    samples: Tensor,
    seed: int,
) -> dict[str, Measurement]:
    """Measure ``copies``: how often a sample is nearer to a training image than a held-out image is to one.

    See :func:`genlab.metrics.copies.nearer_share`. Memory is that of all features: 4 bytes times D an image.

    Args:
        extractor: the network of the features.
        training: the rows that the model was trained on.
        reference: features of held-out images, [N, D].
        reference_settings: the settings of the held-out images.
        samples: features of the model's samples, [M, D].
        seed: seed of the model's draws.
    """
    among = features_of(training, extractor)
    distances = [nearest_among(features, among)[1] for features in (samples, reference)]
    share = nearer_share(*distances)
    settings = reference_settings | extractor.settings | {"samples": len(samples), "seed": seed}
    settings |= {f"training_{name}": training.settings[name] for name in ("data", "split", "rows")}
    title = f"samples nearer to a training image than held-out ones, in {extractor.label} features"
    return {"copies": Measurement(title, share.value, settings, "share", interval=share.interval)}


@dataclass(frozen=True)
class NearestImages:
    """The training images that are nearest to some images."""

    images: Tensor
    """uint8 [N, H, W, C]."""
    rows: Tensor
    """Their numbers in the training split, int64 [N]."""
    distances: Tensor
    """Euclidean distances of features, float64 [N]."""

    def sheet(self, pixels: Tensor, columns: int = 8) -> Pixels:
        """Draw the images ``pixels``, uint8 [N, H, W, C], in rows, each above the training image nearest to it."""
        lines = []
        for first in range(0, len(pixels), columns):
            for side in (pixels, self.images):
                line = side[first : first + columns].cpu().numpy()
                missing = columns - len(line)
                lines.append(np.pad(line, ((0, missing), (0, 0), (0, 0), (0, 0)), constant_values=WHITE))
        return sheet(np.concatenate(lines), columns)


def nearest_training_images(pixels: Tensor, training: HeldOut, extractor: Extractor) -> NearestImages:
    """Find the training image that is nearest to each image in the extractor's features.

    Args:
        pixels: uint8 [N, H, W, C].
        training: the rows that a model was trained on.
        extractor: the network of the features; those of the rows are computed once and kept.
    """
    features = extract(extractor, [pixels], len(pixels), "features of samples")
    nearest, distances = nearest_among(features, features_of(training, extractor))
    rows = training.rows[nearest.numpy()]
    distinct, places = np.unique(rows, return_inverse=True)
    images = read_batch(training.shards, distinct).image[torch.from_numpy(places)]
    return NearestImages(images, torch.from_numpy(rows), distances)


def sample_settings(model: Sampler, options: Any) -> Settings:
    """Return the settings of a measurement of samples: how noise is drawn, and the options of the model's own."""
    values = to_dict(model.operations["sample"]() if options is None else options)
    return {"noise": RULE} | {
        f"sample_{name}": value if isinstance(value, int | float) else str(value) for name, value in values.items()
    }


def class_settings(model: Model) -> Settings:
    """Return the setting that says whether the model is given the class of an image.

    Measurements of how well classes are recognised are easier for such a model, and not compared with those of others.
    """
    return {"told_class": "yes" if model.classes else "no"}


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
