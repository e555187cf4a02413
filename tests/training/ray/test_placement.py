"""Which workers fit on which nodes, and what is refused before any is started."""

import dataclasses
import sys
from typing import Any

import pytest
from ray.core.generated import autoscaler_pb2

from genlab.core.errors import ClusterError
from genlab.recipes.options import Run
from genlab.recipes.workers import parse_workers
from genlab.training.ray.driver import (
    Node,
    fitting,
    group_size,
    most_threads,
    packed,
    resources_of,
    room_for,
    side_by_side,
    worker_resources,
)

UNEQUAL = [Node(64, 8), Node(64, 1)]


@pytest.fixture
def cluster_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make Ray say that the cluster has these nodes, and an autoscaler that can add those of ``offered``, if any.

    Of the nodes ``free`` is free, by default all.
    """

    def make(*nodes: Node, offered: list[Node] | None = None, free: list[Node] | None = None) -> None:
        def resources(node: Node) -> dict[str, float]:
            return {"CPU": float(node.cpus), "GPU": float(node.gpus)}

        ids = [f"{number:x}" for number in range(len(nodes))]
        ray_nodes = [
            {"NodeID": one, "Alive": True, "Resources": resources(node)} for one, node in zip(ids, nodes, strict=True)
        ]
        monkeypatch.setattr("genlab.training.ray.driver.ray.nodes", lambda: ray_nodes)
        left = {one: resources(node) for one, node in zip(ids, free or nodes, strict=True) if node.cpus}
        monkeypatch.setattr("ray._private.state.state.available_resources_per_node", lambda: left)
        monkeypatch.delenv("GENLAB_AUTOSCALED", raising=False)
        messages: Any = autoscaler_pb2
        groups = [{"resources": {"CPU": each.cpus, "GPU": each.gpus}, "max_count": 4} for each in offered or ()]
        config = messages.ClusterConfig(node_group_configs=groups)
        monkeypatch.setattr("ray._private.state.state.get_cluster_config", lambda: config if groups else None)

    return make


def test_a_worker_needs_its_threads_and_its_gpu_on_one_node() -> None:
    assert fitting(UNEQUAL, 8, gpu=True) == 8 + 1
    assert fitting(UNEQUAL, 9, gpu=True) == 7 + 1
    assert fitting(UNEQUAL, 64, gpu=True) == 1 + 1
    assert fitting(UNEQUAL, 9, gpu=False) == 7 + 7
    assert fitting([Node(2, 8)], 1, gpu=True) == 2
    assert fitting([Node(0, 1), Node(96)], 1, gpu=True) == 0, "the CPUs are on another node than the GPU"
    assert fitting([], 1, gpu=False) == 0


@pytest.mark.parametrize(
    ("nodes", "workers", "gpu", "threads"),
    [
        (UNEQUAL, 9, True, 8),
        (UNEQUAL, 8, True, 9),
        (UNEQUAL, 2, True, 64),
        ([Node(4), Node(2)], 3, False, 2),
        ([Node(4), Node(3)], 3, False, 2),
        ([Node(8)], 3, False, 2),
        ([Node(2)], 3, False, 1),
        ([], 1, False, 1),
    ],
)
def test_workers_get_the_most_threads_with_which_all_fit(
    nodes: list[Node], workers: int, gpu: bool, threads: int
) -> None:
    assert most_threads(nodes, workers, gpu) == threads


def test_a_run_gets_what_fits_on_nodes_of_unequal_size(cluster_of: Any) -> None:
    cluster_of(*UNEQUAL)
    assert worker_resources(Run(workers=9)) == (8, True)
    cluster_of(Node(64, 8), Node(96))
    assert worker_resources(Run(workers=8)) == (8, True), "a node without a GPU has no worker"


def test_workers_that_never_fit_are_refused_with_what_the_nodes_have(cluster_of: Any) -> None:
    cluster_of(*UNEQUAL)
    with pytest.raises(ClusterError, match="nodes have 64 CPUs and 8 GPUs, 64 CPUs and 1 GPU, and no autoscaler"):
        worker_resources(Run(workers=9, threads=9))
    with pytest.raises(ClusterError, match="the cluster has 9 GPUs"):
        worker_resources(Run(workers=10))
    cluster_of(Node(2), Node(1))
    with pytest.raises(ClusterError, match=r"workers = 4 with 1 thread each .* 2 CPUs, 1 CPU, and no autoscaler"):
        worker_resources(Run(workers=4))


def test_a_range_of_workers_takes_what_there_is_from_its_least_on(cluster_of: Any) -> None:
    run = Run(workers=parse_workers("2..8"))
    cluster_of(Node(8), Node(8))
    assert worker_resources(run) == (2, False)
    cluster_of(Node(2), Node(1))
    assert worker_resources(run) == (1, False)
    cluster_of(Node(16, 2), Node(16, 2))
    assert worker_resources(run) == (8, True)
    cluster_of(Node(1))
    with pytest.raises(ClusterError, match=r"run\.workers = 2\.\.8 with 1 thread each do not fit"):
        worker_resources(run)
    cluster_of(Node(16, 1))
    with pytest.raises(ClusterError, match=r"run\.workers = 2\.\.8: the cluster has 1 GPUs"):
        worker_resources(run)


def test_a_range_of_workers_waits_for_none_that_others_leave_no_room_for(cluster_of: Any) -> None:
    run = Run(workers=parse_workers("2..8"))
    nodes = [Node(4), Node(4), Node(4)]
    cluster_of(*nodes)
    assert group_size(run, 2, gpu=False) == 6
    cluster_of(*nodes, free=[Node(4), Node(1), Node(3)])
    assert group_size(run, 2, gpu=False) == 3, "halves of two nodes are no room for a worker"
    assert room_for(run, 2, gpu=False, workers=3) == 6
    assert group_size(Run(workers=4), 2, gpu=False) == 4, "a number is what is asked for, whatever others do"
    cluster_of(*nodes, free=[Node(0), Node(0), Node(0)])
    assert group_size(run, 2, gpu=False) == 2, "the least wait until others have ended"
    cluster_of(*nodes, free=[Node(0), Node(0), Node(0)], offered=[Node(4)])
    assert group_size(run, 2, gpu=False) == (2, 8), "Ray asks the autoscaler for the nodes"


def test_workers_that_start_again_get_what_those_before_them_had(
    cluster_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(workers=parse_workers("1..3"))
    cluster_of(Node(1), Node(1), free=[Node(0), Node(0)])
    monkeypatch.setattr("genlab.training.ray.driver.time.sleep", lambda seconds: cluster_of(Node(1), Node(1)))
    assert group_size(run, 1, gpu=False) == 1
    assert group_size(run, 1, gpu=False, again=True) == 2, "Ray tells a moment later that it is free"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"cuda_graphs": True}, r"run\.cuda_graphs: the cluster"), ({"precision": "tf32"}, r"run\.precision = tf32")],
)
def test_what_needs_gpus_is_refused_on_a_cluster_without(
    options: dict[str, Any], message: str, cluster_of: Any
) -> None:
    run = dataclasses.replace(Run(), **options)
    cluster_of(Node(8, 1))
    assert worker_resources(run) == (8, True)
    cluster_of(Node(8))
    with pytest.raises(ClusterError, match=message):
        worker_resources(run)


def test_where_ray_does_not_say_whether_there_is_an_autoscaler_nothing_is_refused(
    cluster_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster_of(Node(2))
    monkeypatch.setitem(sys.modules, "ray._private.state", None)
    assert worker_resources(Run(workers=4)) == (1, False)


def test_the_clusters_files_say_what_an_autoscaler_can_add(cluster_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster_of(Node(0))
    monkeypatch.setenv("GENLAB_AUTOSCALED", "CPU=4 CPU=16,GPU=2")
    assert worker_resources(Run(workers=4)) == (8, True)
    monkeypatch.setenv("GENLAB_AUTOSCALED", "8 CPUs")
    with pytest.raises(ClusterError, match=r"GENLAB_AUTOSCALED=8: .* as CPU=8,GPU=1"):
        worker_resources(Run())


def test_workers_wait_for_the_gpus_that_an_autoscaler_offers(cluster_of: Any) -> None:
    cluster_of(Node(4), offered=[Node(4), Node(16, 2), Node(12, 1)])
    assert worker_resources(Run(workers=2)) == (8, True), "8 CPUs a GPU fit on both kinds of nodes"
    assert worker_resources(Run(workers=2, threads=3)) == (3, True)
    assert worker_resources(Run(workers=2, cuda_graphs=True)) == (8, True)
    assert side_by_side(Run(), 12) == (8, 1)
    cluster_of(Node(4), Node(16, 2), offered=[Node(16, 2)])
    assert worker_resources(Run(workers=2)) == (8, True)
    assert worker_resources(Run(workers=3)) == (8, True)
    assert side_by_side(Run(), 12) == (8, 2)
    cluster_of(Node(4), offered=[Node(8)])
    assert worker_resources(Run(workers=9)) == (1, False)


@pytest.mark.parametrize(
    ("nodes", "run", "runs", "gpu", "expected"),
    [
        ([Node(2)], Run(), 12, False, (1, 2)),
        ([Node(2)], Run(), 1, False, (2, 1)),
        ([Node(2)], Run(threads=2), 12, False, (2, 1)),
        ([Node(8), Node(8)], Run(threads=8), 12, False, (8, 2)),
        ([Node(8), Node(8)], Run(threads=5), 12, False, (5, 2)),
        ([Node(8), Node(8)], Run(), 4, False, (4, 4)),
        ([Node(8), Node(8)], Run(workers=3), 12, False, (1, 5)),
        ([Node(32, 4), Node(64)], Run(), 12, True, (8, 4)),
        ([Node(32, 4), Node(64)], Run(workers=2), 12, True, (8, 2)),
        ([Node(2)], Run(threads=4), 12, False, (4, 1)),
    ],
)
def test_runs_are_packed_node_by_node(
    nodes: list[Node], run: Run, runs: int, gpu: bool, expected: tuple[int, int]
) -> None:
    assert packed(nodes, run, runs, gpu=gpu) == expected, "threads of a worker, and runs side by side"


def test_several_runs_share_a_gpu_as_far_as_the_cpus_of_its_node_go() -> None:
    nodes = [Node(8, 2), Node(2, 2), Node(64)]
    assert packed(nodes, Run(), 100, gpu=True, per_gpu=3) == (1, 8)
    assert packed(nodes, Run(threads=4), 100, gpu=True, per_gpu=3) == (4, 2)
    assert packed(nodes, Run(), 4, gpu=True, per_gpu=3) == (2, 4)
    assert resources_of(2, True, per_gpu=4) == {"CPU": 2, "GPU": 0.25}
