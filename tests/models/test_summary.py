"""The layer table: which rows it has, in whose network, and that no parameter is lost or counted twice."""

import pytest
import torch
from torch import Tensor, nn

from genlab.models.summary import Layer, summarise


class Part(nn.Module):
    """A network with a parameter of its own, and a layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8, 3))
        self.spare = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * self.layers(images)


class Whole(nn.Module):
    """Holds networks, and is never called itself."""

    def __init__(self) -> None:
        super().__init__()
        self.sigma = nn.Parameter(torch.ones(()))
        self.first = Part()
        self.second = nn.Linear(3, 5)
        self.second.weight = nn.Parameter(torch.ones(5, 3))


def test_networks_are_what_is_called_as_a_whole() -> None:
    whole = Whole()
    found = summarise({"w": whole}, lambda: whole.second(whole.first(torch.zeros(2, 1, 4, 4))))
    assert [(network.name, network.parameters) for network in found] == [("w", 1), ("w.first", 62), ("w.second", 20)]
    assert found[1].layers == (
        Layer("scale", "Parameter", None, 3),
        Layer("layers.0", "Conv2d", (2, 2, 2), 20),
        Layer("layers.3", "Flatten", (8,), 0),
        Layer("layers.4", "Linear", (3,), 27),
        Layer("spare", "Linear", None, 12),
    )
    assert found[2].layers == (Layer("", "Linear", (5,), 20),)
    assert sum(network.parameters for network in found) == sum(each.numel() for each in whole.parameters())


def test_a_shared_parameter_counts_once() -> None:
    one, other = nn.Linear(3, 3), nn.Linear(3, 3)
    other.weight = one.weight
    both = nn.Sequential(one, other)
    [network] = summarise({"both": both}, lambda: both(torch.zeros(1, 3)))
    assert [layer.parameters for layer in network.layers] == [12, 3]


def test_the_networks_are_left_as_they_were() -> None:
    part = Part()

    def fail() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        summarise({"part": part}, fail)
    assert not any(module._forward_hooks for module in part.modules())
