"""What a translator's pictures are held against."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from genlab.models.cyclegan import CycleGAN
from genlab.store import model_directory

PROVENANCE = model_directory.Provenance(run="/runs/monet", step=1, images=1, data={}, config={}, metrics={})


def expected(run: Path, picture: Path, direction: str = "a_to_b") -> np.ndarray:
    model = model_directory.load(str(run / "model"))
    assert isinstance(model, CycleGAN)
    pixels = torch.tensor(np.asarray(Image.open(picture).convert("RGB")))[None]
    return model.translate(pixels, direction)[0].numpy()


def written(picture: Path) -> np.ndarray:
    with Image.open(picture) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def with_ranges(run: Path, copy: Path, **ranges: tuple[float, float]) -> Path:
    """Copy a run with a model, as if its domains had been ingested with these ranges of values."""
    shutil.copytree(run, copy)
    file = copy / "model" / "genlab.json"
    description = json.loads(file.read_text())
    for domain, value_range in ranges.items():
        facts = {"path": f"/data/{domain}", "checksum": "0" * 64, "value_range": value_range}
        description["provenance"]["data"][domain] = facts
    file.write_text(json.dumps(description))
    return copy
