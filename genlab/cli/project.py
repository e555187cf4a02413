"""``genlab project MODEL IN OUT``: find the styles by which a StyleGAN draws given pictures again."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated

import tyro
from annotated_types import Ge

from genlab.core.config import parse
from genlab.core.errors import ConfigError, run_command
from genlab.core.storage import is_file, locate, require_absolute
from genlab.editing.projection import ProjectionOptions
from genlab.editing.projection_files import Projector, project_all, require_box
from genlab.inference.pictures import require_elsewhere


@dataclass(frozen=True)
class _Arguments:
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Directory or s3:// URL of a StyleGAN, or of the run that trained it."""
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """A picture of any size (BMP, GIF, JPEG, PNG, TIFF or WebP), a folder of pictures, or a data set."""
    dest: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder to write to. The same command goes on there after a crash."""
    encoder: str | None = None
    """An encoder that was trained for MODEL, or its run; without one, projections begin at the mean of w."""
    box: tuple[int, int, int] | None = None
    """Left, top and side of the square to take of each picture, in its pixels; by default the largest in the middle."""
    split: str | None = None
    """Only the pictures of this split of a data set."""
    images: Annotated[int, Ge(1)] | None = None
    """Only so many pictures of a data set, drawn at random, but always the same."""
    calibrate: bool = False
    """Keep in MODEL how far the projections of these held-out pictures of a data set are from the pictures: with the
    same options, later ones that are further than 99% of them are warned of."""
    identity: bool = False
    """Measure, too, how far projections are from the pictures by a face network: of faces, aligned and cropped, in
    colour; also of pictures that were projected before."""


@dataclass(frozen=True)
class ProjectConfig(ProjectionOptions, _Arguments):
    """Find for pictures the styles w+ by which a StyleGAN draws them again, by an encoder and by optimisation.

    Of a picture NAME, OUT gets NAME-original.png and NAME-projection.png in the model's size, NAME.safetensors with w+
    and the noise of the layers, and NAME.json with PSNR, SSIM and perceptual distance.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab project``."""
    run_command(lambda: project_pictures(parse(ProjectConfig, arguments, prog="genlab project")))


def project_pictures(config: ProjectConfig) -> None:
    """Project what ``config`` names and print what was written.

    Raises:
        ConfigError: options that contradict each other or the source.
        RunError: the model or the encoder cannot be loaded, or they do not belong together.
        DataError: the source is missing, nothing in it could be used, or OUT holds something else.
    """
    for option in ("model", "source", "dest", "encoder"):
        if (url := getattr(config, option)) is not None:
            require_absolute(option, url)
    source, dest = locate(config.source), locate(config.dest)
    require_elsewhere(config.dest, config.source)
    if is_file(dest) or dest.suffix.lower() == ".png":
        raise ConfigError(f"dest = {config.dest!r}: a folder is needed, for several files")
    require_box(config.box)
    options = ProjectionOptions(**{field.name: getattr(config, field.name) for field in fields(ProjectionOptions)})
    projector = Projector(config.model, config.encoder, options)
    if projector.limit is None and not config.calibrate:
        print("how far projections of held-out pictures are from these is not known: no warnings; see --calibrate")
    project_all(
        projector,
        source,
        dest,
        split=config.split,
        images=config.images,
        box=config.box,
        calibrate=config.calibrate,
        identity=config.identity,
    )
