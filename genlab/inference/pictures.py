"""The files of pictures that go into a model and come out of it."""

import math
from collections import Counter
from pathlib import PurePosixPath

from upath import UPath

from genlab.core.errors import ConfigError, DataError
from genlab.core.storage import is_folder, locate, read_bytes, write_atomic, writing
from genlab.data.ingest.sources.files import Folder
from genlab.imaging.images import ImageError, Pixels, encode_png
from genlab.imaging.sheets import sheet
from genlab.inference.engine import Engine


def load_fitting(file: UPath, engine: Engine) -> Pixels:
    """Read a picture that has the size of the model's images: uint8 [H, W, C].

    Raises:
        ImageError: it is missing, cannot be decoded, or has another size; the message names the file.
    """
    try:
        return engine.read_fitting(read_bytes(file))
    except ImageError as error:
        raise ImageError(f"{file}: {error}") from None
    except OSError as error:
        raise ImageError(f"{file}: {error.strerror or error}") from None


def save(file: UPath, png: bytes) -> None:
    """Write the file of a picture.

    Raises:
        DataError: it cannot be written.
    """
    with writing(file):
        write_atomic(file, png)


def encode_sheet(images: Pixels, columns: int | None = None) -> bytes:
    """Encode uint8 [N, H, W, C] as one PNG file: the one image alone, or a sheet of several, square by default."""
    if len(images) == 1:
        return encode_png(images[0])
    return encode_png(sheet(images, columns=columns or math.ceil(math.sqrt(len(images)))))


def png_name(key: str) -> str:
    """Name the picture that is made of the picture ``key``."""
    return str(PurePosixPath(key).with_suffix(".png"))


def meant_as_file(dest: UPath, *suffixes: str) -> bool:
    """Tell whether ``dest`` is meant as a file, by its suffix, and not as a folder.

    Raises:
        ConfigError: it has another suffix than ``suffixes``, those of the files that can be written.
    """
    if is_folder(dest) or not dest.suffix:
        return False
    if dest.suffix.lower() not in suffixes:
        raise ConfigError(f"dest = {str(dest)!r}: pictures are written as PNG; name it {dest.stem}{suffixes[0]}")
    return True


def require_elsewhere(dest: str, source: str) -> None:
    """Refuse a destination that is the source or in it, where the same command would find it a second time.

    Raises:
        ConfigError: naming the destination.
    """
    place, root = locate(dest), locate(source)
    if place == root or root in place.parents:
        raise ConfigError(f"dest = {dest!r}: the same as the source, or in it; write to another place")


def folder_keys(source: UPath) -> list[str]:
    """List the pictures below a folder by their sorted paths in it, and refuse two that :func:`png_name` names alike.

    Raises:
        DataError: there is none, or two would get one name.
    """
    keys = sorted(entry.key for entry in Folder(str(source)).entries())
    [(name, same), *_] = Counter(map(png_name, keys)).most_common(1)
    if same > 1:
        both = " and ".join(key for key in keys if png_name(key) == name)
        raise DataError(f"{source}: {both} would both be written as {name}; rename one of them")
    return keys
