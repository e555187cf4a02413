"""``genlab evaluate MODEL``: measure a trained model on held-out images, print the measurements and write them as JSON.

What is measured is in :mod:`genlab.evaluation.evaluate`. The command opens the model and its data, and trains a
classifier where one is needed and there is none.
"""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import tyro
from annotated_types import Ge
from rich.console import Console
from rich.table import Table
from rich.text import Text
from upath import UPath

from genlab.cli.classifier_training import NO_CLASSIFIER, split_to_train_on, trained_classifier
from genlab.cli.model_options import parse_for_model
from genlab.core.config import from_dict
from genlab.core.errors import ConfigError, DataError, RunError, run_command
from genlab.core.storage import delete, is_folder, locate, write_atomic, writing
from genlab.data.format.shards import ShardSet
from genlab.data.format.splits import overlap
from genlab.evaluation.compare import settings_lines
from genlab.evaluation.evaluate import (
    EvaluationOptions,
    default_extractor,
    domain_names,
    evaluate,
    require_fit,
    require_measurable,
    require_same_classes,
)
from genlab.evaluation.extractors import Inception
from genlab.evaluation.features import FEWEST
from genlab.evaluation.held_out import CHOSEN, HeldOut
from genlab.evaluation.measurements import Evaluation
from genlab.evaluation.samples import classes_to_sample, nearest_training_images
from genlab.evaluation.trained_classifier import TrainedClassifier, load_classifier
from genlab.imaging.images import encode_png
from genlab.inference.engine import best_device
from genlab.models.latent_model import LatentModel
from genlab.models.model import Model, Sampler
from genlab.models.style_model import StyleModel
from genlab.recipes.options import Data
from genlab.store import model_directory
from genlab.store.evaluation_file import evaluation_file

ANOTHER = "name another with --output"
SHOWN = 32
"""Samples in the picture of samples and their nearest training images."""


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Measure a trained model on held-out images, and write evaluation.json.

    A model may have options of its own that samples are drawn by: `genlab evaluate MODEL --help` lists them.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Run directory or model directory, or its s3:// URL."""
    data: str | None = None
    """Data set made by `genlab ingest`: a folder or URL. By default the one that the model was trained on. Not for a
    translator, such as a CycleGAN, which has two."""
    data_a: str | None = None
    """A translator's data set of domain a. By default the one that it was trained on."""
    data_b: str | None = None
    """A translator's data set of domain b. By default the one that it was trained on."""
    split: str | None = None
    """The split to measure on, or half of one: test:validation or test:reporting. By default the test split; for a
    checkpoint that was chosen on half of it, the other half."""
    classifier: str | None = None
    """Run or model directory of a classifier of these images; `none` for none. By default one is trained, once for each
    data set, if the images have labels. Not for a translator."""
    inception: str | None = None
    """Weights of torch-fidelity's Inception-v3, for FID and KID in the features of published results. By default they
    are taken in the classifier's features for grey images with labels, and in EfficientNet-Lite0's for others."""
    samples: Annotated[Annotated[int, Ge(FEWEST)] | None, tyro.conf.arg(metavar="N")] = None
    """Samples to draw for FID, KID, precision and recall, or images to translate, drawn at random. By default as many
    as there are images in the split, at most 10,000."""
    iwae_images: Annotated[Annotated[int, Ge(2)] | None, tyro.conf.arg(metavar="N")] = None
    """How many images, drawn at random, the importance-weighted bounds of a VAE are of. By default 1,000 on a CPU, all
    on a GPU."""
    path_lengths: Annotated[Annotated[int, Ge(1)] | None, tyro.conf.arg(metavar="N")] = None
    """How many ways between two draws the perceptual path length of a model with styles, such as a StyleGAN, is of. By
    default 1,000 on a CPU, 10,000 on a GPU."""
    copies: bool = False
    """Also measure whether samples are copies of training images, and draw some above the nearest ones. It takes the
    features of all training images, once for each data set."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of all noise, and of what is drawn at random."""
    output: str | None = None
    """JSON file to write. By default evaluation.json in the run directory, or in a model directory of no run."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab evaluate``."""

    def command() -> None:
        config, sampling = parse_for_model(EvaluateConfig, "sample", arguments, "genlab evaluate")
        evaluation, file = run_evaluation(config, sampling)
        show(evaluation)
        print(f"evaluation: {file}")

    run_command(command)


