"""Tiny data sets, and tiny configs to train on them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from genlab.config import override
from genlab.data.ingest import IngestConfig, ingest
from genlab.recipes.recipe import recipe_type

TINY: dict[str, dict[str, Any]] = {
    "vae": {
        "run.steps": 24,
        "run.batch": 8,
        "model.channels": [4, 8],
        "model.hidden": 8,
        "optimization.schedule": "linear",
        "optimization.decay_from": 0.25,
        "optimization.warmup_images": 24,
        "optimization.ema_images": 50.0,
        "optimization.clip_norm": 200.0,
    },
    "cyclegan": {"run.steps": 12, "run.batch": 2, "model.width": 4, "model.discriminator_width": 4},
}
"""By family: nets of a few channels and runs of a few steps, with all that varies with time switched on."""

OFTEN: dict[str, Any] = {
    "run.workers": 0,
    "run.threads": 1,
    "run.log_every": 3,
    "run.checkpoint_every": 4,
    "run.figures_every": 6,
}
"""Checkpoints do not fall on logged steps: they are made at the next one."""


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn digits, 28x28x1, some thirty of them to train on and the rest held out."""
    data = tmp_path_factory.mktemp("drawn") / "digits"
    ingest(IngestConfig("synthetic:digits", str(data), count=40, test_fraction=0.25, seed=1))
    return data


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two domains of drawn scenes, ``a`` and the shorter ``b``, 32x32x3."""
    data = tmp_path_factory.mktemp("drawn")
    for domain, count in (("a", 12), ("b", 9)):
        source = f"synthetic:scenes-{domain}"
        ingest(IngestConfig(source, str(data / domain), size=32, count=count, test_fraction=0.25, seed=1))
    return data


@pytest.fixture(scope="session")
def tiny_data(digits: Path, scenes: Path) -> dict[str, str]:
    """The data options of all families."""
    return {"data.images": str(digits), "data.a": str(scenes / "a"), "data.b": str(scenes / "b")}


@pytest.fixture
def tiny(tiny_data: dict[str, str], tmp_path: Path) -> Callable[..., Any]:
    """``tiny(family, changes={})``: the config of a tiny run named ``run`` in ``tmp_path``, trained in this process."""

    def make(family: str, changes: Mapping[str, Any] | None = None) -> Any:
        names = ["data.images"] if family == "vae" else ["data.a", "data.b"]
        data = {name: tiny_data[name] for name in names}
        place = {"run.name": "run", "run.storage": str(tmp_path)}
        values = TINY[family] | OFTEN | place | data | dict(changes or {})
        return override(recipe_type(family).config_type(), values)

    return make
