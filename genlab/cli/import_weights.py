"""``genlab import-weights OUT``: make a model of generators that CycleGAN's reference code has trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from annotated_types import Gt

from genlab.core.config import parse
from genlab.core.errors import run_command
from genlab.core.storage import locate
from genlab.models.cyclegan import Direction
from genlab.store.import_weights import import_weights


@dataclass(frozen=True)
class ImportWeightsConfig:
    """Make a genlab model of ResNet generators that junyanz/pytorch-CycleGAN-and-pix2pix trained: of both, or of one
    alone, which makes a model that translates one way."""

    dest: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder or s3:// URL of the model directory to write; it must be empty or not there."""
    a_to_b: str | None = None
    """State dict of the generator from domain A to B, such as checkpoints/NAME/latest_net_G_A.pth. Width, channels and
    the number of blocks, 6 or 9, are those of the file. No code in it is run."""
    b_to_a: str | None = None
    """State dict of the generator from B to A, such as checkpoints/NAME/latest_net_G_B.pth."""
    size: Annotated[int, Gt(0)] = 256
    """Height and width of the images they were trained on (crop_size). The model translates any size."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab import-weights``."""

    def command() -> None:
        config = parse(ImportWeightsConfig, arguments, prog="genlab import-weights")
        given: dict[Direction, str | None] = {"a_to_b": config.a_to_b, "b_to_a": config.b_to_a}
        files = {direction: file for direction, file in given.items() if file is not None}
        written = import_weights(config.dest, files, config.size)
        print(f"{locate(config.dest)}: {written}")

    run_command(command)
