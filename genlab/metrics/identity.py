"""Identity distance: how far apart a face network puts the faces of two pictures. It measures alone; nothing is trained
by it.

The network is dlib's ResNet-34 with fewer filters (King, https://github.com/davisking/dlib-models), trained on about 3
million faces of 7,485 people; it comes with the extra ``identity``.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genlab.core.errors import ConfigError
from genlab.core.extras import require_extra

WEIGHTS = "dlib_face_recognition_resnet_model_v1.dat"
SIDE = 150
"""Side of the faces that the network takes, in pixels."""


class FaceNetwork:
    """dlib's face network.

    Faces are not looked for: pictures must show one each, aligned and cropped, as those of UTKFace are.

    Args:
        what: the command or option that needs it, for the message.

    Raises:
        ConfigError: the extra ``identity`` is not installed.
    """

    def __init__(self, what: str) -> None:
        require_extra("identity", what)
        import dlib  # an extra

        package = find_spec("face_recognition_models")  # importing it needs pkg_resources, which is no more
        assert package is not None
        assert package.submodule_search_locations is not None
        weights = Path(package.submodule_search_locations[0], "models", WEIGHTS)
        self._dlib, self._network = dlib, dlib.face_recognition_model_v1(str(weights))

    def embed(self, pictures: Tensor) -> Tensor:
        """Return the places of faces among others.

        Args:
            pictures: uint8 [N, H, W, 3].

        Returns:
            float32 [N, 128].

        Raises:
            ConfigError: they are not in colour.
        """
        if pictures.shape[-1] != 3:
            raise ConfigError("identity: the face network takes pictures in colour alone")
        chips = [self._dlib.resize_image(one, rows=SIDE, cols=SIDE) for one in pictures.cpu().numpy()]
        return torch.from_numpy(np.array([self._network.compute_face_descriptor(one) for one in chips], np.float32))


def identity_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the Euclidean distances of faces, float [N], by their places, [N, 128]."""
    return (first - second).norm(dim=-1)
