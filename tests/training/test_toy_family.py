"""A new family is one file in models/, one in recipes/ and one in jobs/: nothing else changes.

The families are those of tests/training/families, which CONTRIBUTING.md tells newcomers to copy.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

REPOSITORY = Path(__file__).resolve().parents[2]
FAMILIES = Path(__file__).parent / "families"

USE = """
import json, runpy, sys
import numpy as np
from genlab.data.format.shards import ShardSet
from genlab.inference.engine import Engine
job, run, data = sys.argv[1], sys.argv.pop(), sys.argv.pop()
sys.argv = sys.argv[1:]
runpy.run_path(job, run_name="__main__")
engine, answer = Engine(run + "/model"), {}
if "sample" in engine.info.operations:
    images = engine.sample(2, 0)
    answer |= {"samples": images.shape, "level": images.mean()}
if "reconstruct" in engine.info.operations:
    inputs = ShardSet.open(data).split("test").read(np.arange(16)).image
    outputs = engine.reconstruct(list(inputs))
    differences = [np.square(np.subtract(of, inputs, dtype=float)).mean() for of in (outputs, inputs.mean())]
    answer |= {"reconstructions": outputs.shape, "error": differences[0], "error_of_grey": differences[1]}
print(json.dumps(answer))
"""


def train_and_use(folder: Path, family: str, steps: int, data: str) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Train a family that is added to a copy of genlab, in one process, and do the model's operations.

    Returns:
        The lines of ``metrics.jsonl``, and what was measured of the operations.
    """
    for part in ("genlab", "jobs"):
        shutil.copytree(REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name, place in (("model", "genlab/models"), ("recipe", "genlab/recipes"), ("job", "jobs")):
        shutil.copyfile(FAMILIES / family / f"{name}.py", folder / place / f"{family}.py")
    options = ["--data.images", data, "--run.storage", str(folder), "--run.name", "run", "--run.steps", str(steps)]
    options += ["--run.workers", "0", "--run.batch", "16"]
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


@pytest.mark.slow
def test_an_autoencoder_takes_three_files(tiny_data: dict[str, str], tmp_path: Path) -> None:
    lines, use = train_and_use(tmp_path, "toyae", 60, tiny_data["data.images"])
    errors = [line["error"] for line in lines if line["kind"] == "train"]
    assert errors[-1] < 0.7 * errors[0], "it learns"
    assert lines[-1]["kind"] == "test"
    assert use["reconstructions"] == [16, 28, 28, 1]
    assert use["error"] < 0.9 * use["error_of_grey"], "a reconstruction is nearer to its image than grey is"
    assert list((tmp_path / "run").rglob("*reconstructions*.png")), "its figure is drawn"


@pytest.mark.slow
def test_a_gan_takes_the_same_three_files(tiny_data: dict[str, str], tmp_path: Path) -> None:
    lines, use = train_and_use(tmp_path, "toygan", 60, tiny_data["data.images"])
    assert lines[0]["discriminator"] < 1.3, "the discriminator learns: at first its loss is about 2 log 2"
    assert use["samples"] == [2, 28, 28, 1]
    assert use["level"] < 100, "the generator learns: digits are darker than the grey that it begins with"
    tensors = safetensors.torch.load_file(tmp_path / "run" / "checkpoints" / "step-00000060" / "state.safetensors")
    for network in ("generator", "discriminator"):
        moments = [name for name in tensors if name.startswith(f"optimizer.{network}.") and name.endswith("exp_avg")]
        assert len(moments) == 2, "each network has an optimiser, with a state for each of its parameters"
        assert all(tensors[name].abs().max() > 0 for name in moments)
