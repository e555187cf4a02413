"""The evaluation of one model: everything that is measured of its family, in one order.

A model comes loaded, its images come opened, and a classifier comes trained: nothing is loaded or trained here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from upath import UPath

from genlab.core.errors import ConfigError, DataError, RunError
from genlab.core.text import counted
from genlab.data.format.shards import ShardSet
from genlab.evaluation.extractors import ClassifierFeatures, EfficientNetLite, Extractor
from genlab.evaluation.features import FEWEST, extract, held_out_features, measure_distances
from genlab.evaluation.held_out import HeldOut
from genlab.evaluation.latent_models import (
    classes_to_sample,
    measure_bounds,
    measure_consistency,
    measure_elbo,
    measure_reconstructions,
    samples,
)
from genlab.evaluation.measurements import Evaluation, Measurement
from genlab.evaluation.trained_classifier import TrainedClassifier
from genlab.evaluation.translation import measure_translations
from genlab.models.cyclegan import CycleGAN
from genlab.models.latent_model import LatentModel
from genlab.models.model import Model, Shape
from genlab.store import model_directory

SAMPLES = 10_000
"""Samples or translations that FID and KID are taken of, at most, unless the options say otherwise."""
BOUND_IMAGES = 1000
"""Images that the importance-weighted bounds are taken of on a CPU, unless the options say otherwise."""

Measurable = LatentModel | CycleGAN
"""A model of a family that can be evaluated."""


@dataclass(frozen=True)
class EvaluationOptions:
    """Numbers of images to measure, and the seed of what is random."""

    samples: int | None = None
    """Samples to draw for FID and KID, or images to translate; by default one for each image, at most 10,000."""
    bound_images: int | None = None
    """Images that the importance-weighted bounds are taken of; by default 1,000 on a CPU, all on a GPU."""
    seed: int = 0
    """Seed of all noise, and of every random choice of images."""


def evaluate(
    directory: UPath,
    model: Measurable,
    domains: Mapping[str, HeldOut],
    options: EvaluationOptions,
    *,
    extractor: Extractor | None = None,
    classifier: TrainedClassifier | None = None,
) -> Evaluation:
    """Measure a model on held-out images.

    Args:
        directory: the model directory that ``model`` was loaded from; it names the model in the evaluation.
        model: the model to measure.
        domains: the images, which :func:`require_fit`: ``images`` for a latent model, ``a`` and ``b`` for a CycleGAN.
        options: how much to measure.
        extractor: the network in whose features FID and KID are taken; by default see :func:`default_extractor`.
        classifier: what recognises the classes of a latent model's images; without one, the measurements that need it
            are left out. A CycleGAN needs none.

    Raises:
        DataError: the data cannot be read.
    """
    extractor = extractor or default_extractor(model, domains, classifier)
    if isinstance(model, LatentModel):
        measurements = _measure_latent_model(model, domains["images"], options, extractor, classifier)
    else:
        measurements = measure_translations(model, domains, extractor, options.samples or SAMPLES, options.seed)
    description = model_directory.describe(directory)
    identity = {
        "path": str(directory),
        "family": model.family,
        "step": description["provenance"]["step"],
        "weights": description["weights"]["sha256"],
    }
    name = directory.parent.name if directory.name == "model" else directory.name
    return Evaluation(name, identity, measurements)


def default_extractor(
    model: Measurable, domains: Mapping[str, HeldOut], classifier: TrainedClassifier | None
) -> Extractor:
    """Choose the network in whose features FID and KID are taken: the classifier for grey images, if there is one."""
    if classifier is not None and domains["images"].shards.manifest.channels == 1:
        return ClassifierFeatures(classifier)
    return EfficientNetLite(model.device)


def require_measurable(model: Model, name: str) -> Measurable:
    """Return ``model`` if its family can be evaluated.

    Raises:
        RunError: it cannot; the message calls the model ``name``.
    """
    if not isinstance(model, LatentModel | CycleGAN):
        raise RunError(f"{name}: a {model.family} model; vae, cvae and cyclegan are what can be evaluated")
    return model


def require_fit(model: Measurable, held_out: HeldOut, label_names: Sequence[str]) -> None:
    """Check that a model can be measured on these images.

    Args:
        model: the model.
        held_out: the images of one of its domains.
        label_names: the names of the classes 0, 1, ... that it was trained on.

    Raises:
        DataError: the images are of another size, too few, or of other classes than a conditional model was trained on.
    """
    shards = held_out.shards
    if shards.fixed_shape() != model.image_shape:
        raise DataError(
            f"{shards.directory}: {_size(shards.fixed_shape())}; the model takes {_size(model.image_shape)}"
        )
    if len(held_out) < FEWEST:
        raise DataError(
            f"{shards.directory}: {counted(len(held_out), 'image')} in split {held_out.split!r}; {FEWEST} are needed: "
            "ingest with a larger --test-fraction, or choose another --split"
        )
    if not isinstance(model, LatentModel) or not model.classes:
        return
    if not 0 < len(shards.manifest.label_names) <= model.classes:
        found = len(shards.manifest.label_names)
        raise DataError(f"{shards.directory}: has {found} classes; the model is one of {model.classes}")
    if difference := _first_difference(shards, label_names):
        raise DataError(f"data: the model was trained on other labels: {difference}")


def require_same_classes(classifier: TrainedClassifier, shards: ShardSet, name: str) -> None:
    """Check that a classifier recognises the classes of these images.

    Raises:
        ConfigError: it takes images of another size, or was trained on other classes; the message calls it ``name``.
    """
    if classifier.model.image_shape != shards.fixed_shape():
        shape = classifier.model.image_shape
        raise ConfigError(f"classifier: it takes {_size(shape)}, not {_size(shards.fixed_shape())}")
    if difference := _first_difference(shards, classifier.label_names):
        raise ConfigError(f"classifier: {name} was trained on other labels: {difference}")


def _measure_latent_model(
    model: LatentModel,
    held_out: HeldOut,
    options: EvaluationOptions,
    extractor: Extractor,
    classifier: TrainedClassifier | None,
) -> dict[str, Measurement]:
    seed = options.seed
    measurements = measure_elbo(model, held_out, seed)
    images = options.bound_images or (BOUND_IMAGES if model.device.type == "cpu" else len(held_out))
    measurements |= measure_bounds(model, held_out.drawn(images, seed), seed)
    measurements |= measure_reconstructions(model, held_out, classifier)
    count = options.samples or min(SAMPLES, len(held_out))
    if classifier is not None and model.classes:
        measurements |= measure_consistency(model, held_out, classifier, count, seed)
    reference = held_out_features(held_out, extractor)
    label = classes_to_sample(held_out, count, seed) if model.classes else None
    made = extract(extractor, samples(model, label, count, seed), count, "features of samples")
    return measurements | measure_distances(extractor, reference, held_out.settings, made, seed)


def _first_difference(shards: ShardSet, label_names: Sequence[str]) -> str:
    """Describe the first class of a data set that has another name in ``label_names``; empty where all names agree."""
    for number, name in enumerate(shards.manifest.label_names):
        if number >= len(label_names):
            return f"class {number} is {name!r} in {shards.directory}, and there was none such"
        if name != label_names[number]:
            return f"class {number} is {name!r} in {shards.directory}, and was {label_names[number]!r}"
    return ""


def _size(shape: Shape) -> str:
    height, width, channels = shape
    return f"images of {height}x{width}x{channels}"
