"""Measurements of models with a space of styles: perceptual path length, and linear separability of classes."""

from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from genlab import __version__
from genlab.core.progress import progress
from genlab.evaluation.held_out import HeldOut
from genlab.evaluation.measurements import Measurement, Settings
from genlab.evaluation.samples import class_settings, classes_to_sample
from genlab.evaluation.trained_classifier import TrainedClassifier
from genlab.metrics.image import perceptual_distance
from genlab.metrics.path_length import DISCARDED, EPSILON, path_length
from genlab.metrics.separability import PENALTY, separability
from genlab.models.model import images_per_pass
from genlab.models.noise import RULE, Noise
from genlab.models.pixels import from_signed
from genlab.models.style_model import StyleModel, spherical_interpolation

Space = Literal["z", "w"]
"""Where ways lie: of latent vectors, along great circles, or of styles, along straight lines."""
Place = Literal["full", "end"]
"""Where a step is on its way: anywhere, or at its beginning, so at a latent vector that the model draws images of."""


class PerceptualNetwork(Protocol):
    """A network in whose layers images are compared, such as :class:`genlab.evaluation.extractors.EfficientNetLite`."""

    @property
    def batch(self) -> int: ...  # noqa: D102

    @property
    def layers_settings(self) -> Settings: ...  # noqa: D102

    def layers_of_floats(self, images: Tensor) -> list[Tensor]: ...  # noqa: D102


def measure_path_lengths(
    model: StyleModel, held_out: HeldOut, network: PerceptualNetwork, count: int, seed: int
) -> dict[str, Measurement]:
    """Measure the perceptual path length in z and in w: ``ppl_z_full``, ``ppl_z_end``, ``ppl_w_full``, ``ppl_w_end``.

    It is the mean perceptual distance, divided by ε², of images that lie ε of the way between two latent vectors apart:
    anywhere on the way (``full``), or at its beginning (``end``). Both images of a step have the same noise and class,
    and nothing is truncated. Where images change suddenly on the way, it is large.

    The perceptual distance is that of ``network``, so it cannot be compared with published numbers, which are of VGG.

    Args:
        model: the model.
        held_out: rows with the classes that a conditional model draws.
        network: what tells how far images are apart.
        count: the number of ways.
        seed: seed of the ways: the ends of the i-th, and its step, are a function of (seed, i), as pictures are.
    """
    label = classes_to_sample(held_out, count, seed) if model.classes else None
    settings: Settings = {"genlab": __version__}
    if model.classes:
        settings |= held_out.settings
    settings |= network.layers_settings | {
        "perceptual_distance": "LPIPS formula, all weights one",
        "epsilon": EPSILON,
        "discarded": f"{DISCARDED:.0%} of the steps at each end",
        "clipping": "none",
        "truncation": "none",
        "noise": f"{RULE}; the same for both images of a step",
        "paths": count,
        "seed": seed,
    }
    measurements = {}
    for space in get_args(Space):
        for place in get_args(Place):
            length = path_length(step_distances(model, label, network, space, place, count, seed))
            title = f"perceptual path length in {space}, {'all the way' if place == 'full' else 'at its ends'}"
            measurements[f"ppl_{space}_{place}"] = Measurement(
                title, length.value, settings, better="lower", interval=length.interval
            )
    return measurements


