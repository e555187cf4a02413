"""Small data sets and untrained models to measure."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genlab.data.format.shards import ShardSet
from genlab.data.ingest.attributes import AttributesConfig
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.evaluation.extractors import Extractor
from genlab.evaluation.held_out import HeldOut
from genlab.evaluation.trained_classifier import TrainedClassifier
from genlab.models.classifier import Classifier, ClassifierArchitecture
from genlab.models.cvae import CVAE, CVAEArchitecture
from genlab.models.cyclegan import CycleGAN, CycleGANArchitecture
from genlab.models.latent_model import Likelihood
from genlab.models.model import Model
from genlab.models.vae import VAE, VAEArchitecture
from genlab.store import model_directory

TEN = tuple("0123456789")
M = TypeVar("M", bound=Model)


class Levels(Extractor):
    """Mean levels of the image's quarters."""

    label, name, weights, version, resizer = "mean-level", "levels", "0" * 64, "1.0", "none"
    dimension, batch = 4, 7

    def __init__(self) -> None:
        self.seen = 0

    def features(self, pixels: Tensor) -> Tensor:
        self.seen += len(pixels)
        return pixels.float().unflatten(2, (4, -1)).mean((1, 3, 4))


def held_out(directory: Path, count: int = 60) -> HeldOut:
    """The test split, about half, of drawn digits: 28x28x1, labelled."""
    if not directory.exists():
        ingest(IngestConfig("synthetic:digits", str(directory), count=count, test_fraction=0.5, seed=1))
    return HeldOut(ShardSet.open(str(directory)).split("test"), "test")


def sorted_by_class(directory: Path, names: Sequence[str] = ("cat", "dog"), each: int = 40) -> HeldOut:
    """The test split of a folder of labelled pictures, as an ingest leaves it: all of one class, then the next."""
    pictures = directory.with_name(f"{directory.name}-pictures") / "test"
    for name in names:
        (pictures / name).mkdir(parents=True)
        for number in range(each):
            Image.new("L", (28, 28), number).save(pictures / name / f"{number:03}.png")
    attributes = AttributesConfig(pattern="/(?P<label>[a-z]+)/")
    ingest(IngestConfig(f"folder:{pictures.parent}", str(directory), channels=1, attributes=attributes))
    return HeldOut(ShardSet.open(str(directory)).split("test"), "test")


def scenes(directory: Path, domain: str, count: int = 16) -> HeldOut:
    """The test split, half, of drawn scenes: 32x32x3."""
    source = f"synthetic:scenes-{domain}"
    ingest(IngestConfig(source, str(directory), size=32, count=count, test_fraction=0.5, seed=5))
    return HeldOut(ShardSet.open(str(directory)).split("test"), "test")


def vae(likelihood: Likelihood = "bernoulli", seed: int = 0) -> VAE:
    torch.manual_seed(seed)
    return _ready(VAE((28, 28, 1), VAEArchitecture(channels=(4,), hidden=4, likelihood=likelihood)))


def cvae() -> CVAE:
    torch.manual_seed(0)
    return _ready(CVAE((28, 28, 1), CVAEArchitecture(channels=(4, 4), hidden=8, classes=10)))


def cyclegan(seed: int = 0) -> CycleGAN:
    torch.manual_seed(seed)
    return _ready(CycleGAN((32, 32, 3), CycleGANArchitecture(width=2, levels=2)))


def classifier(always: int | None = None) -> Classifier:
    """Untrained; or one that sees the class ``always`` in every image."""
    torch.manual_seed(0)
    model = _ready(Classifier((28, 28, 1), ClassifierArchitecture(width=2, features=8, classes=10)))
    if always is not None:
        model.head.weight.zero_()
        model.head.bias.copy_(torch.eye(10)[always])
    return model


def trained_classifier(
    always: int | None = None, trained_on: HeldOut | None = None, label_names: Sequence[str] = TEN
) -> TrainedClassifier:
    """:func:`classifier`, of these classes and rows."""
    data, split = (trained_on.shards.checksum, trained_on.split) if trained_on else ("0" * 64, "train")
    return TrainedClassifier(classifier(always), "f" * 64, tuple(label_names), data, split, False)


def blind(model: M) -> M:
    """The model with q(z|x) = p(z), and every pixel white or black with probability one half."""
    for tensor in model.parameters():
        tensor.zero_()
    return model


def save(directory: Path, model: Model, data: Path | dict[str, Path], label_names: Sequence[str] = TEN) -> Path:
    """A model directory as its run leaves it; ``data`` is of its one domain, or of each by name."""
    domains = data if isinstance(data, dict) else {"images": data}
    provenance = model_directory.Provenance(
        run=str(directory),
        step=7,
        images=70,
        data={
            domain: {"path": str(path), "checksum": ShardSet.open(str(path)).checksum if path.exists() else "0" * 64}
            for domain, path in domains.items()
        },
        config={"data": {"split": "train", "test_split": "test", "flip": False}},
        metrics={},
        label_names=tuple(label_names),
    )
    model_directory.save(str(directory / "model"), model, provenance)
    return directory


def colours(*shape: int, seed: int = 0) -> Tensor:
    """Random pixels, uint8."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def _ready(model: M) -> M:
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # several times as fast
