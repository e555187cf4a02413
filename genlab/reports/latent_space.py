"""Sections that the reports of VAE and conditional VAE share: the test −ELBO, reconstructions, and the latent space."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from genlab.data.format.shards import ShardSet
from genlab.data.stream.batches import read_batch
from genlab.data.stream.order import evenly_spaced
from genlab.imaging.latent_plane import Points, axis_name, most_varied_axes
from genlab.imaging.scatter import scatter, scatter_per_class
from genlab.imaging.sheets import sheet, side_by_side, transparent_sheet
from genlab.models.latent_model import LatentModel
from genlab.recipes.latent_pictures import (
    CLASS_PICTURES,
    SHEET_SIDE,
    class_names,
    decoded_plane,
    posterior_means,
    posterior_spread,
)
from genlab.reports import operations
from genlab.reports.curves import Panel
from genlab.reports.operations import COLUMNS
from genlab.reports.page import Figure, Section, Table, chart, image_grid, pictures, sheet_picture
from genlab.reports.run import RunRecord

SCATTERED_IMAGES = 10_000
"""The most images whose posterior means are drawn."""
CHUNK = 500
SHEETS_ACROSS = 3
SCATTER_SIZE = 460, 380
"""Width and height of the scatter of all classes, in CSS pixels: its text can be read on a phone."""
SCATTERS_ACROSS, SCATTER_WIDTH = 5, 140
"""The most scatters of classes side by side, and the least width of each, in CSS pixels."""

PANELS = (
    Panel("loss-elbo", "−ELBO", {"neg_elbo": ""}, "nats/image"),
    Panel("loss-reconstruction", "reconstruction, −log p(x|z)", {"reconstruction": ""}, "nats/image"),
    Panel("loss-kl", "KL(q(z|x) ‖ p(z))", {"kl": ""}, "nats/image"),
)


@dataclass(frozen=True)
class Subject:
    """A run's model, and the held-out images that it is shown with."""

    run: RunRecord
    model: LatentModel
    source: str
    """Description of the images, for captions."""
    shards: ShardSet

    @staticmethod
    def of(run: RunRecord, model: LatentModel) -> "Subject":
        """Open the held-out images of ``run``.

        Raises:
            DataError: when the run's data is gone or was changed.
        """
        split, domains = run.held_out()
        return Subject(run, model, run.source_of(split), domains["images"])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The classes' names; none for images without labels."""
        return class_names(self.model, self.shards.manifest.label_names)

    @cached_property
    def label(self) -> NDArray[np.int64] | None:
        """The classes of the rows in ``scattered``, [N]; ``None`` for images without labels."""
        return self.shards.columns(self.scattered)["label"].astype(np.int64) if self.shards.labelled else None

    @property
    def scattered(self) -> NDArray[np.int64]:
        """The rows whose posterior means are drawn: all, or 10,000 evenly from the whole split."""
        return evenly_spaced(len(self.shards), SCATTERED_IMAGES)

    @cached_property
    def means(self) -> Points:
        """The posterior means of the rows in ``scattered``, [N, latent_dim]."""
        parts = np.array_split(self.scattered, -(-len(self.scattered) // CHUNK))
        return np.concatenate([posterior_means(self.model, *self.read(part)) for part in parts])

    @property
    def has_plane(self) -> bool:
        """Whether the latent space has two dimensions to show."""
        return self.means.shape[1] > 1

    @property
    def axes(self) -> tuple[int, int]:
        """The two dimensions shown: those whose posterior means vary most."""
        x, y = most_varied_axes(self.means, 2)
        return x, y

    def read(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Read images and classes: uint8 [n, H, W, C] and int64 [n]."""
        batch = read_batch(self.shards, rows)
        return batch.image, batch.label


def sections(
    subject: Subject, pictures: Sequence[Figure], plane: Sequence[Figure], drawn: Sequence[Figure]
) -> tuple[Section, ...]:
    """Put the sections together: the test −ELBO, reconstructions, the latent plane, samples of the prior."""
    by_epoch = reconstructions_by_epoch(subject)
    found = (
        Section("Reconstructions", figures=(*((by_epoch,) if by_epoch else ()), *pictures)),
        Section("Latent space", figures=tuple(plane)),
        Section("Spread of the posterior means", tables=(spread_table(subject),)),
        Section("Samples", figures=tuple(drawn)),
    )
    shown = tuple(section for section in found if section.figures or section.tables)
    return (elbo(subject.run), *shown) if subject.run.test or subject.run.val else shown


def elbo(run: RunRecord) -> Section:
    """Show the last −ELBO of held-out images and the lowest that is a number, with their parts."""
    lines, splits = run.test or run.val, run.held_out_splits
    finite = [line for line in lines if math.isfinite(line["neg_elbo"])]
    lowest = [("lowest", min(finite, key=lambda line: line["neg_elbo"]))] if finite else []
    rows = tuple(
        (name, f"{line['epoch']:.4g}", *(f"{line[metric]:.2f}" for metric in ("neg_elbo", "reconstruction", "kl")))
        for name, line in (("last", lines[-1]), *lowest)
    )
    columns = ("", "epoch", "−ELBO", "reconstruction", "KL")
    split = splits.report if run.test else splits.choice
    caption = f"Split {split!r}, nats an image, one draw of z for each"
    return Section("Test −ELBO" if run.test else "−ELBO of held-out images", tables=(Table(caption, columns, rows),))


def reconstructions(subject: Subject) -> Figure:
    """Show inputs above their outputs."""
    images, label = subject.read(np.arange(min(COLUMNS, len(subject.shards))))
    caption = f"Top: {subject.source}. Below: their reconstructions, decoded from the posterior means."
    return operations.reconstructions(subject.model, images, label, caption)


def reconstructions_by_epoch(subject: Subject) -> Figure | None:
    """Show the first 100 images and their reconstructions after up to five epochs; ``None`` if training drew none."""
    images = subject.read(np.arange(min(SHEET_SIDE**2, len(subject.shards))))[0].numpy()
    plain, inputs = sheet(images, SHEET_SIDE), transparent_sheet(images, SHEET_SIDE)
    sheets = {"input": inputs}
    for epoch, pixels in subject.run.pictures("reconstructions").items():
        # Of another number of images, should the split have changed its name or genlab its pictures.
        if pixels.shape == side_by_side(plain, plain).shape:
            outputs = pixels[:, -plain.shape[1] :]
            sheets[epoch] = np.concatenate([outputs, inputs[..., -1:]], axis=2)
    if len(sheets) == 1:
        return None
    caption = (
        f"The first {len(images)} {subject.source}, and their reconstructions after the "
        f"epochs {', '.join(name.removeprefix('epoch ') for name in [*sheets][1:])}, as training drew them."
    )
    parts = [
        sheet_picture(f"reconstructions-{title.replace(' ', '-')}", title, pixels) for title, pixels in sheets.items()
    ]
    return pictures(caption, parts, SHEETS_ACROSS)


def samples(subject: Subject) -> Figure:
    """Show draws from the prior."""
    return operations.samples(subject.run, subject.model, "Decoded draws from the prior, N(0, I).")


def scatters(subject: Subject) -> list[Figure]:
    """Draw the posterior means in the latent plane: together, and class by class where there are labels."""
    axes, points = _names_of(subject.axes), subject.means[:, subject.axes]
    classes = "" if subject.label is None else ", coloured by class; each class's name stands at its median"
    some = "" if len(points) == len(subject.shards) else f"{len(points):,} of all "
    caption = f"Posterior means of {some}{subject.source}{classes}.{axes_note(subject)}"
    drawn = scatter(points, axes, subject.label, subject.names, size=SCATTER_SIZE)
    figures = [Figure(caption, (chart("latent-scatter", drawn, grey=True),))]
    if subject.label is not None:
        names = subject.names[:CLASS_PICTURES]
        panels = [
            chart(f"latent-scatter-class-{number}", pixels, f"class {name}", grey=True)
            for number, (name, pixels) in enumerate(
                zip(names, scatter_per_class(points, axes, subject.label, len(names)), strict=True)
            )
        ]
        given = " The decoder is told the class, so a class may have the whole prior." if subject.model.classes else ""
        remark = given + first_classes(subject, CLASS_PICTURES)
        caption = f"The same points class by class, over those of all in grey.{remark}"
        figures.append(pictures(caption, panels, SCATTERS_ACROSS, stack_below=SCATTER_WIDTH))
    return figures


def latent_plane(subject: Subject) -> Figure:
    """Show the latent plane decoded at the prior's quantiles."""
    caption = f"The latent plane, decoded {plane_note(subject)}"
    return image_grid("latent-plane", caption, decoded_plane(subject.model, subject.axes), SHEET_SIDE)


def spread_table(subject: Subject) -> Table:
    """Make a table of the range and standard deviation of each class's posterior means in each dimension shown."""
    head, *rows = posterior_spread(subject.means, subject.label, subject.names)
    caption = f"Range and standard deviation of the posterior means of {subject.source}, by class"
    return Table(caption, head, tuple(rows), frozenset({len(rows) - 1}))


def axes_note(subject: Subject) -> str:
    """Say which dimensions are shown, where there are more than two."""
    size = subject.model.architecture.latent_dim
    if size == 2:
        return ""
    return f" Of {size} dimensions the two whose posterior means vary most."


def plane_note(subject: Subject) -> str:
    """Say where the plane is decoded."""
    x, y = _names_of(subject.axes)
    others = "" if subject.model.architecture.latent_dim == 2 else " The other dimensions are 0."
    return (
        f"at the prior's quantiles 5%, 15%, ..., 95%: {x} grows from left to right, {y} from bottom to top."
        f"{axes_note(subject)}{others}"
    )


def first_classes(subject: Subject, shown: int) -> str:
    """Say that only the first ``shown`` classes are shown, where there are more."""
    return f" The first {shown} of {len(subject.names)} classes." if len(subject.names) > shown else ""


def _names_of(axes: tuple[int, int]) -> tuple[str, str]:
    return axis_name(axes[0]), axis_name(axes[1])
