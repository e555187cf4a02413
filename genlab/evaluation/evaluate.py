"""The evaluation of one model: everything that is measured of what it can do, in one order.

A model comes loaded, its images come opened, and a classifier comes trained: nothing is loaded or trained here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from upath import UPath

from genlab.core.errors import ConfigError, DataError, RunError
from genlab.core.text import counted
from genlab.data.format.shards import ShardSet
from genlab.evaluation.extractors import ClassifierFeatures, EfficientNetLite, Extractor
from genlab.evaluation.features import FEWEST
from genlab.evaluation.held_out import HeldOut
from genlab.evaluation.latent_models import (
    measure_bounds,
    measure_consistency,
    measure_elbo,
    measure_reconstructions,
)
from genlab.evaluation.measurements import Evaluation, Measurement, with_computation
from genlab.evaluation.samples import measure_samples
from genlab.evaluation.style_models import measure_path_lengths, measure_separability
from genlab.evaluation.trained_classifier import TrainedClassifier
from genlab.evaluation.translation import SIMILARITIES, has_scene_counterparts, measure_translations
from genlab.models.latent_model import LatentModel
from genlab.models.model import Model, Sampler, Shape, Translator
from genlab.models.precision import allow_tf32
from genlab.models.style_model import StyleModel
from genlab.store import model_directory

SAMPLES = 10_000
"""Samples or translations that FID and KID are taken of, at most, unless the options say otherwise."""
PATHS, PATHS_ON_GPU = 1000, 10_000
"""Ways that perceptual path lengths are taken of on a CPU and on a GPU, unless the options say otherwise."""
BOUND_IMAGES = 1000
"""Images that the importance-weighted bounds are taken of on a CPU, unless the options say otherwise."""

MEASURED = ("sample", "translate", "reconstruct")
"""The operations whose results are measured."""


@dataclass(frozen=True)
class EvaluationOptions:
    """Numbers of images to measure, and the seed of what is random."""

    samples: int | None = None
    """Samples to draw for FID and KID, or images to translate; by default one for each image, at most 10,000."""
    bound_images: int | None = None
    """Images that the importance-weighted bounds are taken of; by default 1,000 on a CPU, all on a GPU."""
    paths: int | None = None
    """Ways that perceptual path lengths are taken of; by default 1,000 on a CPU, 10,000 on a GPU."""
    seed: int = 0
    """Seed of all noise, and of every random choice of images."""
    sampling: Any = None
    """Options that samples are drawn by; by default the model's defaults."""


def evaluate(
    directory: UPath,
    model: Model,
    domains: Mapping[str, HeldOut],
    options: EvaluationOptions,
    *,
    extractor: Extractor | None = None,
    classifier: TrainedClassifier | None = None,
    training: HeldOut | None = None,
) -> Evaluation:
    """Measure a model on held-out images, in fp32, on a GPU too.

    Args:
        directory: the model directory that ``model`` was loaded from; it names the model in the evaluation.
        model: the model to measure.
        domains: the images, which :func:`require_fit`, by the names that :func:`domain_names` gives.
        options: how much to measure.
        extractor: the network in whose features FID and KID are taken; by default see :func:`default_extractor`.
        classifier: what recognises the classes of the model's images; without one, the measurements that need it are
            left out. A translator needs none.
        training: the rows that a model which samples was trained on, to measure whether samples are copies of them;
            without them this is left out.

    Raises:
        DataError: the data cannot be read.
    """
    allow_tf32(False)
    extractor = extractor or default_extractor(model, domains, classifier)
    if isinstance(model, Translator):
        measurements = measure_translations(model, domains, extractor, options.samples or SAMPLES, options.seed)
    else:
        measurements = _measure_images(model, domains["images"], options, extractor, classifier, training)
    description = model_directory.describe(directory)
    identity = {
        "path": str(directory),
        "family": model.family,
        "step": description["provenance"]["step"],
        "weights": description["weights"]["sha256"],
    }
    name = directory.parent.name if directory.name == "model" else directory.name
    return Evaluation(name, identity, with_computation(measurements, model.device))


