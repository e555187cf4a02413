"""Report of a conditional VAE: the sections of the VAE's report class by class, and the grid of class × latent."""

import numpy as np
import torch

from genlab.imaging.latent_plane import axis_name, most_varied_axes
from genlab.models.cvae import CVAE
from genlab.recipes.latent_pictures import CLASS_PICTURES, CLASS_ROWS, SHEET_SIDE, class_planes, decoded_classes
from genlab.reports import latent_space as latent
from genlab.reports.family import FamilyReport, ModelReport
from genlab.reports.latent_space import Subject, first_classes
from genlab.reports.operations import COLUMNS
from genlab.reports.page import Figure, image_grid, pictures, sheet_picture
from genlab.reports.run import RunRecord


def report_model(run: RunRecord, model: CVAE) -> ModelReport:
    """Show reconstructions of each class, the latent space, and samples of the prior given the class."""
    subject = Subject.of(run, model)
    plane = [*latent.scatters(subject), _planes(subject)] if subject.has_plane else []
    drawn = [_class_by_latent(subject), _samples(subject, model)]
    return ModelReport(latent.sections(subject, [_reconstructions(subject)], plane, drawn))


def _reconstructions(subject: Subject) -> Figure:
    """Show inputs of each class above their outputs."""
    classes = enumerate(subject.names)
    rows = {name: subject.scattered[np.flatnonzero(subject.label == number)] for number, name in classes}
    present = dict([(name, of) for name, of in rows.items() if len(of)][:CLASS_PICTURES])
    columns = min([COLUMNS, *map(len, present.values())])
    images, names = [], list[str]()
    for name, of in present.items():
        pixels, label = subject.read(of[:columns])
        images += [pixels, subject.model.reconstruct(pixels, label).cpu()]
        names += [name, ""]
    caption = (
        f"Of each class, above, {subject.source}; below, their reconstructions, decoded from the posterior means and "
        f"the class.{first_classes(subject, CLASS_PICTURES)}"
    )
    return image_grid("reconstructions", caption, torch.cat(images).numpy(), columns, tuple(names))


def _planes(subject: Subject) -> Figure:
    sheets = class_planes(subject.model, subject.axes, subject.names)
    some = first_classes(subject, CLASS_PICTURES)
    caption = f"The latent plane of each class, decoded {latent.plane_note(subject)}{some}"
    parts = [
        sheet_picture(f"latent-plane-class-{number}", f"class {name}", pixels)
        for number, (name, pixels) in enumerate(sheets.items())
    ]
    return pictures(caption, parts, latent.SHEETS_ACROSS)


def _class_by_latent(subject: Subject) -> Figure:
    [axis] = most_varied_axes(subject.means, 1)
    others = "" if subject.model.architecture.latent_dim == 1 else ", the other dimensions at 0"
    caption = (
        f"Class × latent: each row is a class, and each column one point of the latent space: {axis_name(axis)}, whose "
        f"posterior mean varies most, at the prior's quantiles 5%, 15%, ..., 95%{others}."
        f"{first_classes(subject, CLASS_ROWS)}"
    )
    pixels = decoded_classes(subject.model, axis)
    return image_grid("class-by-latent", caption, pixels, SHEET_SIDE, subject.names[:CLASS_ROWS])


def _samples(subject: Subject, model: CVAE) -> Figure:
    classes = min(model.classes, CLASS_ROWS)
    label = torch.arange(classes).repeat_interleave(COLUMNS)
    pixels = model.sample(len(label), subject.run.config["run"]["seed"], label).cpu().numpy()
    caption = f"Decoded draws from the prior, N(0, I), for each class.{first_classes(subject, CLASS_ROWS)}"
    return image_grid("samples", caption, pixels, COLUMNS, subject.names[:CLASS_ROWS])


REPORT = FamilyReport(latent.PANELS, report_model)
