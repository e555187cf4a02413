"""Measurements of CycleGANs: the distance of translations from the other domain, and from true counterparts if known.

Beside each stands the same measurement of the untranslated images, which shows what translating gained.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from genlab.data.ingest.sources.synthetic import counterparts, has_counterparts
from genlab.evaluation.extractors import EfficientNetLite, Extractor
from genlab.evaluation.features import extract, held_out_features, measure_distances
from genlab.evaluation.held_out import HeldOut
from genlab.evaluation.measurements import Better, Measurement, Settings
from genlab.metrics.image import SSIM_WINDOW, perceptual_distance, psnr, ssim
from genlab.metrics.intervals import mean_interval
from genlab.models.cyclegan import CycleGAN
from genlab.models.pixels import from_signed, to_signed

NEARNESS: dict[str, tuple[str, str, Better]] = {
    "psnr": ("PSNR", "dB", "higher"),
    "ssim": ("SSIM", "", "higher"),
    "perceptual": ("perceptual distance", "", "lower"),
}
"""How near images come to their counterparts: title, unit, and which is better."""


def measure_translations(
    model: CycleGAN, domains: Mapping[str, HeldOut], extractor: Extractor, images: int, seed: int
) -> dict[str, Measurement]:
    """Measure each direction of a model, see :func:`measure_direction`; and ``kid``, the mean of both KIDs.

    Args:
        model: the model; its images are of the domains' size. One of a single direction gets no ``kid``.
        domains: the images of ``a`` and ``b``.
        extractor: whose features FID and KID are taken in.
        images: how many of each are translated, at most, drawn at random.
        seed: of the draws.
    """
    measurements: dict[str, Measurement] = {}
    for direction in model.directions:
        source, _, target = direction.partition("_to_")
        measurements |= measure_direction(
            model, direction, domains[source].drawn(images, seed), domains[target], extractor, seed
        )
    if len(model.directions) < 2:
        return measurements
    kids = {direction: measurements[f"kid_{direction}"] for direction in model.directions}
    return {"kid": _mean_kid(extractor, kids)} | measurements


def measure_direction(
    model: CycleGAN, direction: str, source: HeldOut, target: HeldOut, extractor: Extractor, seed: int
) -> dict[str, Measurement]:
    """What a direction's translations are worth.

    * ``fid``, ``kid``: of the translations against the other domain's real images.
    * ``cycle``, ``identity``: |F(G(x)) − x| and |F(x) − x| of images x of the source domain, G being the direction's
      generator and F the other: means over pixels in [-1, 1], as in training. No model is ranked by them, since one
      that changes nothing has none. A model of a single direction, which has no F, has neither.
    * ``psnr``, ``ssim``, ``perceptual``: to the true counterparts, where both domains are drawn scenes.

    All but the errors also of the untranslated images, as ``untranslated_...``, by which no model is ranked either.

    Args:
        model: whose images are of the domains' size.
        direction: one of ``model.directions``.
        source: images to translate.
        target: real images of the other domain.
        extractor: whose features FID and KID are taken in.
        seed: of the draws for their intervals.
    """
    here, _, there = direction.partition("_to_")
    generator, opposite = model.generator(direction), f"{there}_to_{here}"
    back = model.generator(opposite) if opposite in model.directions else None
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
            outputs = generator(images)
            if back is not None:
                errors["cycle"].append(_error(back(outputs), images))
                errors["identity"].append(_error(back(images), images))
            pixels = from_signed(outputs).cpu()
            if network is not None:
                hidden = counterparts(source.shards, source.rows[rows.first : rows.first + len(pixels)])
                assert hidden is not None, "they are known, or there were no network"
                for nearness, shown in ((translated, pixels), (untranslated, rows.image)):
                    for kind, values in _nearness(shown, torch.from_numpy(hidden), network).items():
                        nearness[kind].append(values)
            yield pixels

    features = extract(extractor, translations(), len(source), f"{here} → {there}")
    as_they_are = held_out_features(source, extractor)
    made = _distances(extractor, source, target, features, seed) | _nearness_measurements(
        translated, source, network, there
    )
    baseline = _distances(extractor, source, target, as_they_are, seed)
    baseline |= _nearness_measurements(untranslated, source, network, there)
    measurements = {}
    for kind, measurement in made.items():
        before = baseline[kind]
        measurements[f"{kind}_{direction}"] = replace(measurement, title=f"{measurement.title}, {here} → {there}")
        measurements[f"untranslated_{kind}_{direction}"] = replace(
            before, title=f"{before.title}, {here} untranslated", better=None
        )
    formulas = {"cycle": f"{here} → {there} → {here}", "identity": f"{there} → {here} of {here}"}
    for kind, values in errors.items():
        title = f"{kind} error, {formulas[kind]}, mean |error| in range [-1, 1]"
        measurements[f"{kind}_{here}"] = _mean(title, values, source.settings)
    return measurements


def counterparts_are_known(source: HeldOut, target: HeldOut) -> bool:
    """Whether both are drawn scenes, one of each domain."""
    one, other = source.shards.manifest, target.shards.manifest
    return has_counterparts(one) and has_counterparts(other) and one.origin.path != other.origin.path


def _mean_kid(extractor: Extractor, directions: Mapping[str, Measurement]) -> Measurement:
    """The mean of the directions' KIDs, whose errors are independent but for the images that they share."""
    settings: Settings = {}
    for direction, measurement in directions.items():
        for name, value in measurement.settings.items():
            shared = all(other.settings.get(name) == value for other in directions.values())
            settings[name if shared else f"{name}_{direction}"] = value
    mean = sum(measurement.value for measurement in directions.values()) / len(directions)
    half = math.hypot(*(measurement.half_width or 0.0 for measurement in directions.values())) / len(directions)
    title = f"KID in {extractor.label} features, mean of both directions"
    return Measurement(title, mean, settings, better="lower", interval=(mean - half, mean + half))


