"""The one switch of the CPU kernels, on networks that use them."""

import importlib.util
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from genlab.models import cpu
from genlab.models.resnet import ResNet
from genlab.models.unet import UNet

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: ResNet(3, 32, 2),
    "unet": lambda: UNet(3, 8, 4, dropout=0.5),
}


def results(network: nn.Module) -> dict[str, Tensor]:
    """One training pass: the output, and the gradients of the images and of every parameter."""
    generator = torch.Generator().manual_seed(1)
    images = (2 * torch.rand(2, 3, 32, 32, generator=generator).double() - 1).requires_grad_()
    torch.manual_seed(2)  # dropout
    output = network(images)
    (output * torch.rand(output.shape, generator=generator)).sum().backward()
    assert images.grad is not None
    found = {"output": output.detach(), "images": images.grad}
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        found[name], parameter.grad = parameter.grad, None
    return found


def with_layers_of_pytorch(network: nn.Module) -> nn.Module:
    """The network with each layer of ``genlab.models.cpu`` replaced by its class in ``torch.nn``."""
    layers = [module for module in network.modules() if isinstance(module, cpu.Conv2d | cpu.ConvTranspose2d)]
    assert layers
    for layer in layers:
        layer.__class__ = type(layer).__bases__[0]
    return network


@pytest.mark.parametrize("kind", NETWORKS)
def test_switched_off_networks_are_pytorchs_bit_for_bit_and_on_they_differ_by_rounding(kind: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[kind]().double()  # in which rounding is far from anything else
    on = results(network)
    with cpu.kernels(False):
        off = results(network)
        names = list(network.state_dict())
    again = results(network)
    plain = with_layers_of_pytorch(network)
    torch.testing.assert_close(off, results(plain), rtol=0, atol=0)
    assert names == list(plain.state_dict())
    torch.testing.assert_close(again, on, rtol=0, atol=0)
    assert any(not torch.equal(on[name], off[name]) for name in on), "the kernels are in use"
    torch.testing.assert_close(on, off, rtol=1e-8, atol=1e-8)


def loaded_with(value: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The package as a process that starts with ``GENLAB_CPU_KERNELS=value`` has it."""
    monkeypatch.setenv("GENLAB_CPU_KERNELS", value)
    spec = importlib.util.find_spec("genlab.models.cpu")
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    return package


@pytest.mark.parametrize("value", ["0", "1"])
def test_the_environment_variable_is_the_switch(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = loaded_with(value, monkeypatch)
    calls: list[str] = []
    monkeypatch.setattr(package.allocator, "keep_freed_memory", lambda: calls.append("allocator"))
    monkeypatch.setattr(package.winograd, "convolve", lambda *_: calls.append("winograd"))
    monkeypatch.setattr(package.transposed, "convolve", lambda *_: calls.append("transposed"))
    package.keep_freed_memory()
    package.Conv2d(64, 64, 3)(torch.rand(1, 64, 4, 4))
    package.ConvTranspose2d(2, 3, 4)(torch.rand(1, 2, 4, 4))
    assert calls == ([] if value == "0" else ["allocator", "winograd", "transposed"])
