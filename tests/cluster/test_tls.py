"""A cluster whose processes speak TLS with each other, as docs/clusters.md says."""

import re
import socket
import ssl
from pathlib import Path

import pytest
from ray.util import get_node_ip_address

from tests.certificates import make_certificate
from tests.cluster_support import TIMEOUT_SECONDS, started_cluster

pytestmark = pytest.mark.cluster


def test_the_nodes_of_a_cluster_speak_tls_and_know_each_other_by_certificates(tmp_path: Path) -> None:
    address = get_node_ip_address()
    certificate, key = make_certificate(tmp_path, address)
    variables = {
        "RAY_USE_TLS": "1",
        "RAY_TLS_CA_CERT": str(certificate),
        "RAY_TLS_SERVER_CERT": str(certificate),
        "RAY_TLS_SERVER_KEY": str(key),
    }
    with started_cluster(**variables) as cluster:
        # It has run a job by now, and its second node has joined it.
        head = Path(cluster.state, "head.log").read_text()
        (port,) = set(re.findall(rf"{re.escape(address)}:(\d+)", head))
        assert _answers(address, int(port), certificate, key)
        assert not _answers(address, int(port), certificate, None)


def _answers(address: str, port: int, certificate: Path, key: Path | None) -> bool:
    """Whether a node of the certificate lets a client speak that has the key, or none."""
    context = ssl.create_default_context(cafile=certificate)
    context.set_alpn_protocols(["h2"])
    if key is not None:
        context.load_cert_chain(certificate, key)
    with socket.create_connection((address, port)) as plain:
        plain.settimeout(TIMEOUT_SECONDS)
        try:
            with context.wrap_socket(plain, server_hostname=address) as connection:
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
                return bool(connection.recv(1))
        except ssl.SSLError:
            return False
