"""Fixtures shared by all tests."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from s3fs import S3FileSystem

from tests.s3 import CREDENTIALS, SETTINGS, Bucket, FaultProxy, S3Server

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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A real S3 server, in a process of its own."""
    server = S3Server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def _proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    S3FileSystem.clear_instance_cache()  # Clients look up where the store is when they are made.
    proxy = FaultProxy(s3_server.endpoint)
    yield proxy
    proxy.close()


@pytest.fixture
def s3(s3_server: S3Server, _proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A fresh bucket of the S3 server, to which the environment leads, through the proxy."""
    bucket = Bucket(f"bucket-{secrets.token_hex(4)}", {**CREDENTIALS, **SETTINGS, "AWS_ENDPOINT_URL": _proxy.endpoint})
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    s3_server.create(bucket.name)
    return bucket


@pytest.fixture
def fault_proxy(s3: Bucket, _proxy: FaultProxy) -> Iterator[FaultProxy]:
    """The proxy in front of the bucket, to be told which requests to break; it counts from here on."""
    _proxy.reset()
    yield _proxy
    _proxy.reset()
