"""The proofs that users run on their own models: they pass where they should, and fail where they must."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from genlab.cli import verify_ddp, verify_resume
from genlab.core.config import as_arguments, override
from genlab.core.storage import locate
from genlab.proofs.compare_runs import first_difference
from genlab.training.checkpoints import Checkpoints
from tests.training.support import stylegan_config

REPOSITORY = Path(__file__).resolve().parents[2]

MODEL = '''
"""A toy: every sample is one learned image."""
from dataclasses import dataclass
import torch
from genlab.models.model import NoOptions, Sampler
from genlab.models.pixels import from_unit

@dataclass(frozen=True)
class FaultyArchitecture:
    """Nothing to choose."""

class Faulty(Sampler):
    family, Architecture, operations = "faulty", FaultyArchitecture, {"sample": NoOptions}

    def __init__(self, image_shape, architecture):
        super().__init__(image_shape, architecture)
        height, width, channels = image_shape
        self.image = torch.nn.Parameter(torch.zeros(channels, height, width))
        self.norm = torch.nn.BatchNorm2d(channels)

    def draw(self, noise, label, options):
        return from_unit(self.image.sigmoid().expand(len(noise), -1, -1, -1))

MODEL = Faulty
'''

RECIPE = '''
"""Learns the mean image, and breaks one of the rules of CONTRIBUTING.md."""
from dataclasses import dataclass, field
from typing import Literal
import torch.distributed as dist
from torch import nn
from genlab.models.faulty import Faulty, FaultyArchitecture
from genlab.models.pixels import to_unit
from genlab.recipes.options import ImageData, Optimization, Run
from genlab.recipes.recipe import Phase, Recipe

@dataclass(frozen=True)
class Objective:
    """The fault."""
    fault: Literal["remembers", "rank", "batch"] = "remembers"
    """Which rule is broken."""

@dataclass(frozen=True)
class FaultyConfig:
    """Train a toy."""
    run: Run = field(default_factory=lambda: Run(epochs=1))
    data: ImageData = field(default_factory=ImageData)
    model: FaultyArchitecture = field(default_factory=FaultyArchitecture)
    objective: Objective = field(default_factory=Objective)
    optimization: Optimization = field(default_factory=lambda: Optimization(learning_rate=0.1))

class FaultyRecipe(Recipe[FaultyConfig]):
    config_type, averaged = FaultyConfig, ("faulty",)

    def __init__(self, config, domains):
        super().__init__(config, domains)
        self.faulty = Faulty(domains["images"].shape, config.model)
        self.networks = nn.ModuleDict({"faulty": self.faulty})
        self.steps = 0

    def phases(self):
        return (Phase("faulty", "faulty", self.loss),)

    def loss(self, batches, step):
        images = to_unit(batches["images"].image)
        weight = 1.0
        match self.config.objective.fault:
            case "remembers":
                self.steps += 1
                weight = 1 + 0.5 * self.steps
            case "rank":
                weight = 1 + dist.get_rank()
            case "batch":
                images = self.faulty.norm(images)
        loss = weight * (images - self.faulty.image.sigmoid()).square().mean()
        return loss, {"error": loss.detach()}

    def figures(self, batches):
        return {}

    def model(self):
        return self.faulty

RECIPE = FaultyRecipe
'''


def command(module: "object", *arguments: str) -> int:
    """The exit status of one of the commands."""
    with pytest.raises(SystemExit) as ended:
        module.main(arguments)  # type: ignore[attr-defined]
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of genlab with the family ``faulty``."""
    folder = tmp_path_factory.mktemp("faulty")
    shutil.copytree(REPOSITORY / "genlab", folder / "genlab", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "genlab" / "models" / "faulty.py").write_text(MODEL)
    (folder / "genlab" / "recipes" / "faulty.py").write_text(RECIPE)
    return folder


