"""Gradients on their way to the other ranks."""

from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from genlab.training import gradients as module
from genlab.training.gradients import Gradients


class Link:
    """Two ranks of which the other has the same gradients: a sum is twice the own one. Remembers what was sent."""

    def __init__(self) -> None:
        self.sent: list[Tensor] = []
        self.events: list[str] = []

    def __call__(self, flat: Tensor) -> Callable[[], object]:
        self.sent.append(flat.clone())
        self.events.append("sent")
        return lambda: flat.mul_(2)


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Link:
    link = Link()
    monkeypatch.setattr(module, "start_sum_over_ranks", link)
    monkeypatch.setattr(module, "BUCKET_BYTES", 100)
    return link


class Network(nn.Module):
    """Three dense layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.second(self.first(inputs).tanh()).tanh())
        return outputs


def test_sums_are_those_of_the_whole_network(link: Link) -> None:
    net = Network()
    inputs = torch.randn(3, 4)
    expected = [2 * g for g in torch.autograd.grad(net(inputs).sum(), list(net.parameters()))]
    gradients = Gradients(list(net.parameters()), alone=False)
    gradients.backward(net(inputs).sum(), first=True, last=True)
    gradients.wait()
    torch.testing.assert_close([parameter.grad for parameter in net.parameters()], expected, rtol=0, atol=0)


def test_a_bucket_is_sent_before_the_backward_pass_ends(link: Link) -> None:
    net = Network()
    net.first.weight.register_hook(lambda _: link.events.append("first layer"))
    gradients = Gradients(list(net.parameters()), alone=False)
    gradients.backward(net(torch.randn(3, 4)).sum(), first=True, last=True)
    assert link.events == ["sent", "first layer", "sent"]


def test_buckets_do_not_depend_on_what_has_a_gradient_or_on_the_order_of_use(link: Link) -> None:
    net = Network()
    gradients = Gradients(list(net.parameters()), alone=False)
    gradients.backward(net(torch.randn(3, 4)).sum(), first=True, last=True)
    gradients.wait()
    gradients.backward(net.first(torch.randn(3, 4)).sum(), first=True, last=True)
    gradients.wait()
    assert [len(flat) for flat in link.sent[:2]] == [len(flat) for flat in link.sent[2:]]
    assert net.last.weight.grad is not None
    assert not net.last.weight.grad.any(), "a parameter without a gradient counts as zeros"
    assert net.first.weight.grad is not None
    assert net.first.weight.grad.any()


def test_only_the_last_part_of_the_rows_is_sent(link: Link) -> None:
    net = Network()
    inputs = torch.randn(4, 4)
    expected = [2 * g for g in torch.autograd.grad(net(inputs).sum(), list(net.parameters()))]
    gradients = Gradients(list(net.parameters()), alone=False)
    gradients.backward(net(inputs[:2]).sum(), first=True, last=False)
    assert not link.sent
    gradients.backward(net(inputs[2:]).sum(), first=False, last=True)
    gradients.wait()
    torch.testing.assert_close([parameter.grad for parameter in net.parameters()], expected)


def test_channels_last_weights_get_gradients_in_their_own_layout(link: Link) -> None:
    net = nn.Conv2d(3, 2, 3).to(memory_format=torch.channels_last)
    gradients = Gradients(list(net.parameters()), alone=False)
    inputs = torch.randn(1, 3, 5, 5)
    expected = 2 * torch.autograd.grad(net(inputs).square().sum(), net.weight)[0]
    gradients.backward(net(inputs).square().sum(), first=True, last=True)
    gradients.wait()
    assert net.weight.grad is not None
    assert net.weight.grad.stride() == net.weight.stride()
    torch.testing.assert_close(net.weight.grad, expected)


def test_a_parameter_without_a_gradient_counts_as_zeros_alone_too() -> None:
    net = Network()
    gradients = Gradients(list(net.parameters()), alone=True)
    gradients.backward(net.first(torch.randn(3, 4)).sum(), first=True, last=True)
    gradients.wait()
    assert net.last.weight.grad is not None
    assert not net.last.weight.grad.any()


def test_alone_nothing_is_sent(link: Link) -> None:
    net = Network()
    gradients = Gradients(list(net.parameters()), alone=True)
    with mock.patch.object(torch, "cat", side_effect=AssertionError):
        gradients.backward(net(torch.randn(3, 4)).sum(), first=True, last=True)
        gradients.wait()
    assert not link.sent
    assert all(parameter.grad is not None for parameter in net.parameters())
