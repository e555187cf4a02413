"""cluster/aws and cluster/gcp: the files against Ray's schema and its reading of them, and the roles that they need."""

import functools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import ray._common.utils as ray_utils
import yaml
from ray._private import ray_constants
from ray.autoscaler._private import constants
from ray.autoscaler._private.node_provider_availability_tracker import NodeProviderAvailabilityTracker
from ray.autoscaler._private.resource_demand_scheduler import get_nodes_for
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

from genlab.core import spot, spot_notice
from genlab.training.ray.driver import Node, _offered

CLUSTER = Path(__file__).resolve().parents[2] / "cluster"
CLOUDS = ["aws", "gcp"]


@functools.cache
def written(cloud: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((CLUSTER / cloud / "cluster.yaml").read_text())
    return config


def prepared(cloud: str) -> dict[str, Any]:
    """The file as Ray completes it."""
    config: dict[str, Any] = prepare_config(json.loads(json.dumps(written(cloud))))
    return config


def start_commands(cloud: str, node: str) -> dict[str, str]:
    """The options of `ray start` on ``node``, and the variables before it."""
    words = shlex.split(prepared(cloud)[f"{node}_start_ray_commands"][1])
    options = [word for word in words if word.startswith("--") or "=" in word]
    return {name: value for name, _, value in (option.partition("=") for option in options)}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_ray_accepts_the_file(cloud: str) -> None:
    config = prepared(cloud)
    validate_config(config)
    kinds = AutoscalingConfig(config, skip_content_hash=True)
    assert kinds.get_docker_config("head")["image"] == "REGISTRY/genlab:cpu"
    assert kinds.get_docker_config("spot")["image"] == kinds.get_docker_config("on_demand")["image"]
    assert kinds.get_docker_config("spot")["image"] == "REGISTRY/genlab:gpu"
    assert config["setup_commands"] == config["head_setup_commands"] == config["worker_setup_commands"] == []


@pytest.mark.parametrize("cloud", CLOUDS)
def test_spot_and_other_workers_differ_in_nothing_else(cloud: str) -> None:
    kinds = {name: json.loads(json.dumps(kind)) for name, kind in written(cloud)["available_node_types"].items()}
    markets = {}
    for name, kind in kinds.items():
        kind.pop("priority", None)
        node = kind["node_config"]
        markets[name] = (node.pop("InstanceMarketOptions", {}), node.pop("scheduling", {}).get("provisioningModel"))
    assert kinds["spot"] == kinds["on_demand"]
    spot_market = {"aws": ({"MarketType": "spot"}, None), "gcp": ({}, "SPOT")}[cloud]
    assert markets == {"head": ({}, None), "spot": spot_market, "on_demand": ({}, None)}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_on_workers_something_waits_for_the_notice_when_the_node_is_there(cloud: str) -> None:
    node, stop, start = written(cloud)["worker_start_ray_commands"][-3:]
    assert "ray start --address" in node
    words = shlex.split(start)
    assert words[words.index("-m") + 1] == spot_notice.__name__
    assert words[:2] == ["setsid", "--fork"], "it stays when the launcher's shell ends"
    pattern = shlex.split(stop)[2]
    assert re.search(pattern, start), "one of an earlier start is ended"
    assert not re.search(pattern, stop), "the shell that ends it is not"


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_job_server_is_on_loopback_and_asks_for_the_token(cloud: str) -> None:
    options = start_commands(cloud, "head")
    assert options["--dashboard-host"] == "127.0.0.1"
    assert options["--num-cpus"] == "0"
    config = written(cloud)
    assert "-e RAY_AUTH_TOKEN_PATH=/home/ray/ray-token" in config["docker"]["run_options"]
    assert config["file_mounts"] == {"/home/ray/ray-token": "./ray-token"}
    assert not any("RAY_AUTH_MODE" in each for each in config["docker"]["run_options"])  # the image has it on


@pytest.mark.parametrize("cloud", CLOUDS)
def test_runs_wait_for_the_nodes_that_may_come(cloud: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (option,) = [each for each in written(cloud)["docker"]["head_run_options"] if each.startswith("-e ")]
    name, _, value = option.removeprefix("-e ").partition("=")
    monkeypatch.setenv(name, value)
    resources = written(cloud)["available_node_types"]["spot"]["resources"]
    assert _offered() == [Node(resources["CPU"], resources["GPU"])]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_prometheus_on_the_head_reads_rays_list_of_nodes(cloud: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray writes it in its folder, in a container that the file shares with the machine."""
    monkeypatch.delenv("TMPDIR")
    scrape = yaml.safe_load((CLUSTER / "monitoring" / "prometheus.yml").read_text())["scrape_configs"]
    (job,) = [each for each in scrape if each["job_name"] == "ray"]
    (file,) = job["file_sd_configs"][0]["files"]
    folder, name = ray_utils.get_default_ray_temp_dir(), ray_constants.PROMETHEUS_SERVICE_DISCOVERY_FILE
    assert file == f"{folder}/{name}"
    config = prepared(cloud)
    assert f"-v {folder}:{folder}" in config["docker"]["head_run_options"]
    assert not any("--temp-dir" in command for command in config["head_start_ray_commands"])
    assert config["initialization_commands"] == [f"mkdir --parents --mode 1777 {folder}"]


def started_on_aws(tracker: NodeProviderAvailabilityTracker, workers: int) -> dict[str, int]:
    """The nodes that Ray's autoscaler starts for workers of one GPU, by genlab's choice among the kinds."""
    config = prepared("aws")
    score: Any = functools.partial(spot.score, node_availability_summary=tracker.summary())
    demand: Any = [{"CPU": 8, "GPU": 1}] * workers
    nodes, left = get_nodes_for(config["available_node_types"], {}, "head", config["max_workers"], demand, score)
    assert not left
    return dict(nodes)


def test_on_aws_instances_are_on_demand_while_spot_ones_are_refused() -> None:
    now = [1000.0]
    tracker = NodeProviderAvailabilityTracker(timer=lambda: now[0])
    assert started_on_aws(tracker, 3) == {"spot": 3}
    refused = NodeLaunchException("InsufficientInstanceCapacity", "none left", None)
    tracker.update_node_availability("spot", int(now[0]), refused)
    assert started_on_aws(tracker, 3) == {"on_demand": 3}
    now[0] += constants.AUTOSCALER_NODE_AVAILABILITY_MAX_STALENESS_S + 1
    assert started_on_aws(tracker, 3) == {"spot": 3}


def test_on_aws_the_autoscaler_is_the_one_that_asks_genlab() -> None:
    options = start_commands("aws", "head")
    assert options["RAY_enable_autoscaler_v2"] == "0"
    assert options[constants.AUTOSCALER_UTILIZATION_SCORER_KEY] == f"{spot.__name__}.{spot.score.__name__}"


def test_on_google_cloud_spot_machines_come_first() -> None:
    kinds = AutoscalingConfig(prepared("gcp"), skip_content_hash=True).get_node_type_configs()
    demand = ResourceRequestUtil.group_by_count([ResourceRequestUtil.make({"CPU": 8, "GPU": 1})] * 3)
    request = SchedulingRequest(
        disable_launch_config_check=True, node_type_configs=kinds, max_num_nodes=8, resource_requests=demand
    )
    started = {each.instance_type: each.count for each in ResourceDemandScheduler().schedule(request).to_launch}
    started.pop("head", None)  # which there is already
    assert started == {"spot": 3}


def statements(name: str) -> list[dict[str, Any]]:
    policy = json.loads((CLUSTER / "aws" / f"{name}-policy.json").read_text())
    assert policy["Version"] == "2012-10-17"
    found: list[dict[str, Any]] = policy["Statement"]
    assert all(each["Effect"] == "Allow" for each in found)
    return found


def actions(statement: dict[str, Any]) -> set[str]:
    action = statement["Action"]
    return {action} if isinstance(action, str) else set(action)


def test_the_role_of_the_head_starts_and_ends_nodes_of_this_cluster_alone() -> None:
    config = written("aws")
    all_of_it = statements("head")
    operations = botocore.session.Session().get_service_model("ec2").operation_names
    for action in set().union(*map(actions, all_of_it)):
        service, _, operation = action.partition(":")
        assert (service == "ec2" and operation in operations) or action == "iam:PassRole", action
    for statement in all_of_it:
        if actions(statement) <= {"ec2:DescribeInstances"}:
            continue
        assert statement["Resource"] != "*"
        resources = [statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"]
        if any("instance/" in each for each in resources):
            conditions = json.dumps(statement["Condition"])
            assert f'ray-cluster-name": "{config["cluster_name"]}"' in conditions or '"RunInstances"' in conditions
    (start,) = [each for each in all_of_it if each["Sid"] == "StartNodesOfThisCluster"]
    machines = {config["available_node_types"][kind]["node_config"]["InstanceType"] for kind in ("spot", "on_demand")}
    assert {start["Condition"]["StringEquals"]["ec2:InstanceType"]} == machines


def test_the_role_of_storage_is_that_of_one_bucket() -> None:
    allowed = statements("storage")
    assert {statement["Resource"] for statement in allowed} == {"arn:aws:s3:::BUCKET", "arn:aws:s3:::BUCKET/*"}
    assert not any("*" in action for statement in allowed for action in actions(statement))


def test_the_roles_on_google_cloud_name_single_permissions() -> None:
    for name, service in (("head", "compute."), ("storage", "storage.")):
        role = yaml.safe_load((CLUSTER / "gcp" / f"{name}-role.yaml").read_text())
        assert set(role) == {"title", "description", "stage", "includedPermissions"}
        assert role["includedPermissions"] == sorted(set(role["includedPermissions"]))
        assert all(each.startswith(service) and "*" not in each for each in role["includedPermissions"])
