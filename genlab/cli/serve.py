"""``genlab serve``: serve models over HTTP from this machine, until interrupted."""

import contextlib
import dataclasses
import logging
import os
import signal
import socket
from collections.abc import Sequence
from typing import Annotated

import tyro
from annotated_types import Interval, MinLen

from genlab.core.config import parse
from genlab.core.errors import ClusterError, ConfigError, run_command
from genlab.core.extras import require_extra
from genlab.inference.operations import ModelInfo
from genlab.store import model_directory

REQUEST_TIMEOUT = 120
"""Seconds after which a request is given up, with status 408."""


@dataclasses.dataclass(frozen=True)
class ServeConfig:
    """Serve models over HTTP from this machine, until interrupted. A GPU is used if there is one."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL [MODEL ...]"), MinLen(1)]
    """Directories or s3:// URLs of models, or of the runs that trained them. A model is named after its run."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in, without asking who they are."""
    port: Annotated[int, Interval(ge=1, le=65535)] = 8000
    """Port to listen on."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab serve``."""
    run_command(lambda: serve_models(parse(ServeConfig, arguments, prog="genlab serve")))


def serve_models(config: ServeConfig) -> None:
    """Serve until SIGINT or SIGTERM, then leave no process behind.

    Raises:
        ClusterError: ``RAY_ADDRESS`` names a cluster.
        ConfigError: the address cannot be listened on, or what serving needs is not installed.
        RunError: a model cannot be loaded, two have one name, or a URL cannot hold one's.
    """
    require_extra("serve", "genlab serve")
    if os.environ.get("RAY_ADDRESS"):
        raise ClusterError(
            "RAY_ADDRESS is set, and genlab serve works on this machine alone; unset it, "
            "or deploy to that cluster with `serve deploy cluster/serve.yaml`"
        )
    models = model_directory.find(config.models)
    from genlab.serving.schema import read_card

    for name, directory in models.items():  # what cannot be served is refused here, not in Ray's logs
        read_card(name, directory)
        model_directory.load(directory)
    _check_free(config.host, config.port)

    from ray import serve

    from genlab.core.ray_cluster import connected
    from genlab.serving.app import ServeArguments, build

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with connected():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": config.host, "port": config.port, "request_timeout_s": REQUEST_TIMEOUT},
        )
        serve.run(build(ServeArguments(models=[str(directory) for directory in models.values()])), name="genlab")
        for name, directory in models.items():
            print(f"{name}: {', '.join(ModelInfo.read(directory).operations)}")
        print(f"serving at http://{config.host}:{config.port} until interrupted (Ctrl-C)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


def _check_free(host: str, port: int) -> None:
    """Refuse an address that is taken or not this machine's, before Ray is started."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise ConfigError(f"--host {host} --port {port}: {error.strerror}; choose another") from None
