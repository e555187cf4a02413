"""Training of StyleGAN (Karras et al. 2019, arXiv:1812.04948) and StyleGAN2 (2020, arXiv:1912.04958)."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from genlab.core.errors import ConfigError
from genlab.imaging.sheets import sheet
from genlab.metrics.adversarial import adversarial_loss
from genlab.models.equalized import downsample, upsample
from genlab.models.model import Model
from genlab.models.pixels import to_signed
from genlab.models.precision import full_precision
from genlab.models.stylegan import (
    Form,
    SamplingOptions,
    StyleGAN,
    StyleGANArchitecture,
    StyleGANNetworks,
    noise_maps,
    stage_of,
)
from genlab.models.stylegan_discriminator import Discriminator
from genlab.recipes.augmentation import UNIFORMS, AdaptiveProbability, Augmentation, augment
from genlab.recipes.growth import Growth
from genlab.recipes.options import ImageData, Optimization, Run
from genlab.recipes.recipe import Batches, DomainInfo, Metrics, Phase, Recipe, StepContext

Loss = Callable[[Batches, StepContext], tuple[Tensor, Metrics]]
"""What computes the loss of a phase, see :class:`Phase`."""
MEAN_STYLE_IMAGES = 10_000
"""Half-life, in images, of the running mean of w, once training has seen 20 times as many; with --run.init at once."""
PATH_LENGTH_DECAY = 0.01
"""Share of the newest path lengths in their running mean, as in the paper's code."""
DRIFT = 0.001
"""Weight of the squared logits of real images in WGAN-GP (Karras et al. 2018, appendix A.1)."""
FEW_IMAGES = 5000
"""Below so many images StyleGAN2 is better with adaptive augmentation, by Karras et al. 2020, figure 7."""
SHOWN, SHOWN_COLUMNS = 32, 8
"""Samples in a picture, and in a row of it."""
TRUNCATION = 0.7
"""Truncation ψ of the second picture of samples."""


@dataclass(frozen=True)
class StyleGANModel(StyleGANNetworks):
    """The networks."""

    conditional: bool = False
    """Tell both networks the class of an image; the data set needs labels."""
    discriminator: Form | None = None
    """Form of the discriminator. residual: blocks with a shortcut. skip: each resolution also reads the image. By
    default residual, and progressive where `form` is."""
    group: Annotated[int, Ge(1)] = 4
    """Neighbouring rows of the batch whose standard deviation the discriminator sees, so that it notices when all
    images are alike; 1 for none."""


@dataclass(frozen=True)
class StyleGANObjective:
    """The adversarial loss and what is added to it."""

    loss: Literal["nonsaturating", "wgan-gp"] = "nonsaturating"
    """nonsaturating: the logistic loss of Goodfellow et al. 2014, with R1. wgan-gp: Gulrajani et al. 2017, with the
    drift term of Karras et al. 2018; it has no R1."""
    r1: Annotated[float, Ge(0)] | None = None
    """Weight γ of R1, half the squared gradient of the discriminator at real images (Mescheder et al. 2018). By default
    0.0002 · pixels / batch (Karras et al. 2020, arXiv:2006.06676); 0 for none."""
    r1_every: Annotated[int, Ge(1)] = 16
    """Steps between R1 terms, each as many times as heavy (lazy regularisation)."""
    gradient_penalty: Annotated[float, Ge(0)] = 10.0
    """Weight λ of the gradient penalty of wgan-gp."""
    path_length: Annotated[float, Ge(0)] = 2.0
    """Weight of the path length regularisation of StyleGAN2; 0 for none."""
    path_length_every: Annotated[int, Ge(1)] = 4
    """Steps between path length terms, each as many times as heavy."""
    mixing: Annotated[float, Interval(ge=0, le=1)] = 0.9
    """Probability that an image is styled by two latents in training: mixing regularisation of StyleGAN."""

    def r1_weight(self, pixels: int, batch: int) -> float:
        """Return γ for images of so many pixels and a global batch of ``batch``."""
        return 0.0002 * pixels / batch if self.r1 is None else self.r1


@dataclass(frozen=True)
class StyleGANAugmentation(Augmentation):
    """Augmentation of what the discriminator is shown (Karras et al. 2020), for data sets of few images."""

    adaptive: bool = False
    """Augment images, each transformation with a probability that grows while the discriminator overfits."""


