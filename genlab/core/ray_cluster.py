"""The Ray cluster that a command works on: that of ``RAY_ADDRESS``, or one started for the command."""

import logging
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray


@contextmanager
def connected() -> Iterator[None]:
    """Connect to the cluster of ``RAY_ADDRESS`` (a submitted job has it), else to a Ray started for this process.

    A Ray started here ends with the context and has its own temporary folder. It also gets its own token: Ray would
    otherwise write one into the home folder, where it disturbs later clusters. ``RAY_AUTH_MODE`` is not set here,
    because Ray reads it when it is imported.
    """
    if ray.is_initialized():
        yield
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
        try:
            yield
        finally:
            ray.shutdown()
        return
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with tempfile.TemporaryDirectory(prefix="genlab-ray-", ignore_cleanup_errors=True) as folder:
        options: dict[str, Any] = {"address": "local", "include_dashboard": False, "_temp_dir": folder}
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        try:
            yield
        finally:
            ray.shutdown()
