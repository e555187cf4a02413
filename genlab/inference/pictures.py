"""Pictures on their way into a model and out of it: files on one side, uint8 tensors [N, H, W, C] on the other."""

import math
from collections import Counter
from pathlib import PurePosixPath
from typing import cast

import torch
from torch import Tensor
from upath import UPath

from genlab.core.errors import ConfigError, DataError
from genlab.core.storage import read_bytes, write_atomic
from genlab.data.ingest.sources.files import Folder
from genlab.imaging.images import Channels, ImageError, Pixels, encode_png, prepare
from genlab.imaging.sheets import sheet
from genlab.models.model import Model


def best_device() -> str:
    """A GPU if this process has one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def read_picture(picture: bytes | Pixels, model: Model) -> Tensor:
    """The pixels of an image file, or of uint8 [H, W, 1 or 3], as ``model`` takes them: upright, uint8 [1, H, W, C], of
    the picture's own size.

    Raises:
        ImageError: it cannot be decoded.
    """
    prepared = prepare(picture, channels=cast("Channels", model.image_shape[2]))
    return torch.tensor(cast("Pixels", prepared.image))[None]


def read_fitting(picture: bytes, model: Model) -> Tensor:
    """The pixels of an image file of the size of the model's images: uint8 [1, H, W, C].

    Raises:
        ImageError: it cannot be decoded, or has another size.
    """
    pixels = read_picture(picture, model)
    height, width, _ = model.image_shape
    if pixels.shape[1:3] != (height, width):
        raise ImageError(f"is {pixels.shape[2]}x{pixels.shape[1]} pixels; the model takes {width}x{height}")
    return pixels


def load_fitting(file: UPath, model: Model) -> Tensor:
    """What :func:`read_fitting` says of a file.

    Raises:
        ImageError: it is missing, cannot be decoded, or has another size; the message names the file.
    """
    try:
        return read_fitting(read_bytes(file), model)
    except ImageError as error:
        raise ImageError(f"{file}: {error}") from None
    except OSError as error:
        raise ImageError(f"{file}: {error.strerror or error}") from None


def save(file: UPath, picture: bytes) -> None:
    """Write the file of a picture.

    Raises:
        DataError: it cannot be written.
    """
    try:
        write_atomic(file, picture)
    except OSError as error:
        raise DataError(f"{error.filename or file}: {error.strerror or error}") from None


def as_png(pixels: Tensor) -> bytes:
    """The PNG file of the one image in uint8 [1, H, W, C]."""
    return encode_png(pixels[0].cpu().numpy())


def as_sheet(images: Tensor, columns: int | None = None) -> bytes:
    """The PNG file of uint8 [N, H, W, C]: the one image alone, or a sheet of several, square unless told."""
    if len(images) == 1:
        return as_png(images)
    return encode_png(sheet(images.cpu().numpy(), columns=columns or math.ceil(math.sqrt(len(images)))))


def png_name(key: str) -> str:
    """What the picture made of the picture ``key`` is called."""
    return str(PurePosixPath(key).with_suffix(".png"))


def is_file(dest: UPath, *suffixes: str) -> bool:
    """Whether ``dest`` is meant as a file, by its suffix, and not as a folder.

    Raises:
        ConfigError: it ends as no file that can be written, ``suffixes`` being those that can.
    """
    if dest.is_dir() or not dest.suffix:
        return False
    if dest.suffix.lower() not in suffixes:
        raise ConfigError(f"dest = {str(dest)!r}: pictures are written as PNG; name it {dest.stem}{suffixes[0]}")
    return True


def folder_keys(source: UPath) -> list[str]:
    """The pictures below a folder, by their paths in it, once it is sure that :func:`png_name` keeps them apart.

    Raises:
        DataError: there is none, or two would get one name.
    """
    keys = [entry.key for entry in Folder(str(source)).entries()]
    [(name, same), *_] = Counter(map(png_name, keys)).most_common(1)
    if same > 1:
        both = " and ".join(key for key in keys if png_name(key) == name)
        raise DataError(f"{source}: {both} would both be written as {name}; rename one of them")
    return keys
