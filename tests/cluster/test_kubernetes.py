"""cluster/kubernetes: the files against the schemas of KubeRay and Kubernetes, and what a user relies on in them."""

import copy
import functools
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.dashboard.consts
import yaml
from ray.autoscaler._private import constants
from ray.autoscaler._private.kuberay import autoscaling_config
from ray.serve.schema import ServeDeploySchema

from genlab.core.config import parse
from genlab.recipes.cyclegan import CycleGANConfig
from genlab.serving.app import GENERATOR, ServeArguments
from genlab.serving.settings import check_exposure
from genlab.training.ray.driver import Node, _offered

REPOSITORY = Path(__file__).resolve().parents[2]
SCHEMAS = Path(__file__).parent / "schemas"
FILES = sorted((REPOSITORY / "cluster" / "kubernetes").glob("*.yaml"))
PART = {"app.kubernetes.io/part-of": "genlab"}


@functools.cache
def documents() -> list[tuple[str, dict[str, Any]]]:
    """All objects of the files, each with a name."""
    return [
        (f"{file.name}:{one['kind']}/{one['metadata']['name']}", one)
        for file in FILES
        for one in yaml.safe_load_all(file.read_text())
    ]


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [one for _, one in documents() if one["kind"] == kind]


def clusters() -> dict[str, dict[str, Any]]:
    """The specification of a Ray cluster in each kind of KubeRay's."""
    return {
        "RayCluster": of_kind("RayCluster")[0]["spec"],
        "RayJob": of_kind("RayJob")[0]["spec"]["rayClusterSpec"],
        "RayService": of_kind("RayService")[0]["spec"]["rayClusterConfig"],
    }


def pod_templates() -> list[dict[str, Any]]:
    templates = [of_kind("RayJob")[0]["spec"]["submitterPodTemplate"]]
    for cluster in clusters().values():
        templates += [cluster["headGroupSpec"]["template"], *(each["template"] for each in cluster["workerGroupSpecs"])]
    return templates


def validate(one: dict[str, Any]) -> None:
    name = "kuberay-1.7.0.json" if one["apiVersion"].startswith("ray.io/") else "kubernetes-1.37.0.json"
    schemas = json.loads((SCHEMAS / name).read_text())
    schema = {"allOf": [schemas["kinds"][one["kind"]]], "$defs": schemas["$defs"]}
    jsonschema.Draft202012Validator(schema).validate(one)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from strings(each)


@pytest.mark.parametrize("one", [one for _, one in documents()], ids=[name for name, _ in documents()])
def test_an_object_is_what_its_schema_says(one: dict[str, Any]) -> None:
    validate(one)


@pytest.mark.parametrize(
    ("kind", "place", "value"),
    [
        ("RayCluster", "spec/headGroupSpec/template/spec/containers/0/ports/0/containerPort", "http"),
        ("RayCluster", "spec/headGroupSpec/template/spec/containers/0/volumemounts", []),
        ("RayCluster", "spec/authOptions/mode", "password"),
        ("RayJob", "spec/backofflimit", 3),
        ("RayJob", "spec/rayClusterSpec/workerGroupSpecs/0/maxReplicas", "4"),
        ("RayService", "spec/serveConfigV2", {}),
        ("NetworkPolicy", "spec/ingres", []),
        ("Ingress", "spec/rules/0/http/paths/0/pathType", None),
    ],
)
def test_a_mistake_is_found(kind: str, place: str, value: Any) -> None:
    one: Any = copy.deepcopy(of_kind(kind)[0])
    *way, last = place.split("/")
    parent = one
    for step in way:
        parent = parent[int(step) if step.isdigit() else step]
    parent[last] = value
    with pytest.raises(jsonschema.ValidationError):
        validate(one)


@pytest.mark.parametrize("kind", ["RayCluster", "RayJob", "RayService"])
def test_a_cluster_asks_for_the_token_of_a_secret_and_is_of_the_locked_ray(kind: str) -> None:
    cluster = clusters()[kind]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "genlab-ray-token"}
    assert f"\nray=={cluster['rayVersion']} " in (REPOSITORY / "requirements.lock").read_text()


