"""Training of latent models on the evidence lower bound (ELBO; Kingma & Welling 2014, ICLR, arXiv:1312.6114)."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeVar

import numpy as np
from annotated_types import Ge
from torch import Tensor, nn

from genlab.data.stream.batches import Batch
from genlab.imaging.latent_plane import axis_name, most_varied_axes
from genlab.imaging.scatter import scatter
from genlab.imaging.sheets import sheet, sheet_grid, side_by_side
from genlab.metrics.elbo import gaussian_kl, negative_log_likelihood
from genlab.models.latent_model import LatentModel
from genlab.models.model import Model
from genlab.models.precision import full_precision
from genlab.recipes.latent_pictures import (
    CLASS_ROWS,
    SHEET_SIDE,
    class_names,
    class_planes,
    decoded_classes,
    decoded_plane,
    posterior_means,
    posterior_spread,
)
from genlab.recipes.recipe import Batches, DomainInfo, Metrics, Phase, Recipe, RecipeConfig, StepContext

SCATTERED_IMAGES = 2000
"""Number of held-out images in the scatters that are drawn during training; fewer where they exceed FIGURE_BYTES."""
FIGURE_BYTES = 16 * 2**20
"""Bytes of held-out pixels that pictures during training are made of, at most."""


@dataclass(frozen=True)
class LatentObjective:
    """The negative evidence lower bound: the reconstruction error plus the KL term."""

    beta: Annotated[float, Ge(0)] = 1.0
    """Weight of the KL term (Higgins et al. 2017); 1 is the ELBO."""
    warmup_images: Annotated[int, Ge(0)] = 0
    """Images over which that weight rises from zero (Sønderby et al. 2016); with 0 it is in full from the start."""

    def weight(self, images: int) -> float:
        """Return the weight of the KL term after ``images`` images."""
        return self.beta * min(1.0, images / self.warmup_images) if self.warmup_images else self.beta


class LatentConfig(RecipeConfig, Protocol):
    """The sections that the config of every latent model has."""

    @property
    def model(self) -> Any: ...  # noqa: D102

    @property
    def objective(self) -> LatentObjective: ...  # noqa: D102


C = TypeVar("C", bound=LatentConfig)


class LatentRecipe(Recipe[C]):
    """Maximises the ELBO by its reparameterised gradient; losses are in nats an image."""

    averaged = ("vae",)
    vae: LatentModel

    def __init__(self, config: C, domains: Mapping[str, DomainInfo]) -> None:
        super().__init__(config, domains)
        self.vae = self.build(domains["images"])
        self.networks = nn.ModuleDict({"vae": self.vae})
        self.figure_rows = max(SHEET_SIDE**2, min(SCATTERED_IMAGES, FIGURE_BYTES // math.prod(domains["images"].shape)))

    @abstractmethod
    def build(self, images: DomainInfo) -> LatentModel:
        """Build the model for the images of a data set."""

    def model(self) -> Model:
        """Return the latent model."""
        return self.vae

    def phases(self) -> Sequence[Phase]:
        """Return the only phase."""
        return (Phase("vae", "vae", self._loss),)

    def _loss(self, batches: Batches, step: StepContext) -> tuple[Tensor, Metrics]:
        """Return −ELBO with β on its KL term, and −ELBO with its two parts."""
        reconstruction, kl = self._negative_elbo(batches["images"], step)
        weight = self.config.objective.weight(step.index * self.config.run.batch)
        return reconstruction + weight * kl, self._named(reconstruction, kl)

    def test_metrics(self, batches: Batches, step: StepContext) -> Metrics:
        """Return −ELBO of held-out rows, with one draw of z a row, and its two parts, in nats an image."""
        return self._named(*self._negative_elbo(batches["images"], step))

    def figures(self, batches: Batches) -> dict[str, np.ndarray]:
        """Draw held-out images, samples and the latent space.

        Returns:
            ``reconstructions``: up to 100 inputs beside their reconstructions. ``samples``: decoded draws from the
            prior. ``latent-scatter``: posterior means by class, in the two dimensions in which they vary most.
            ``latent-plane``: decoded points at the prior's quantiles in these two dimensions, for each class of a
            conditional model. ``class-by-latent``: the same in one dimension, a class a row, for these models only.
        """
        model, names = self.vae, class_names(self.vae, self.domains["images"].label_names)
        pixels, label = batches["images"].image, batches["images"].label
        first, its_label = pixels[: SHEET_SIDE**2], None if label is None else label[: SHEET_SIDE**2]
        inputs, outputs = (sheet(of.cpu().numpy(), SHEET_SIDE) for of in (first, model.reconstruct(first, its_label)))
        across = model.classes if 0 < model.classes <= CLASS_ROWS else SHEET_SIDE
        samples = model.sample(SHEET_SIDE * across, seed=self.config.run.seed).cpu().numpy()
        pictures = {"reconstructions": side_by_side(inputs, outputs), "samples": sheet(samples, across)}
        means = posterior_means(model, pixels, label)
        if means.shape[1] > 1:
            x, y = most_varied_axes(means, 2)
            classes = label.cpu().numpy() if label is not None and names else None
            axes = axis_name(x), axis_name(y)
            pictures["latent-scatter"] = scatter(means[:, (x, y)], axes, classes, names, preview=True)
            if model.classes:
                pictures["latent-plane"] = sheet_grid(class_planes(model, (x, y), names), across=5)
            else:
                pictures["latent-plane"] = sheet(decoded_plane(model, (x, y)), SHEET_SIDE)
        if model.classes:
            pictures["class-by-latent"] = sheet(decoded_classes(model, most_varied_axes(means, 1)[0]), SHEET_SIDE)
        return pictures

    def tables(self, batches: Batches) -> dict[str, list[tuple[str, ...]]]:
        """Tabulate range and standard deviation of the posterior means for each class."""
        label = batches["images"].label
        means = posterior_means(self.vae, batches["images"].image, label)
        classes = None if label is None else label.cpu().numpy()
        names = class_names(self.vae, self.domains["images"].label_names)
        return {"latent-spread": posterior_spread(means, classes, names)}

    def _negative_elbo(self, batch: Batch, step: StepContext) -> tuple[Tensor, Tensor]:
        model, label = self.vae, batch.label
        likelihood = model.architecture.likelihood
        uniform = step.uniform("pixels", *batch.image.shape[1:]) if likelihood == "binary" else None
        images = model.observe(batch.image, uniform)
        with step.autocast():
            mean, log_variance = model.infer(images, label)
            mean, log_variance = full_precision(mean), full_precision(log_variance)
            latents = mean + (0.5 * log_variance).exp() * step.noise("z", mean.shape[1])
            logits = model.generate(latents, label)
        reconstruction = negative_log_likelihood(likelihood, full_precision(logits), images, model.log_sigma)
        return reconstruction.mean(), gaussian_kl(mean, log_variance).mean()

    @staticmethod
    def _named(reconstruction: Tensor, kl: Tensor) -> dict[str, Tensor]:
        return {
            "neg_elbo": (reconstruction + kl).detach(),
            "reconstruction": reconstruction.detach(),
            "kl": kl.detach(),
        }
