"""``genlab evaluate MODEL``: measurements of a trained model on held-out data, printed and written as JSON.

It stands among the reports, above training, because it trains a classifier where it needs one; what it measures is in
``genlab.evaluation``.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import torch
import tyro
from annotated_types import Ge
from rich.console import Console
from rich.table import Table
from rich.text import Text
from upath import UPath

from genlab.cli.classifier import NO_CLASSIFIER, split_to_train_on, trained_classifier
from genlab.core.config import parse
from genlab.core.errors import ConfigError, DataError, RunError, run_command
from genlab.core.storage import locate, write_atomic
from genlab.data.format.shards import ShardSet
from genlab.evaluation.classifier import Judge, load_judge
from genlab.evaluation.compare import settings_lines
from genlab.evaluation.extractors import ClassifierFeatures, EfficientNetLite, Extractor, Inception
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
from genlab.evaluation.measurements import Evaluation, Measurement, evaluation_file
from genlab.evaluation.translation import measure_translations
from genlab.inference.engine import best_device
from genlab.models.cyclegan import CycleGAN
from genlab.models.latent_model import LatentModel
from genlab.recipes.options import Data
from genlab.store import model_directory

SAMPLES = 10_000
"""Samples that FID and KID are of, at most, unless told otherwise."""
BOUND_IMAGES = 1000
"""Images that the importance-weighted bounds are of on a CPU, unless told otherwise."""


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Measure a trained VAE, conditional VAE or CycleGAN on held-out images, and write evaluation.json."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Run directory or model directory, or its s3:// URL."""
    data: str | None = None
    """Data set made by `genlab ingest`: a folder or URL. By default the one that the model was trained on. Not for a
    CycleGAN, which has two."""
    data_a: str | None = None
    """A CycleGAN's data set of domain a. By default the one that it was trained on."""
    data_b: str | None = None
    """The same of domain b."""
    split: str | None = None
    """The split to measure on. By default the run's held-out split."""
    classifier: str | None = None
    """Run or model directory of a classifier of these images; `none` for none. By default one is trained, once for each
    data set, if the images have labels. Not for a CycleGAN."""
    inception: str | None = None
    """Weights of torch-fidelity's Inception-v3, for FID and KID in the features of published results. By default they
    are taken in the classifier's features for grey images with labels, and in EfficientNet-Lite0's for others."""
    samples: Annotated[Annotated[int, Ge(FEWEST)] | None, tyro.conf.arg(metavar="N")] = None
    """Samples to draw for FID and KID, or images to translate, drawn at random. By default as many as there are images
    in the split, at most 10,000."""
    iwae_images: Annotated[Annotated[int, Ge(2)] | None, tyro.conf.arg(metavar="N")] = None
    """How many images, drawn at random, the importance-weighted bounds are of. By default 1,000 on a CPU, all on a
    GPU. Not for a CycleGAN."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of all noise, and of what is drawn at random."""
    output: str | None = None
    """JSON file to write. By default evaluation.json in the run directory, or in a model directory of no run."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command ``genlab evaluate``."""

    def command() -> None:
        config = parse(EvaluateConfig, arguments, prog="genlab evaluate")
        evaluation, file = evaluate(config)
        show(evaluation)
        print(f"evaluation: {file}")

    run_command(command)


def evaluate(config: EvaluateConfig) -> tuple[Evaluation, UPath]:
    """Measure what ``config`` names and write the evaluation; returns it and where it is.

    Raises:
        ConfigError, DataError, RunError: the model, its data, or what was given to measure with cannot be used.
    """
    directory = model_directory.find_one(config.model)
    description = model_directory.describe(directory)
    provenance = description["provenance"]
    device = best_device()
    model = model_directory.load(directory, device)
    if not isinstance(model, LatentModel | CycleGAN):
        raise RunError(f"{config.model}: a {model.family} model; vae, cvae and cyclegan are what can be evaluated")
    domains = open_held_out(config, model, provenance)
    file = locate(config.output) if config.output else evaluation_file(directory)
    _require_writable(file)
    inception = Inception(config.inception, device) if config.inception else None
    torch.backends.cudnn.allow_tf32 = False  # A measurement's last digits are worth more than a minute.
    if isinstance(model, LatentModel):
        judge = _judge(config, domains["images"], provenance, device)
        extractor = inception or _extractor(domains["images"], judge, device)
        measurements = _measure_latent_model(config, model, domains["images"], judge, extractor)
    else:
        extractor = inception or EfficientNetLite(device)
        measurements = measure_translations(model, domains, extractor, config.samples or SAMPLES, config.seed)

    evaluation = Evaluation(
        directory.parent.name if directory.name == "model" else directory.name,
        {
            "path": str(directory),
            "family": model.family,
            "step": provenance["step"],
            "weights": description["weights"]["sha256"],
        },
        measurements,
    )
    with _writing(file):
        evaluation.save(file)
    return evaluation, file


