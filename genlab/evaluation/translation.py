"""Measurements of translators: the distance of translations from the other domain, and from true counterparts if known.

Beside each stands the same measurement of the untranslated images, which shows what translating gained.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genlab.data.format.manifest import Manifest
from genlab.data.ingest.sources.synthetic import counterparts, has_counterparts
from genlab.data.stream.batches import Batch
from genlab.evaluation.extractors import EfficientNetLite, Extractor
from genlab.evaluation.features import extract, features_of, measure_distances
from genlab.evaluation.held_out import HeldOut
from genlab.evaluation.measurements import Better, Measurement, Settings, mean_measurement
from genlab.metrics.distances import Distance, FeaturePair, mean_kernel_distance
from genlab.metrics.image import (
    SSIM_WINDOW,
    apply_colour_curve,
    best_colour_curve,
    perceptual_distance,
    psnr,
    ssim,
)
from genlab.models.model import Translator
from genlab.models.pixels import from_signed, to_signed

SIMILARITIES: dict[str, tuple[str, Better]] = {
    "ssim": ("SSIM", "higher"),
    "perceptual": ("perceptual distance", "lower"),
}
"""Measurements of images and their true counterparts besides the PSNR: title, and which is better."""
COLOUR_CURVE = "256 levels a channel, least squares on these very rows"
"""Setting of a measurement under the best colour curve."""


def measure_translations(
    model: Translator, domains: Mapping[str, HeldOut], extractor: Extractor, images: int, seed: int
) -> dict[str, Measurement]:
    """Measure each direction of a model, see :func:`measure_direction`; and ``kid``, the mean of both KIDs.

    Args:
        model: a model for images of the domains' size. One of a single direction gets no ``kid``.
        domains: the images of ``a`` and ``b``.
        extractor: the network in whose features FID and KID are taken.
        images: how many images of each domain are translated, at most; they are drawn at random.
        seed: seed of the draws.
    """
    sources = {domain: held_out.drawn(images, seed) for domain, held_out in domains.items()}
    measured = {}
    for direction in model.directions:
        source, _, target = direction.partition("_to_")
        measured[direction] = measure_direction(model, direction, sources[source], domains[target], extractor, seed)
    measurements = {name: one for direction in measured.values() for name, one in direction.measurements.items()}
    if len(measured) < 2:
        return measurements
    features = {domain: features_of(held_out, extractor) for domain, held_out in domains.items()}
    rows = {domain: torch.from_numpy(held_out.rows) for domain, held_out in domains.items()}
    drawn = {domain: torch.from_numpy(held_out.rows) for domain, held_out in sources.items()}
    there, back = measured
    a, _, b = there.partition("_to_")
    both = mean_kernel_distance(
        FeaturePair(measured[there].features, drawn[a], features[b], rows[b]),
        FeaturePair(features[a], rows[a], measured[back].features, drawn[b]),
    )
    kids = {direction: measurements[f"kid_{direction}"] for direction in measured}
    return {"kid": _mean_kid(extractor, kids, both)} | measurements


@dataclass(frozen=True)
class MeasuredDirection:
    """What was measured of one direction."""

    measurements: dict[str, Measurement]
    features: Tensor
    """Features of the translations, float32 [N, D], in the order of the source's rows."""


