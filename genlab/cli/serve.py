"""``genlab serve``: serve models over HTTP from this machine, until interrupted."""

import contextlib
import dataclasses
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import tyro
from annotated_types import Ge, Interval, MinLen

from genlab.core.config import parse
from genlab.core.errors import ConfigError, RunError, run_command
from genlab.core.extras import require_extra
from genlab.serving.limits import Limits
from genlab.serving.line_log import LineLog
from genlab.serving.settings import TLS, Access, Settings, bracketed, check_certificate, check_exposure

if TYPE_CHECKING:
    from genlab.serving.library import Library


@dataclasses.dataclass(frozen=True)
class ServeConfig:
    """Serve models over HTTP from this machine, until interrupted. A GPU is used if there is one."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL [MODEL ...]"), MinLen(1)]
    """Directories or s3:// URLs of models, of runs that trained them, and of folders of models, where new ones are
    picked up. A model is named after its run."""
    host: str = "127.0.0.1"
    """Address to listen on; one that other machines reach, such as 0.0.0.0, needs tokens (--access.tokens)."""
    port: Annotated[int, Interval(ge=1, le=65535)] = 8000
    """Port to listen on."""
    threads: Annotated[int, Ge(1)] | None = None
    """CPU threads that a model computes with; by default as many as there are cores."""
    settings: Settings = dataclasses.field(default_factory=Settings)
    access: Access = dataclasses.field(default_factory=Access)
    limits: Limits = dataclasses.field(default_factory=Limits)
    tls: TLS = dataclasses.field(default_factory=TLS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab serve``."""
    run_command(lambda: serve_models(parse(ServeConfig, arguments, prog="genlab serve")))


def serve_models(config: ServeConfig) -> None:
    """Serve until SIGINT or SIGTERM, and then answer what was asked before.

    Raises:
        ConfigError: the address cannot be listened on or may not, a file of TLS or of tokens cannot be used, or what
            serving needs is not installed.
        RunError: no model can be loaded, two have one name, or a URL cannot hold one's.
        StorageError: a store cannot be reached.
    """
    require_extra("serve", "genlab serve")
    check_exposure(config.host, config.access, tls=config.tls.certificate is not None)
    check_certificate(config.tls)
    _check_free(config.host, config.port)
    import torch
    import uvicorn

    from genlab.serving.connections import BoundedHeads
    from genlab.serving.service import create_app, freeze_modules
    from genlab.serving.telemetry import PrometheusTelemetry

    torch.set_num_threads(config.threads or len(os.sched_getaffinity(0)))
    failures: list[str] = []

    def loaded(library: "Library") -> None:
        for served in library.loaded:
            print(f"{served.name}: {', '.join(served.forms)}", flush=True)
        if not library.loaded:
            failures.extend(library.failures or ["there is no model to serve"])
            server.should_exit = True

    app = create_app(
        config.models,
        config.limits,
        config.access,
        config.settings,
        PrometheusTelemetry(),
        bound=config.host,
        loaded=loaded,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            http=BoundedHeads,
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            ssl_certfile=config.tls.certificate,
            ssl_keyfile=config.tls.key,
            timeout_graceful_shutdown=int(config.limits.seconds) + 1,
        )
    )
    scheme = "http" if config.tls.certificate is None else "https"
    freeze_modules()
    print(f"serving at {scheme}://{bracketed(config.host)}:{config.port} until interrupted (Ctrl-C)", flush=True)
    # uvicorn ends by the signal that it was sent, when all that was asked before is answered.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _log(), contextlib.suppress(KeyboardInterrupt):
            server.run()
    finally:
        signal.signal(signal.SIGTERM, before)
        gc.unfreeze()
    if failures:
        raise RunError("; ".join(failures))


@contextlib.contextmanager
def _log() -> Iterator[None]:
    """Print what genlab logs, such as a line for each request."""
    logger, handler = logging.getLogger("genlab"), LineLog(sys.stderr)
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.setLevel(before)


def _check_free(host: str, port: int) -> None:
    """Refuse an address that is taken or not this machine's, before anything is loaded."""
    try:
        # uvicorn listens on all addresses of the host.
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in found:
            socket.create_server(address, family=family).close()
    except OSError as error:
        raise ConfigError(f"--host {host} --port {port}: {error.strerror}; choose another") from None
