"""Tiny data sets to train on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genlab.data.ingest import IngestConfig, ingest
from tests.training.support import tiny_config


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
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Drawn data sets by the option that takes them."""
    root = tmp_path_factory.mktemp("tiny")
    sources = {"images": ("digits", 150, None), "a": ("scenes-a", 11, 32), "b": ("scenes-b", 8, 32)}
    for name, (source, count, size) in sources.items():
        ingest(
            IngestConfig(
                source=f"synthetic:{source}", dest=str(root / name), count=count, size=size, test_fraction=0.25
            )
        )
    return {f"data.{name}": str(root / name) for name in sources}


@pytest.fixture
def tiny(tiny_data: dict[str, str], tmp_path: Path) -> Callable[..., Any]:
    """Make a config: ``tiny("vae", {"run.name": "x", ...})``."""

    def make(family: str, changes: dict[str, Any] | None = None) -> Any:
        return tiny_config(family, tiny_data, {"run.storage": str(tmp_path), "run.name": "run"} | (changes or {}))

    return make