def _distances(
    extractor: Extractor, source: HeldOut, target: HeldOut, made: Tensor, seed: int
) -> dict[str, Measurement]:
    """FID and KID of ``made``, features of ``source`` or of what became of it, against the real ``target``."""
    origin = {f"source_{name}": value for name, value in source.settings.items() if name != "genlab"}
    reference = held_out_features(target, extractor)
    return measure_distances(extractor, reference, target.settings | origin, made, seed)


def _nearness(pixels: Tensor, truth: Tensor, network: EfficientNetLite) -> dict[str, Tensor]:
    """How near images come to their counterparts, uint8 [N, H, W, C] both: [N] of each kind."""
    distances = [
        perceptual_distance(network.layers(images), network.layers(references)).cpu()
        for images, references in zip(pixels.split(network.batch), truth.split(network.batch), strict=True)
    ]
    values = {"psnr": psnr(pixels, truth)}
    if min(pixels.shape[1:3]) >= SSIM_WINDOW:
        values["ssim"] = ssim(pixels, truth)
    return values | {"perceptual": torch.cat(distances)}


def _nearness_measurements(
    nearness: Mapping[str, list[Tensor]], source: HeldOut, network: EfficientNetLite | None, there: str
) -> dict[str, Measurement]:
    measurements: dict[str, Measurement] = {}
    if network is None:
        return measurements
    for kind, values in nearness.items():
        name, unit, better = NEARNESS[kind]
        settings = source.settings | (network.layers_settings if kind == "perceptual" else {})
        measurements[kind] = _mean(f"{name} to the true {there}", values, settings, unit, better)
    return measurements


def _error(images: Tensor, references: Tensor) -> Tensor:
    """Mean absolute difference of each image, float64 [N], on the CPU."""
    return (images - references).abs().flatten(1).double().mean(1).cpu()


def _mean(
    title: str, values: list[Tensor], settings: Settings, unit: str = "", better: Better | None = None
) -> Measurement:
    all_values = torch.cat(values).double()
    return Measurement(title, float(all_values.mean()), settings, unit, better, mean_interval(all_values))
