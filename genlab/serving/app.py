"""The Ray Serve application: an ingress that speaks HTTP, and replicas that hold the models.

``genlab.serving.app:build`` is what ``serve run``, ``serve build`` and ``serve deploy`` take; see cluster/serve.yaml.
"""

from collections.abc import Sequence
from typing import Any

import ray
import torch
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, Field, field_validator
from ray import serve
from ray.exceptions import RayTaskError
from ray.serve import Application
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from genlab.core.errors import GenlabError
from genlab.serving.api import Options, create_api
from genlab.serving.schema import read_card
from genlab.serving.served_models import ServedModels
from genlab.store import model_directory

GENERATOR = "Generator"
"""Name of the Serve deployment that holds the models."""
MAX_WAITING = 32
"""Largest number of requests that wait for a replica; more are refused with status 503."""


class ServeArguments(BaseModel):
    """The application's arguments (``args`` in a Serve config)."""

    model_config = ConfigDict(extra="forbid")

    models: list[str] = Field(min_length=1)
    """Model or run directories, absolute paths or URLs that every node can read; on the command line of ``serve``
    divided by commas."""

    @field_validator("models", mode="before")
    @classmethod
    def _split(cls, models: Any) -> Any:
        return models.split(",") if isinstance(models, str) else models


class Replica(ServedModels):
    """A replica: holds all models, on its GPU if it was given one, and computes with as many threads as it has CPUs."""

    def __init__(self, directories: dict[str, str]) -> None:
        resources = ray.get_runtime_context().get_assigned_resources()
        torch.set_num_threads(max(1, int(resources.get("CPU", 1))))
        super().__init__(directories, "cuda" if resources.get("GPU") else "cpu")


class RayBackend:
    """A :class:`genlab.serving.api.Backend` that sends the work to the replicas."""

    def __init__(self, replicas: DeploymentHandle) -> None:
        self._replicas = replicas

    async def sample(self, name: str, count: int, seed: int, label: int | None, options: Options) -> bytes:
        """Call :meth:`ServedModels.sample` on a replica."""
        return await self._ask("sample", name, count, seed, label, options)

    async def translate(self, name: str, picture: bytes, direction: str, options: Options) -> bytes:
        """Call :meth:`ServedModels.translate` on a replica."""
        return await self._ask("translate", name, picture, direction, options)

    async def reconstruct(self, name: str, picture: bytes, label: int | None, options: Options) -> bytes:
        """Call :meth:`ServedModels.reconstruct` on a replica."""
        return await self._ask("reconstruct", name, picture, label, options)

    async def mix_styles(
        self, name: str, rows: Sequence[int], columns: Sequence[int], label: int | None, options: Options
    ) -> bytes:
        """Call :meth:`ServedModels.mix_styles` on a replica."""
        return await self._ask("mix_styles", name, rows, columns, label, options)

    async def _ask(self, operation: str, *arguments: Any) -> bytes:
        try:
            answer: bytes = await getattr(self._replicas, operation).remote(*arguments)
        except BackPressureError:
            raise HTTPException(503, "too many requests are waiting", headers={"Retry-After": "1"}) from None
        except RayTaskError as error:
            if isinstance(error.cause, GenlabError):
                raise error.cause from None
            raise
        return answer


def build(arguments: ServeArguments) -> Application:
    """Build the Serve application that serves ``arguments.models``.

    Raises:
        RunError: a directory holds no model, or two have one name.
    """
    directories = {name: str(directory) for name, directory in model_directory.find(arguments.models).items()}
    cards = {name: read_card(name, directory) for name, directory in directories.items()}

    def api() -> FastAPI:  # called in the ingress's process
        return create_api(cards, RayBackend(serve.get_deployment_handle(GENERATOR)))

    replicas = serve.deployment(
        name=GENERATOR,
        ray_actor_options={"num_cpus": 1, "num_gpus": 1 if torch.cuda.is_available() else 0},
        autoscaling_config={"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 1},
        max_ongoing_requests=2,  # one at work, one being received
        max_queued_requests=MAX_WAITING,
    )(Replica)
    ingress = serve.deployment(
        name="Ingress",
        ray_actor_options={"num_cpus": 0},  # it only waits
        max_ongoing_requests=4 * MAX_WAITING,
    )(serve.ingress(api)())
    return ingress.bind(replicas.bind(directories))
