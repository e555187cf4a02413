"""Certificates that sign themselves."""

import subprocess
from pathlib import Path


def make_certificate(folder: Path, *addresses: str) -> tuple[Path, Path]:
    """Make a certificate of localhost, 127.0.0.1 and IP addresses; its file and that of its key."""
    certificate, key = folder / "server.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ",".join(["DNS:localhost", *(f"IP:{address}" for address in ("127.0.0.1", *addresses))])
    subprocess.run(
        [*command.split(), "-addext", f"subjectAltName={names}", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    return certificate, key