def measure_direction(
    model: Translator, direction: str, source: HeldOut, target: HeldOut, extractor: Extractor, seed: int
) -> MeasuredDirection:
    """Measure the translations of one direction.

    * ``kid``, ``fid``, ``fid_infinity``: distances of the translations from real images of the other domain, see
      :func:`genlab.evaluation.features.measure_distances`.
    * ``cycle``, ``identity``: |F(G(x)) − x| and |F(x) − x| of images x of the source domain, G being the direction's
      generator and F the other: means over pixels in [-1, 1], as in training. No model is ranked by them, since a
      model that changes nothing has an error of 0. A model of a single direction, which has no F, has neither.
    * ``psnr``, ``ssim``, ``perceptual``: similarity to the true counterparts, where both domains are drawn scenes; and
      with them ``curve_psnr`` and ``gain``, see :func:`measure_psnr`.

    All but the errors and the last two are measured on the untranslated images too, as ``untranslated_...``, by which
    no model is ranked either.

    Args:
        model: a model for images of the domains' size.
        direction: one of ``model.directions``.
        source: images to translate.
        target: real images of the other domain.
        extractor: the network in whose features FID and KID are taken.
        seed: seed of the draws for their intervals.
    """
    here, _, there = direction.partition("_to_")
    opposite = f"{there}_to_{here}"
    network = None
    if counterparts_are_known(source, target):
        network = extractor if isinstance(extractor, EfficientNetLite) else EfficientNetLite(model.device)
    errors: dict[str, list[Tensor]] = defaultdict(list)
    translated: dict[str, list[Tensor]] = defaultdict(list)
    untranslated: dict[str, list[Tensor]] = defaultdict(list)

    @torch.inference_mode()
    def translations() -> Iterator[Tensor]:
        for rows in source.batches():
            images = to_signed(rows.image.to(model.device))
            outputs = model.translate_signed(images, direction)
            if opposite in model.directions:
                errors["cycle"].append(_error(model.translate_signed(outputs, opposite), images))
                errors["identity"].append(_error(model.translate_signed(images, opposite), images))
            pixels = from_signed(outputs).cpu()
            if network is not None:
                truth = _counterparts(source, rows)
                for found, shown in ((translated, pixels), (untranslated, rows.image)):
                    for kind, values in _similarities(shown, truth, network).items():
                        found[kind].append(values)
            yield pixels

    features = extract(extractor, translations(), len(source), f"{here} → {there}")
    made = _distances(extractor, source, target, features, seed)
    before = _distances(extractor, source, target, features_of(source, extractor), seed)
    measurements = {}
    if network is not None:
        curve = colour_curve_psnr(lambda: ((rows.image, _counterparts(source, rows)) for rows in source.batches()))
        psnrs = torch.cat(untranslated.pop("psnr")), torch.cat(translated.pop("psnr")), curve
        measurements = measure_psnr(direction, *psnrs, source.settings)
        made |= _measure_similarities(translated, source, network, there)
        before |= _measure_similarities(untranslated, source, network, there)
    for kind, measurement in made.items():
        measurements[f"{kind}_{direction}"] = replace(measurement, title=f"{measurement.title}, {here} → {there}")
        measurements[f"untranslated_{kind}_{direction}"] = replace(
            before[kind], title=f"{before[kind].title}, {here} untranslated", better=None
        )
    formulas = {"cycle": f"{here} → {there} → {here}", "identity": f"{there} → {here} of {here}"}
    for kind, values in errors.items():
        title = f"{kind} error, {formulas[kind]}, mean |error| in range [-1, 1]"
        measurements[f"{kind}_{here}"] = mean_measurement(title, torch.cat(values), source.settings)
    return MeasuredDirection(measurements, features)


def measure_psnr(
    direction: str, untranslated: Tensor, translated: Tensor, curve: Tensor, settings: Settings
) -> dict[str, Measurement]:
    """Measure how near images come to their true counterparts, pixel by pixel, in dB.

    ``psnr_DIRECTION`` is that of the translations, ``untranslated_psnr_DIRECTION`` that of the images as they are,
    ``curve_psnr_DIRECTION`` that of the images under the best colour curve, which bounds what a change of colours alone
    can reach, and ``gain_DIRECTION`` what translating gained: the first less the second.

    Args:
        direction: such as ``a_to_b``.
        untranslated: the PSNR of each image, float64 [N].
        translated: the PSNR of each translation, float64 [N].
        curve: the PSNR of each image under the curve, see :func:`colour_curve_psnr`, float64 [N].
        settings: what the images depend on.
    """
    here, _, there = direction.partition("_to_")
    title = f"PSNR to the true {there}"
    after = mean_measurement(f"{title}, {here} → {there}", translated, settings, "dB", "higher")
    before = mean_measurement(f"{title}, {here} untranslated", untranslated, settings, "dB")
    fitted = settings | {"colour_curve": COLOUR_CURVE}
    gain = mean_measurement(f"gain in {title}, {here} → {there}", translated - untranslated, settings, "dB", "higher")
    return {
        f"psnr_{direction}": after,
        f"untranslated_psnr_{direction}": before,
        f"curve_psnr_{direction}": mean_measurement(
            f"{title}, {here} under the best colour curve", curve, fitted, "dB"
        ),
        f"gain_{direction}": replace(gain, value=after.value - before.value),
    }


