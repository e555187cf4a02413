"""What the networks of CycleGAN share: the instance norm, and the weights that training starts from."""

from torch import nn


def instance_norm(channels: int, affine: bool = True) -> nn.Module:
    """Instance normalisation, epsilon 1e-5, with or without a learned scale and shift (Ulyanov et al. 2016)."""
    return nn.InstanceNorm2d(channels, eps=1e-5, affine=affine)


def initialise(module: nn.Module) -> None:
    """Draw weights from N(0, 0.02) and norm scales from N(1, 0.02); biases are zero, as in the paper."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.InstanceNorm2d) and module.affine:
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
