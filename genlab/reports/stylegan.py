"""Report of a StyleGAN: its samples, what truncation, styles and noise do, and the training images nearest to them."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.core.errors import GenlabError
from genlab.core.storage import names
from genlab.core.text import counted
from genlab.data.format.splits import overlap
from genlab.data.stream.order import evenly_spaced
from genlab.evaluation.extractors import EfficientNetLite
from genlab.evaluation.features import cached_features
from genlab.evaluation.held_out import HeldOut
from genlab.evaluation.measurements import Evaluation, Settings
from genlab.evaluation.samples import nearest_training_images
from genlab.imaging.charts import INK, new_chart, render, style_axes
from genlab.imaging.images import Pixels, encode_film
from genlab.imaging.sheets import PAD, transparent_sheet
from genlab.models.model import images_per_pass
from genlab.models.noise import Noise
from genlab.models.pixels import from_signed
from genlab.models.stylegan import (
    LatentInterpolationOptions,
    MixingOptions,
    SamplingOptions,
    StyleGAN,
)
from genlab.recipes.stylegan import SHOWN, SHOWN_COLUMNS, TRUNCATION
from genlab.reports.curves import LINES, Panel
from genlab.reports.family import FamilyReport, ModelReport
from genlab.reports.page import (
    CHART_WIDTH,
    Figure,
    Picture,
    Section,
    Table,
    chart,
    image_grid,
    pictures,
    pixel_picture,
    sheet_picture,
)
from genlab.reports.run import RunRecord
from genlab.reports.warning_signs import always_wins, overfits, samples_alike, sure_of_training_images
from genlab.store import model_directory
from genlab.store.evaluation_file import FILE_NAME

SIDE = 128
"""The greatest side of an image in a sheet, in pixels; larger ones are shrunk."""
COLUMNS, SAMPLE_ROWS = 8, 6
CLASSES = 10
"""The most classes that have a column."""
SHEETS_ACROSS = 2
STRIP_ROWS = 4
STRIP = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)
"""Truncations ψ of the columns of the strip."""
MIXED_ROWS, MIXED_COLUMNS = 3, 4
NOISY_ROWS, NOISY_COLUMNS = 3, 5
NOISES = 100
"""Noises that a standard deviation is taken over, as in figure 4 of the paper."""
STEPS, WAYS = 9, 4
FILM_STEPS, FILM_MILLISECONDS = 12, 80
"""Images from one draw to the next in the film, and how long each is shown."""
COMPARED = 64
"""Samples, and held-out images, that are compared with each other and with training images."""
NEAREST = 8
"""Samples that are shown with their nearest training images."""
TRAINING_ROWS = 2000
"""The most training images whose features are taken for a report; those of more must have been taken before."""
CURVES = {"kid": "KID", "precision": "precision", "recall": "recall"}
"""Measurements that are drawn over ψ, with their titles."""
CURVE_HEIGHT = 240
"""Height of a chart over ψ, in CSS pixels."""

PANELS = (
    Panel("loss-generator", "generator's loss", {"generator": ""}),
    Panel("loss-discriminator", "discriminator's loss", {"discriminator": ""}),
    Panel("logits", "discriminator's logits", {"real_logit": "real", "fake_logit": "generated"}),
    Panel("real-sign", "r_t: sign of real logits", {"real_sign": ""}),
    Panel("r1", "R1: squared gradient at real images", {"r1": ""}),
    Panel("gradient-penalty", "gradient penalty", {"gradient_penalty": ""}),
    Panel("path-length", "path length", {"path_length": ""}),
    Panel("path-length-loss", "squared deviation of path lengths", {"path_length_loss": ""}),
    Panel("augmentation", "probability of augmentations", {"augmentation": ""}),
)


def report_model(run: RunRecord, model: StyleGAN) -> ModelReport:
    """Show what the generator draws and how it is steered; compare its samples with real images."""
    seed = int(run.config["run"]["seed"])
    drawn = [_samples(model, seed), *_samples_by_epoch(run, model)]
    sections = [Section("Samples", figures=tuple(drawn)), _truncation(run, model, seed)]
    if model.architecture.styles != "none":
        sections.append(_mixing(model, seed))
    if model.architecture.noise:
        sections.append(_noise(model, seed))
    sections.append(_interpolation(model, seed))
    notes = []
    try:
        samples, real = model.sample(COMPARED, seed).cpu(), _held_out(run)
        notes = [sign for sign in [samples_alike(samples, real)] if sign]
        sections.append(_nearest(run, samples, real))
    except GenlabError as error:
        notes.append(f"Samples could not be compared with real images: {error}")
    return ModelReport(tuple(sections), notes=tuple(notes))


def warnings(run: RunRecord) -> list[str]:
    """Find a discriminator that always wins, or that knows the training images by heart."""
    signs = [overfits(run.train, run.test or run.val)]
    if run.config["objective"]["loss"] == "nonsaturating":
        signs.append(sure_of_training_images(run.train, "real_sign"))
        signs.append(always_wins(run.train, "discriminator", None, "bce", terms=2))
    return [sign for sign in signs if sign]


def _samples(model: StyleGAN, seed: int) -> Figure:
    """Show samples as they come, and truncated; those of a conditional model have a class a column."""
    columns = min(model.classes, CLASSES) or COLUMNS
    count = columns * SAMPLE_ROWS
    label = torch.arange(columns).repeat(SAMPLE_ROWS) if model.classes else None
    caption = f"The first {count} pictures of seed {seed}, none left out: as they come (ψ = 1), and truncated."
    if model.classes:
        some = f", the first {columns} of {model.classes}" if columns < model.classes else ""
        caption += f" A class a column{some}, in the order of their numbers."
    parts = []
    for name, truncation in (("samples", 1.0), ("samples-truncated", TRUNCATION)):
        images = _shrunk(model.sample(count, seed, label, SamplingOptions(truncation)))
        parts.append(sheet_picture(name, f"ψ = {truncation:g}", transparent_sheet(images, columns)))
    return pictures(caption, parts, SHEETS_ACROSS)


def _samples_by_epoch(run: RunRecord, model: StyleGAN) -> Iterator[Figure]:
    """Show the samples that training drew on its way."""
    height, width, channels = model.image_shape
    rows = SHOWN // SHOWN_COLUMNS
    shape = rows, height + PAD, SHOWN_COLUMNS, width + PAD, channels
    parts = []
    for title, sheet in run.pictures("samples").items():
        tiles = sheet[PAD:, PAD:]
        if tiles.size == np.prod(shape):  # else another genlab drew them
            images = tiles.reshape(shape).transpose(0, 2, 1, 3, 4)[:, :, :height, :width]
            small = _shrunk(torch.from_numpy(images.reshape(-1, height, width, channels)))
            name = f"samples-{title.replace(' ', '-')}"
            parts.append(sheet_picture(name, title, transparent_sheet(small, SHOWN_COLUMNS)))
    if len(parts) > 1:
        yield pictures("The same seed's first pictures, ψ = 1, as training drew them on its way.", parts, SHEETS_ACROSS)


def _truncation(run: RunRecord, model: StyleGAN, seed: int) -> Section:
    """Show pictures at several ψ, and what evaluations at several ψ measured."""
    strips = [model.sample(STRIP_ROWS, seed, options=SamplingOptions(psi, "fixed")) for psi in STRIP]
    images = torch.stack(strips, 1).flatten(0, 1)
    caption = (
        f"From left to right ψ = {', '.join(f'{psi:g}' for psi in STRIP)}, all with the same noise. At 0 each is the "
        "average picture, below 0 its opposite."
    )
    figures = [image_grid("truncation", caption, _shrunk(images), len(STRIP))]
    text = "Truncation moves the style w towards the mean style: mean + ψ (w − mean)."
    if curve := _truncation_curve(_evaluations(run)):
        figures.append(curve)
    else:
        text += (
            " Curves over ψ are drawn here once the run's folder holds evaluations at several ψ, each in a file "
            "evaluation….json."
        )
    return Section("Truncation", text, tuple(figures))


def _evaluations(run: RunRecord) -> list[Evaluation]:
    """Read the evaluations of the run's model that lie in its folder, evaluation.json first."""
    found = []
    files = (name for name in names(run.directory, "evaluation") if name.endswith(".json"))
    for name in sorted(files, key=lambda name: (name != FILE_NAME, name)):
        try:
            found.append(Evaluation.load(run.directory / name))
        except GenlabError:  # it may be anything
            continue
    weights = model_directory.describe(run.model_directory)["weights"]["sha256"]
    return [one for one in found if one.model["weights"] == weights]


