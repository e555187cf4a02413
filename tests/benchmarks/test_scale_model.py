"""The model of the plan for many GPUs: its arithmetic, and that it sends what the loop sends."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
from torch import Tensor

from benchmarks.scale_model import (
    Cluster,
    Event,
    Link,
    Step,
    least_bandwidth,
    profile,
    ring_seconds,
    times,
    tree_seconds,
)
from genlab.training import gradients, step_context
from genlab.training.loop import train
from genlab.training.plan import make_plan, start_or_resume
from tests.training.support import TINY, QuietSession

NVLINK, NETWORK = Link(200e9, 3e-6), Link(50e9, 10e-6)
EIGHT_NODES = Cluster(8, 8, NVLINK, NETWORK, start=5e-6)
LOOPBACK = Link(1e9, 0.0)
PAIR = Cluster(1, 2, LOOPBACK, LOOPBACK)


def step(*messages: tuple[int, int, int]) -> Step:
    """A step of 100 operations and messages, each of which is a second long for 10^9 bytes: begin, wait, bytes."""
    events = [Event(begin, "sum", number, size) for number, (begin, _, size) in enumerate(messages)]
    events += [Event(wait, "wait", number, size) for number, (_, wait, size) in enumerate(messages)]
    return Step(100, tuple(sorted(events, key=lambda event: event.operations)))


def test_a_sum_takes_the_time_of_its_bytes_and_of_its_messages() -> None:
    assert ring_seconds(8e9, 4, Link(1e9, 0.5)) == pytest.approx(6 * (2 + 0.5))
    assert tree_seconds(8e9, 5, Link(1e9, 0.5)) == pytest.approx(2 * (8 + 3 * 0.5))
    assert Cluster(1, 1, NVLINK, NETWORK, start=1).sum_seconds(1e9) == 0
    inside, between = ring_seconds(1e9, 8, NVLINK), ring_seconds(1e9, 8, NETWORK)
    assert replace(EIGHT_NODES, nodes=1).sum_seconds(1e9) == pytest.approx(5e-6 + inside)
    assert replace(EIGHT_NODES, devices=1).sum_seconds(1e9) == pytest.approx(5e-6 + between)
    assert EIGHT_NODES.sum_seconds(1e9) == pytest.approx(5e-6 + inside + between)
    assert EIGHT_NODES.sent(1e9) == pytest.approx(2 * 7 / 8 * 1e9)


def test_short_sums_of_many_nodes_go_by_trees() -> None:
    thousand = replace(EIGHT_NODES, nodes=1024, devices=1)
    assert thousand.sum_seconds(1000) == pytest.approx(5e-6 + 2 * 1000 / 50e9 + 20 * 10e-6)


def test_a_gather_and_a_copy_move_each_byte_to_all() -> None:
    assert EIGHT_NODES.gather_seconds(1e6) == pytest.approx(
        5e-6 + 63 * 1e6 / 200e9 + 7 * 3e-6 + 7 * (8e6 / 50e9 + 10e-6)
    )
    assert EIGHT_NODES.copy_seconds(1e9) == pytest.approx(5e-6 + 3 * 3e-6 + 3 * 10e-6 + 1e9 / 50e9)
    assert replace(EIGHT_NODES, nodes=1).copy_seconds(1e9) == pytest.approx(5e-6 + 3 * 3e-6 + 1e9 / 200e9)


def test_a_worker_waits_for_what_is_not_hidden() -> None:
    early, late = (25, 100, 3 * 10**9), (75, 100, 3 * 10**9)
    assert times([step(early)], 4.0, PAIR) == (4, 3, 0)
    assert times([step(late)], 4.0, PAIR) == (4, 3, 2)
    assert times([step(early, late)], 4.0, PAIR) == (4, 6, 3)  # one after the other
    assert times([step(early), step(late)], 4.0, PAIR).waiting == 1
    found = times([step(early, late)], 4.0, PAIR)
    assert found.efficiency == pytest.approx(4 / 7)
    assert found.hidden == pytest.approx(1 / 2)


def test_a_wait_in_the_middle_delays_what_follows() -> None:
    assert times([step((50, 50, 10**9), (100, 100, 10**9))], 4.0, PAIR) == (4, 2, 2)
    assert times([step((50, 50, 10**9), (50, 100, 10**9))], 4.0, PAIR) == (4, 2, 1)


def test_nothing_is_hidden_where_the_workers_processor_moves_the_bytes() -> None:
    assert times([step((25, 100, 10**9))], 4.0, replace(PAIR, beside=False)) == (4, 1, 1)


def test_steps_share_the_time_by_their_operations() -> None:
    assert times([step((0, 75, 10**9)), Step(300, ())], 2.0, PAIR).waiting == pytest.approx((1 - 0.75) / 2)


def test_the_least_network_is_that_of_the_efficiency() -> None:
    steps = [step((50, 100, 10**9), (100, 100, 10**8))]
    least = least_bandwidth(steps, 0.1, EIGHT_NODES, 0.9)
    slow = replace(EIGHT_NODES, between=NETWORK._replace(bandwidth=least))
    assert times(steps, 0.1, slow).efficiency == pytest.approx(0.9, abs=1e-3)
    assert least_bandwidth(steps, 1e-6, EIGHT_NODES, 0.9) == float("inf")


@pytest.mark.slow  # it trains
@pytest.mark.parametrize("family", ["cyclegan", "stylegan"])
def test_a_profile_sends_what_the_loop_sends_and_keeps_what_it_keeps(family: str, tiny: Callable[..., Any]) -> None:
    sent: list[tuple[bool, int]] = []

    def begin(tensor: Tensor) -> Callable[[], None]:
        sent.append((True, tensor.nbytes))
        return lambda: sent.append((False, tensor.nbytes))

    def gather(tensor: Tensor) -> tuple[list[Tensor], Callable[[], None]]:
        return [tensor, tensor], begin(tensor)

    config = tiny(family, {"run.batch": 4, "run.steps": 1})
    plan = make_plan(family, config)
    start_or_resume(plan)
    with (
        mock.patch.object(gradients, "start_sum_over_ranks", begin),
        mock.patch.object(gradients, "BUCKET_BYTES", 2048),
        mock.patch.object(step_context, "start_sum_over_ranks", begin),
        mock.patch.object(step_context, "start_gather_over_ranks", gather),
    ):
        state = train(plan, QuietSession(world_size=2))
        options = {name: value for name, value in TINY[family].items() if name.partition(".")[0] != "run"}
        found = profile(family, options, side=32, rows=2, workers=2, first=0, steps=1)
    events = [event for step in found.steps for event in step.events]
    assert [(event.kind != "wait", event.size) for event in events] == sent
    assert len(sent) > 20
    kept = state.tensors()
    assert (found.state, found.tensors) == (sum(tensor.nbytes for tensor in kept.values()), len(kept))
    assert found.gradients == sum(parameter.nbytes for parameter in state.recipe.networks.parameters())
    assert all(0 < event.operations <= step.operations for step in found.steps for event in step.events)
