"""torch.compile changes how fast a run is, and what comes of it by rounding alone."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genlab.core.config import as_arguments
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.store import model_directory
from genlab.store.probes import check
from tests.training.support import metrics

pytestmark = pytest.mark.slow  # Inductor calls a C++ compiler for a minute.

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CUDAGRAPH_OR_ERROR": "1"}
JOBS = Path(__file__).resolve().parents[2] / "jobs"


@pytest.mark.parametrize(
    ("family", "networks", "option"),
    [
        ("vae", {}, "run.compile"),
        pytest.param(
            "cyclegan",
            {"model.dropout": 0.5, "model.levels": 3},
            "run.compile",
            marks=pytest.mark.reliability,  # minutes
        ),
        pytest.param(
            "cyclegan",
            {"model.generator": "resnet-6", "model.levels": None},
            "run.compile",
            marks=pytest.mark.reliability,  # minutes
        ),
        ("stylegan", {}, "run.compile"),
        pytest.param(
            "stylegan",
            {"model.form": "progressive", "growth.stable_images": 8, "growth.fade_images": 8},
            "run.compile",
            marks=pytest.mark.reliability,  # compiled anew for each resolution
        ),
        pytest.param("cyclegan", {"model.dropout": 0.5}, "run.cuda_graphs", marks=NEEDS_GPU),
        pytest.param(
            "cyclegan", {"model.generator": "resnet-6", "model.levels": None}, "run.cuda_graphs", marks=NEEDS_GPU
        ),
    ],
)
def test_a_compiled_run_has_the_same_losses(
    family: str, networks: dict[str, Any], option: str, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    """In processes of their own, as Inductor starts threads and processes that stay."""
    if family == "stylegan":  # Two resolutions, each of which is compiled: their layers are those of all.
        ingest(IngestConfig("synthetic:digits", str(tmp_path / "digits"), size=8, count=40, test_fraction=0.25, seed=1))
        networks = networks | {"data.images": str(tmp_path / "digits")}
    compiled_code = tmp_path / "inductor"
    same = networks | {"run.steps": 6, "run.log_every": 1}
    for changes in ({"run.name": "eager"}, {"run.name": "compiled", option: True}):
        options = as_arguments(tiny(family, same | changes))
        subprocess.run(
            f"{sys.executable} {JOBS / family}.py {options}",
            shell=True,
            check=True,
            env=os.environ | ENVIRONMENT | {"TORCHINDUCTOR_CACHE_DIR": str(compiled_code)},
        )
        assert any(compiled_code.rglob("*.py")) == (option in changes)
    eager, compiled = metrics(tmp_path / "eager"), metrics(tmp_path / "compiled")
    assert len(eager) == len(compiled)
    for one, other in zip(eager, compiled, strict=True):
        assert other.pop("kind") == one.pop("kind")
        assert other == pytest.approx(one, rel=2e-4, abs=2e-5)
    models = {run: model_directory.load(tmp_path / run / "model") for run in ("eager", "compiled")}
    assert models["eager"].state_dict().keys() == models["compiled"].state_dict().keys()
    for run, model in models.items():
        report = check(tmp_path / run / "model", model)
        assert report is not None
        assert report.same
