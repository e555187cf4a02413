"""Which nodes Ray's autoscaler starts on AWS: of like kinds, one that the cloud has not refused lately.

``RAY_AUTOSCALER_UTILIZATION_SCORER=genlab.core.spot.score``, in the environment of the head, has Ray's autoscaler (its
version 1; version 2 does not remember what was refused) ask :func:`score`. See cluster/aws/cluster.yaml.
"""

from typing import Any

from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer


def score(
    node_resources: dict[str, Any],
    resources: list[dict[str, Any]],
    node_type: str,
    *,
    node_availability_summary: Any,
) -> tuple[Any, ...] | None:
    """Return how well nodes of a kind suit; the autoscaler starts the highest, of equals the one last in the alphabet.

    As Ray's own, but kinds that suit alike are told apart by whether the cloud refused one, such as for want of spot
    capacity, in the last ``AUTOSCALER_NODE_AVAILABILITY_MAX_STALENESS_S`` seconds, by default 1800.

    Args:
        node_resources: what a node has, such as ``{"CPU": 8, "GPU": 1}``.
        resources: what tasks and actors wait for.
        node_type: name of the kind of node.
        node_availability_summary: Ray's record of refusals.

    Returns:
        A tuple to compare, or ``None`` where such a node is of no use.
    """
    fit = _default_utilization_scorer(
        node_resources, resources, node_type, node_availability_summary=node_availability_summary
    )
    if fit is None:
        return None
    record = node_availability_summary.node_availabilities.get(node_type)
    return (*fit, record is None or record.is_available)