def default_extractor(model: Model, domains: Mapping[str, HeldOut], classifier: TrainedClassifier | None) -> Extractor:
    """Choose the network in whose features FID and KID are taken: the classifier for grey images, if there is one."""
    if classifier is not None and domains["images"].shards.manifest.channels == 1:
        return ClassifierFeatures(classifier)
    return EfficientNetLite(model.device)


def measure_pictures(
    model: Model, domains: Mapping[str, HeldOut], extractor: Extractor, images: int, seed: int
) -> dict[str, Measurement]:
    """Measure the pictures that a model makes: its translations or its samples.

    Args:
        model: the model to measure.
        domains: real images, by the names that :func:`domain_names` gives.
        extractor: the network in whose features FID and KID are taken.
        images: how many images of each domain are translated, or how many samples are drawn, at most.
        seed: seed of all that is drawn at random.

    Raises:
        RunError: it makes none.
    """
    if isinstance(model, Translator):
        return measure_translations(model, domains, extractor, images, seed)
    if isinstance(model, Sampler):
        held_out = domains["images"].drawn(images, seed)
        return measure_samples(model, held_out, extractor, len(held_out), seed)
    raise RunError(f"a {model.family} model neither samples nor translates, so it makes no pictures to measure")


def picture_measurements(model: Model, domains: Mapping[str, ShardSet]) -> list[str]:
    """Name what :func:`measure_pictures` will measure and models can be compared by; nothing needs to be trained yet.

    ``fid_infinity``, which needs many images, is left out.

    Args:
        model: the model, which may be on the meta device.
        domains: the data sets, by the names that :func:`domain_names` gives.
    """
    if isinstance(model, Translator):
        kinds = ["kid", "fid"]
        if has_scene_counterparts(*(shards.manifest for shards in domains.values())):
            kinds += ["psnr", "gain", *SIMILARITIES]
        names = [f"{kind}_{direction}" for direction in model.directions for kind in kinds]
        errors = [f"{kind}_{domain}" for domain in domains for kind in ("cycle", "identity")]
        return ["kid", *names, *errors] if len(model.directions) > 1 else names
    return ["kid", "fid", "precision", "recall"] if isinstance(model, Sampler) else []


def domain_names(model: Model) -> list[str]:
    """Return the names of the domains that a model is measured on: ``images``, or those that a translator joins."""
    if isinstance(model, Translator):
        return sorted({domain for direction in model.directions for domain in direction.split("_to_")})
    return ["images"]


def require_measurable(model: Model, name: str) -> None:
    """Check that a model has operations whose results can be measured.

    Raises:
        RunError: it has none; the message calls the model ``name``.
    """
    if not set(MEASURED) & set(model.operations):
        raise RunError(f"{name}: a {model.family} model; only models that {', '.join(MEASURED)} can be evaluated")


def require_fit(model: Model, held_out: HeldOut, label_names: Sequence[str]) -> None:
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
    if not model.classes:
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


def _measure_images(
    model: Model,
    held_out: HeldOut,
    options: EvaluationOptions,
    extractor: Extractor,
    classifier: TrainedClassifier | None,
    training: HeldOut | None,
) -> dict[str, Measurement]:
    seed = options.seed
    measurements: dict[str, Measurement] = {}
    if isinstance(model, LatentModel):
        measurements |= measure_elbo(model, held_out, seed)
        images = options.bound_images or (BOUND_IMAGES if model.device.type == "cpu" else len(held_out))
        measurements |= measure_bounds(model, held_out.drawn(images, seed), seed)
    if "reconstruct" in model.operations:
        measurements |= measure_reconstructions(model, held_out, classifier)
    if isinstance(model, Sampler):
        count = options.samples or min(SAMPLES, len(held_out))
        if classifier is not None and model.classes:
            measurements |= measure_consistency(model, held_out, classifier, count, seed, options.sampling)
        measurements |= measure_samples(model, held_out, extractor, count, seed, options.sampling, training)
    if isinstance(model, StyleModel):
        network = extractor if isinstance(extractor, EfficientNetLite) else EfficientNetLite(model.device)
        paths = options.paths or (PATHS if model.device.type == "cpu" else PATHS_ON_GPU)
        measurements |= measure_path_lengths(model, held_out, network, paths, seed)
        if classifier is not None:
            measurements |= measure_separability(model, held_out, classifier, options.samples or SAMPLES, seed)
    return measurements


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
