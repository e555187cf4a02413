"""The program that Ray Serve starts as HAProxy: completes the configuration that Ray Serve wrote, and becomes HAProxy.

``python haproxy_program.py SETTINGS HAPROXY-ARGUMENT...``; :mod:`genlab.serving.haproxy` writes the settings and makes
Ray Serve start it. It is run at each change of the replicas, so it imports the standard library alone.
"""

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MARK = "# completed by genlab\n"
PURE = "^(/[^/]+)*/v1/models/[^/]+/[^/]+$"
"""Paths whose requests give the same answer however often they are sent."""
ERROR_STATUS = {400: 400, 408: 408, 413: 413, 500: 500, 502: 503, 503: 503, 504: 503}
"""For each status that HAProxy answers by itself, the one that its client gets."""
HOT_BUFFERS = 16
"""Buffers that each thread of HAProxy keeps, to use them again."""
HEAD_BYTES = 64 * 2**10
"""Largest head of a request."""


class UnexpectedError(Exception):
    """A configuration that is not what it is known to be."""


def complete(text: str, settings: Mapping[str, Any]) -> str:
    """Complete a configuration of HAProxy as Ray Serve writes it.

    Args:
        text: the configuration; one that is complete is returned as it is.
        settings: ``errors``, the folder of error files; ``certificate``, a PEM file with its key, or ``None``;
            ``buffer``, the bytes of HAProxy's buffers; ``seconds``, the time in which a head, and a body up to the
            buffer's size, must have come.

    Raises:
        UnexpectedError: a line that is to be changed is not there, or there several times.
    """
    if text.startswith(MARK):
        return text
    errors, certificate = settings["errors"], settings["certificate"]
    tls = f" ssl crt {certificate} alpn h2,http/1.1" if certificate else ""
    # Without application nothing is served yet; with one, the path is outside of it.
    nothing = 404 if re.search(r"^    use_backend ", text, re.MULTILINE) else 503
    process = [
        "    ssl-default-bind-options ssl-min-ver TLSv1.2",
        # Buffers that are not kept are pages that the system takes back, and clears again for the next request.
        f"    tune.memory.hot-size {HOT_BUFFERS * settings['buffer']}",
    ]
    ours = [
        "    option http-buffer-request",  # a body that is here can be sent again
        f"    timeout http-request {settings['seconds']}s",
        *(f"    errorfile {status} {errors}/{sent}.http" for status, sent in ERROR_STATUS.items()),
    ]
    frontend = [
        f"    http-request return status 431 {_problem(errors, 431)} if {{ req.hdrs,length gt {HEAD_BYTES} }}",
        f"    acl is_pure path_reg {PURE}",
        "    acl has_idempotency_key req.hdr(idempotency-key) -m found",
        "    http-request disable-l7-retry unless METH_GET or METH_HEAD or is_pure or has_idempotency_key",
        f"    http-request set-header X-Forwarded-Proto {'https' if tls else 'http'}",
        "    http-request set-header X-Forwarded-For %[src]",
        # Ray Serve says the same once more
        "    http-response set-header X-Request-Id %[res.hdr(x-request-id,1)] if { res.hdr(x-request-id) -m found }",
    ]
    changes = (
        # where, the line, what it becomes, how often it is there
        ("global", r"(    stats socket \S+ )mode 666( .*)", r"\1mode 600\2", 1),
        ("global", r"(    maxconn .*)", "\n".join((r"\1", *process)), 1),
        ("defaults", r"    errorfile 50[234] .*", "", 3),
        ("defaults", r"(    option redispatch 1)", "\n".join((r"\1", *ours)), 1),
        ("frontend prometheus", r"    bind \S*:(\d+)", r"    bind 127.0.0.1:\1", 1),
        ("listen stats", r"  bind \S*:(\d+)", r"  bind 127.0.0.1:\1", 1),
        ("frontend http_frontend", r"(    bind \S+:\d+)", "\n".join((rf"\1{tls}", *frontend)), 1),
        (
            "backend default_backend",
            r"    http-request return status 404 .*",
            f"    http-request return status {nothing} {_problem(errors, nothing)}",
            1,
        ),
    )
    sections = re.split(r"^(?=\S)(?!#)", text, flags=re.MULTILINE)
    for name, line, becomes, times in changes:
        found = [number for number, section in enumerate(sections) if section.partition("\n")[0].strip() == name]
        if len(found) != 1:
            raise UnexpectedError(f"there are {len(found)} sections {name!r}")
        sections[found[0]], count = re.subn(f"^{line}$", becomes, sections[found[0]], flags=re.MULTILINE)
        if count != times:
            raise UnexpectedError(f"in {name!r} there are {count} lines like {line!r}, and not {times}")
    return MARK + "".join(sections)


def join_certificate(settings: Mapping[str, Any]) -> None:
    """Write the file of the certificate and its key that HAProxy reads, from those that it is made of.

    Raises:
        OSError: one cannot be read.
    """
    if not settings["certificate"]:
        return
    parts = [Path(part).read_bytes() for part in settings["certificate_parts"]]
    _write_private(settings["certificate"], b"\n".join(parts))


def main(arguments: list[str]) -> None:
    """Complete the configuration and become HAProxy."""
    settings = json.loads(Path(arguments[0]).read_text())
    haproxy = arguments[1:]
    if "-f" in haproxy:
        file = haproxy[haproxy.index("-f") + 1]
        try:
            text = complete(Path(file).read_text(), settings)
            join_certificate(settings)
        except (UnexpectedError, OSError) as error:
            sys.exit(f"genlab: HAProxy is not started: {file}: {error}")
        # In place: Ray Serve knows its HAProxy processes by the name of this file in their command lines.
        _write_private(file, text.encode())
    os.execv(settings["binary"], [settings["binary"], *haproxy])


def _problem(errors: str, status: int) -> str:
    headers = "hdr Cache-Control no-store" + (" hdr Retry-After 1" if status == 503 else "")
    return f"content-type application/problem+json file {errors}/{status}.json {headers}"


def _write_private(file: str, content: bytes) -> None:
    """Write a file that only its owner may read, at once as a whole."""
    temporary = f"{file}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    Path(temporary).replace(file)


if __name__ == "__main__":
    main(sys.argv[1:])
