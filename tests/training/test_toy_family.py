"""A new family is one file in models/, one in recipes/ and one in jobs/: nothing else changes.

The families are those of tests/training/families, which CONTRIBUTING.md tells newcomers to copy.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from genlab.core.storage import locate
from genlab.evaluation.checkpoint_evaluations import read_evaluations
from tests.training.support import state_file

REPOSITORY = Path(__file__).resolve().parents[2]
FAMILIES = Path(__file__).parent / "families"

USE = """
import json, runpy, sys
import numpy as np
from genlab.cli.evaluate import EvaluateConfig, run_evaluation
from genlab.data.format.shards import ShardSet
from genlab.inference.engine import Engine
job, run, data = sys.argv[1], sys.argv.pop(), sys.argv.pop()
sys.argv = sys.argv[1:]
runpy.run_path(job, run_name="__main__")
engine, answer = Engine(run + "/model"), {}
if "sample" in engine.info.operations:
    images = engine.sample(64, 0)
    answer |= {"samples": images.shape, "level": images.mean()}
if "reconstruct" in engine.info.operations:
    inputs = ShardSet.open(data).split("test").read(np.arange(16)).image
    outputs = engine.reconstruct(list(inputs))
    differences = [np.square(np.subtract(of, inputs, dtype=float)).mean() for of in (outputs, inputs.mean())]
    answer |= {"reconstructions": outputs.shape, "error": differences[0], "error_of_grey": differences[1]}
    answer["measured"] = list(run_evaluation(EvaluateConfig(run, classifier="none"))[0].measurements)
print(json.dumps(answer))
"""

DRAW = """
import io, json, sys
import numpy as np
from fastapi.testclient import TestClient
from PIL import Image
from genlab.cli import sample
from genlab.cli.evaluate import EvaluateConfig, run_evaluation
from genlab.inference.engine import Engine
from genlab.reports.report import make_report
from genlab.serving.limits import Limits
from genlab.serving.service import create_app
from genlab.serving.settings import Access, Settings
from genlab.serving.telemetry import PrometheusTelemetry
run, answer = sys.argv[1], {}
make_report(run)

expected = Engine(run + "/model").sample(1, 3, truncation=0.25)[0, :, :, 0]
sample.main([run, run + "/one.png", "--count", "1", "--seed", "3", "--truncation", "0.25"])
body = {"seed": 3, "truncation": 0.25}
answer["card"] = "| sample, `truncation` | number ≥ 0, ≤ 1, by default 1.0. " in open(run + "/model/README.md").read()
app = create_app((run,), Limits(), Access(), Settings(), PrometheusTelemetry())
with TestClient(app, "http://localhost") as api:
    [card] = api.get("/v1/models").json()
    response = api.post("/v1/models/" + card["name"] + "/sample", json=body)
pictures = {"command": run + "/one.png", "http": io.BytesIO(response.content)}
answer |= {name: bool((np.asarray(Image.open(file)) == expected).all()) for name, file in pictures.items()}
for name, options in (("whole", {}), ("narrow", {"truncation": 0.25})):
    evaluation, _ = run_evaluation(EvaluateConfig(run, classifier="none"), options)
    kid = evaluation.measurements["kid"]
    answer[name] = {"measurements": sorted(evaluation.measurements), "kid": kid.value, "settings": kid.settings}
print(json.dumps(answer))
"""


RESUME = """
import sys
from pathlib import Path
from genlab.core.config import override
from genlab.recipes.recipe import recipe_type
from genlab.training.plan import make_plan, start_or_resume
from tests.training.support import assert_same_run, train_to_the_end, train_until_killed

if __name__ == "__main__":
    data, folder, workers = *sys.argv[1:3], int(sys.argv[3])
    options = {"data.images": data, "run.storage": folder, "run.batch": 16, "run.steps": 9, "run.log_every": 1}
    options |= {"run.checkpoint_every": 3, "run.accumulate": 2, "optimization.ema_images": 50.0}
    config = override(recipe_type("toygan").config_type(), options)
    unbroken, killed = (make_plan("toygan", override(config, {"run.name": name})) for name in ("unbroken", "killed"))
    for plan in (unbroken, killed):
        start_or_resume(plan)
    train_to_the_end(unbroken, workers)
    train_until_killed(killed, "step", 4, workers, target=workers - 1)
    train_until_killed(killed, "a checkpoint", 6, workers, target=0)
    train_to_the_end(killed, workers)
    assert_same_run(Path(unbroken.directory), Path(killed.directory))