def _truncation_curve(evaluations: Sequence[Evaluation]) -> Figure | None:
    """Draw what was measured over ψ, of those evaluations that differ from the first in ψ alone."""
    drawn = []
    for name, title in CURVES.items():
        measured = [one.measurements[name] for one in evaluations if name in one.measurements]
        points = {}
        for measurement in measured:
            if _besides_truncation(measurement.settings) == _besides_truncation(measured[0].settings):
                points[float(measurement.settings["sample_truncation"])] = measurement
        if len(points) > 1:
            drawing = new_chart(CHART_WIDTH, CURVE_HEIGHT)
            axis = drawing.subplots()
            drawing.subplots_adjust(left=0.17, right=0.96, bottom=0.19, top=0.88)
            psi = sorted(points)
            errors = [points[one].half_width or 0.0 for one in psi]
            values = [points[one].value for one in psi]
            axis.errorbar(psi, values, errors, color=LINES[0], marker="o", markersize=4, capsize=2, linewidth=1.6)
            axis.set_title(title, loc="left", fontsize=9.5, fontweight="bold", color=INK)
            axis.set_ylim(bottom=0)
            style_axes(axis, "ψ", "")
            drawn.append(chart(f"truncation-{name}", render(drawing)))
    if not drawn:
        return None
    caption = "What evaluations at several ψ measured, each on the same real images; bars are 95% intervals."
    return pictures(caption, drawn, len(drawn))


