"""Networks in whose features FID and KID are taken, each identified by its weights and by how it resizes images."""

import io
from abc import ABC, abstractmethod
from importlib.metadata import version
from pickle import UnpicklingError
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab import __version__
from genlab.core.errors import RunError
from genlab.core.extras import require_extra
from genlab.core.storage import locate, read_bytes, sha256
from genlab.evaluation.measurements import Settings
from genlab.evaluation.trained_classifier import TrainedClassifier
from genlab.models.cpu import keep_freed_memory
from genlab.models.efficientnet import EfficientNetLite0


class Extractor(ABC):
    """A network that turns images into features.

    Attributes:
        label: name of the network in a measurement's title.
        name: name of the network and the layer.
        weights: SHA-256 of the file of its weights.
        version: version of the package that defines the network.
        resizer: the way images are resized to what the network takes.
        dimension: D, the number of features.
        batch: the number of images that go through it at a time.
    """

    label: str
    name: str
    weights: str
    version: str
    resizer: str
    dimension: int
    batch: int = 500

    @abstractmethod
    def features(self, pixels: Tensor) -> Tensor:
        """Compute the features of uint8 [N, H, W, C]: float32 [N, D], on the extractor's device."""

    @property
    def settings(self) -> Settings:
        """The settings of measurements in these features."""
        return {
            "extractor": self.name,
            "extractor_weights": self.weights,
            "extractor_version": self.version,
            "resizer": self.resizer,
            "features": self.dimension,
        }


class Inception(Extractor):
    """Inception-v3 as FID was defined with it (Heusel et al. 2017): torch-fidelity's port of the TensorFlow graph.

    Args:
        file: its weights, ``weights-inception-2015-12-05-6726825d.pth`` of torch-fidelity's releases.
        device: where to compute.

    Raises:
        ConfigError: torch-fidelity is not installed.
        RunError: when the file is missing or holds something else.
    """

    label = "Inception"
    name = "inception-v3-2015-12-05, pool3"
    resizer = "TensorFlow 1.x bilinear to 299x299"
    dimension = 2048
    batch = 50

    def __init__(self, file: str, device: str | torch.device) -> None:
        require_extra("fidelity", "--inception")
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # takes seconds

        try:
            data = read_bytes(locate(file))
            # torch-fidelity unpickles whatever is there, so the same bytes are first read in a way that runs no code.
            torch.load(io.BytesIO(data), weights_only=True)
            network = FeatureExtractorInceptionV3(self.name, ["2048"], io.BytesIO(data))
        except FileNotFoundError:
            raise RunError(f"inception = {file!r}: no such file") from None
        except (UnpicklingError, EOFError, RuntimeError, TypeError, AttributeError, OSError) as error:
            raise RunError(
                f"inception = {file!r}: not the weights of torch-fidelity's Inception-v3 "
                f"(weights-inception-2015-12-05-6726825d.pth): {str(error).partition(chr(10))[0]}"
            ) from None
        self.weights, self.version = sha256(data), version("torch-fidelity")
        self._network = network.to(device)
        self._device = device

    @torch.inference_mode()
    def features(self, pixels: Tensor) -> Tensor:
        """See :meth:`Extractor.features`."""
        (features,) = self._network(_three_channels(pixels).to(self._device))
        return cast("Tensor", features)


class EfficientNetLite(Extractor):
    """EfficientNet-Lite0 with ImageNet weights from an installed package: for colour images, without a download."""

    label = "EfficientNet-Lite0"
    name = "efficientnet-lite0, pooled"
    resizer = "antialiased bicubic to 224x224"
    dimension = 1280
    batch = 50
    CPU_BATCH = 4
    """Images at a time on a CPU: of more, activations are larger than the blocks that the C library keeps."""
    SIZE = (224, 224)

    def __init__(self, device: str | torch.device) -> None:
        network = EfficientNetLite0()
        self.weights, self.version = sha256(network.file.read_bytes()), network.VERSION
        self._network = network.to(device)
        self._device = device
        if torch.device(device).type == "cpu":
            keep_freed_memory()
            self.batch = self.CPU_BATCH

    @torch.inference_mode()
    def features(self, pixels: Tensor) -> Tensor:
        """See :meth:`Extractor.features`."""
        return self._network.features(self._prepared(pixels))

    @torch.inference_mode()
    def layers(self, pixels: Tensor) -> list[Tensor]:
        """Compute the outputs of the last block of each of five resolutions, for perceptual distances.

        Args:
            pixels: uint8 [N, H, W, C].

        Returns:
            float32 [N, D, S, S] each, S from 112 down to 7, on the extractor's device.
        """
        return self._network.layers(self._prepared(pixels))

    @torch.inference_mode()
    def layers_of_floats(self, images: Tensor) -> list[Tensor]:
        """Compute what :meth:`layers` does of images that are not rounded to 8 bits, nor clipped.

        Args:
            images: float [N, C, H, W], black at -1 and white at 1, with values beyond where a model makes such.
        """
        levels = (images.to(self._device).float().expand(-1, 3, -1, -1) + 1) * 127.5
        return self._network.layers(self._resized(levels))

    @property
    def layers_settings(self) -> Settings:
        """The settings of measurements in :meth:`layers`."""
        layers = "efficientnet-lite0, last block of each resolution, unweighted"
        return {
            "extractor": layers,
            "extractor_weights": self.weights,
            "extractor_version": self.version,
            "resizer": self.resizer,
        }

    def _prepared(self, pixels: Tensor) -> Tensor:
        images = _three_channels(pixels).to(self._device).float()
        return self._resized(images).clamp(0, 255)

    def _resized(self, images: Tensor) -> Tensor:
        return F.interpolate(images, self.SIZE, mode="bicubic", antialias=True)


class ClassifierFeatures(Extractor):
    """The layer before the logits of a classifier that genlab trained: for images unlike ImageNet's, such as digits."""

    label = "classifier"
    resizer = "none"

    def __init__(self, classifier: TrainedClassifier) -> None:
        self._classifier = classifier.model
        self.name = f"classifier {'x'.join(map(str, self._classifier.image_shape))}, last hidden layer"
        self.weights, self.version = classifier.weights, __version__
        self.dimension = self._classifier.architecture.features

    def features(self, pixels: Tensor) -> Tensor:
        """See :meth:`Extractor.features`."""
        return self._classifier.features(pixels)


def _three_channels(pixels: Tensor) -> Tensor:
    """Bring uint8 [N, H, W, C] into the shape [N, 3, H, W]; grey is repeated."""
    return pixels.permute(0, 3, 1, 2).expand(-1, 3, -1, -1)
