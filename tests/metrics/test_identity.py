"""Identity distances, by dlib's face network."""

import zipfile
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from genlab.core import extras
from genlab.core.errors import ConfigError
from genlab.editing.identity import identity_scale
from genlab.imaging.images import prepare
from genlab.metrics.identity import FaceNetwork, identity_distance


@pytest.fixture(scope="module")
def faces(sample_data: Path) -> Tensor:
    """24 aligned and cropped faces of different people, uint8 [24, 64, 64, 3]."""
    with zipfile.ZipFile(sample_data / "utkface" / "utkface_64px.zip") as archive:
        names = [name for name in sorted(archive.namelist()) if name.endswith(".jpg")][:: 559 // 24][:24]
        return torch.from_numpy(np.stack([prepare(archive.read(name), channels=3).image for name in names]))


@pytest.mark.slow
def test_a_face_is_nearer_to_its_mirror_image_than_to_others(faces: Tensor) -> None:
    network = FaceNetwork("test")
    scale = identity_scale(network, faces)
    assert scale.pictures == 24
    assert scale.mirrored < 0.6 < scale.others, "0.6 is the distance by which dlib tells people apart"

    places = network.embed(faces[:2])
    assert places.shape == (2, 128)
    assert identity_distance(places, places).tolist() == [0, 0]
    assert identity_distance(places[0], network.embed(faces[:1] // 2 + 60)[0]) < scale.others, "the same one, paler"


def test_grey_pictures_are_refused(faces: Tensor) -> None:
    with pytest.raises(ConfigError, match="in colour alone"):
        FaceNetwork("test").embed(faces[:1, ..., :1])


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(extras, "find_spec", find)
    with pytest.raises(ConfigError, match=r"--identity needs dlib, .*pip install 'genlab\[identity\]'"):
        FaceNetwork("--identity")
