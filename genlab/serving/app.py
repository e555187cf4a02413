"""The Ray Serve application: replicas that answer HTTP themselves, each with the models it is asked for.

``genlab.serving.app:build`` is what ``serve run``, ``serve build`` and ``serve deploy`` take; see cluster/serve.yaml.
A replica decodes, computes and encodes in one process (:mod:`genlab.serving.service`), so a request takes one hop from
the proxy.
"""

from typing import Any

import ray
import torch
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, field_validator
from ray import serve
from ray.serve import Application

from genlab.serving.library import Library
from genlab.serving.limits import Limits
from genlab.serving.service import create_app
from genlab.serving.settings import Access, Settings
from genlab.serving.telemetry import RayTelemetry

GENERATOR = "Generator"
"""Name of the Serve deployment."""
ONGOING = 64
"""Requests that a replica receives, computes and answers at a time."""


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
        return create_app(
            tuple(arguments.models),
            arguments.limits,
            arguments.access,
            arguments.settings,
            RayTelemetry(context.replica_id.unique_id),
            bound="0.0.0.0",  # the proxy's address is not known here
            device="cuda" if resources.get("GPU") else "cpu",
        )

    replicas = serve.deployment(
        name=GENERATOR,
        ray_actor_options={"num_cpus": 1, "num_gpus": 1 if torch.cuda.is_available() else 0},
        autoscaling_config={"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 8},
        max_ongoing_requests=ONGOING,
        max_queued_requests=arguments.limits.waiting,
    )(serve.ingress(app)())
    return replicas.bind()
