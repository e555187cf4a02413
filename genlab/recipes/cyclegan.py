"""Training of CycleGAN (Zhu et al. 2017, ICCV, arXiv:1703.10593) between two unpaired domains a and b."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from genlab.core.config import OPERATIONAL
from genlab.core.errors import ConfigError
from genlab.core.seeds import derived_seed
from genlab.imaging.sheets import sheet
from genlab.metrics.adversarial import AdversarialLoss, adversarial_loss
from genlab.models.cyclegan import CycleGAN, CycleGANArchitecture, GeneratorArchitecture
from genlab.models.discriminators import (
    PATCH_GAN_LAYERS,
    PATCH_GANS,
    DiscriminatorKind,
    build_discriminator,
    smallest_side,
)
from genlab.models.model import Model
from genlab.models.pixels import to_signed
from genlab.models.precision import full_precision
from genlab.recipes.history_buffer import HistoryBuffer
from genlab.recipes.options import Data, Optimization, Run
from genlab.recipes.recipe import Batches, DomainInfo, Metrics, Phase, Recipe, StepContext

IMAGES_SHOWN = 6
"""Number of images of each domain in the sample pictures."""


@dataclass(frozen=True)
class CycleGANData(Data):
    """The two unpaired domains; the longer one makes the epoch."""

    a: Annotated[str, OPERATIONAL] = "synthetic:scenes-a"
    """Data set of domain a (folder or URL made by `genlab ingest`). `synthetic:scenes-a` is drawn on the spot."""
    b: Annotated[str, OPERATIONAL] = "synthetic:scenes-b"
    """Data set of domain b, of the same image size."""

    @property
    def domains(self) -> dict[str, str]:
        """Return the URL of the data set of each domain."""
        return {"a": self.a, "b": self.b}


@dataclass(frozen=True)
class CycleGANObjective:
    """Weights and kinds of the adversarial, cycle and identity losses."""

    adversarial: AdversarialLoss = "lsgan"
    """lsgan: least squares, as in the paper. bce: cross-entropy on logits, as in Goodfellow et al. 2014."""
    lambda_cycle: Annotated[float, Ge(0)] = 10.0
    """Weight λ of the cycle loss, |F(G(a)) − a| and |G(F(b)) − b|, means over pixels."""
    lambda_cycle_b: Annotated[float, Ge(0)] | None = None
    """Weight λ of the cycle loss for images of b. By default `lambda_cycle`."""
    lambda_identity: Annotated[float, Ge(0)] = 0.5
    """Weight of the identity loss, |F(a) − a| and |G(b) − b|, as a share of the λ of the same images."""
    lambda_identity_b: Annotated[float, Ge(0)] | None = None
    """Identity weight for images of b. By default `lambda_identity`."""
    history: Annotated[int, Ge(0)] = 50
    """Generated images of each domain that are kept, for the discriminators to be shown half of the time instead of
    the newest (Shrivastava et al. 2017); 0 keeps none."""

    def cycle(self, domain: str) -> float:
        """Return the weight of the cycle loss of the images of ``domain``."""
        return self.lambda_cycle if domain == "a" or self.lambda_cycle_b is None else self.lambda_cycle_b

    def identity(self, domain: str) -> float:
        """Return the weight of the identity loss of the images of ``domain``."""
        share = self.lambda_identity if domain == "a" or self.lambda_identity_b is None else self.lambda_identity_b
        return share * self.cycle(domain)


@dataclass(frozen=True)
class CycleGANModel(GeneratorArchitecture):
    """The networks."""

    discriminator: DiscriminatorKind = "patch"
    """What is classified as real or generated. patch: each patch (see discriminator-layers), by pix2pix's PatchGAN.
    patch-reference: the same in the reference implementation's form (a norm that learns nothing, and biases). pixel:
    each pixel. image: the whole image, with one logit."""
    discriminator_width: Annotated[int, Gt(0)] = 64
    """Channels of the discriminators' first layer."""
    discriminator_layers: Annotated[int, Interval(ge=1, le=6)] | None = None
    """Convolutions of stride 2 in a PatchGAN. By default 3, for patches of 70x70; 1, 2 and 4 make 16x16, 34x34 and
    142x142. Images need sides of at least 4 · 2^layers pixels."""


