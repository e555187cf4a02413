"""Configs whose runs take a second."""

from typing import Any

from genlab.config import override
from genlab.recipes.recipe import recipe_type

TINY: dict[str, dict[str, Any]] = {
    "vae": {
        "run.batch": 16,
        "run.steps": 24,
        "model.channels": [4, 8],
        "optimization.ema_images": 64,
        "optimization.schedule": "linear",
    },
    "cyclegan": {
        "run.batch": 2,
        "run.steps": 12,
        "model.width": 4,
        "model.levels": 4,
        "model.discriminator_width": 4,
        "optimization.ema_images": 8,
    },
}
COMMON = {"run.workers": 0, "run.threads": 1, "run.log_every": 3, "run.checkpoint_every": 5, "run.figures_every": 6}


def tiny_config(family: str, data: dict[str, str], changes: dict[str, Any]) -> Any:
    """A config of ``family`` on its part of ``data``."""
    config = recipe_type(family).config_type()
    mine = {f"data.{domain}": data[f"data.{domain}"] for domain in config.data.domains}
    return override(config, TINY[family] | COMMON | mine | changes)