@dataclass(frozen=True)
class StyleGANConfig:
    """Train a StyleGAN on a genlab data set."""

    run: Run = field(default_factory=lambda: Run(epochs=100, batch=32))
    data: ImageData = field(default_factory=lambda: ImageData(images="synthetic:scenes-a"))
    model: StyleGANModel = field(default_factory=StyleGANModel)
    objective: StyleGANObjective = field(default_factory=StyleGANObjective)
    augmentation: StyleGANAugmentation = field(default_factory=StyleGANAugmentation)
    growth: Growth = field(default_factory=Growth)
    optimization: Optimization = field(
        default_factory=lambda: Optimization(learning_rate=2.5e-3, beta1=0.0, beta2=0.99, ema_images=10_000)
    )


ONE_THREAD: Mapping[str, Any] = {
    "run.batch": 32,
    "run.precision": "bf16",
    "data.flip": True,
    "model.channel_max": 128,
    "model.latent_dim": 128,
    "model.mapping_layers": 4,
    "objective.path_length": 0.0,
}
"""Networks small enough to be trained on one CPU core, in bf16."""
PROGRESSIVE_GAN: Mapping[str, Any] = {
    "model.form": "progressive",
    "model.styles": "none",
    "model.mapping_layers": 0,
    "model.constant": False,
    "model.noise": False,
    "model.resampling": "nearest",
    "objective.path_length": 0.0,
    "objective.mixing": 0.0,
    "optimization.learning_rate": 1e-3,
}
"""Configuration A of table 1 in the paper of StyleGAN, but for its loss."""
CONFIGURATIONS = "ABCDEF"
"""The rows of that table."""
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "B": {"model.resampling": "bilinear", "optimization.learning_rate": 2.5e-3},
    "C": {"model.mapping_layers": 8, "model.styles": "adain"},
    "D": {"model.constant": True},
    "E": {"model.noise": True},
    "F": {"objective.mixing": 0.9},
}
"""What each of them changes in the one before it."""


def _configuration(row: str) -> Mapping[str, Any]:
    """Return the options of a row of table 1; A alone is trained with WGAN-GP, as in the column of FFHQ."""
    if row == "A":
        return {**PROGRESSIVE_GAN, "objective.loss": "wgan-gp"}
    values = dict(PROGRESSIVE_GAN)
    for each in CONFIGURATIONS[1 : CONFIGURATIONS.index(row) + 1]:
        values |= CHANGES[each]
    return values


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "comparison-32": {
        "run.batch": 32,
        "run.precision": "bf16",
        "data.flip": True,
        "model.channel_base": 512,
        "model.channel_max": 128,
        "model.latent_dim": 128,
        "objective.r1": 0.02,
        "growth.stable_images": 12_500,
        "growth.fade_images": 12_500,
    },
    "faces-32": {**ONE_THREAD, "model.channel_base": 512, "objective.r1": 0.02},
    "faces-64": {**ONE_THREAD, "model.channel_base": 1024, "objective.r1": 0.0256},
    "stylegan": {**_configuration("F"), "model.channel_base": 8192, "objective.r1": 10.0, "objective.r1_every": 1},
    "stylegan2": {"model.channel_base": 16384, "objective.r1": 10.0, "optimization.learning_rate": 2e-3},
    **{row: _configuration(row) for row in CONFIGURATIONS},
}
"""Presets: CPU-sized ones for faces, those of the papers at 1024x1024, the rows A to F of StyleGAN's table 1, and the
width, batch and growth at which these are compared at 32x32."""