@dataclass(frozen=True)
class CycleGANConfig:
    """Train a CycleGAN between two unpaired genlab data sets."""

    run: Run = field(default_factory=lambda: Run(epochs=200, batch=1))
    data: CycleGANData = field(default_factory=CycleGANData)
    model: CycleGANModel = field(default_factory=CycleGANModel)
    objective: CycleGANObjective = field(default_factory=CycleGANObjective)
    optimization: Optimization = field(
        default_factory=lambda: Optimization(learning_rate=2e-4, beta1=0.5, schedule="linear", decay_from=0.5)
    )


class CycleGANRecipe(Recipe[CycleGANConfig]):
    """Trains both generators together, then both discriminators, on the same pair of batches.

    Every norm is over a single image, so all images that go through a network can be one batch: three passes through
    each generator become two, with the same results.

    Raises:
        ConfigError: when the domains' images differ in shape or are too small for the networks.
    """

    config_type = CycleGANConfig
    averaged = ("generators",)
    ranked_by = "kid"
    renamed_state: ClassVar = {"network.discriminators.history.": "recipe.history."}

    def __init__(self, config: CycleGANConfig, domains: Mapping[str, DomainInfo]) -> None:
        super().__init__(config, domains)
        shape = domains["a"].shape
        if domains["b"].shape != shape:
            raise ConfigError(
                f"data.a holds images of {shape} (height, width, channels) and data.b of {domains['b'].shape}; "
                "ingest both with the same --size and --channels"
            )
        model = config.model
        if model.discriminator_layers is not None and model.discriminator not in PATCH_GANS:
            raise ConfigError(
                f"model.discriminator_layers are a PatchGAN's, and model.discriminator is {model.discriminator!r}; "
                "leave them out"
            )
        layers = model.discriminator_layers or PATCH_GAN_LAYERS
        least = smallest_side(model.discriminator, layers)
        if min(shape[:2]) < least:
            fewer = "fewer model.discriminator_layers or " if model.discriminator in PATCH_GANS and layers > 1 else ""
            raise ConfigError(
                f"data.a, data.b: {shape[0]}x{shape[1]} images are too small for model.discriminator = "
                f"{model.discriminator!r}; at least {least}, or choose {fewer}pixel"
            )
        architecture = CycleGANArchitecture(model.generator, model.width, model.levels, model.dropout)
        self.generators = CycleGAN(shape, architecture)
        self.discriminators = nn.ModuleDict(
            {
                domain: build_discriminator(model.discriminator, shape, model.discriminator_width, layers)
                for domain in ("a", "b")
            }
        )
        self.history = nn.ModuleDict({domain: HistoryBuffer(config.objective.history, shape) for domain in ("a", "b")})
        self.networks = nn.ModuleDict({"generators": self.generators, "discriminators": self.discriminators})

    def phases(self) -> Sequence[Phase]:
        """Return the phase of both generators, and that of both discriminators.

        The discriminators see translations that the generators made before they moved, as in the reference
        implementation, so their loss does not read the generators.
        """
        return (
            Phase("generators", "generators", self._generator_loss),
            Phase("discriminators", "discriminators", self._discriminator_loss, reads=("discriminators",)),
        )

    def _generator_loss(self, batches: Batches, step: StepContext) -> tuple[Tensor, Metrics]:
        """Return the weighted sum of the losses of both generators, and each loss as it is without its weight.

        An identity loss of weight 0 is not computed. A cycle loss of weight 0 is: users want to see how it grows.
        """
        weights = self.config.objective
        a, b = to_signed(batches["a"].image), to_signed(batches["b"].image)
        with step.autocast():
            fake_b, same_b = self._translate(self.generators.a_to_b, a, b if weights.identity("b") else None)
            fake_a, same_a = self._translate(self.generators.b_to_a, b, a if weights.identity("a") else None)
            cycled_a = self.generators.b_to_a(fake_b)
            cycled_b = self.generators.a_to_b(fake_a)
            logits_a, logits_b = self.discriminators["a"](fake_a), self.discriminators["b"](fake_b)
        for domain, fake in (("a", fake_a), ("b", fake_b)):
            step.leave(f"shown_{domain}", self._begin_exchange(domain, full_precision(fake), step))
        metrics = {
            "adversarial_ab": adversarial_loss(weights.adversarial, logits_b, real=True),
            "adversarial_ba": adversarial_loss(weights.adversarial, logits_a, real=True),
        }
        loss = metrics["adversarial_ab"] + metrics["adversarial_ba"]
        reconstructions = {
            "cycle_a": (cycled_a, a, weights.cycle("a")),
            "cycle_b": (cycled_b, b, weights.cycle("b")),
            "identity_a": (same_a, a, weights.identity("a")),
            "identity_b": (same_b, b, weights.identity("b")),
        }
        for name, (image, real, weight) in reconstructions.items():
            if image is not None:
                metrics[name] = F.l1_loss(full_precision(image), real)
                loss = loss + weight * metrics[name] if weight else loss
        return loss, {name: value.detach() for name, value in metrics.items()}

    def _discriminator_loss(self, batches: Batches, step: StepContext) -> tuple[Tensor, Metrics]:
        """Return the sum of both discriminators' losses, of real images and of the generators' translations."""
        kind = self.config.objective.adversarial
        metrics = {}
        for domain in ("a", "b"):
            real, shown = to_signed(batches[domain].image), step.left(f"shown_{domain}")()
            with step.autocast():
                logits_real, logits_fake = self._in_one_batch(self.discriminators[domain], real, shown)
            metrics[f"discriminator_{domain}"] = 0.5 * (
                adversarial_loss(kind, logits_real, real=True) + adversarial_loss(kind, logits_fake, real=False)
            )
        loss = metrics["discriminator_a"] + metrics["discriminator_b"]
        return loss, {name: value.detach() for name, value in metrics.items()}

    def figures(self, batches: Batches) -> dict[str, np.ndarray]:
        """Draw a sheet for each direction, ``a_to_b`` and ``b_to_a``, with held-out images in its first row.

        Below each image are its translation, the translation translated back, and the output of the other generator,
        which should leave the image as it is.
        """
        pictures = {}
        for source, direction, back in (("a", "a_to_b", "b_to_a"), ("b", "b_to_a", "a_to_b")):
            images = batches[source].image[:IMAGES_SHOWN]
            translated = self.generators.translate(images, direction)
            cycled, same = (self.generators.translate(each, back) for each in (translated, images))
            rows = torch.cat([images, translated, cycled, same])
            pictures[direction] = sheet(rows.cpu().numpy(), columns=len(images))
        return pictures

    def model(self) -> Model:
        """Return the model of both generators."""
        return self.generators

    def _begin_exchange(self, domain: str, fake: Tensor, step: StepContext) -> Callable[[], Tensor]:
        """Begin to exchange this rank's generated images for those that the discriminator of ``domain`` is shown.

        The history holds images of all ranks and is the same on each of them, so it does not depend on their number.

        Returns:
            A function that waits for the images of all ranks, and returns the images to show, of the shape of ``fake``.
        """
        run = self.config.run
        if not self.config.objective.history:
            return lambda: fake.detach()
        history = cast("HistoryBuffer", self.history[domain])
        generator = torch.Generator().manual_seed(derived_seed(run.seed, "history", domain, step.index))
        seen = step.index * run.batch
        draws = torch.rand(run.batch, generator=generator, device="cpu")
        slots = torch.randperm(min(self.config.objective.history, seen), generator=generator, device="cpu")
        gathered = step.gather(fake, history.stored(draws, slots, seen))

        def exchanged() -> Tensor:
            rows, fakes = gathered()
            shown = fake.detach().clone()
            for row, image in zip(rows, history.exchange(fakes, rows, draws, slots, seen), strict=True):
                if step.rows.start <= row < step.rows.stop:
                    shown[row - step.rows.start] = image
            return shown

        return exchanged

    @classmethod
    def _translate(cls, generator: nn.Module, source: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the outputs of ``generator`` for images of its source domain and, if given, of its target domain."""
        return (generator(source), None) if target is None else cls._in_one_batch(generator, source, target)

    @staticmethod
    def _in_one_batch(network: nn.Module, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs of ``network`` for two batches, computed as one."""
        one, two = network(torch.cat([first, second])).split([len(first), len(second)])
        return one, two


RECIPE = CycleGANRecipe
