"""A translator and pictures for it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genlab.models.cyclegan import CycleGAN, CycleGANArchitecture
from genlab.store import model_directory
from tests.inference.support import PROVENANCE


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a small CycleGAN."""
    directory = tmp_path_factory.mktemp("monet")
    torch.manual_seed(0)
    model = CycleGAN((32, 32, 3), CycleGANArchitecture(width=4))
    model_directory.save(str(directory / "model"), model, PROVENANCE)
    return directory


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Four pictures of several sizes and kinds in a tree, one of them damaged."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("one.jpg", (24, 40)), ("more/two.png", (40, 24)), ("more/three.webp", (32, 32))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    (folder / "more" / "bad.jpg").write_bytes((folder / "one.jpg").read_bytes()[:300])
    (folder / "notes.txt").write_text("not a picture")
    return folder