"""


def add_to_a_copy(folder: Path, family: str) -> None:
    """Copy genlab into ``folder``, and add the three files of a family."""
    for part in ("genlab", "jobs"):
        shutil.copytree(REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name, place in (("model", "genlab/models"), ("recipe", "genlab/recipes"), ("job", "jobs")):
        shutil.copyfile(FAMILIES / family / f"{name}.py", folder / place / f"{family}.py")


def train_and_use(
    folder: Path, family: str, steps: int, data: str, *more: str
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Train a family that is added to a copy of genlab, in one process, and do the model's operations.

    Returns:
        The lines of ``metrics.jsonl``, and what was measured of the operations.
    """
    add_to_a_copy(folder, family)
    options = ["--data.images", data, "--run.storage", str(folder), "--run.name", "run", "--run.steps", str(steps)]
    options += ["--run.workers", "0", "--run.batch", "16", *more]
    answer = subprocess.run(
        [sys.executable, "-c", USE, f"jobs/{family}.py", *options, data, str(folder / "run")],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return lines, json.loads(answer.splitlines()[-1])


def draw_and_evaluate(folder: Path) -> dict[str, Any]:
    """Draw from the toy GAN that :func:`train_and_use` has trained, by every way that there is, and evaluate it."""
    answer = subprocess.run(
        [sys.executable, "-c", DRAW, str(folder / "run")],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "GENLAB_CACHE": str(folder / "cache")},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    found: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return found


@pytest.mark.slow
def test_an_autoencoder_takes_three_files(tiny_data: dict[str, str], tmp_path: Path) -> None:
    lines, use = train_and_use(tmp_path, "toyae", 60, tiny_data["data.images"])
    errors = [line["error"] for line in lines if line["kind"] == "train"]
    assert errors[-1] < 0.7 * errors[0], "it learns"
    assert lines[-1]["kind"] == "test"
    assert use["reconstructions"] == [16, 28, 28, 1]
    assert use["error"] < 0.9 * use["error_of_grey"], "a reconstruction is nearer to its image than grey is"
    assert use["measured"] == ["mse"], "that is all it can do"
    assert list((tmp_path / "run").rglob("*reconstructions*.png")), "its figure is drawn"


@pytest.mark.slow
def test_a_gan_takes_the_same_three_files(tiny_data: dict[str, str], tmp_path: Path) -> None:
    lines, use = train_and_use(tmp_path, "toygan", 60, tiny_data["data.images"], "--run.evaluate-every", "30")
    assert lines[0]["discriminator"] < 1.3, "the discriminator learns: at first its loss is about 2 log 2"
    assert use["samples"] == [64, 28, 28, 1]
    assert use["level"] < 115, "the generator learns: digits are darker than the grey that it begins with"
    lazy = [line["step"] for line in lines if "r1" in line]
    assert lazy == [10, 20, 30, 40, 50, 60], "the penalty of every other step is logged"
    assert lines[0]["learning_rate_discriminator"] == lines[0]["learning_rate"] / 2
    tensors = safetensors.torch.load_file(state_file(tmp_path / "run" / "checkpoints" / "step-00000060"))
    assert tensors["recipe.recognised"].any()
    for network, count in (("generator", 60), ("discriminator", 90)):
        steps = {int(value) for name, value in tensors.items() if re.fullmatch(rf"optimizer.{network}..*.step", name)}
        assert steps == {count}, "phases that move one network share one optimiser"
    evaluations = read_evaluations(locate(tmp_path / "run"))
    assert [one.step for one in evaluations] == [30, 60], "checkpoints are ranked by the KID of their samples"
    assert all({"kid", "fid"} <= one.measurements.keys() for one in evaluations)
    drawn = draw_and_evaluate(tmp_path)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<h2>Samples</h2>" in page
    assert "<h2>Evaluated checkpoints</h2>" in page
    assert drawn["card"], "the card lists the option of its own"
    assert drawn["command"], "the command line takes it"
    assert drawn["http"], "and the server"
    assert {"fid", "kid"} <= set(drawn["whole"]["measurements"])
    settings = [drawn[name]["settings"] for name in ("whole", "narrow")]
    assert [one["sample_truncation"] for one in settings] == [1, 0.25]
    assert all(one["noise"] == "Philox by seed, name and picture" for one in settings)
    assert drawn["narrow"]["kid"] != drawn["whole"]["kid"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [3, *(pytest.param(workers, marks=pytest.mark.reliability) for workers in (2, 5))])
def test_a_gan_of_alternating_phases_does_not_depend_on_the_workers_and_resumes(
    workers: int, tiny_data: dict[str, str], tmp_path: Path
) -> None:
    add_to_a_copy(tmp_path, "toygan")
    options = ["--data.images", tiny_data["data.images"], "--run.batch", "16", "--optimization.ema-images", "50"]
    genlab = [sys.executable, "-c", "from genlab.cli.main import main; main()"]
    proof = run(tmp_path, *genlab, "verify-ddp", "toygan", "--workers", str(workers), "--steps", "5", *options)
    assert f"float64, 1 and {workers} workers: agree" in proof
    (tmp_path / "resume.py").write_text(RESUME)
    for count in (1, workers):
        run(tmp_path, sys.executable, "resume.py", tiny_data["data.images"], str(tmp_path / f"{count}"), str(count))


def run(folder: Path, *command: str) -> str:
    """Run a command in a copy of genlab, which must succeed; return what it prints."""
    path = f"{folder}{os.pathsep}{REPOSITORY}"
    done = subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
