"""Ray Serve behind HAProxy, as ``genlab haproxy`` and cluster/serve.yaml make it, for :class:`rig.Process`.

``serving_ray.py JSON``: ``models``; ``deployment``, which replaces settings of cluster/serve.yaml; ``constant``,
null or ``model``, ``operation`` and ``picture`` of a second application, which gives one file below ``/constant``. It
says ``{"port": ...}`` when replicas answer. Each line that it is sent is answered with ``pids`` of the replicas that
run and ``up``, how many of these HAProxy sends requests.
"""

import contextlib
import csv
import json
import os
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from ray.serve import Application
from rig import HERE, free_port

from genlab.serving import haproxy


def build_constant(arguments: dict[str, str]) -> Application:
    """Build an application that takes a body, and answers with the model's picture of another request."""
    from ray import serve
    from serving_contenders import answer_together, prepared, task

    operation, picture, api = arguments["operation"], Path(arguments["picture"]).read_bytes(), FastAPI()
    engine = prepared(arguments["model"], operation, picture, batches=False)
    [content] = answer_together(engine, [task(engine, operation, picture)])

    @api.post("/{path:path}")
    async def answer(path: str, request: Request) -> Response:
        await request.body()
        return Response(content, media_type="image/png")

    class Constant:
        pass

    deployment = serve.deployment(
        name="Constant",
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=320,
        logging_config={"log_level": "ERROR"},
    )
    return deployment(serve.ingress(api)(Constant)).bind()


def main() -> None:
    """Serve until the input ends."""
    asked = json.loads(sys.argv[1])
    sys.stdout, said = sys.stderr, sys.stdout  # what Ray prints is no answer
    with tempfile.TemporaryDirectory(prefix="glb-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        settings = haproxy.HAProxyConfig(folder, metrics_port=free_port(), stats_port=free_port())
        os.environ |= {
            **haproxy.prepare(settings),
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
            "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        }
        from ray import serve

        from genlab.core.ray_cluster import connected

        with connected():
            try:
                port, details = _deploy(asked)
                at_least = asked["deployment"].get("autoscaling_config", {}) or {"min_replicas": 1}
                while len(_replicas(details, settings.stats_port)["pids"]) < at_least["min_replicas"]:
                    time.sleep(0.2)
                print(json.dumps({"port": port}), file=said, flush=True)
                for _ in sys.stdin:
                    print(json.dumps(_replicas(details, settings.stats_port)), file=said, flush=True)
            finally:
                serve.shutdown()


def _deploy(asked: dict[str, Any]) -> tuple[int, Any]:
    """Deploy the applications, as ``serve run FILE`` does: the port, and what tells of them."""
    import yaml
    from ray.serve._private import api
    from ray.serve.schema import ServeDeploySchema

    config = yaml.safe_load((HERE.parent / "cluster" / "serve.yaml").read_text())
    [application] = config["applications"]
    application["args"]["models"] = asked["models"]
    [generator] = application["deployments"]
    generator |= asked["deployment"]
    if asked.get("constant"):
        config["applications"].append(
            {
                "name": "constant",
                "route_prefix": "/constant",
                "import_path": "serving_ray:build_constant",
                "args": asked["constant"],
            }
        )
    config["http_options"]["port"] = port = free_port()
    schema = ServeDeploySchema.model_validate(config)
    client = api.serve_start(http_options=schema.http_options.model_dump(), proxy_location=schema.proxy_location)
    client.deploy_apps(schema, _blocking=False)
    return port, client.get_serve_details


def _replicas(details: Any, stats_port: int) -> dict[str, Any]:
    pids, up = [], 0
    with contextlib.suppress(KeyError, OSError):
        replicas = details()["applications"]["genlab"]["deployments"]["Generator"]["replicas"]
        pids = [replica["pid"] for replica in replicas if replica["state"] == "RUNNING"]
        with urllib.request.urlopen(f"http://127.0.0.1:{stats_port}/stats;csv", timeout=10) as page:
            rows = csv.DictReader(page.read().decode().removeprefix("# ").splitlines())
            up = sum(
                row["svname"].startswith("SERVE_REPLICA") and "genlab" in row["pxname"] and row["status"] == "UP"
                for row in rows
            )
    return {"pids": pids, "up": up}


if __name__ == "__main__":
    main()
