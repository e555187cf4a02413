"""The notice of AWS or Google Cloud that they take a spot machine back, passed on to Ray.

``python -m genlab.core.spot_notice`` runs on a worker's machine beside its Ray node (cluster/aws/cluster.yaml and
cluster/gcp/cluster.yaml start it) and asks the cloud's metadata server every few seconds. When the notice comes it
drains the node: runs save, and go on elsewhere. AWS gives notice of two minutes
(https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html), Google of 30 seconds
(https://cloud.google.com/compute/docs/instances/create-use-preemptible). On other machines it ends at once.
"""

import argparse
import http.client
import json
import logging
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime

import ray

ASK_SECONDS = 2.0
"""Time between two questions."""
ANSWER_SECONDS = 5.0
"""Time that the metadata server has for an answer."""
GOOGLE_SECONDS = 30.0
"""Time from Google's notice to the end of the machine."""

Ask = Callable[[], float | None]
"""Asks a cloud; returns how many seconds the machine has left, ``None`` while there is no notice.

Raises:
    OSError: there is no such cloud here, or it does not answer.
"""


def aws() -> float | None:
    """Ask AWS, see :data:`Ask`; ``AWS_EC2_METADATA_SERVICE_ENDPOINT`` is another address of its server."""
    server = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254").rstrip("/")
    token = _get(f"{server}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT")
    if token is None:
        raise OSError("no token")
    action = _get(f"{server}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
    if action is None:  # Not found, until there is one.
        return None
    at = datetime.fromisoformat(json.loads(action)["time"])
    return (at - datetime.now(UTC)).total_seconds()


def google() -> float | None:
    """Ask Google Cloud, see :data:`Ask`; ``GCE_METADATA_HOST`` is another host of its server."""
    host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
    answer = _get(f"http://{host}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    if answer is None:
        raise OSError("no such machine")
    return GOOGLE_SECONDS if answer.strip() == "TRUE" else None


def _get(url: str, headers: dict[str, str], method: str = "GET") -> str | None:
    """Return what a server answers; ``None`` for 404."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # The address is of this machine alone.
    try:
        with opener.open(urllib.request.Request(url, headers=headers, method=method), timeout=ANSWER_SECONDS) as answer:
            text: str = answer.read().decode()
            return text
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.NOT_FOUND:
            return None
        raise
    except http.client.HTTPException as error:
        raise OSError(str(error)) from None


def find_cloud() -> Ask | None:
    """Return the cloud that this machine is of; ``None`` for another machine."""
    for cloud in (aws, google):
        try:
            cloud()
        except OSError:
            continue
        return cloud
    return None


def await_notice(cloud: Ask) -> float:
    """Return how many seconds the machine has left, as soon as there is a notice."""
    while True:
        try:
            left = cloud()
        except OSError:  # It is asked again.
            left = None
        if left is not None:
            return left
        time.sleep(ASK_SECONDS)


def find_node(address: str, ip_address: str) -> str | None:
    """Return the ID of the Ray node with an IP address; ``None`` if there is none.

    Args:
        address: the cluster's address, or ``auto``.
        ip_address: that of the node.
    """
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        nodes = ray.nodes()
    finally:
        ray.shutdown()
    return next((one["NodeID"] for one in nodes if one["Alive"] and one["NodeManagerAddress"] == ip_address), None)


def drain(address: str, node: str, seconds: float) -> None:
    """Tell Ray that a node ends in so many seconds.

    Raises:
        subprocess.CalledProcessError: Ray does not take it.
    """
    words = ["ray", "drain-node", "--address", address, "--node-id", node, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    words += ["--reason-message", "spot notice", "--deadline-remaining-seconds", str(max(1, round(seconds)))]
    subprocess.run(words, check=True)


def main(arguments: list[str] | None = None) -> None:
    """Wait for a notice, and drain this machine's node."""
    parser = argparse.ArgumentParser(prog="python -m genlab.core.spot_notice", description=__doc__.partition("\n")[0])
    parser.add_argument("--address", default="auto", help="of the Ray cluster, by default that of this machine's node")
    parser.add_argument("--node-ip-address", help="of this machine's node, as ray start has it")
    given = parser.parse_args(arguments)
    cloud = find_cloud()
    if cloud is None:
        print("no machine of AWS or Google Cloud: there will be no notice", flush=True)
        return
    ip_address = given.node_ip_address or ray.util.get_node_ip_address()
    node = find_node(given.address, ip_address)
    if node is None:
        sys.exit(f"error: no Ray node at {ip_address}; start it before, or name it with --node-ip-address")
    print(f"node {node}: waits for a notice of {cloud.__name__}", flush=True)
    seconds = await_notice(cloud)
    drain(given.address, node, seconds)
    print(f"node {node}: drained, {seconds:.0f} s before it is taken back", flush=True)


if __name__ == "__main__":
    main()
