"""The settings of a server: who may use it, and how it keeps and computes models. Without any web library."""

import dataclasses
import ipaddress
import ssl
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from genlab.core.errors import ConfigError

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@dataclasses.dataclass(frozen=True)
class Access:
    """Who may use the HTTP interface."""

    tokens: str | None = None
    """Local path or s3:// URL of a file of tokens, as genlab token makes it; a request then needs one of them, as the
    header Authorization: Bearer TOKEN. The file is read again every few seconds."""
    anyone: bool = False
    """Serve beyond this machine without tokens: whoever reaches the address may use the models."""
    clear: bool = False
    """Let tokens travel in clear beyond this machine: for networks that are trusted, or where something in front of the
    server speaks TLS."""
    hosts: tuple[str, ...] = ()
    """Names and addresses, without ports, by which clients reach this server, besides the one it listens on and
    loopback's."""
    public_origins: tuple[str, ...] = ()
    """Where browsers see this server if something in front of it speaks TLS: https://models.example.org."""
    origins: tuple[str, ...] = ()
    """Origins of other sites whose pages may use this server from a browser (CORS), such as https://app.example.org."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How models are kept and computed."""

    exact: bool | None = None
    """Whether a picture is the same bytes whatever other pictures are computed with it; otherwise it may differ by one
    level of 255. By default on a CPU, for models that it slows down by a quarter at most."""
    runtime: Literal["onnx", "pytorch"] = "onnx"
    """What computes networks on a CPU. ONNX Runtime is faster; a model is exported for it when it is first loaded,
    which takes some seconds, and kept in $GENLAB_CACHE (~/.cache/genlab). Its pictures may differ from PyTorch's by one
    level of 255. StyleGAN is always computed by PyTorch."""
    memory_gib: Annotated[float, Interval(gt=0)] | None = None
    """The most GiB that the weights of all loaded models may take; the least recently used are put away. By default all
    stay."""
    require_probes: bool = False
    """Refuse a model without probes, by which the server checks that it gives what training made."""
    codec_threads: Annotated[int, Ge(1)] = 2
    """Threads that decode and encode pictures beside the model."""
    jobs: str | None = None
    """Folder or s3:// URL where jobs are kept, which all replicas must reach; without it the server takes no jobs."""
    job_hours: Annotated[float, Interval(gt=0, le=8760)] = 24.0
    """Hours after which a job and its result are deleted."""


@dataclasses.dataclass(frozen=True)
class TLS:
    """Files of a certificate, by which the server speaks HTTPS. They are read once."""

    certificate: str | None = None
    """PEM file of the certificate and those that vouch for it."""
    key: str | None = None
    """PEM file of its private key; by default it stands in the certificate's file."""


def bracketed(host: str) -> str:
    """Return an address of IPv6 as it stands in a URL, and anything else as it is."""
    return f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host


def check_exposure(host: str, access: Access, tls: bool) -> None:
    """Refuse to listen beyond loopback without tokens, or with tokens in clear, unless that was asked for.

    Args:
        host: the address to listen on.
        access: who may use the server.
        tls: whether the server itself speaks TLS.

    Raises:
        ConfigError: it was not.
    """
    if access.tokens is None and not access.anyone and not is_loopback(host):
        raise ConfigError(
            f"{host} can be reached from other machines, and there are no tokens: make one with `genlab token NAME "
            "FILE` and name the file, or say that anyone may use this server"
        )
    if access.tokens is not None and not (tls or access.clear or is_loopback(host)):
        raise ConfigError(
            f"{host} can be reached from other machines, and tokens would travel to it in clear: give a certificate, "
            "or say that they may, where something in front of the server speaks TLS"
        )


def check_certificate(tls: TLS) -> None:
    """Refuse a certificate that cannot be used.

    Raises:
        ConfigError: it cannot.
    """
    if tls.certificate is None:
        if tls.key is not None:
            raise ConfigError("--tls.key: there is no certificate that it is the key of; give --tls.certificate")
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"--tls.certificate {tls.certificate}: cannot be used: {error}") from None


def is_loopback(host: str) -> bool:
    """Return whether an address to listen on is reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
