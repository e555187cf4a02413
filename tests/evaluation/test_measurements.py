"""Evaluations in files: the names of their fields stay those of the first version of the format."""

from pathlib import Path

from genlab.core.storage import locate
from genlab.evaluation.measurements import Evaluation, Measurement

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
