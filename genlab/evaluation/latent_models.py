"""Measurements of likelihood, of models with a Gaussian latent; of reconstructions, and of the classes of pictures."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from genlab.core.progress import progress
from genlab.core.seeds import derived_seed
from genlab.data.stream.batches import Batch
from genlab.evaluation.held_out import HeldOut
from genlab.evaluation.measurements import Better, Measurement, Settings, mean_measurement
from genlab.evaluation.samples import class_settings, sample_settings
from genlab.evaluation.trained_classifier import TrainedClassifier
from genlab.metrics.elbo import (
    active_units,
    gaussian_kl,
    importance_weighted_bounds,
    log_importance_weight,
    negative_log_likelihood,
)
from genlab.metrics.intervals import FEWEST, proportion_interval
from genlab.metrics.neighbours import nearest_neighbour_accuracy
from genlab.models.latent_model import LatentModel
from genlab.models.model import Model, Sampler, images_per_pass

BOUND_SAMPLES = (1, 50, 500, 1000)
"""The K of the importance-weighted bounds (Burda et al. 2016)."""
SAMPLES_PER_PASS = 50
"""Number of draws for each image that are decoded at once."""


@torch.inference_mode()
def measure_elbo(model: LatentModel, held_out: HeldOut, seed: int) -> dict[str, Measurement]:
    """Measure the −ELBO and its two parts, in nats an image, with one draw of z for each, and the posterior means.

    Of the posterior means the number of active units is measured and, with labels, how often the nearest neighbour of
    an image is of its class.
    """
    reconstruction, kl, means, first = [], [], [], 0
    with progress("ELBO", len(held_out), "images") as advance:
        for batch in held_out.batches():
            images, label = observe_rows(model, batch, seed)
            mean, log_variance = model.infer(images, label)
            noise = _noise(seed, "z", first, *mean.shape).to(mean.device)
            logits = model.generate(mean + (0.5 * log_variance).exp() * noise, label)
            reconstruction.append(_error(model, logits, images).double().cpu())
            kl.append(gaussian_kl(mean, log_variance).double().cpu())
            means.append(mean.cpu())
            first += len(batch)
            advance(len(batch))
    settings = _likelihood_settings(model, held_out, seed)
    parts = {"reconstruction": torch.cat(reconstruction), "kl": torch.cat(kl)}
    given = ",y" if model.classes else ""
    titles = {"reconstruction": f"reconstruction, −log p(x|z{given})", "kl": f"KL(q(z|x{given}) ‖ p(z))"}
    points, labels, seen = torch.cat(means), held_out.labels, held_out.settings | {"seed": seed}
    measurements = {
        "neg_elbo": mean_measurement("−ELBO", parts["reconstruction"] + parts["kl"], settings, "nats", "lower"),
        **{name: mean_measurement(titles[name], values, settings, "nats") for name, values in parts.items()},
        "active_units": Measurement("active units", active_units(points), seen),
    }
    if labels is not None:
        accuracy = nearest_neighbour_accuracy(points, labels)
        measurements["nearest_neighbour_accuracy"] = Measurement(
            "nearest-neighbour accuracy of posterior means",
            accuracy.value,
            seen | class_settings(model),
            "share",
            # A model that is told the class has no need to keep it in z.
            None if model.classes else "higher",
            accuracy.interval,
        )
    return measurements


@torch.inference_mode()
def measure_bounds(model: LatentModel, held_out: HeldOut, seed: int) -> dict[str, Measurement]:
    """Measure importance-weighted bounds of −log p(x), upper bounds on average, for the K of :data:`BOUND_SAMPLES`."""
    part_size = max(1, images_per_pass(model.image_shape) // SAMPLES_PER_PASS)
    found, first = [], 0
    with progress("importance-weighted bounds", len(held_out), "images") as advance:
        for batch in held_out.batches():
            observed, label = observe_rows(model, batch, seed)
            mean, log_variance = model.infer(observed, label)
            for begin in range(0, len(mean), part_size):
                part = slice(begin, begin + part_size)
                weights = _log_weights(
                    model,
                    observed[part],
                    None if label is None else label[part],
                    mean[part],
                    log_variance[part],
                    derived_seed(seed, "bound", first + begin),
                )
                found.append(-importance_weighted_bounds(weights, BOUND_SAMPLES))
                advance(len(mean[part]))
            first += len(batch)
    settings = _likelihood_settings(model, held_out, seed)
    values = torch.cat(found, dim=1)
    density = "−log p(x|y)" if model.classes else "−log p(x)"
    return {
        f"nll_{draws}": mean_measurement(
            f"{density} at most (in expectation), K = {draws:,}", bound, settings, "nats", "lower"
        )
        for draws, bound in zip(BOUND_SAMPLES, values, strict=True)
    }


def measure_reconstructions(
    model: Model, held_out: HeldOut, classifier: TrainedClassifier | None
) -> dict[str, Measurement]:
    """Measure the error of reconstructions, and whether a classifier recognises their class.

    Args:
        model: a model that reconstructs.
        held_out: the rows to reconstruct, all of them.
        classifier: a classifier of these images, if there is one; it is not used for images without labels.
    """
    reconstruct: Any = model.reconstruct
    options = model.operations["reconstruct"]()
    errors, right_reconstructions, right_originals = [], [], []
    with progress("reconstructions", len(held_out), "images") as advance:
        for batch in held_out.batches():
            pixels = reconstruct(batch.image, batch.label if model.classes else None, options).cpu()
            errors.append(((pixels.double() - batch.image.double()) / 255).square().flatten(1).mean(1))
            if classifier is not None and batch.label is not None:
                made, original = (classifier.model.classify(images).cpu() for images in (pixels, batch.image))
                right_reconstructions.append(made == batch.label)
                right_originals.append(original == batch.label)
            advance(len(pixels))
    settings = held_out.settings
    title = "reconstruction MSE, pixels in [0, 1]"
    measurements = {"mse": mean_measurement(title, torch.cat(errors), settings, "", "lower")}
    if classifier is not None and held_out.shards.labelled:
        settings, caution = settings | {"classifier_weights": classifier.weights}, classifier.caution(held_out)
        shares = {
            # A model that is told the class has it easier.
            "reconstruction_consistency": _share(
                "reconstructions recognised as their class",
                torch.cat(right_reconstructions),
                settings | class_settings(model),
                "higher",
            ),
            "classifier_accuracy": _share("images recognised as their class", torch.cat(right_originals), settings),
        }
        measurements |= {name: replace(measurement, caution=caution) for name, measurement in shares.items()}
    return measurements


def measure_consistency(
    model: Sampler, held_out: HeldOut, classifier: TrainedClassifier, count: int, seed: int, options: Any = None
) -> dict[str, Measurement]:
    """Measure how often a classifier recognises the class that a sample was drawn for.

    As many samples are drawn of each class that the classifier knows; the model may have more classes.

    Args:
        model: a conditional model.
        held_out: rows of these classes, for the settings.
        classifier: a classifier of these classes.
        count: the number of samples in all, up to rounding.
        seed: seed of the draws.
        options: the options that they are drawn by; by default the model's defaults.
    """
    classes = min(model.classes, len(classifier.label_names))
    label = torch.arange(max(1, count // classes) * classes) % classes
    drawn = model.sample_in_parts(len(label), seed, label, options)
    seen = torch.cat([classifier.model.classify(pixels).cpu() for pixels in drawn])
    settings = held_out.settings | {
        "classifier_weights": classifier.weights,
        "samples": len(label),
        "classes": classes,
        "seed": seed,
        **sample_settings(model, options),
    }
    share = _share("samples recognised as their class", seen == label, settings, "higher")
    return {"sample_consistency": replace(share, values=None)}  # samples of two models are not of the same images


def observe_rows(model: LatentModel, batch: Batch, seed: int) -> tuple[Tensor, Tensor | None]:
    """Return what the encoder sees of rows, and their labels.

    The pixels of a binary likelihood are drawn from the seed and the row's number, so that an image is the same
    whichever other rows are measured.
    """
    uniform = None
    if model.architecture.likelihood == "binary":
        draws = [
            torch.rand(image.shape, generator=torch.Generator().manual_seed(derived_seed(seed, "pixels", number)))
            for number, image in zip(batch.rows.tolist(), batch.image, strict=True)
        ]
        uniform = torch.stack(draws).to(model.device)
    label = batch.label.to(model.device) if model.classes and batch.label is not None else None
    return model.observe(batch.image.to(model.device), uniform), label


def _log_weights(
    model: LatentModel, images: Tensor, label: Tensor | None, mean: Tensor, log_variance: Tensor, seed: int
) -> Iterator[Tensor]:
    """Compute log p(x|z) p(z) / q(z|x) of ``BOUND_SAMPLES[-1]`` draws for N images, [SAMPLES_PER_PASS, N] at a time."""
    generator = torch.Generator().manual_seed(seed)
    count = len(images)

    def spread(tensor: Tensor) -> Tensor:
        return tensor.expand(SAMPLES_PER_PASS, *tensor.shape).flatten(0, 1)

    targets, means, log_variances = spread(images), spread(mean), spread(log_variance)
    labels = None if label is None else spread(label)
    for _ in range(0, BOUND_SAMPLES[-1], SAMPLES_PER_PASS):
        # On the CPU, so that a GPU draws the same.
        noise = torch.randn(SAMPLES_PER_PASS, *mean.shape, generator=generator)
        latents = means + (0.5 * log_variances).exp() * noise.flatten(0, 1).to(means.device)
        error = _error(model, model.generate(latents, labels), targets)
        yield log_importance_weight(error, latents, means, log_variances).view(SAMPLES_PER_PASS, count).cpu()


def _noise(seed: int, name: str, first: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(derived_seed(seed, name, first)))


def _error(model: LatentModel, logits: Tensor, images: Tensor) -> Tensor:
    return negative_log_likelihood(model.architecture.likelihood, logits, images, model.log_sigma)


def _likelihood_settings(model: LatentModel, held_out: HeldOut, seed: int) -> Settings:
    """Return the settings of a measurement in nats.

    Nats of different likelihoods, or of p(x) and p(x|class), are different quantities and are not compared.
    """
    return held_out.settings | {
        "seed": seed,
        "likelihood": model.architecture.likelihood,
        "density": "p(x|class)" if model.classes else "p(x)",
    }


def _share(title: str, right: Tensor, settings: Settings, better: Better | None = None) -> Measurement:
    """Measure the share of images for which ``right``, bool [N], holds."""
    hits, count = int(right.count_nonzero()), len(right)
    interval = proportion_interval(hits, count) if count >= FEWEST else None
    return Measurement(title, hits / count, settings, "share", better, interval, values=right.double())
