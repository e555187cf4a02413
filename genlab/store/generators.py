"""Generators that other networks are trained for, or pictures projected with: StyleGANs from their directories."""

import torch

from genlab.core.errors import RunError
from genlab.models.stylegan import StyleGAN
from genlab.store import model_directory


def load_generator(url: str) -> tuple[StyleGAN, str]:
    """Load a StyleGAN, in evaluation mode and without gradients of its weights.

    It is in PyTorch's default dtype, and on its default device: on the meta device without values.

    Args:
        url: its model directory, or the run directory that holds it.

    Returns:
        The generator, and the SHA-256 of its weights in hexadecimal digits.

    Raises:
        RunError: there is none, it is no StyleGAN or one without styles, or it is damaged.
    """
    directory = model_directory.find_one(url)
    description = model_directory.describe(directory)
    if description["family"] != StyleGAN.family:
        raise RunError(f"{url}: of family {description['family']!r}; a {StyleGAN.family} is needed")
    device, dtype = torch.get_default_device(), torch.get_default_dtype()
    if device.type == "meta":
        generator = model_directory.build(description)
    else:
        torch.set_default_dtype(torch.float32)  # of the file
        try:
            generator = model_directory.load(directory, device)
        finally:
            torch.set_default_dtype(dtype)
    assert isinstance(generator, StyleGAN)
    if generator.architecture.styles == "none":
        raise RunError(f"{url}: was trained with --model.styles none; a StyleGAN with styles is needed")
    return generator.to(dtype).eval().requires_grad_(False), description["weights"]["sha256"]