@torch.inference_mode()
def step_distances(
    model: StyleModel,
    label: Tensor | None,
    network: PerceptualNetwork,
    space: Space,
    place: Place,
    count: int,
    seed: int,
) -> Tensor:
    """Return the perceptual distance of the images at t and t + ε of each way, float64 [count], on the CPU.

    Args:
        model: the model.
        label: class of each way, int64 [count], for a conditional model; else ``None``.
        network: what tells how far images are apart.
        space: where ways lie.
        place: ``full``: t is uniform in [0, 1]; ``end``: t is 0.
        count: the number of ways.
        seed: seed of the ways.
    """
    step = max(1, min(images_per_pass(model.image_shape), network.batch) // 2)
    found = []
    with progress(f"path length, {space}, {place}", count, "ways") as advance:
        for first in range(0, count, step):
            noise = Noise(seed, range(first, min(first + step, count)), model.device)
            begin, end = (noise.normal(name, model.latent_dim) for name in ("z", "z of the end"))
            classes = None if label is None else label[first : first + step].to(model.device)
            share = noise.uniform("share of the way", 1) if place == "full" else begin.new_zeros(len(begin), 1)
            if space == "w":
                begin, end = model.map_latents(begin, classes), model.map_latents(end, classes)
            # In float64: a step is so short that float32 would round its ends.
            begin, end, share = begin.double(), end.double(), share.double()
            between = spherical_interpolation if space == "z" else torch.lerp
            layers = []
            for at in (share, share + EPSILON):
                latents = between(begin, end, at).float()
                styles = model.map_latents(latents, classes) if space == "z" else latents
                layers.append(network.layers_of_floats(model.synthesise(styles, noise)))
            found.append(perceptual_distance(*layers).double().cpu())
            advance(len(noise))
    return torch.cat(found)


@torch.inference_mode()
def measure_separability(
    model: StyleModel, held_out: HeldOut, classifier: TrainedClassifier, count: int, seed: int
) -> dict[str, Measurement]:
    """Measure the linear separability of classes in z and in w: ``separability_z``, ``separability_w``.

    The attributes are the classes that the classifier sees in samples, each against all others. As in the paper, the
    half of the samples that it is surest of is kept: here the same half for all attributes, by the odds of the class
    that it sees, so that rare classes stay among them.

    Args:
        model: the model.
        held_out: rows of the classifier's classes, which a conditional model draws in their fractions.
        classifier: what sees the classes of samples.
        count: the number of samples.
        seed: seed of the samples.
    """
    label = classes_to_sample(held_out, count, seed) if model.classes else None
    step = images_per_pass(model.image_shape)
    found: dict[str, list[Tensor]] = {"z": [], "w": [], "logits": []}
    with progress("separability", count, "samples") as advance:
        for first in range(0, count, step):
            noise = Noise(seed, range(first, min(first + step, count)), model.device)
            latents = noise.normal("z", model.latent_dim)
            styles = model.map_latents(latents, None if label is None else label[first : first + step].to(model.device))
            pixels = from_signed(model.synthesise(styles, noise))
            for name, values in (("z", latents), ("w", styles), ("logits", classifier.model.logits(pixels))):
                found[name].append(values.double().cpu())
            advance(len(noise))
    logits = torch.cat(found["logits"])
    highest, seen = logits.max(1)
    odds = highest - logits.scatter(1, seen[:, None], -torch.inf).logsumexp(1)
    kept = odds.argsort(descending=True, stable=True)[: (count + 1) // 2].sort().values
    classes = logits.shape[1]
    # Of two classes, one tells the other.
    attributes = seen[kept, None] == torch.arange(classes)[1 if classes == 2 else 0 :]
    settings = held_out.settings | class_settings(model)
    settings |= {
        "classifier_weights": classifier.weights,
        "attributes": f"{classes} classes, each against the others",
        "samples": count,
        "kept": len(kept),
        "kept_by": "odds of the class seen",
        "svm": f"linear, squared hinge, C = {PENALTY:g}, fitted on one half and measured on the other, both ways",
        "truncation": "none",
        "noise": RULE,
        "seed": seed,
    }
    caution = ""
    if (distinct := len(seen[kept].unique())) < classes:
        caution = f"the classifier sees {distinct} of {classes} classes in the samples that it is surest of"
    measurements = {}
    for space in get_args(Space):
        measured = separability(torch.cat(found[space])[kept], attributes)
        title = f"linear separability of classes in {space}"
        measurements[f"separability_{space}"] = Measurement(
            title, measured.value, settings, better="lower", interval=measured.interval, caution=caution
        )
    return measurements
