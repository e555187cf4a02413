"""``genlab import-weights OUT``: make a model of generators that other programs have trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from annotated_types import Gt

from genlab.core.config import parse
from genlab.core.errors import ConfigError, run_command
from genlab.core.storage import locate
from genlab.models.cyclegan import Direction
from genlab.store.import_stylegan import import_stylegan
from genlab.store.import_weights import import_weights

CROP_SIZE = 256
"""Side of images in CycleGAN's paper."""


@dataclass(frozen=True)
class ImportWeightsConfig:
    """Make a genlab model of a StyleGAN2 that NVIDIA's code or rosinality's trained, or of ResNet generators of
    junyanz/pytorch-CycleGAN-and-pix2pix: of both, or of one alone, which makes a model that translates one way. No code
    in the files is run."""

    dest: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder or s3:// URL of the model directory to write; it must be empty or not there."""
    stylegan: str | None = None
    """Pickle of NVlabs/stylegan2, stylegan2-ada or stylegan2-ada-pytorch, or a checkpoint of
    rosinality/stylegan2-pytorch, such as network-snapshot-025000.pkl. The averaged generator makes the model; the
    discriminator is kept beside it, for `--run.init`."""
    license: str | None = None
    """Name of the licence of the weights, for the model's card; required with `--stylegan`."""
    a_to_b: str | None = None
    """State dict of CycleGAN's generator from domain A to B, such as checkpoints/NAME/latest_net_G_A.pth. Width,
    channels and the number of blocks, 6 or 9, are those of the file."""
    b_to_a: str | None = None
    """State dict of CycleGAN's generator from B to A, such as checkpoints/NAME/latest_net_G_B.pth."""
    size: Annotated[int, Gt(0)] | None = None
    """Height and width of the images that CycleGAN's generators were trained on (crop_size), by default 256. The model
    translates any size."""


def _license(config: ImportWeightsConfig) -> str:
    if config.a_to_b or config.b_to_a or config.size:
        raise ConfigError("--stylegan stands alone: --a-to-b, --b-to-a and --size are of CycleGAN's generators")
    if not config.license or not config.license.strip():
        raise ConfigError(
            "--stylegan needs --license NAME, the licence under which these weights may be used, such as "
            "'Nvidia Source Code License-NC'; it is kept in the model's card"
        )
    return " ".join(config.license.split())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab import-weights``."""

    def command() -> None:
        config = parse(ImportWeightsConfig, arguments, prog="genlab import-weights")
        given: dict[Direction, str | None] = {"a_to_b": config.a_to_b, "b_to_a": config.b_to_a}
        files = {direction: file for direction, file in given.items() if file is not None}
        if config.stylegan is None:
            written = import_weights(config.dest, files, config.size or CROP_SIZE, config.license or "")
        else:
            written = import_stylegan(config.dest, config.stylegan, _license(config))
        print(f"{locate(config.dest)}: {written}")

    run_command(command)