def open_held_out(
    config: EvaluateConfig, model: LatentModel | CycleGAN, provenance: Mapping[str, Any]
) -> dict[str, HeldOut]:
    """The rows to measure on, by domain: those that are ``images`` to a VAE, ``a`` and ``b`` to a CycleGAN.

    Raises:
        ConfigError: an option that is for another kind of model, or a data set that must be named.
        DataError: a data set or split is gone, the run's own data set was changed, or it does not fit the model.
    """
    latent = isinstance(model, LatentModel)
    options = {"images": "data"} if latent else {"a": "data_a", "b": "data_b"}
    for name in ("data_a", "data_b") if latent else ("data", "classifier", "iwae_images"):
        if getattr(config, name) is not None:
            named = " and ".join(map(_flag, options.values()))
            raise ConfigError(f"{_flag(name)}: not for a {model.family} model, whose data is given by {named}")
    # An imported model names neither split nor data.
    split = config.split or provenance["config"].get("data", {}).get("test_split", Data.test_split)
    domains = {}
    for domain, option in options.items():
        given, trained_on = getattr(config, option), provenance["data"].get(domain)
        if given is None and trained_on is None:
            raise ConfigError(f"{config.model}: does not say what it was trained on; give {_flag(option)} DATA")
        shards = ShardSet.open(given or trained_on["path"])
        if given is None and shards.checksum != trained_on["checksum"]:
            raise DataError(
                f"{shards.directory}: no longer the data set that the model was trained on; give {_flag(option)}"
            )
        domains[domain] = HeldOut(shards.split(split), split)
        _check_fit(model, domains[domain], provenance["label_names"])
    return domains


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def show(evaluation: Evaluation) -> None:
    """Print the measurements, what is to be said against them, and what they were measured with."""
    table = Table(show_edge=False)
    table.add_column("measurement")
    table.add_column(Text(evaluation.name), justify="right")
    table.add_column("unit")
    for measurement in evaluation.measurements.values():
        table.add_row(
            Text(measurement.title + (" (!)" if measurement.caution else "")), str(measurement), measurement.unit
        )
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    console.print("± is half of the 95% interval")
    for measurement in evaluation.measurements.values():
        if measurement.caution:
            console.print(f"(!) {measurement.title}: {measurement.caution}", markup=False)
    for line in settings_lines(evaluation.measurements):
        console.print(line, markup=False, style="dim")


def _require_writable(file: UPath) -> None:
    """Measuring takes long, so that what cannot be written afterwards is refused before."""
    probe = file.with_name(f".{file.name}.probe")
    with _writing(file):
        if file.is_dir():
            raise IsADirectoryError("it is a folder")
        write_atomic(probe, b"")
        with contextlib.suppress(OSError):  # A store may take files and not give them up.
            probe.unlink()


@contextlib.contextmanager
def _writing(file: UPath) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{file}: cannot be written ({error.strerror or error}); name another with --output") from None


def _check_fit(model: LatentModel | CycleGAN, held_out: HeldOut, label_names: Sequence[str]) -> None:
    shards = held_out.shards
    if shards.fixed_shape() != model.image_shape:
        raise DataError(
            f"{shards.directory}: {_size(shards.fixed_shape())}; the model takes {_size(model.image_shape)}"
        )
    if len(held_out) < FEWEST:
        raise DataError(f"{shards.directory}: {len(held_out)} images in split {held_out.split!r}; {FEWEST} are needed")
    if not isinstance(model, LatentModel) or not model.classes:
        return
    if not 0 < len(shards.manifest.label_names) <= model.classes:
        found = len(shards.manifest.label_names)
        raise DataError(f"{shards.directory}: has {found} classes; the model is one of {model.classes}")
    if difference := _first_difference(shards, label_names):
        raise DataError(f"data: the model was trained on other labels: {difference}")


def _measure_latent_model(
    config: EvaluateConfig, model: LatentModel, held_out: HeldOut, judge: Judge | None, extractor: Extractor
) -> dict[str, Measurement]:
    measurements = measure_elbo(model, held_out, config.seed)
    images = config.iwae_images or (BOUND_IMAGES if model.device.type == "cpu" else len(held_out))
    measurements |= measure_bounds(model, held_out.drawn(images, config.seed), config.seed)
    measurements |= measure_reconstructions(model, held_out, judge)
    count = config.samples or min(SAMPLES, len(held_out))
    if judge is not None and model.classes:
        measurements |= measure_consistency(model, held_out, judge, count, config.seed)
    reference = held_out_features(held_out, extractor)
    label = classes_to_sample(held_out, count, config.seed) if model.classes else None
    made = extract(extractor, samples(model, label, count, config.seed), count, "features of samples")
    return measurements | measure_distances(extractor, reference, held_out.settings, made, config.seed)


def _judge(config: EvaluateConfig, held_out: HeldOut, provenance: Mapping[str, Any], device: str) -> Judge | None:
    """What to recognise classes by; none for images without labels, unless one is given.

    Raises:
        ConfigError: when the one given is of other images or labels.
        DataError: when there is nothing to train one on.
    """
    shards = held_out.shards
    if config.classifier == NO_CLASSIFIER or (config.classifier is None and not shards.labelled):
        return None
    if config.classifier is None:
        return load_judge(trained_classifier(shards, split_to_train_on(shards, provenance)), device)
    judge = load_judge(model_directory.find_one(config.classifier), device)
    if judge.classifier.image_shape != shards.fixed_shape():
        shape = judge.classifier.image_shape
        raise ConfigError(f"classifier: it takes {_size(shape)}, not {_size(shards.fixed_shape())}")
    if difference := _first_difference(shards, judge.label_names):
        raise ConfigError(f"classifier: {config.classifier} was trained on other labels: {difference}")
    return judge


def _first_difference(shards: ShardSet, known: Sequence[str]) -> str:
    """The first class of a data set that has not the name by which a model knows it; empty where all have."""
    for number, name in enumerate(shards.manifest.label_names):
        if number >= len(known):
            return f"class {number} is {name!r} in {shards.directory}, and there was none such"
        if name != known[number]:
            return f"class {number} is {name!r} in {shards.directory}, and was {known[number]!r}"
    return ""


def _extractor(held_out: HeldOut, judge: Judge | None, device: str) -> Extractor:
    """Whose features to compare in where Inception's weights are not given."""
    if judge is not None and held_out.shards.manifest.channels == 1:
        return ClassifierFeatures(judge)
    return EfficientNetLite(device)


def _size(shape: tuple[int, int, int]) -> str:
    height, width, channels = shape
    return f"images of {height}x{width}x{channels}"
