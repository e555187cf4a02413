"""The cluster of a command: an address at which none answers is said at once."""

import contextlib
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from genlab.core import ray_cluster
from genlab.core.errors import ClusterError


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The calls of ``ray.init``, which connects to nothing."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: calls.append(options))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return calls


@contextlib.contextmanager
def listening() -> Iterator[int]:
    """A port at which this process accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_an_address_at_which_no_cluster_answers_is_refused(
    begun: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "ANSWER_SECONDS", 0.1)
    with listening() as port:
        pass
    for address in (f"127.0.0.1:{port}", f"[::1]:{port}", "127.0.0.1:99999"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        refusal = re.escape(f"RAY_ADDRESS={address}: no Ray cluster answers there")
        with pytest.raises(ClusterError, match=refusal), ray_cluster.connected():
            pass
    assert not begun


def test_ray_connects_to_an_address_that_answers_and_to_one_that_is_no_host(
    begun: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening() as port:
        for address in (f"127.0.0.1:{port}", "auto", "local", "ray://127.0.0.1:9"):
            monkeypatch.setenv("RAY_ADDRESS", address)
            with ray_cluster.connected():
                pass
    assert len(begun) == 4
