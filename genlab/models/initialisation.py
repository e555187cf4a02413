"""Instance norm and initial weights of the networks of CycleGAN (Zhu et al. 2017)."""

from torch import nn


def instance_norm(channels: int, affine: bool = True) -> nn.Module:
    """Return an instance norm (Ulyanov et al. 2016), epsilon 1e-5, with or without a learned scale and shift."""
    return nn.InstanceNorm2d(channels, eps=1e-5, affine=affine)


def initialise(module: nn.Module) -> None:
    """Draw weights from N(0, 0.02²) and norm scales from N(1, 0.02²), and set biases to zero, as in the paper."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.InstanceNorm2d) and module.affine:
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