class StyleGANRecipe(Recipe[StyleGANConfig]):
    """Trains a generator and a discriminator in turn, each with lazy regularisation of its own.

    Raises:
        ConfigError: when model and data do not fit each other, or options contradict each other.
    """

    config_type = StyleGANConfig
    averaged = ("generator",)
    ranked_by = "kid"
    presets = PRESETS
    path_length_mean: Tensor
    """Running mean of path lengths, a scalar."""

    def __init__(self, config: StyleGANConfig, domains: Mapping[str, DomainInfo]) -> None:
        super().__init__(config, domains)
        images, model = domains["images"], config.model
        if model.conditional and not images.label_names:
            raise ConfigError("model.conditional: data.images has no labels; ingest with labels, or leave it out")
        classes = len(images.label_names) if model.conditional else 0
        values = {name: getattr(model, name) for name in StyleGANNetworks.__dataclass_fields__}
        self.generator = StyleGAN(images.shape, StyleGANArchitecture(**values, classes=classes))
        form = model.discriminator or ("progressive" if model.form == "progressive" else "residual")
        if (form == "progressive") != (model.form == "progressive"):
            raise ConfigError(
                f"model.discriminator = {form!r}, model.form = {model.form!r}: both networks grow or none does"
            )
        if model.styles == "none" and model.constant:
            raise ConfigError(
                "model.styles = 'none', model.constant = True: no picture would depend on z; add --model.no-constant"
            )
        augmentation = config.augmentation
        if augmentation.adaptive and not (augmentation.blitting or augmentation.geometry or augmentation.colour):
            raise ConfigError("augmentation.adaptive: blitting, geometry and colour are all off: nothing is augmented")
        if model.clamp is not None and model.styles != "demodulate":
            raise ConfigError(
                f"model.clamp = {model.clamp:g}, model.styles = {model.styles!r}: only demodulate has a clamp"
            )
        first = config.growth.first
        if first & (first - 1) or first > images.shape[0]:
            raise ConfigError(f"growth.first = {first}: must be a power of two of at most {images.shape[0]}")
        self.group = model.group
        self.discriminator = Discriminator(
            images.shape, model, form, model.resampling, model.group, classes, model.clamp
        )
        self.networks = nn.ModuleDict({"generator": self.generator, "discriminator": self.discriminator})
        self.register_buffer("path_length_mean", torch.zeros(()))
        if config.augmentation.adaptive:
            self.augmentation = AdaptiveProbability(config.augmentation, config.run.batch)
        self._styles = _RowMean()
        self._lengths = _RowMean()

    @property
    def _size(self) -> int:
        return self.domains["images"].shape[0]

    @property
    def _r1(self) -> float:
        if self.config.objective.loss == "wgan-gp":
            return 0.0
        return self.config.objective.r1_weight(self._size**2, self.config.run.batch)

    def _regularised_every(self, network: str) -> int | None:
        """Return in which steps a network is regularised: 0, this, twice this ...; ``None`` if it is in none."""
        objective = self.config.objective
        if network == "generator":
            return objective.path_length_every if objective.path_length else None
        return objective.r1_every if self._r1 else None

    def phases(self) -> Sequence[Phase]:
        """Return the phases of both networks, and those of their lazy regularisations.

        A regularisation that comes in every step is part of its network's loss, as in the papers before StyleGAN2.
        """
        phases = list[Phase]()
        for network, loss, name, regularisation in (
            ("generator", self._generator_loss, "path_length", self._path_length_loss),
            ("discriminator", self._discriminator_loss, "r1", self._r1_loss),
        ):
            every = self._regularised_every(network)
            phases.append(Phase(network, network, _sum_of(loss, regularisation) if every == 1 else loss))
            if every is not None and every > 1:
                phases.append(Phase(name, network, regularisation, every, reads=(network,)))
        return phases

    def optimization(self, network: str) -> Optimization:
        """Return the options of a network: with a lazy phase it takes more steps, each a little smaller.

        With a phase in every k-th step there are k + 1 steps instead of k, so the learning rate is multiplied by c =
        k / (k + 1), and the decays are raised to the power of c (StyleGAN2, appendix B).
        """
        options, every = self.config.optimization, self._regularised_every(network)
        if every is None or every == 1:
            return options
        power = every / (every + 1)
        return replace(
            options,
            learning_rate=options.learning_rate * power,
            beta1=options.beta1**power,
            beta2=options.beta2**power,
        )

    def advice(self) -> Sequence[str]:
        """Advise augmentation for few images, and faster growth to networks that do not grow up."""
        rows, found = self.domains["images"].rows, []
        if rows < FEW_IMAGES and not self.config.augmentation.adaptive:
            found.append(
                f"data.images has {rows:,} images: a discriminator learns so few by heart, and samples become worse "
                "from then on; try --augmentation.adaptive"
            )
        growth, run, size = self.config.growth, self.config.run, self._size
        images = round(run.epochs * rows) if run.steps is None and run.epochs else (run.steps or 0) * run.batch
        if self.config.model.form != "progressive" or growth.level(images, size) == math.log2(size):
            return found
        if run.init is not None:
            instead = f"--growth.first {size} goes on with networks that have grown up"
        else:
            each = max(1, images // (2 * round(math.log2(size / growth.first)) + 1))
            instead = f"with --growth.stable-images {each} --growth.fade-images {each} they grow up"
        grown = 2 ** math.floor(growth.level(images, size))
        found.append(
            f"growth: after {images:,} images the networks draw {grown}x{grown} of {size}x{size} pixels; {instead}"
        )
        return found

    def restarts(self, images: int) -> bool:
        """Return whether a resolution begins to fade in: Adam then begins anew.

        The paper's code has it begin anew where a resolution has faded in, too.
        """
        if self.config.model.form != "progressive":
            return False
        return self.config.growth.begins_resolution(images, self.config.run.batch, self._size)

    def _generator_loss(self, batches: Batches, step: StepContext) -> tuple[Tensor, Metrics]:
        """Return the loss of generated images that the discriminator judges; move the running mean of w."""
        label = self._label(batches)
        with step.autocast():
            w = self._map(step, "generator", label)
            images = self._synthesise(step, "generator", w)
            logits = self._judge(step, self._augmented(step, "generator", images), label)
        self._move_mean_style(w[:, 0], step)
        wasserstein = self.config.objective.loss == "wgan-gp"
        loss = -logits.mean() if wasserstein else adversarial_loss("bce", logits, real=True)
        return loss, {"generator": loss.detach()}

    def _path_length_loss(self, batches: Batches, step: StepContext) -> tuple[Tensor, Metrics]:
        """Return how much the lengths of steps in the image, for steps in w, differ from their mean.

        It is taken of every other row of the global batch, as its gradient costs much memory.
        """
        rows = step.rows.stop - step.rows.start
        chosen = slice(step.rows.start % 2, None, 2)
        label = self._label(batches)
        with step.autocast(), self._eager():
            w = self._map(step, "path length", label)[chosen]
            if not w.requires_grad:  # Without a mapping network w is z.
                w = w.clone().requires_grad_()
            images = full_precision(self._synthesise(step, "path length", w, chosen))
        directions = step.noise("path length directions", *images.shape[1:])[chosen] / images.shape[2]
        (slopes,) = torch.autograd.grad((images * directions).sum(), w, create_graph=True)
        lengths = slopes.square().sum(2).mean(1).sqrt()
        # A mean over the chosen rows of the global batch, of which this rank may have none.
        batch = self.config.run.batch
        weight = batch / len(range(0, batch, 2))
        penalty = (lengths - self.path_length_mean).square().sum() * weight / rows
        of_rows = lengths.new_zeros(rows)
        of_rows[chosen] = weight * lengths.detach()
        objective = self.config.objective
        mean = self._lengths.add(of_rows, step, batch)
        if mean is not None:
            self.path_length_mean.lerp_(mean.to(self.path_length_mean.dtype), PATH_LENGTH_DECAY)
        factor = objective.path_length * objective.path_length_every
        return factor * penalty, {"path_length": of_rows.mean(), "path_length_loss": penalty.detach()}

    def _discriminator_loss(self, batches: Batches, step: StepContext) -> tuple[Tensor, Metrics]:
        """Return the loss of telling real images from generated ones."""
        label, real = self._label(batches), self._real(batches, step)
        with step.autocast():
            with torch.no_grad():
                fake = self._synthesise(step, "discriminator", self._map(step, "discriminator", label))
            both = None if label is None else torch.cat([label, label])
            fake = fake.to(real.dtype)
            real, fake = self._augmented(step, "real", real), self._augmented(step, "fake", fake)
            logits = self._judge(step, torch.cat([real, fake]), both)
        for_real, for_fake = logits.chunk(2)
        metrics = {
            "real_logit": for_real.mean().detach(),
            "fake_logit": for_fake.mean().detach(),
            "real_sign": for_real.sign().mean().detach(),
        }
        if self.config.augmentation.adaptive:
            metrics["augmentation"] = self.augmentation.probability.clone()
            self.augmentation.observe(step.gather(for_real)()[1])
        if self.config.objective.loss == "wgan-gp":
            distance = for_fake.mean() - for_real.mean()
            penalty = self._gradient_penalty(real, fake, label, step)
            loss = distance + self.config.objective.gradient_penalty * penalty + DRIFT * for_real.square().mean()
            metrics |= {"discriminator": distance.detach(), "gradient_penalty": penalty.detach()}
        else:
            loss = adversarial_loss("bce", for_real, real=True) + adversarial_loss("bce", for_fake, real=False)
            metrics["discriminator"] = loss.detach()
        return loss, metrics

    def _gradient_penalty(self, real: Tensor, fake: Tensor, label: Tensor | None, step: StepContext) -> Tensor:
        """Return how much the gradient's length differs from 1 between real and generated images, a mean over rows."""
        share = step.uniform("gradient penalty", 1, 1, 1)
        between = torch.lerp(real, fake, share).requires_grad_()
        with step.autocast(), self._eager():
            logits = self._judge(step, between, label)
        (slopes,) = torch.autograd.grad(logits.sum(), between, create_graph=True)
        return (slopes.square().sum((1, 2, 3)).sqrt() - 1).square().mean()

    def _r1_loss(self, batches: Batches, step: StepContext) -> tuple[Tensor, Metrics]:
        """Return R1, the squared gradient of the discriminator at real images."""
        real = self._real(batches, step).requires_grad_()
        with step.autocast(), self._eager():
            logits = self._judge(step, self._augmented(step, "r1", real), self._label(batches))
        (slopes,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
        penalty = slopes.square().sum((1, 2, 3)).mean()
        return 0.5 * self._r1 * self.config.objective.r1_every * penalty, {"r1": penalty.detach()}

    def test_metrics(self, batches: Batches, step: StepContext) -> Metrics:
        """Return the mean logit of held-out images: far below that of training images, the discriminator overfits.

        They are augmented as training images are, or the two could not be compared.
        """
        grown = self.generator.growth if self.config.model.form == "progressive" else None
        level = None if grown is None or grown.is_meta else float(grown)
        with step.autocast():
            real = self._augmented(step, "held out", self._shrunk(to_signed(batches["images"].image), level))
            logits = self.discriminator(real, self._label(batches), *_stage(level, real.device))
        return {"real_logit": full_precision(logits).mean()}

    def figures(self, batches: Batches) -> dict[str, np.ndarray]:
        """Draw the first samples of the run's seed, as they come and truncated."""
        seed = self.config.run.seed
        return {
            name: sheet(
                self.generator.sample(SHOWN, seed, options=SamplingOptions(truncation)).cpu().numpy(), SHOWN_COLUMNS
            )
            for name, truncation in (("samples", 1.0), ("truncated", TRUNCATION))
        }

    def model(self) -> Model:
        """Return the generator."""
        return self.generator

    def _level(self, step: StepContext) -> float | None:
        """Return how far progressive networks have grown, see :meth:`Growth.level`; ``None`` for others."""
        if self.config.model.form != "progressive":
            return None
        level = self.config.growth.level(step.index * self.config.run.batch, self._size)
        self.generator.growth.fill_(level)
        return level

    def _label(self, batches: Batches) -> Tensor | None:
        return batches["images"].label if self.config.model.conditional else None

    def _real(self, batches: Batches, step: StepContext) -> Tensor:
        """Return real images as the networks see them now: float [N, C, R, R] in [-1, 1]."""
        return self._shrunk(to_signed(batches["images"].image), self._level(step))

    @staticmethod
    def _shrunk(images: Tensor, level: float | None) -> Tensor:
        """Bring images to the resolution of progressive networks, with as little detail as these have while fading."""
        resolution, fade = _stage(level, images.device)
        while resolution is not None and images.shape[2] > resolution:
            images = downsample(images, "nearest")
        if fade is not None:
            images = torch.lerp(upsample(downsample(images, "nearest"), "nearest"), images, fade)
        return images

    def _map(self, step: StepContext, name: str, label: Tensor | None) -> Tensor:
        """Draw latents and map them to a style for each place, of two latents by the probability of mixing."""
        size, places = self.config.model.latent_dim, self.generator.synthesis.styles
        w: Tensor = self.generator.mapping(step.noise(f"z of {name}", size), label)
        styles = w[:, None].expand(-1, places, -1)
        if self.config.objective.mixing and self.config.model.styles != "none":
            other = self.generator.mapping(step.noise(f"second z of {name}", size), label)
            draws = step.uniform(f"mixing of {name}", 2)
            level = self._level(step)
            active = places if level is None else 2 * (math.ceil(level) - 1)
            first = 1 + (draws[:, 1] * (active - 1)).to(torch.int64)
            first = torch.where(draws[:, 0] < self.config.objective.mixing, first, places)
            mixed = torch.arange(places, device=w.device) >= first[:, None]
            styles = torch.where(mixed[:, :, None], other[:, None], styles)
        return styles

    def _synthesise(self, step: StepContext, name: str, w: Tensor, chosen: slice | None = None) -> Tensor:
        """Draw images of styles, [N, places, style_dim], which are those of ``chosen`` local rows, by default all."""
        resolution, fade = _stage(self._level(step), w.device)
        sizes = self.generator.synthesis.noise_sizes if self.config.model.noise else []
        sizes = [size for size in sizes if resolution is None or size <= resolution]
        layers = None
        if sizes:
            drawn = step.noise(f"noise of {name}", sum(size**2 for size in sizes))
            drawn = drawn if chosen is None else drawn[chosen]
            layers = noise_maps(drawn, sizes)
        images: Tensor = self.generator.synthesis(w, layers, resolution, fade)
        return images

    def _judge(self, step: StepContext, images: Tensor, label: Tensor | None) -> Tensor:
        """Return the discriminator's logits of images, [N]."""
        logits: Tensor = self.discriminator(images, label, *_stage(self._level(step), images.device))
        return full_precision(logits)

    def _augmented(self, step: StepContext, name: str, images: Tensor) -> Tensor:
        """Augment images for the discriminator, if they are to be."""
        options = self.config.augmentation
        if not options.adaptive:
            return images
        uniform = step.uniform(f"augmentation of {name}", UNIFORMS)
        return augment(images, self.augmentation.probability, uniform, options)

    def _move_mean_style(self, w: Tensor, step: StepContext) -> None:
        """Move the running mean of w, fast at the beginning of a mapping network that is not trained yet."""
        batch = self.config.run.batch
        mean = self._styles.add(w, step, batch)
        if mean is not None:
            trained = self.config.run.init is not None
            half_life = MEAN_STYLE_IMAGES if trained else min(MEAN_STYLE_IMAGES, (step.index + 1) * batch / 20)
            self.generator.mean_style.lerp_(mean.to(self.generator.mean_style.dtype), 1 - 0.5 ** (batch / half_life))

    def _eager(self) -> AbstractContextManager[Any]:
        """Return a context in which compiled networks run as they are: compiled code has no second derivatives."""
        run = self.config.run
        return torch.compiler.set_stance("force_eager") if run.compile or run.cuda_graphs else nullcontext()


def _sum_of(one: Loss, other: Loss) -> Loss:
    """Return the loss that is the sum of two, with the metrics of both."""

    def loss(batches: Batches, step: StepContext) -> tuple[Tensor, Metrics]:
        (value, metrics), (more, others) = one(batches, step), other(batches, step)
        return value + more, {**metrics, **others}

    return loss


class _RowMean:
    """The mean of a value over the rows of a global batch, whose parts come one after the other."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._rows = 0

    def add(self, values: Tensor, step: StepContext, batch: int) -> Tensor | None:
        """Add values of this rank's rows of a part, [N, ...]; with the last part, return the mean of all rows."""
        rows, gathered = step.gather(values)()
        total = gathered.sum(0)
        self._sum = total if self._sum is None else self._sum + total
        self._rows += len(rows)
        if self._rows < batch:
            return None
        mean, self._sum, self._rows = self._sum / batch, None, 0
        return mean


def _stage(level: float | None, device: torch.device) -> tuple[int | None, Tensor | None]:
    """Return resolution and fade of a level, see :meth:`Growth.level`; ``None`` each for networks that do not grow."""
    return (None, None) if level is None else stage_of(level, device)


RECIPE = StyleGANRecipe
