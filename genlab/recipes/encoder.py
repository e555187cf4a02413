"""Training of a StyleGAN's encoder, with the generator frozen: on pictures that it draws, and on real ones.

The loss of real pictures is that of Richardson et al. 2021 (CVPR, arXiv:2008.00951) without its identity term.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor, nn

from genlab.core.errors import ConfigError
from genlab.core.storage import require_absolute
from genlab.imaging.sheets import sheet, side_by_side
from genlab.metrics.image import psnr
from genlab.metrics.perceptual import PerceptualDistance, training_side
from genlab.models.encoder import Encoder, EncoderNetworks
from genlab.models.model import Model
from genlab.models.pixels import from_signed, to_signed
from genlab.models.precision import full_precision
from genlab.models.stylegan import noise_maps
from genlab.recipes.options import ImageData, Optimization, Run
from genlab.recipes.recipe import Batches, DomainInfo, Metrics, Phase, Recipe, StepContext
from genlab.store.generators import load_generator

COLUMNS = 4
"""Pictures in a row of the sheets."""


@dataclass(frozen=True)
class EncoderModel:
    """The networks."""

    generator: str | None = None
    """The StyleGAN that pictures are encoded for: its directory, its s3:// URL, or the run that trained it. Required.
    Its weights do not change."""
    channel_base: Annotated[int, Ge(1)] | None = None
    """Channels of the layers of R x R pixels are 2 · base / R, but at most channel-max. By default the generator's."""
    channel_max: Annotated[int, Ge(1)] | None = None
    """The most channels that a layer has. By default the generator's."""
    features: Annotated[int, Ge(1)] = 512
    """Width of the dense layer before the styles."""


@dataclass(frozen=True)
class EncoderObjective:
    """What a step makes small, each term with its weight."""

    styles: Annotated[float, Ge(0)] = 1.0
    """Weight of the squared error of w, in standard deviations of w, on pictures that the generator draws."""
    pixels: Annotated[float, Ge(0)] = 10.0
    """Weight of the mean squared error of pixels, whose range is -1 to 1, on real pictures."""
    perceptual: Annotated[float, Ge(0)] = 0.2
    """Weight of the perceptual distance, in the layers of EfficientNet-Lite0, on real pictures; 0 saves its time."""
    prior: Annotated[float, Ge(0)] = 0.02
    """Weight of the mean square of w of real pictures, in standard deviations from the mean of w: it keeps them where
    the generator was trained."""


@dataclass(frozen=True)
class EncoderConfig:
    """Train an encoder from pictures to the styles w+ of a StyleGAN."""

    run: Run = field(default_factory=lambda: Run(epochs=20, batch=32))
    data: ImageData = field(default_factory=lambda: ImageData(images="synthetic:scenes-a"))
    model: EncoderModel = field(default_factory=EncoderModel)
    objective: EncoderObjective = field(default_factory=EncoderObjective)
    optimization: Optimization = field(
        default_factory=lambda: Optimization(learning_rate=2e-3, beta2=0.99, schedule="cosine", ema_images=5000)
    )


class EncoderRecipe(Recipe[EncoderConfig]):
    """Trains the encoder E of a frozen generator G: E(G(w)) near w, and G(E(x)) near real pictures x.

    Raises:
        ConfigError: there is no generator of such pictures.
    """

    config_type = EncoderConfig
    averaged = ("encoder",)

    def __init__(self, config: EncoderConfig, domains: Mapping[str, DomainInfo]) -> None:
        super().__init__(config, domains)
        url = config.model.generator
        if url is None:
            raise ConfigError("model.generator: name the StyleGAN whose styles are to be found, a model or a run")
        require_absolute("model.generator", url)
        # A part of the state, so that a run goes on with the generator that it began with.
        self.generator, weights = load_generator(url)
        shape, images = self.generator.image_shape, domains["images"]
        if images.shape != shape:
            found, drawn = ("x".join(map(str, one)) for one in (images.shape, shape))
            raise ConfigError(f"data.images: images of {found}, and model.generator draws {drawn}; ingest with --size")
        if self.generator.classes > len(images.label_names):
            raise ConfigError("data.images: has no labels for the classes that model.generator is told")
        model, its = config.model, self.generator.architecture
        networks = EncoderNetworks(
            model.channel_base or its.channel_base, model.channel_max or its.channel_max, model.features
        )
        self.encoder = Encoder.of(self.generator, weights, networks)
        self.networks = nn.ModuleDict({"encoder": self.encoder})
        self._distance = PerceptualDistance(training_side(shape[0]))

    def model(self) -> Model:
        """Return the encoder."""
        return self.encoder

    def phases(self) -> Sequence[Phase]:
        """Return the only phase."""
        return (Phase("encoder", "encoder", self._loss),)

    def _loss(self, batches: Batches, step: StepContext) -> tuple[Tensor, Metrics]:
        """Return the weighted sum of the terms, and each term without its weight."""
        objective, encoder = self.config.objective, self.encoder
        found: dict[str, Tensor] = {}
        if objective.styles:
            w, drawn = self._pair(batches, step)
            with step.autocast():
                error = full_precision(encoder.normalised(encoder(drawn)) - encoder.normalised(w))
            found["styles"] = error.square().mean()
        real = to_signed(batches["images"].image)
        with step.autocast():
            styles = encoder(real)
            images = self.generator.synthesise(styles, None)
        found["pixels"] = (full_precision(images) - real).square().mean()
        if objective.perceptual:
            with step.autocast():
                found["perceptual"] = full_precision(self._distance(images, real)).mean()
        found["prior"] = full_precision(encoder.normalised(styles)).square().mean()
        loss = torch.stack([getattr(objective, name) * value for name, value in found.items()]).sum()
        return loss, {name: value.detach() for name, value in found.items()}

    def test_metrics(self, batches: Batches, step: StepContext) -> Metrics:
        """Return the PSNR of held-out pictures, in dB, as the encoder alone makes the generator draw them."""
        pixels = batches["images"].image
        with step.autocast():
            images = self.generator.synthesise(self.encoder(to_signed(pixels)), None)
        return {"psnr": psnr(from_signed(images), pixels).mean()}

    def figures(self, batches: Batches) -> dict[str, np.ndarray]:
        """Draw held-out pictures beside what the generator makes of their styles: ``projections``."""
        pixels = batches["images"].image
        images = from_signed(self.generator.synthesise(self.encoder.styles(pixels), None))
        before, after = (sheet(one.cpu().numpy(), COLUMNS) for one in (pixels, images))
        return {"projections": side_by_side(before, after)}

    @torch.no_grad()
    def _pair(self, batches: Batches, step: StepContext) -> tuple[Tensor, Tensor]:
        """Draw w+ of two latent vectors, which change at a place drawn at random, and their pictures."""
        generator, places = self.generator, self.generator.synthesis.styles
        label = batches["images"].label if generator.classes else None
        one, other = (
            generator.map_latents(step.noise(name, generator.latent_dim), label)[:, None] for name in ("z", "second z")
        )
        change = (step.uniform("change", 1) * places).to(torch.int64) + 1
        w = torch.where((torch.arange(places, device=one.device) < change)[:, :, None], one, other)
        sizes = generator.synthesis.noise_sizes if generator.architecture.noise else []
        noise = noise_maps(step.noise("noise", sum(size**2 for size in sizes)), sizes) if sizes else None
        with step.autocast():
            drawn = generator.synthesise(w, noise)
        return w, full_precision(drawn)


RECIPE = EncoderRecipe
