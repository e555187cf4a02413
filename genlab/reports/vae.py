"""VAE: reconstructions, samples, the latent plane, and the test −ELBO."""

import numpy as np
import torch
from torch import Tensor

from genlab.models.vae import VAE
from genlab.reports.curves import Panel
from genlab.reports.family import FamilyReport, Findings
from genlab.reports.page import Figure, Section, Table, image_grid
from genlab.reports.run import RunRecord

COLUMNS = 14
SAMPLE_ROWS = 6
PLANE = 10

PANELS = (
    Panel("−ELBO", {"neg_elbo": ""}, "nats/image"),
    Panel("reconstruction", {"reconstruction": ""}, "nats/image"),
    Panel("KL(q(z|x) ‖ p(z))", {"kl": ""}, "nats/image"),
)


def examine(run: RunRecord, model: VAE) -> Findings:
    """Show what the model makes of held-out images and of its prior."""
    figures = [_reconstructions(run, model), _samples(run, model)]
    if model.architecture.latent_dim == 2:
        figures.append(_plane(model))
    pictures = Section("Pictures", figures=tuple(figures))
    return Findings((_elbo(run), pictures) if run.test else (pictures,))


def prior_plane(side: int) -> Tensor:
    """Points at the quantiles (i + 0.5) / side of a 2-D standard normal, float32 [side², 2].

    Row by row: z₁ grows from left to right, z₂ from bottom to top.
    """
    quantiles = torch.special.ndtri((torch.arange(side) + 0.5) / side)
    down, right = torch.meshgrid(quantiles.flip(0), quantiles, indexing="ij")
    return torch.stack([right, down], dim=-1).flatten(0, 1)


def _reconstructions(run: RunRecord, model: VAE) -> Figure:
    split, domains = run.held_out()
    shards = domains["images"]
    images = torch.from_numpy(shards.read(np.arange(min(COLUMNS, len(shards)))).image)
    pixels = torch.cat([images, model.reconstruct(images).cpu()]).numpy()
    caption = f"Top: {run.source_of(split)}. Below: their reconstructions, decoded from the posterior means."
    return image_grid("reconstructions", caption, pixels, len(images), ("input", "output"))


def _samples(run: RunRecord, model: VAE) -> Figure:
    pixels = model.sample(COLUMNS * SAMPLE_ROWS, seed=run.config["run"]["seed"]).cpu().numpy()
    return image_grid("samples", "Decoded draws from the prior, N(0, I).", pixels, COLUMNS)


def _plane(model: VAE) -> Figure:
    pixels = model.decode(prior_plane(PLANE)).cpu().numpy()
    caption = (
        "The latent plane, decoded at the quantiles 5%, 15%, ..., 95% of the prior: z₁ grows from left to right, "
        "z₂ from bottom to top."
    )
    return image_grid("latent-plane", caption, pixels, PLANE)


def _elbo(run: RunRecord) -> Section:
    rows = tuple(
        (name, f"{line['epoch']:.4g}", *(f"{line[metric]:.2f}" for metric in ("neg_elbo", "reconstruction", "kl")))
        for name, line in (("last", run.test[-1]), ("lowest", min(run.test, key=lambda line: line["neg_elbo"])))
    )
    columns = ("", "epoch", "−ELBO", "reconstruction", "KL")
    caption = f"Split {run.config['data']['test_split']!r}, nats an image, one draw of z for each"
    return Section("Test −ELBO", tables=(Table(caption, columns, rows),))


REPORT = FamilyReport(PANELS, examine)
