"""Tiny data sets to train on."""

from pathlib import Path

import pytest

from genlab.data.ingest import IngestConfig, ingest


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
