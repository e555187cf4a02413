"""A new family is one file in models/, one in recipes/ and one in jobs/: nothing else changes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import safetensors.torch

REPOSITORY = Path(__file__).resolve().parents[2]

TOY_MODEL = '''
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

TOY_RECIPE = '''
"""Learns the mean image."""
from dataclasses import dataclass, field
from torch import nn
from genlab.imaging.sheets import sheet
from genlab.models.pixels import to_unit
from genlab.models.toy import Toy, ToyArchitecture
from genlab.recipes.options import ImageData, Optimization, Run
from genlab.recipes.recipe import Recipe

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

TOY_GAN_MODEL = '''
"""A toy GAN: an image is a linear map of a latent vector, then tanh."""
import math
from dataclasses import dataclass
from typing import Annotated
import torch
from annotated_types import Gt
from torch import nn
from genlab.models.model import Sampler
from genlab.models.pixels import from_signed

@dataclass(frozen=True)
class ToyGANArchitecture:
    """Shape of the generator."""
    latent_dim: Annotated[int, Gt(0)] = 4
    """Size of the latent vector z."""

class ToyGAN(Sampler):
    family, Architecture, operations = "toygan", ToyGANArchitecture, ("sample",)

    def __init__(self, image_shape, architecture):
        super().__init__(image_shape, architecture)
        height, width, channels = image_shape
        linear = nn.Linear(architecture.latent_dim, math.prod(image_shape))
        self.generator = nn.Sequential(linear, nn.Tanh(), nn.Unflatten(1, (channels, height, width)))

    @torch.inference_mode()
    def sample(self, count, seed, label=None):
        noise = torch.randn(count, self.architecture.latent_dim, generator=torch.Generator().manual_seed(seed))
        return from_signed(self.generator(noise.to(self.device)))

MODEL = ToyGAN
'''

TOY_GAN_RECIPE = '''
"""Trains a generator and a discriminator, each with an optimiser of its own (Goodfellow et al. 2014)."""
import math
from dataclasses import dataclass, field
from torch import nn
from genlab.imaging.sheets import sheet
from genlab.metrics.adversarial import adversarial_loss
from genlab.models.pixels import to_signed
from genlab.models.toygan import ToyGAN, ToyGANArchitecture
from genlab.recipes.options import ImageData, Optimization, Run
from genlab.recipes.recipe import Recipe

@dataclass(frozen=True)
class ToyGANConfig:
    """Train a toy GAN."""
    run: Run = field(default_factory=lambda: Run(epochs=1))
    data: ImageData = field(default_factory=ImageData)
    model: ToyGANArchitecture = field(default_factory=ToyGANArchitecture)
    optimization: Optimization = field(default_factory=lambda: Optimization(learning_rate=0.03, beta1=0.5))

class ToyGANRecipe(Recipe[ToyGANConfig]):
    config_type, averaged = ToyGANConfig, ("generator",)

    def __init__(self, config, domains):
        super().__init__(config, domains)
        shape = domains["images"].shape
        self.gan = ToyGAN(shape, config.model)
        self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 1))
        self.networks = nn.ModuleDict({"generator": self.gan, "discriminator": self.discriminator})

    def step(self, batches, step):
        real = to_signed(batches["images"].image)
        with step.autocast():
            fake = self.gan.generator(step.noise("z", self.config.model.latent_dim))
            logits = self.discriminator(fake)
        adversarial = adversarial_loss("bce", logits, real=True)
        step.update("generator", adversarial)
        with step.autocast():
            logits_real, logits_fake = self.discriminator(real), self.discriminator(fake.detach())
        discrimination = adversarial_loss("bce", logits_real, real=True)
        discrimination = discrimination + adversarial_loss("bce", logits_fake, real=False)
        step.update("discriminator", discrimination)
        return {"adversarial": adversarial.detach(), "discriminator": discrimination.detach()}

    def test_metrics(self, batches, step):
        return {}

    def figures(self, batches):
        return {"samples": sheet(self.gan.sample(16, 0).cpu().numpy(), columns=4)}

    def model(self):
        return self.gan

RECIPE = ToyGANRecipe
'''

USE = """
import runpy, sys
from genlab.store import model_directory
job, model = sys.argv[1], sys.argv.pop()
sys.argv = sys.argv[1:]
runpy.run_path(job, run_name="__main__")
images = model_directory.load(model).sample(2, 0)
print(*images.shape, images.float().mean().item())
"""


def train_and_sample(
    folder: Path, family: str, model: str, recipe: str, steps: int, data: str
) -> tuple[list[dict[str, float]], list[float]]:
    """Train a family that is added to a copy of genlab, in one process, and sample two images.

    Returns:
        The lines of ``metrics.jsonl``; and the shape of the images and their mean level.
    """
    for part in ("genlab", "jobs"):
        shutil.copytree(REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "genlab" / "models" / f"{family}.py").write_text(model)
    (folder / "genlab" / "recipes" / f"{family}.py").write_text(recipe)
    job = (folder / "jobs" / "vae.py").read_text().replace('"vae"', f'"{family}"')
    (folder / "jobs" / f"{family}.py").write_text(job)
    options = ["--data.images", data, "--run.storage", str(folder), "--run.name", "run", "--run.steps", str(steps)]
    options += ["--run.workers", "0", "--run.batch", "16"]
    answer = subprocess.run(
        [sys.executable, "-c", USE, f"jobs/{family}.py", *options, str(folder / "run" / "model")],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return lines, [float(word) for word in answer.splitlines()[-1].split()]


def test_a_toy_family_takes_three_files(tiny_data: dict[str, str], tmp_path: Path) -> None:
    lines, (*shape, level) = train_and_sample(tmp_path, "toy", TOY_MODEL, TOY_RECIPE, 30, tiny_data["data.images"])
    errors = [line["error"] for line in lines if line["kind"] == "train"]
    assert errors[-1] < 0.7 * errors[0], "it learns"
    assert lines[-1]["kind"] == "test"
    assert shape == [2, 28, 28, 1]
    assert level < 100, "digits are darker than the grey that it begins with"


def test_a_toy_gan_takes_the_same_three_files(tiny_data: dict[str, str], tmp_path: Path) -> None:
    data = tiny_data["data.images"]
    lines, (*shape, level) = train_and_sample(tmp_path, "toygan", TOY_GAN_MODEL, TOY_GAN_RECIPE, 60, data)
    assert lines[0]["discriminator"] < 1.3, "the discriminator learns: at first its loss is about 2 log 2"
    assert shape == [2, 28, 28, 1]
    assert level < 100, "the generator learns: digits are darker than the grey that it begins with"
    tensors = safetensors.torch.load_file(tmp_path / "run" / "checkpoints" / "step-00000060" / "state.safetensors")
    for network in ("generator", "discriminator"):
        moments = [name for name in tensors if name.startswith(f"optimizer.{network}.") and name.endswith("exp_avg")]
        assert len(moments) == 2, "each network has an optimiser, with a state for each of its parameters"
        assert all(tensors[name].abs().max() > 0 for name in moments)