def _besides_truncation(settings: Settings) -> Settings:
    return {name: value for name, value in settings.items() if name != "sample_truncation"}


def _mixing(model: StyleGAN, seed: int) -> Section:
    """Show sheets in which rows get the coarse, middle or fine styles of columns."""
    rows = tuple(range(seed, seed + MIXED_ROWS))
    columns = tuple(range(seed + MIXED_ROWS, seed + MIXED_ROWS + MIXED_COLUMNS))
    label = _classes(model, len(rows) + len(columns))
    groups = model.style_groups
    parts = []
    for group in groups:
        grid = model.mix_styles(rows, columns, label, MixingOptions(TRUNCATION, styles=group))
        images = _shrunk(grid.flatten(0, 1))
        sheet = transparent_sheet(images, len(columns) + 1)
        sheet[PAD : PAD + images.shape[1], PAD : PAD + images.shape[2], -1] = 0  # where the sources meet
        parts.append(sheet_picture(f"mixing-{group}", f"{group} styles", sheet))
    caption = (
        f"Each picture is that of its row (left) with some of the {groups['fine'].stop} styles of its column's "
        f"(above), from the lowest resolution up: the first {len(groups['coarse'])}, the next {len(groups['middle'])}, "
        f"or the last {len(groups['fine'])}. ψ = {TRUNCATION:g}, all with the same noise."
    )
    return Section("Style mixing", figures=(pictures(caption, parts, len(parts)),))


def _noise(model: StyleGAN, seed: int) -> Section:
    """Show what the noise of the layers does: figures 4 and 5 of the paper."""
    figures = (_stochastic_variation(model, seed), _noise_of_layers(model, seed))
    return Section("Noise of the layers", figures=figures)