def run_evaluation(config: EvaluateConfig, sampling: Mapping[str, Any] | None = None) -> tuple[Evaluation, UPath]:
    """Measure the model that ``config`` names and write the evaluation; return it, and the file that holds it.

    Samples are drawn by the options ``sampling`` of the model's own, by default their defaults.

    Raises:
        ConfigError, DataError, RunError: the model, its data, or what was given to measure with cannot be used.
    """
    directory = model_directory.find_one(config.model)
    description = model_directory.describe(directory)
    provenance = description["provenance"]
    device = best_device()
    model = model_directory.load(directory, device)
    require_measurable(model, config.model)
    domains = open_held_out(config, model, provenance)
    file = locate(config.output) if config.output else evaluation_file(directory)
    _require_writable(file)
    training = open_training_rows(config, model, domains, provenance) if config.copies else None
    inception = Inception(config.inception, device) if config.inception else None
    classifier = None
    if "images" in domains:
        classifier = _classifier(config, domains["images"].shards, provenance, device)
    extractor = inception or default_extractor(model, domains, classifier)
    chosen = from_dict(model.operations["sample"], sampling) if sampling else None
    options = EvaluationOptions(
        samples=config.samples,
        bound_images=config.iwae_images,
        paths=config.path_lengths,
        seed=config.seed,
        sampling=chosen,
    )
    evaluation = evaluate(
        directory, model, domains, options, extractor=extractor, classifier=classifier, training=training
    )
    if evaluation.model["weights"] != description["weights"]["sha256"]:
        raise RunError(f"{directory}: was replaced by another model while it was measured; evaluate it again")
    with writing(file, ANOTHER):
        evaluation.save(file)
        if training is not None and isinstance(model, Sampler):
            label = classes_to_sample(domains["images"], SHOWN, config.seed) if model.classes else None
            pixels = model.sample(SHOWN, config.seed, label, options=chosen).cpu()
            nearest = nearest_training_images(pixels, training, extractor)
            write_atomic(nearest_file(file), encode_png(nearest.sheet(pixels)))
    return evaluation, file


def open_held_out(config: EvaluateConfig, model: Model, provenance: Mapping[str, Any]) -> dict[str, HeldOut]:
    """Open the rows to measure on, by domain: ``images``, or ``a`` and ``b`` for a translator.

    Raises:
        ConfigError: an option that is for another kind of model, or a data set that must be named.
        DataError: a data set or split is gone, the run's own data set was changed, or it does not fit the model.
    """
    options = {domain: "data" if domain == "images" else f"data_{domain}" for domain in domain_names(model)}
    for name in ("data_a", "data_b") if "images" in options else ("data", "classifier", "iwae_images", "path_lengths"):
        if getattr(config, name) is not None:
            named = " and ".join(map(_flag, options.values()))
            raise ConfigError(f"{_flag(name)}: not for a {model.family} model, whose data is given by {named}")
    for name, kind in (("iwae_images", LatentModel), ("path_lengths", StyleModel)):
        if getattr(config, name) is not None and not isinstance(model, kind):
            raise ConfigError(f"{_flag(name)}: not for a {model.family} model, of which this is not measured")
    shards = {}
    for domain, option in options.items():
        given, trained_on = getattr(config, option), provenance["data"].get(domain)
        if given is None and trained_on is None:
            raise ConfigError(f"{config.model}: does not say what it was trained on; give {_flag(option)} DATA")
        shards[domain] = ShardSet.open(given or trained_on["path"])
        if given is None and shards[domain].checksum != trained_on["checksum"]:
            raise DataError(
                f"{shards[domain].directory}: no longer the data set that the model was trained on; "
                f"give {_flag(option)}"
            )
    # An imported model names no split. What is asked for is a measurement on held-out rows: nothing stands in for them.
    test_split = provenance["config"].get("data", {}).get("test_split", Data.test_split)
    chosen_on = _chosen_on(provenance, test_split)
    domains = {}
    for domain, rows in shards.items():
        known = rows.checksum == provenance["data"].get(domain, {}).get("checksum")  # else nothing was chosen on it
        split = config.split or (known and provenance.get("reported_on")) or test_split
        domains[domain] = HeldOut(rows.part(split), split, chosen=known and overlap(chosen_on, split))
        require_fit(model, domains[domain], provenance["label_names"])
    return domains


