"""Report of a CycleGAN: translations of held-out images, and their scores where true counterparts are known."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genlab.core.config import from_dict
from genlab.data.format.manifest import Manifest
from genlab.data.ingest.sources.synthetic import counterparts, has_counterparts
from genlab.evaluation.measurements import Settings
from genlab.evaluation.translation import colour_curve_psnr, measure_psnr
from genlab.imaging.images import Pixels
from genlab.imaging.sheets import transparent_sheet
from genlab.metrics.image import psnr
from genlab.models.cyclegan import DIRECTIONS, CycleGAN
from genlab.models.model import images_per_pass
from genlab.recipes.cyclegan import CycleGANObjective
from genlab.reports.curves import Panel
from genlab.reports.family import FamilyReport, ModelReport
from genlab.reports.page import Figure, Section, Table, image_grid, pictures, sheet_picture
from genlab.reports.run import RunRecord
from genlab.reports.warning_signs import always_wins, mode_collapse, rises

SHOWN = 6
SHEETS_ACROSS = 2
SCORED = 200
"""The most images of a domain that are scored."""
COMPARED = 64
"""The most images of a domain that are compared with each other: 2,016 pairs."""
SCORES = {
    "input_psnr": "untranslated_psnr",
    "translated_psnr": "psnr",
    "curve_psnr": "curve_psnr",
    "gain": "gain",
}
"""Scores of a direction, in dB, by their names in ``scores.json``: the measurement of each, see
:func:`genlab.evaluation.translation.measure_psnr`."""

SCALE = "mean |error|, range [-1, 1]"
PANELS = (
    Panel("loss-adversarial", "adversarial", {"adversarial_ab": "a → b", "adversarial_ba": "b → a"}),
    Panel("loss-cycle", "cycle", {"cycle_a": "a → b → a", "cycle_b": "b → a → b"}, SCALE),
    Panel("loss-identity", "identity", {"identity_a": "b → a of a", "identity_b": "a → b of b"}, SCALE),
    Panel("loss-discriminator", "discriminator", {"discriminator_a": "of domain a", "discriminator_b": "of domain b"}),
)


def report_model(run: RunRecord, model: CycleGAN) -> ModelReport:
    """Show and score each direction."""
    split, domains = run.held_out()
    figures, by_epoch, found, notes = [], [], {}, []
    for direction in model.directions:
        source, _, target = direction.partition("_to_")
        shards = domains[source]
        rows = np.arange(min(SCORED, len(shards)))
        images = torch.from_numpy(shards.read(rows).image)
        translated = translate(model, images, direction)
        hidden = counterparts(shards, rows)
        truth = None if hidden is None else torch.from_numpy(hidden)
        real = torch.from_numpy(domains[target].read(np.arange(min(COMPARED, len(domains[target])))).image)
        if sign := mode_collapse(images[:COMPARED], translated[:COMPARED], real, direction):
            notes.append(sign)
        shown = slice(min(SHOWN, len(shards)))
        sheet = {
            source: images[shown],
            f"{source} → {target}": translated[shown],
            f"{source} → {target} → {source}": translate(model, translated[shown], f"{target}_to_{source}"),
            f"{target} → {source} of {source}": translate(model, images[shown], f"{target}_to_{source}"),
        }
        figures.append(_grid(direction, run.source_of(split), sheet, truth))
        columns = min(SHOWN, *map(len, domains.values()))
        blank = np.zeros((len(sheet) * columns, *images.shape[1:]), np.uint8)
        by_epoch.append(_by_epoch(run, direction, transparent_sheet(blank, columns)))
        if truth is not None:
            settings: Settings = {"data": shards.checksum, "split": split, "rows": len(images), "subset": "first"}
            found[direction] = {
                "images": len(images),
                **_scores(direction, images, translated, truth, settings),
                "data": {name: run.data[source][name] for name in ("path", "checksum")},
                "split": split,
            }
    pictures = Section("Translations", figures=(*figures, *filter(None, by_epoch)))
    if not found:
        return ModelReport((pictures,), notes=tuple(notes))
    sections = _score_section(found, ", chosen on these images" if run.chosen_on_these_images else ""), pictures
    return ModelReport(sections, {"step": run.model_step, "translation": found}, tuple(notes))


def warnings(run: RunRecord) -> list[str]:
    """Find discriminators that always win, and cycle losses that rise."""
    objective = from_dict(CycleGANObjective, run.config["objective"])
    signs = []
    for domain, cycle in (("a", "a → b → a"), ("b", "b → a → b")):
        signs.append(always_wins(run.train, f"discriminator_{domain}", domain, objective.adversarial))
        if objective.cycle(domain):  # else nothing holds it down, by choice
            signs.append(rises(run.train, f"cycle_{domain}", f"cycle loss {cycle}"))
    return [sign for sign in signs if sign]


def scores(manifests: Mapping[str, Manifest]) -> list[str]:
    """Name the scores of the directions that begin at drawn scenes: only their true counterparts are known."""
    return [
        f"translation.{direction}.{name}"
        for direction in DIRECTIONS
        if has_counterparts(manifests[direction.partition("_to_")[0]])
        for name in SCORES
    ]


def translate(model: CycleGAN, images: Tensor, direction: str) -> Tensor:
    """Translate uint8 [N, H, W, C], as many images at a time as memory should be there for."""
    parts = images.split(images_per_pass(model.image_shape))
    return torch.cat([model.translate(part, direction).cpu() for part in parts])


def _scores(direction: str, images: Tensor, translated: Tensor, truth: Tensor, settings: Settings) -> dict[str, float]:
    """Measure a direction's scores, by their names in ``scores.json``; the images are uint8 [N, H, W, C] each."""
    curve = colour_curve_psnr(lambda: [(images, truth)])
    measurements = measure_psnr(direction, psnr(images, truth), psnr(translated, truth), curve, settings)
    return {name: measurements[f"{kind}_{direction}"].value for name, kind in SCORES.items()}