def prove(copy: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and output of ``genlab ARGUMENTS`` in the copy of genlab."""
    done = subprocess.run(
        [sys.executable, "-c", "from genlab.cli.main import main; main()", *arguments],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_a_vae_resumes_exactly_from_a_saved_config(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--workers", "0", "--steps", "6", "--kills", "2", "--storage", str(tmp_path)]
    family = ["--data.images", str(digits), "--run.batch", "6", "--run.threads", "1", "--optimization.ema-images", "30"]
    assert command(verify_resume, "vae", *options, *family) == 0
    said = capsys.readouterr().out
    assert said.count("killed: worker 0 at step") == 2
    assert "PASS: equal bit for bit: " in said
    assert "tensors (18 ema, 18 network, 54 optimizer) of the checkpoint of step 6" in said

    saved = str(tmp_path / "killed" / "config.json")
    assert command(verify_resume, saved, "--storage", str(tmp_path)) == 2
    assert "holds 'unbroken' of an earlier verification" in capsys.readouterr().err
    (tmp_path / "unbroken").rename(tmp_path / "kept")
    assert command(verify_resume, saved, "--steps", "3", "--kills", "3") == 2
    assert "--kills 3: a run of 3 steps" in capsys.readouterr().err


@pytest.mark.slow
def test_state_that_no_checkpoint_holds_is_found(faulty: Path, digits: Path) -> None:
    options = ["--workers", "0", "--steps", "6", "--kills", "1", "--seed", "1"]
    status, said = prove(faulty, "verify-resume", "faulty", *options, "--data.images", str(digits), "--run.batch", "6")
    assert status == 1, said
    assert "FAIL: the runs differ, first in metrics.jsonl: train line of step" in said
    assert "error is " in said


@pytest.mark.slow
def test_a_vae_does_not_depend_on_the_number_of_workers(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(verify_ddp, "vae", "--steps", "2", "--data.images", str(digits), "--run.batch", "5") == 0
    said = capsys.readouterr().out
    assert "dropout is off" in said
    assert "float64, 1 and 2 workers: agree" in said
    assert "fp32, 1 and 2 workers, for comparison" in said
    assert "real-2, with dropout, as configured: all workers are equal bit for bit" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"model.form": "progressive", "model.styles": "adain"},
        pytest.param({}, marks=pytest.mark.reliability),
        pytest.param({"objective.loss": "wgan-gp", "run.accumulate": 2}, marks=pytest.mark.reliability),
    ],
    ids=["progressive", "skip", "wgan-gp in parts"],
)
def test_a_stylegan_with_everything_on_does_not_depend_on_the_number_of_workers(
    changes: dict[str, Any], small_digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two steps in 4x4 pixels, two in which 8x8 fade in, two in which images are augmented, too."""
    config = override(stylegan_config(small_digits), {"run.batch": 12, "growth.stable_images": 20} | changes)
    config = override(config, {"model.group": 2, "growth.fade_images": 40})
    assert command(verify_ddp, "stylegan", "--workers", "3", "--steps", "6", *shlex.split(as_arguments(config))) == 0
    said = capsys.readouterr().out
    assert all(f"float64, 1 and {workers} workers: agree" in said for workers in (2, 3))
    assert "real-3, with dropout, as configured: all workers are equal bit for bit" in said


@pytest.mark.reliability
@pytest.mark.parametrize("family", ["vae", "cvae", "cyclegan", "classifier"])
def test_no_family_depends_on_the_number_of_workers(
    family: str, digits: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [f"--data.images={digits}"]
    if family == "cyclegan":
        data = [f"--data.{domain}={scenes / domain}" for domain in ("a", "b")] + ["--model.width=4"]
    options = ["--workers", "5", "--steps", "4", "--run.batch", "7", *data]
    assert command(verify_ddp, family, *options) == 0
    said = capsys.readouterr().out
    assert all(f"float64, 1 and {workers} workers: agree" in said for workers in (2, 3, 4, 5))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        ("batch", "DIFFER: the workers' states have drifted apart by step 2, in 2 tensors, first in network."),
        ("rank", "DIFFER: metrics by "),
    ],
    ids=["batch statistics", "rank"],
)
def test_what_depends_on_the_workers_is_found(fault: str, finding: str, faulty: Path, digits: Path) -> None:
    data = ["--data.images", str(digits), "--run.batch", "6", "--objective.fault", fault]
    status, said = prove(faulty, "verify-ddp", "faulty", "--steps", "2", *data)
    assert status == 1, said
    assert "float64, 1 and 2 workers: DIFFER" in said
    assert finding in said
    assert "FAIL: results depend on the number of workers" in said


@pytest.fixture
def two_runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal runs, as far as is compared."""
    for name in ("one", "other"):
        folder = tmp_path / name
        with Checkpoints(locate(folder / "checkpoints"), keep=1) as checkpoints:
            checkpoints.save(2, {"network.w": torch.arange(6.0), "optimizer.w.step": torch.tensor(2.0)}, {})
        write_lines(folder, [{"kind": "train", "step": step, "loss": 1 / step, "time": step} for step in (1, 2)])
    return tmp_path / "one", tmp_path / "other"


def write_lines(run: Path, lines: list[dict[str, object]]) -> None:
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_first_difference_is_named(two_runs: tuple[Path, Path]) -> None:
    one, other = map(locate, two_runs)
    found, compared = first_difference(one, other)
    assert found is None
    assert compared.startswith("2 lines of metrics.jsonl and 2 tensors (1 network, 1 optimizer) of the checkpoint of s")

    tensors = {"network.w": torch.tensor([0.0, 1, 2.5, 3, 4, 4]), "optimizer.w.step": torch.tensor(2.0)}
    with Checkpoints(other / "checkpoints", keep=1) as checkpoints:
        checkpoints.save(2, tensors, {})
    found, _ = first_difference(one, other)
    assert found == "checkpoint of step 2: network.w: 2 of 6 elements differ, by 1 at most"

    write_lines(two_runs[1], [{"kind": "train", "step": step, "loss": loss} for step, loss in ((1, 1.0), (2, 0.75))])
    found, _ = first_difference(one, other)
    assert found == "metrics.jsonl: train line of step 2: loss is 0.5 in one and 0.75 in other"

    write_lines(two_runs[1], [{"kind": "train", "step": 1, "loss": 1.0}])
    found, _ = first_difference(one, other)
    assert found == "metrics.jsonl: one has 2 lines, other has 1"


def test_a_config_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text("[1]")
    for module in (verify_resume, verify_ddp):
        assert command(module, str(tmp_path / "config.json")) == 2
        assert "not the config.json of a run" in capsys.readouterr().err
        assert command(module, "diffusion") == 2
        assert "no recipe for family 'diffusion'" in capsys.readouterr().err
