"""Where images to ingest come from: one :class:`Source` a scheme."""

import re

from genlab.data.sources.base import Entry, Load, Sample, Source
from genlab.data.sources.files import Folder, Zip, is_image
from genlab.data.sources.idx import Mnist, has_idx
from genlab.data.sources.synthetic import DRAWINGS, SCENE_SIZE, Synthetic
from genlab.data.sources.tfrecord import TFRecord, is_tfrecord
from genlab.errors import ConfigError, DataError
from genlab.storage import locate, require_absolute

__all__ = ["Entry", "Load", "Sample", "Source", "open_source"]

_STORED: dict[str, type[Source]] = {source.kind: source for source in (Mnist, Folder, Zip, TFRecord)}
_SCHEMES = (*_STORED, Synthetic.kind)


def open_source(text: str, *, size: int | None = None, count: int | None = None, seed: int | None = None) -> Source:
    """The source that a user names, as ``scheme:path`` or as a path recognised by what is there.

    Args:
        text: say ``folder:photos``, ``mnist:/data/mnist``, ``synthetic:scenes-a``, ``s3://bucket/photos.zip``.
        size: side at which synthetic scenes are drawn, in pixels.
        count: how many synthetic images.
        seed: of synthetic images.

    Raises:
        DataError: an unknown scheme, or nothing recognisable is there.
        ConfigError: ``count`` or ``seed`` for a source that is not synthetic, or a relative path in a Ray job.
    """
    scheme, path = _split(text)
    if scheme == Synthetic.kind:
        return Synthetic(path, count or DRAWINGS.get(path, 0), seed or 0, size or SCENE_SIZE)
    for option, value in (("--count", count), ("--seed", seed)):
        if value is not None:
            raise ConfigError(f"{option} is for synthetic sources only; leave it out for {text}")
    require_absolute("source", path)
    path = str(locate(path))
    return _STORED[scheme or _recognise(path)](path)


def _split(text: str) -> tuple[str | None, str]:
    match = re.match(r"([a-z][\w+.-]*):(?!//)", text, re.IGNORECASE)
    if match and match[1] in _SCHEMES:
        return match[1], text[match.end() :]
    if match and not locate(text).exists():
        raise DataError(f"{text}: unknown scheme {match[1]}; there are: {', '.join(_SCHEMES)}")
    return None, text


def _recognise(path: str) -> str:
    root = locate(path)
    if root.is_file():
        if root.suffix.lower() == ".zip":
            return Zip.kind
        if is_tfrecord(root.name):
            return TFRecord.kind
    elif root.is_dir():
        names = [child.name for child in root.iterdir()]
        if has_idx(names):
            return Mnist.kind
        if any(is_tfrecord(name) for name in names):
            return TFRecord.kind
        if any(is_image(str(child)) for child in root.rglob("*")):
            return Folder.kind
    else:
        raise DataError(f"{path}: no such file or directory")
    raise DataError(
        f"{path}: nothing in it is recognised (idx files, TFRecord files, a zip archive, or a folder of images); "
        f"name what it is, as in folder:{path} ({', '.join(_SCHEMES)})"
    )