def open_training_rows(
    config: EvaluateConfig, model: Model, domains: Mapping[str, HeldOut], provenance: Mapping[str, Any]
) -> HeldOut:
    """Open the rows that a model which samples was trained on.

    Raises:
        ConfigError: the model does not sample, does not say what it was trained on, or is measured on these rows.
        DataError: the data set is gone or was changed.
    """
    if not isinstance(model, Sampler):
        raise ConfigError(f"--copies: a {model.family} model draws no samples")
    trained_on = provenance["data"].get("images")
    if trained_on is None:
        raise ConfigError(f"--copies: {config.model} does not say what it was trained on")
    rows, held_out = HeldOut.open(trained_on["path"], provenance["config"]["data"]["split"]), domains["images"]
    if rows.shards.checksum != trained_on["checksum"]:
        raise DataError(f"{rows.shards.directory}: no longer the data set that the model was trained on")
    if rows.shards.checksum == held_out.shards.checksum and overlap(rows.split, held_out.split):
        raise ConfigError(f"--copies: the split {held_out.split!r} holds training images; measure on another one")
    return rows


def nearest_file(file: UPath) -> UPath:
    """Return the picture beside the evaluation ``file`` that shows samples above their nearest training images."""
    return file.with_name(f"{file.stem}.nearest.png")


def _chosen_on(provenance: Mapping[str, Any], test_split: str) -> str:
    """Return the split, or half of one, on which a model was chosen from others of its run; empty if it was not.

    Models of an earlier genlab do not say it, but the chosen ones have the measurements that they were chosen by.
    """
    chosen_before = any(name.startswith("evaluation/") for name in provenance["metrics"])
    return provenance.get("chosen_on") or (test_split if chosen_before else "")


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def show(evaluation: Evaluation) -> None:
    """Print the measurements, their cautions, and their settings."""
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
    if any("chosen" in measurement.settings for measurement in evaluation.measurements.values()):
        console.print(f"the checkpoint was chosen {CHOSEN}: it looks better on them than on others", markup=False)
    for line in settings_lines(evaluation.measurements):
        console.print(line, markup=False, style="dim")


def _require_writable(file: UPath) -> None:
    """Refuse a file that cannot be written before measuring, which takes long."""
    probe = file.with_name(f".{file.name}.probe")
    with writing(file, ANOTHER):
        if is_folder(file):
            raise IsADirectoryError("it is a folder")
        write_atomic(probe, b"")
        with contextlib.suppress(OSError):  # A store may take files and not give them up.
            delete(probe)


def _classifier(
    config: EvaluateConfig, shards: ShardSet, provenance: Mapping[str, Any], device: str
) -> TrainedClassifier | None:
    """Load what recognises classes, trained now if need be; ``None`` for images without labels, unless one is given.

    Raises:
        ConfigError: the classifier given is of other images or labels.
        DataError: there is nothing to train one on.
    """
    if config.classifier == NO_CLASSIFIER or (config.classifier is None and not shards.labelled):
        return None
    if config.classifier is None:
        return load_classifier(trained_classifier(shards, split_to_train_on(shards, provenance)), device)
    classifier = load_classifier(model_directory.find_one(config.classifier), device)
    require_same_classes(classifier, shards, config.classifier)
    return classifier