def _stochastic_variation(model: StyleGAN, seed: int) -> Figure:
    """Show pictures with several noises, and the standard deviation of each pixel over many."""
    w = _styles(model, seed, NOISY_ROWS)
    rows, deviations = [], []
    for one in w:
        parts = []
        for first, count in _parts(NOISES, images_per_pass(model.image_shape)):
            noise = model.draw_noise(Noise(seed, range(first, first + count), model.device))
            parts.append(from_signed(_drawn(model, one.expand(count, -1), noise)))
        images = torch.cat(parts)
        rows.append(images[:NOISY_COLUMNS])
        deviations.append(images.float().std(0).mean(-1, keepdim=True))
    deviation = torch.stack(deviations)
    greatest = float(deviation.max())
    grey = (deviation / max(greatest, 1e-9) * 255).to(torch.uint8).expand(-1, -1, -1, model.image_shape[2])
    images = torch.cat([torch.cat([row, last[None]]) for row, last in zip(rows, grey, strict=True)])
    caption = (
        f"One latent vector a row, with {NOISY_COLUMNS} noises; last, the standard deviation of each pixel over "
        f"{NOISES} noises, mean over colours: white is {greatest:.1f} levels of 255. ψ = {TRUNCATION:g}."
    )
    return image_grid("noise", caption, _shrunk(images), NOISY_COLUMNS + 1)


