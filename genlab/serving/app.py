"""The Ray Serve application: replicas that answer HTTP themselves, each with the models it is asked for.

``genlab.serving.app:build`` is what ``serve run``, ``serve build`` and ``serve deploy`` take; see cluster/serve.yaml.
A replica decodes, computes and encodes in one process (:mod:`genlab.serving.service`), so a request takes one hop from
the proxy.
"""

import logging
from typing import Any

import ray
import torch
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, field_validator
from ray import serve
from ray.serve import Application
from ray.serve.context import _get_global_client

from genlab.core.errors import RunError
from genlab.serving import haproxy
from genlab.serving.library import Library
from genlab.serving.limits import Limits
from genlab.serving.service import create_app, freeze_modules
from genlab.serving.settings import Access, Settings, check_exposure
from genlab.serving.telemetry import RayTelemetry

logger = logging.getLogger(__name__)

GENERATOR = "Generator"
"""Name of the Serve deployment."""
ONGOING = 64
"""Requests that a replica receives and answers at a time, besides those that wait to be computed."""
DRAIN_SECONDS = 60.0
"""Seconds that a replica has to end, besides those of a request; Ray Serve takes 30 to tell its proxies."""


class ServeArguments(BaseModel):
    """The application's arguments (``args`` in a Serve config)."""

    model_config = ConfigDict(extra="forbid")

    models: list[str] = Field(min_length=1)
    """Model directories, run directories and folders of models: absolute paths or URLs that every node can read; on the
    command line of ``serve`` divided by commas."""
    settings: Settings = Field(default_factory=Settings)
    access: Access = Field(default_factory=Access)
    limits: Limits = Field(default_factory=Limits)

    @field_validator("models", mode="before")
    @classmethod
    def _split(cls, models: Any) -> Any:
        return models.split(",") if isinstance(models, str) else models


def build(arguments: ServeArguments) -> Application:
    """Build the Serve application that serves ``arguments.models``.

    Raises:
        RunError: a directory holds no model, two have one name, or a URL cannot hold one's.
    """
    Library(arguments.models, limits=arguments.limits)  # what cannot be served is refused here, not in Ray's logs

    def app() -> FastAPI:  # called in the replica's process
        context = serve.get_replica_context()
        resources = ray.get_runtime_context().get_assigned_resources()
        torch.set_num_threads(max(1, int(resources.get("CPU", 1))))
        _log_as_serve_does()
        client = _get_global_client()
        assert client is not None  # in a replica there is one
        http = client.http_config
        check_exposure(http.host, arguments.access, tls=haproxy.speaks_tls() or http.ssl_certfile is not None)
        if not haproxy.is_on():
            logger.warning(
                "requests come through Ray Serve's Python proxy, which is slower than HAProxy and loses them with a "
                "replica; `genlab haproxy` prints the settings that switch HAProxy on"
            )
        freeze_modules()
        return create_app(
            tuple(arguments.models),
            arguments.limits,
            arguments.access,
            arguments.settings,
            RayTelemetry(context.replica_id.unique_id),
            bound=http.host,
            device="cuda" if resources.get("GPU") else "cpu",
            wait=True,
        )

    limits = arguments.limits
    replicas = serve.deployment(
        name=GENERATOR,
        ray_actor_options={"num_cpus": 1, "num_gpus": 1 if torch.cuda.is_available() else 0},
        autoscaling_config={"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 8},
        max_ongoing_requests=limits.waiting + ONGOING,  # so that the replica itself refuses, with a problem
        max_queued_requests=limits.waiting,
        graceful_shutdown_timeout_s=limits.seconds + DRAIN_SECONDS,
        logging_config={"enable_access_log": False},  # genlab.access has a line for each request
    )(serve.ingress(app)(_Replica))
    return replicas.bind()


class _Replica:
    """What a replica is besides its application."""

    app: FastAPI  # set by serve.ingress

    def check_health(self) -> None:
        """Tell Ray Serve, by an error, that this replica is of no use; it asks before it sends requests, and on.

        Raises:
            RunError: no model could be loaded, or nothing computes any more.
        """
        state = self.app.state
        if state.library.failures and not state.library.loaded:
            raise RunError("; ".join(state.library.failures))
        if not state.batcher.alive:
            raise RunError("the thread that computes has ended")
        if torch.cuda.is_initialized():
            torch.cuda.current_stream().query()  # raises what broke the device


def _log_as_serve_does() -> None:
    """Write genlab's log where Ray Serve writes that of the replica; lines of requests into its file alone."""
    ours, requests = logging.getLogger("genlab"), logging.getLogger("genlab.access")
    ours.handlers = list(logging.getLogger("ray.serve").handlers)
    ours.setLevel(logging.INFO)
    files = [handler for handler in ours.handlers if type(handler) is not logging.StreamHandler]
    if files:
        requests.handlers, requests.propagate = files, False
