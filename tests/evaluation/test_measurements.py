"""Evaluations in files: the names of their fields stay those of the first version of the format."""

from pathlib import Path

import pytest
import torch

from genlab.core.errors import RunError
from genlab.core.storage import locate
from genlab.evaluation.measurements import Evaluation, Measurement, mean_measurement, with_computation

WRITTEN_BEFORE = """\
{
  "format": "genlab-evaluation",
  "version": 1,
  "name": "one",
  "model": {
    "path": "/runs/one/model",
    "family": "vae",
    "step": 1,
    "weights": "ffff"
  },
  "figures": {
    "fid": {
      "title": "FID",
      "value": 12.5,
      "passport": {
        "data": "aaaa",
        "samples": 1000
      },
      "unit": "",
      "better": "lower",
      "interval": [
        11.0,
        14.0
      ],
      "caution": "too few"
    },
    "kl": {
      "title": "KL",
      "value": 5.0,
      "passport": {
        "data": "aaaa"
      },
      "unit": "nats",
      "better": null,
      "interval": null,
      "caution": ""
    }
  }
}
"""


def test_a_file_written_before_is_read_and_written_in_the_same_words(tmp_path: Path) -> None:
    (tmp_path / "before.json").write_text(WRITTEN_BEFORE)
    evaluation = Evaluation.load(str(tmp_path / "before.json"))
    assert evaluation.measurements == {
        "fid": Measurement("FID", 12.5, {"data": "aaaa", "samples": 1000}, "", "lower", (11, 14), "too few"),
        "kl": Measurement("KL", 5.0, {"data": "aaaa"}, "nats"),
    }
    evaluation.save(locate(tmp_path / "again.json"))
    assert (tmp_path / "again.json").read_text().strip() == WRITTEN_BEFORE.strip()


def test_the_values_of_images_lie_beside_the_evaluation_that_they_belong_to(tmp_path: Path) -> None:
    values = torch.rand(30, generator=torch.Generator().manual_seed(0))
    error = mean_measurement("error", values, {"data": "aaaa"}, "", "lower")
    evaluation = Evaluation("one", {}, {"error": error, "kl": Measurement("KL", 5.0, {"data": "aaaa"}, "nats")})
    file = tmp_path / "evaluation.json"
    evaluation.save(locate(file))
    assert "values" not in file.read_text()
    read = Evaluation.load(str(file)).measurements
    assert read["error"] == error
    assert read["error"].values is not None
    assert torch.equal(read["error"].values, values)
    assert read["kl"].values is None
    file.write_text(file.read_text().replace('"KL"', '"other"'))
    assert Evaluation.load(str(file)).measurements["error"].values is None, "those of another evaluation"
    beside = tmp_path / "evaluation.images.safetensors"
    beside.write_bytes(beside.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"evaluation\.images\.safetensors: damaged; evaluate the model again"):
        Evaluation.load(str(file))
    beside.unlink()
    assert Evaluation.load(str(file)).measurements["error"].values is None


def test_a_measurement_says_how_it_was_computed() -> None:
    found = with_computation({"kl": Measurement("KL", 5.0, {"data": "aaaa"})}, torch.device("cpu"))["kl"].settings
    assert found == {"data": "aaaa", "precision": "fp32", "device": "cpu", "torch": torch.__version__}
