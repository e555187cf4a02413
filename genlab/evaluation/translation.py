"""Figures of CycleGANs: how near translations come to the other domain, and to true counterparts where these are known.

Beside each stands that of the images left as they are: only with it can one tell what translating gained.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from genlab.data.ingest.sources.synthetic import counterparts, has_counterparts
from genlab.evaluation.extractors import EfficientNetLite, Extractor
from genlab.evaluation.features import distance_figures, extract, held_out_features
from genlab.evaluation.held_out import HeldOut
from genlab.evaluation.measurements import Better, Figure, Passport
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


def translation_figures(
    model: CycleGAN, domains: Mapping[str, HeldOut], extractor: Extractor, images: int, seed: int
) -> dict[str, Figure]:
    """The figures of both directions, see :func:`direction_figures`, and ``kid``, the mean of both KIDs.

    Args:
        model: whose images are of the domains' size.
        domains: the images of ``a`` and ``b``.
        extractor: whose features FID and KID are taken in.
        images: how many of each are translated, at most, drawn at random.
        seed: of the draws.
    """
    figures: dict[str, Figure] = {}
    for direction in model.directions:
        source, _, target = direction.partition("_to_")
        figures |= direction_figures(
            model, direction, domains[source].drawn(images, seed), domains[target], extractor, seed
        )
    return {"kid": _mean_kid(extractor, {each: figures[f"kid_{each}"] for each in model.directions})} | figures


def direction_figures(
    model: CycleGAN, direction: str, source: HeldOut, target: HeldOut, extractor: Extractor, seed: int
) -> dict[str, Figure]:
    """What a direction's translations are worth.

    * ``fid``, ``kid``: of the translations against the other domain's real images.
    * ``cycle``, ``identity``: |F(G(x)) − x| and |F(x) − x| of images x of the source domain, G being the direction's
      generator and F the other: means over pixels in [-1, 1], as in training. No model is ranked by them, since one
      that changes nothing has none.
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
    generator, back = getattr(model, direction), getattr(model, f"{there}_to_{here}")
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
    made = _distances(extractor, source, target, features, seed) | _nearness_figures(translated, source, network, there)
    baseline = _distances(extractor, source, target, as_they_are, seed)
    baseline |= _nearness_figures(untranslated, source, network, there)
    figures = {}
    for kind, figure in made.items():
        before = baseline[kind]
        figures[f"{kind}_{direction}"] = replace(figure, title=f"{figure.title}, {here} → {there}")
        figures[f"untranslated_{kind}_{direction}"] = replace(
            before, title=f"{before.title}, {here} untranslated", better=None
        )
    formulas = {"cycle": f"{here} → {there} → {here}", "identity": f"{there} → {here} of {here}"}
    for kind, values in errors.items():
        title = f"{kind} error, {formulas[kind]}, mean |error| in range [-1, 1]"
        figures[f"{kind}_{here}"] = _mean(title, values, source.passport)
    return figures


def counterparts_are_known(source: HeldOut, target: HeldOut) -> bool:
    """Whether both are drawn scenes, one of each domain."""
    one, other = source.shards.manifest, target.shards.manifest
    return has_counterparts(one) and has_counterparts(other) and one.origin.path != other.origin.path


def _mean_kid(extractor: Extractor, directions: Mapping[str, Figure]) -> Figure:
    """The mean of the directions' KIDs, whose errors are independent but for the images that they share."""
    passport: Passport = {}
    for direction, figure in directions.items():
        for name, value in figure.passport.items():
            shared = all(other.passport.get(name) == value for other in directions.values())
            passport[name if shared else f"{name}_{direction}"] = value
    mean = sum(figure.value for figure in directions.values()) / len(directions)
    half = math.hypot(*(figure.half_width or 0.0 for figure in directions.values())) / len(directions)
    title = f"KID in {extractor.label} features, mean of both directions"
    return Figure(title, mean, passport, better="lower", interval=(mean - half, mean + half))


def _distances(extractor: Extractor, source: HeldOut, target: HeldOut, made: Tensor, seed: int) -> dict[str, Figure]:
    """FID and KID of ``made``, features of ``source`` or of what became of it, against the real ``target``."""
    origin = {f"source_{name}": value for name, value in source.passport.items() if name != "genlab"}
    reference = held_out_features(target, extractor)
    return distance_figures(extractor, reference, target.passport | origin, made, seed)


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


def _nearness_figures(
    nearness: Mapping[str, list[Tensor]], source: HeldOut, network: EfficientNetLite | None, there: str
) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    if network is None:
        return figures
    for kind, values in nearness.items():
        name, unit, better = NEARNESS[kind]
        passport = source.passport | (network.layers_passport if kind == "perceptual" else {})
        figures[kind] = _mean(f"{name} to the true {there}", values, passport, unit, better)
    return figures


def _error(images: Tensor, references: Tensor) -> Tensor:
    """Mean absolute difference of each image, float64 [N], on the CPU."""
    return (images - references).abs().flatten(1).double().mean(1).cpu()


def _mean(title: str, values: list[Tensor], passport: Passport, unit: str = "", better: Better | None = None) -> Figure:
    all_values = torch.cat(values).double()
    return Figure(title, float(all_values.mean()), passport, unit, better, mean_interval(all_values))