def colour_curve_psnr(pairs: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> Tensor:
    """Compute the PSNR of images to their true counterparts under the best colour curve, dB, float64 [N].

    The curve (:func:`genlab.metrics.image.best_colour_curve`) is fitted on the images that it is measured on, so
    no colour curve has a smaller squared error.

    Args:
        pairs: gives the images and their counterparts, uint8 [N, H, W, C] each; called once to fit and once to measure.
    """
    curve = best_colour_curve(pairs())
    return torch.cat([psnr(apply_colour_curve(curve, images), truth) for images, truth in pairs()])


def counterparts_are_known(source: HeldOut, target: HeldOut) -> bool:
    """Tell whether the domains are the two of the drawn scenes, so that each image has a true counterpart."""
    return has_scene_counterparts(source.shards.manifest, target.shards.manifest)


def has_scene_counterparts(one: Manifest, other: Manifest) -> bool:
    """Tell whether two data sets are the two domains of the drawn scenes."""
    return has_counterparts(one) and has_counterparts(other) and one.origin.path != other.origin.path


def _mean_kid(extractor: Extractor, directions: Mapping[str, Measurement], both: Distance) -> Measurement:
    """Measure the mean of the KIDs of the directions, which is ``both``; no interval where one of them has none."""
    settings: Settings = {}
    for direction, measurement in directions.items():
        for name, value in measurement.settings.items():
            shared = all(other.settings.get(name) == value for other in directions.values())
            settings[name if shared else f"{name}_{direction}"] = value
    title = f"KID in {extractor.label} features, mean of both directions"
    interval = both.interval if all(measurement.interval for measurement in directions.values()) else None
    return Measurement(title, both.value, settings, better="lower", interval=interval)


def _distances(
    extractor: Extractor, source: HeldOut, target: HeldOut, made: Tensor, seed: int
) -> dict[str, Measurement]:
    """Measure FID and KID of features of ``source``, translated or not, against the real images of ``target``."""
    origin = {f"source_{name}": value for name, value in source.settings.items() if name != "genlab"}
    reference = features_of(target, extractor)
    return measure_distances(extractor, reference, target.settings | origin, made, seed)


def _counterparts(source: HeldOut, batch: Batch) -> Tensor:
    """Draw the true counterparts of rows of scenes: uint8 [N, H, W, 3]."""
    drawn = counterparts(source.shards, batch.rows)
    assert drawn is not None, "counterparts are known"
    return torch.from_numpy(drawn)


def _similarities(pixels: Tensor, truth: Tensor, network: EfficientNetLite) -> dict[str, Tensor]:
    """Compare images with their counterparts, uint8 [N, H, W, C] both: a value of each kind for each image, [N]."""
    distances = [
        perceptual_distance(network.layers(images), network.layers(references)).cpu()
        for images, references in zip(pixels.split(network.batch), truth.split(network.batch), strict=True)
    ]
    values = {"psnr": psnr(pixels, truth)}
    if min(pixels.shape[1:3]) >= SSIM_WINDOW:
        values["ssim"] = ssim(pixels, truth)
    return values | {"perceptual": torch.cat(distances)}


def _measure_similarities(
    similarities: Mapping[str, list[Tensor]], source: HeldOut, network: EfficientNetLite, there: str
) -> dict[str, Measurement]:
    measurements: dict[str, Measurement] = {}
    for kind, values in similarities.items():
        name, better = SIMILARITIES[kind]
        settings = source.settings | (network.layers_settings if kind == "perceptual" else {})
        measurements[kind] = mean_measurement(f"{name} to the true {there}", torch.cat(values), settings, "", better)
    return measurements


def _error(images: Tensor, references: Tensor) -> Tensor:
    """Compute the mean absolute difference of each image, float64 [N], on the CPU."""
    return (images - references).abs().flatten(1).double().mean(1).cpu()