def _grid(direction: str, of: str, rows: dict[str, Tensor], truth: Tensor | None) -> Figure:
    source, _, target = direction.partition("_to_")
    images = rows[source]
    caption = (
        f"From {source} to {target}: {of}, their translations, these translated back, and what the other generator, "
        f"which should leave images of {source} as they are, makes of them."
    )
    if truth is not None:
        rows = rows | {f"true {target}": truth[: len(images)]}
        caption += f" Last row: the same scenes as they are drawn in {target}, which training never saw."
    return image_grid(direction, caption, torch.cat(list(rows.values())).numpy(), len(images), tuple(rows))


def _by_epoch(run: RunRecord, direction: str, like: Pixels) -> Figure | None:
    """Show the sheets that training drew, if they have the shape of ``like``; ``None`` if there are fewer than two."""
    sheets = {}
    for epoch, pixels in run.pictures(direction).items():
        if pixels.shape[:2] == like.shape[:2]:
            sheets[epoch] = np.concatenate([pixels, like[..., -1:]], axis=2)
    if len(sheets) < 2:
        return None
    caption = f"{direction.replace('_to_', ' → ')}: the same rows as above, as training drew them on its way."
    parts = [sheet_picture(f"{direction}-{title.replace(' ', '-')}", title, pixels) for title, pixels in sheets.items()]
    return pictures(caption, parts, SHEETS_ACROSS)


def _score_section(scores: dict[str, dict[str, Any]], chosen: str) -> Section:
    columns = ("direction", "images", "input, dB", "translated, dB", "gain, dB", "colour curve, dB")
    rows = tuple(
        (
            direction.replace("_to_", " → "),
            f"{row['images']:,}",
            f"{row['input_psnr']:.2f}",
            f"{row['translated_psnr']:.2f}",
            f"{row['gain']:+.2f}",
            f"{row['curve_psnr']:.2f}",
        )
        for direction, row in scores.items()
    )
    text = (
        "These scenes were drawn, so each has a true counterpart in the other domain, hidden from training. The score "
        "is the mean PSNR against it: of the input left as it is, and of its translation. The colour curve is the best "
        "change of colours alone: 256 levels for each channel, fitted in least squares on the pairs it is scored "
        "on, so an upper bound for such a curve."
    )
    splits = ", ".join(sorted({row["split"] for row in scores.values()}))
    return Section("Translation score", text, tables=(Table(f"Mean PSNR, split {splits!r}{chosen}", columns, rows),))


REPORT = FamilyReport(PANELS, report_model, scores, warnings)
