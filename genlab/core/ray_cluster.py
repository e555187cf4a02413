"""The Ray cluster that a command works on: that of ``RAY_ADDRESS``, or one started for the command."""

import logging
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from genlab.core.errors import ClusterError

ANSWER_SECONDS = 5.0
"""How long a cluster may take to accept a connection."""


@contextmanager
def connected() -> Iterator[None]:
    """Connect to the cluster of ``RAY_ADDRESS`` (a submitted job has it), else to a Ray started for this process.

    A Ray started here ends with the context and has its own temporary folder. It also gets its own token: Ray would
    otherwise write one into the home folder, where it disturbs later clusters. ``RAY_AUTH_MODE`` is not set here,
    because Ray reads it when it is imported.

    Raises:
        ClusterError: no cluster answers at ``RAY_ADDRESS``.
    """
    if ray.is_initialized():
        yield
        return
    if address := os.environ.get("RAY_ADDRESS"):
        _require_answer(address)
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


def _require_answer(address: str) -> None:
    """Refuse an address ``HOST:PORT`` at which nothing listens: Ray would go on trying for many minutes.

    Raises:
        ClusterError: no connection came about within :data:`ANSWER_SECONDS`.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():  # auto, local, ray://...
        return
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
            return
        except (OSError, OverflowError):  # OverflowError: no such port
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"RAY_ADDRESS={address}: no Ray cluster answers there; start it, or unset RAY_ADDRESS"
                ) from None
        time.sleep(0.2)