def _noise_of_layers(model: StyleGAN, seed: int) -> Figure:
    """Show pictures with noise in all layers, in none, in the fine and in the coarse ones."""
    sizes = model.synthesis.resolutions
    border = sizes[len(sizes) // 2]
    w, noise = _styles(model, seed, COLUMNS), model.draw_noise(Noise(seed, range(COLUMNS), model.device))
    kept = {
        "all": lambda size: True,
        "none": lambda size: False,
        "fine": lambda size: size >= border,
        "coarse": lambda size: size < border,
    }
    rows = []
    for keep in kept.values():
        layers = [layer if keep(layer.shape[2]) else torch.zeros_like(layer) for layer in noise]
        for first, count in _parts(COLUMNS, images_per_pass(model.image_shape)):
            part = slice(first, first + count)
            rows.append(from_signed(_drawn(model, w[part], [layer[part] for layer in layers])))
    coarse = sizes[len(sizes) // 2 - 1]
    caption = (
        f"The same pictures with noise in all layers, in none, in the fine ones alone ({border}x{border} and more), "
        f"and in the coarse ones alone (up to {coarse}x{coarse}). ψ = {TRUNCATION:g}."
    )
    return image_grid("noise-layers", caption, _shrunk(torch.cat(rows)), COLUMNS, tuple(kept))


def _interpolation(model: StyleGAN, seed: int) -> Section:
    """Show ways between draws, as strips and as a film that comes back to where it began."""
    label = _classes(model, 1)
    both = None if label is None else label.expand(2)

    def way(number: int, leg: int, steps: int) -> Tensor:
        begin, end = (seed + 2 * number + (leg + ahead) % 2 for ahead in range(2))
        options = LatentInterpolationOptions(TRUNCATION, "fixed", steps)
        return model.interpolate_draws((begin, end), both, options)

    strips = torch.cat([way(number, 0, STEPS) for number in range(WAYS)])
    caption = f"Straight lines in w between the pictures of two seeds each, with the same noise. ψ = {TRUNCATION:g}."
    strip = image_grid("interpolation", caption, _shrunk(strips), STEPS)
    films = [torch.cat([way(number, leg, FILM_STEPS + 1)[:-1] for leg in range(2)]) for number in range(WAYS)]
    frames = [transparent_sheet(_shrunk(torch.stack(images)), WAYS) for images in zip(*films, strict=True)]
    film = _film("interpolation-film", np.stack(frames))
    return Section("Interpolation", figures=(strip, Figure("The same ways there and back, as a film.", (film,))))


def _film(name: str, frames: Pixels) -> Picture:
    """Make an animated picture of uint8 [N, H, W, channels]."""
    still = pixel_picture(name, frames[0])
    return dataclasses.replace(still, png=encode_film(frames, FILM_MILLISECONDS))


def _held_out(run: RunRecord) -> Tensor:
    """Read held-out images: uint8 [N, H, W, C].

    Raises:
        DataError: the data is gone or was changed.
    """
    _, domains = run.held_out()
    images = domains["images"]
    return torch.from_numpy(images.read(evenly_spaced(len(images), COMPARED)).image)


def _nearest(run: RunRecord, samples: Tensor, real: Tensor) -> Section:
    """Show the samples that are nearest to training images, where these have features or are few.

    Args:
        run: the run.
        samples: uint8 [N, H, W, C].
        real: images to show them with, uint8 [M, H, W, C].
    """
    split = run.config["data"]["split"]
    training = HeldOut(run.shards("images").part(split), split)
    extractor = EfficientNetLite("cpu")
    if len(training) > TRAINING_ROWS and cached_features(training, extractor) is None:
        text = (
            f"They are not searched yet, since the features of {len(training):,} training images take minutes. The "
            "command genlab evaluate with the option copies takes and keeps them; then this report shows the samples "
            "that are nearest to them."
        )
        return Section("Nearest training images", text)
    found = nearest_training_images(samples, training, extractor)
    order = found.distances.argsort()[:NEAREST]
    caption = (
        f"Of {len(samples)} samples (ψ = 1) the {len(order)} that are nearest to training images, the nearest first; "
        f"below each its nearest of {counted(len(training), 'training image')}, by Euclidean distance in "
        f"{extractor.label} features."
    )
    shown = _shrunk(torch.cat([samples[order], found.images[order]]))
    figure = image_grid("nearest", caption, shown, len(order), ("sample", "nearest training image"))
    rows = [(counted(len(samples), "sample"), *_quantiles(found.distances))]
    if not overlap(run.held_out_splits.shown, split):
        of_real = nearest_training_images(real, training, extractor).distances
        rows.append((counted(len(real), "held-out image"), *_quantiles(of_real)))
    table = Table("Distance to the nearest training image", ("", "least", "median", "greatest"), tuple(rows))
    text = "Copies of training images would be at distances near 0, and far nearer than held-out images are."
    return Section("Nearest training images", text, (figure,), (table,))


def _quantiles(distances: Tensor) -> tuple[str, str, str]:
    least, median, greatest = distances.quantile(torch.tensor([0.0, 0.5, 1.0], dtype=distances.dtype)).tolist()
    return f"{least:.2f}", f"{median:.2f}", f"{greatest:.2f}"


def _styles(model: StyleGAN, seed: int, count: int) -> Tensor:
    """Return the truncated styles of a seed's first pictures: float [count, style_dim]."""
    with torch.inference_mode():
        latents = Noise(seed, range(count), model.device).normal("z", model.latent_dim)
        return model.truncate(model.map_latents(latents, _classes(model, count)), TRUNCATION)


@torch.inference_mode()
def _drawn(model: StyleGAN, w: Tensor, layers: Sequence[Tensor]) -> Tensor:
    """Draw float [N, C, H, W] of styles, [N, style_dim], and noise of each layer, at the resolution grown to."""
    images: Tensor = model.synthesis(w[:, None].expand(-1, model.synthesis.styles, -1), layers, *model.stage())
    return images


def _classes(model: StyleGAN, count: int) -> Tensor | None:
    """Return the classes in turn, int64 [count]; ``None`` for a model without classes."""
    return torch.arange(count) % model.classes if model.classes else None


def _parts(count: int, most: int) -> Iterator[tuple[int, int]]:
    """Divide ``count`` into parts of at most ``most``: their beginnings and lengths."""
    for first in range(0, count, most):
        yield first, min(most, count - first)


def _shrunk(images: Tensor) -> Pixels:
    """Shrink square uint8 [N, H, W, C] to sides of at most :data:`SIDE` pixels, by means of squares of pixels."""
    factor = images.shape[1] // SIDE
    if factor > 1:
        means = F.avg_pool2d(images.permute(0, 3, 1, 2).float(), factor)
        images = means.round().to(torch.uint8).permute(0, 2, 3, 1)
    return images.cpu().numpy()


REPORT = FamilyReport(PANELS, report_model, warnings=warnings)