def test_pods_run_without_root_and_behind_the_network_policies() -> None:
    for template in pod_templates():
        assert template["metadata"]["labels"] == PART
        assert template["spec"]["securityContext"]["runAsNonRoot"]
        assert "hostNetwork" not in template["spec"]
        for container in template["spec"]["containers"]:
            security = container["securityContext"]
            assert not security["allowPrivilegeEscalation"]
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert all("hostPort" not in port for port in container.get("ports", []))
    (everything,) = [one for one in of_kind("NetworkPolicy") if one["spec"]["podSelector"] == {}]
    assert everything["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    others = [one for one in of_kind("NetworkPolicy") if one["metadata"]["name"] != everything["metadata"]["name"]]
    assert others
    assert all(one["spec"]["podSelector"] == {"matchLabels": PART} for one in others)


def test_nothing_but_the_server_is_reached_from_outside() -> None:
    opened: dict[int, set[str]] = {}
    for policy in of_kind("NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            for source in rule["from"]:
                if source == {"podSelector": {"matchLabels": PART}}:
                    continue
                namespace = source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
                for port in rule["ports"]:
                    opened.setdefault(port["port"], set()).add(namespace)
    metrics = {8080, constants.AUTOSCALER_METRIC_PORT, ray.dashboard.consts.DASHBOARD_METRIC_PORT}
    assert opened == {
        8265: {"kuberay-operator"},
        8000: {"kuberay-operator", "traefik"},
        **{port: {"monitoring"} for port in metrics},
    }
    (ingress,) = of_kind("Ingress")
    (rule,) = ingress["spec"]["rules"]
    assert [path["backend"]["service"]["port"]["number"] for path in rule["http"]["paths"]] == [8000]
    assert ingress["spec"]["tls"] == [{"hosts": [rule["host"]], "secretName": "genlab-tls"}]
    assert not any(re.search("LoadBalancer|NodePort", text) for _, one in documents() for text in strings(one))


def test_ray_drains_a_pods_node_before_the_pod_is_killed() -> None:
    (service,) = of_kind("RayService")
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    (deployment,) = application["deployments"]
    for kind, cluster in clusters().items():
        least = deployment["graceful_shutdown_timeout_s"] if kind == "RayService" else 60
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            pod = group["template"]["spec"]
            (container,) = pod["containers"]
            variables = {each["name"]: each["value"] for each in container["env"]}
            seconds = float(variables["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
            assert least <= seconds < pod["terminationGracePeriodSeconds"]


def test_prometheus_finds_the_ports_of_a_head() -> None:
    """It discovers ports that a container declares; that of a node's own metrics KubeRay adds."""
    scrape = yaml.safe_load((REPOSITORY / "cluster" / "monitoring" / "prometheus.yml").read_text())["scrape_configs"]
    (job,) = [each for each in scrape if each["job_name"] == "kuberay"]
    names = {name for rule in job["relabel_configs"] for name in rule.get("regex", "").split("|")} - {"", "metrics"}
    ports = {"as-metrics": constants.AUTOSCALER_METRIC_PORT, "dash-metrics": ray.dashboard.consts.DASHBOARD_METRIC_PORT}
    assert names == set(ports)
    for cluster in clusters().values():
        (container,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
        declared = {port["name"]: port["containerPort"] for port in container["ports"]}
        expected = ports if cluster.get("enableInTreeAutoscaling") else {"dash-metrics": ports["dash-metrics"]}
        assert {name: declared.get(name) for name in ports if name in declared} == expected


def test_no_two_clusters_have_the_same_services() -> None:
    """KubeRay names the Services of a RayCluster and of a RayService after them."""
    owners = [one["metadata"]["name"] for kind in ("RayCluster", "RayService", "RayJob") for one in of_kind(kind)]
    assert len(set(owners)) == len(owners)
    (ingress,), (service,) = of_kind("Ingress"), of_kind("RayService")
    (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
    assert path["backend"]["service"]["name"] == f"{service['metadata']['name']}-serve-svc"


def test_secrets_are_named_and_never_written() -> None:
    named = {"genlab-ray-token", "genlab-s3", "genlab-serving-tokens", "genlab-tls"}
    page = (REPOSITORY / "docs" / "clusters.md").read_text()
    for _, one in documents():
        assert one["kind"] != "Secret"
    variables = [each for pod in pod_templates() for one in pod["spec"]["containers"] for each in one.get("env", [])]
    assert {each["name"] for each in variables} == {"GENLAB_AUTOSCALED", "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"}
    text = "".join(file.read_text() for file in FILES)
    assert set(re.findall(r"(?:secretName|secretRef): (?:{name: )?([a-z0-9-]+)", text)) == named
    for name in named:
        assert re.search(rf"kubectl create secret \w+ {name} ", page), f"docs/clusters.md does not make {name}"


def test_the_job_trains_with_options_that_genlab_has_and_is_tried_again_under_its_name() -> None:
    (job,) = of_kind("RayJob")
    python, program, *arguments = shlex.split(job["spec"]["entrypoint"])
    assert (python, program) == ("python", "/home/ray/genlab/jobs/cyclegan.py")
    config = parse(CycleGANConfig, arguments, prog=program)
    assert config.run.name == job["metadata"]["name"]
    assert job["spec"]["backoffLimit"] > 0
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["replicas"] == config.run.workers
    (container,) = group["template"]["spec"]["containers"]
    assert {"name": "cache", "mountPath": config.data.cache} in container["volumeMounts"]


def test_the_service_is_an_application_that_ray_and_genlab_accept() -> None:
    (service,) = of_kind("RayService")
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    (application,) = config.applications
    (deployment,) = application.deployments
    assert deployment.name == GENERATOR
    arguments = ServeArguments.model_validate(application.args)
    check_exposure(config.http_options.host, arguments.access, tls=False)
    (ingress,) = of_kind("Ingress")
    assert arguments.access.hosts == (ingress["spec"]["rules"][0]["host"],)
    for template in pod_templates()[-2:]:
        (container,) = template["spec"]["containers"]
        assert "genlab haproxy" in container["args"][0]
        assert arguments.access.tokens == container["volumeMounts"][0]["mountPath"] + "/tokens.json"
        assert template["metadata"]["annotations"] == {"ray.io/overwrite-container-cmd": "true"}


def test_runs_and_rays_autoscaler_know_what_workers_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    (cluster,) = of_kind("RayCluster")
    config = autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster)
    kinds = config["available_node_types"]
    assert kinds[config["head_node_type"]]["resources"]["CPU"] == 0
    gpu = kinds["gpu"]
    assert (gpu["min_workers"], gpu["max_workers"]) == (0, 8)
    (container,) = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    assert _offered() == [Node(gpu["resources"]["CPU"], gpu["resources"]["GPU"])]
