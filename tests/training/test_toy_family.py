"""A new family is one file in models/, one in recipes/ and one in jobs/: nothing else changes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

MODEL = '''
"""A toy: every sample is one learned image."""
from dataclasses import dataclass
import torch
from genlab.models.model import Sampler
from genlab.models.pixels import from_unit

@dataclass(frozen=True)
class ToyArchitecture:
    """Nothing to choose."""

class Toy(Sampler):
    family, Architecture, operations = "toy", ToyArchitecture, ("sample",)

    def __init__(self, image_shape, architecture):
        super().__init__(image_shape, architecture)
        height, width, channels = image_shape
        self.image = torch.nn.Parameter(torch.zeros(channels, height, width))

    @torch.inference_mode()
    def sample(self, count, seed, label=None):
        return from_unit(self.image.sigmoid().expand(count, -1, -1, -1))

MODEL = Toy
'''

RECIPE = '''
"""Learns the mean image."""
from dataclasses import dataclass, field
from torch import nn
from genlab.imaging.sheets import sheet
from genlab.models.pixels import to_unit
from genlab.models.toy import Toy, ToyArchitecture
from genlab.recipes.options import ImageData, Optimization, Run
from genlab.recipes.recipe import Recipe
from genlab.recipes.options import ImageData

@dataclass(frozen=True)
class ToyConfig:
    """Train a toy."""
    run: Run = field(default_factory=lambda: Run(epochs=1))
    data: ImageData = field(default_factory=ImageData)
    model: ToyArchitecture = field(default_factory=ToyArchitecture)
    optimization: Optimization = field(default_factory=lambda: Optimization(learning_rate=0.1))

class ToyRecipe(Recipe[ToyConfig]):
    config_type, averaged = ToyConfig, ("toy",)

    def __init__(self, config, domains):
        super().__init__(config, domains)
        self.toy = Toy(domains["images"].shape, config.model)
        self.networks = nn.ModuleDict({"toy": self.toy})

    def _loss(self, batches):
        return (to_unit(batches["images"].image) - self.toy.image.sigmoid()).square().mean()

    def step(self, batches, step):
        loss = self._loss(batches)
        step.update("toy", loss)
        return {"error": loss.detach()}

    def test_metrics(self, batches, step):
        return {"error": self._loss(batches)}

    def figures(self, batches):
        return {"mean": sheet(self.toy.sample(1, 0).numpy(), columns=1)}

    def model(self):
        return self.toy

RECIPE = ToyRecipe
'''

USE = """
from genlab.store import model_directory
import sys
print(tuple(model_directory.load(sys.argv[1]).sample(2, 0).shape))
"""


def test_a_toy_family_takes_three_files(tiny_data: dict[str, str], tmp_path: Path) -> None:
    for folder in ("genlab", "jobs"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "genlab" / "models" / "toy.py").write_text(MODEL)
    (tmp_path / "genlab" / "recipes" / "toy.py").write_text(RECIPE)
    (tmp_path / "jobs" / "toy.py").write_text((tmp_path / "jobs" / "vae.py").read_text().replace('"vae"', '"toy"'))

    def python(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
        ).stdout

    options = ["--data.images", tiny_data["data.images"], "--run.storage", str(tmp_path), "--run.name", "toy"]
    python("jobs/toy.py", "--run.workers", "0", "--run.batch", "16", "--run.steps", "30", *options)
    lines = [json.loads(line) for line in (tmp_path / "toy" / "metrics.jsonl").read_text().splitlines()]
    train = [line["error"] for line in lines if line["kind"] == "train"]
    assert train[-1] < 0.7 * train[0], "it learns"
    assert lines[-1]["kind"] == "test"
    assert python("-c", USE, str(tmp_path / "toy" / "model")) == "(2, 28, 28, 1)\n"
