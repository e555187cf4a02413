"""What tests of sweeps share."""

import json
from pathlib import Path
from typing import Any

from genlab.core.config import from_dict, override
from genlab.recipes.recipe import recipe_type
from genlab.training.launch import launch
from tests.cluster_support import reproducible


def assert_trained_as_outside(run: Path, storage: Path) -> None:
    """Train with a trial's config in this process, and compare what was trained until it stopped, bit for bit."""
    config: Any = from_dict(recipe_type("vae").config_type, json.loads((run / "config.json").read_text())["config"])
    launch("vae", override(config, {"run.workers": 0, "run.storage": str(storage)}))
    inside, outside = (
        [line for line in reproducible(one) if line["kind"] == "train"] for one in (run, storage / run.name)
    )
    assert inside
    assert inside == outside[: len(inside)]
    weights = "model/model.safetensors"
    if len(inside) == len(outside):
        assert (run / weights).read_bytes() == (storage / run.name / weights).read_bytes()
