"""`jobs/translate.py` on a real cluster."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from genlab.data.format.shards import ShardSet
from genlab.models.cyclegan import CycleGAN, CycleGANArchitecture
from genlab.store import model_directory
from tests.cluster_support import TIMEOUT_SECONDS, Cluster

pytestmark = pytest.mark.cluster


def test_a_job_translates_a_data_set_and_goes_on(
    cluster: Cluster, drawn: Callable[[str], Path], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = CycleGAN((32, 32, 3), CycleGANArchitecture(width=4))
    provenance = model_directory.Provenance(run="", step=1, images=1, data={}, config={}, metrics={})
    model_directory.save(tmp_path / "model", model, provenance)
    data, out = drawn("scenes-a"), tmp_path / "out"
    count = len(ShardSet.open(str(data)).split("test"))
    for before in ("", f", {count - 1} of them done before"):
        job = cluster.submit(
            *["python", "jobs/translate.py", str(tmp_path / "model"), str(data), str(out), "--split", "test"]
        )
        log, _ = job.communicate(timeout=TIMEOUT_SECONDS)
        assert job.returncode == 0, log
        assert f"{out}: {count} of {count} images a_to_b{before}\n" in log
        pictures = list(out.rglob("*.png"))
        assert len(pictures) == count
        pictures[0].unlink()
