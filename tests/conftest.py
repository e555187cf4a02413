"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent

settings.register_profile("no deadline", deadline=None)  # a busy machine is no fault of the code's
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The folder of small real samples; tests that need it say so where it is absent."""
    folder = Path(os.environ.get("GENLAB_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no sample data at {folder}; set GENLAB_DATA")
    return folder
