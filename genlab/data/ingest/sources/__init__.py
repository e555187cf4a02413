"""Sources of images to ingest: one subclass of :class:`Source` for each scheme.

In: what a user names as SOURCE. Out: its images, listed without decoding one and then loaded one by one. Read ``base``
first; then ``files`` (folders and zip archives). ``columns`` has what ``parquet`` and ``huggingface``, the sources with
columns, share; ``idx`` (MNIST), ``tfrecord``, ``webdataset`` and ``synthetic`` are sources of their own.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from genlab.core.errors import ConfigError, DataError
from genlab.core.storage import exists, is_file, is_folder, locate, names, require_absolute
from genlab.data.ingest.sources.base import Entry, Load, Sample, Source, list_files
from genlab.data.ingest.sources.columns import Table
from genlab.data.ingest.sources.files import Folder, Zip, is_image
from genlab.data.ingest.sources.huggingface import HuggingFace, is_saved
from genlab.data.ingest.sources.idx import Mnist, has_idx
from genlab.data.ingest.sources.parquet import Parquet
from genlab.data.ingest.sources.synthetic import DRAWINGS, SCENE_SIZE, Synthetic
from genlab.data.ingest.sources.tfrecord import TFRecord, is_tfrecord
from genlab.data.ingest.sources.webdataset import KeyEnd, WebDataset

__all__ = ["Entry", "Load", "Sample", "Source", "open_source"]

_FILES: dict[str, type[Source]] = {source.kind: source for source in (Mnist, Folder, Zip, TFRecord, WebDataset)}
_TABLES: dict[str, type[Table]] = {source.kind: source for source in (Parquet, HuggingFace)}
_SCHEMES = (*_FILES, *_TABLES, Synthetic.kind)


def open_source(
    text: str,
    *,
    size: int | None = None,
    count: int | None = None,
    seed: int | None = None,
    image_column: str | None = None,
    key_column: str | None = None,
    image_member: str | None = None,
    key_ends_at: KeyEnd | None = None,
) -> Source:
    """Open the source that a user names, as ``scheme:path`` or as a path whose content is recognised.

    Args:
        text: say ``folder:photos``, ``mnist:/data/mnist``, ``synthetic:scenes-a``, ``s3://bucket/photos.zip``.
        size: side at which synthetic scenes are drawn, in pixels.
        count: number of synthetic images.
        seed: seed of synthetic images.
        image_column: name of the column of images in a table, such as a Parquet file.
        key_column: name of the column of keys in a table.
        image_member: extension of the member that is the image of a WebDataset sample.
        key_ends_at: dot at which the key ends in the names of WebDataset members; by default the first.

    Raises:
        DataError: the scheme is unknown, or nothing is recognised at the path.
        ConfigError: an option is for other sources, or the path is relative in a Ray job.
    """
    scheme, path = _split(text)
    if scheme != Synthetic.kind:
        _refuse({"--count": count, "--seed": seed}, "synthetic sources", text)
        require_absolute("source", path)
        path = str(locate(path))
        scheme = scheme or _recognise(path)
    if scheme not in _TABLES:
        _refuse({"--image-column": image_column, "--key-column": key_column}, "parquet and hf", text)
    if scheme != WebDataset.kind:
        _refuse({"--image-member": image_member, "--key-ends-at": key_ends_at}, "webdataset", text)
    if scheme == Synthetic.kind:
        return Synthetic(path, count or DRAWINGS.get(path, 0), seed or 0, size or SCENE_SIZE)
    if scheme in _TABLES:
        return _TABLES[scheme](path, image_column, key_column)
    if scheme == WebDataset.kind:
        return WebDataset(path, image_member and image_member.removeprefix("."), key_ends_at or "first-dot")
    return _FILES[scheme](path)


def _refuse(options: Mapping[str, int | str | None], where: str, text: str) -> None:
    for option, value in options.items():
        if value is not None:
            raise ConfigError(f"{option} is for {where} only; leave it out for {text}")


def _split(text: str) -> tuple[str | None, str]:
    match = re.match(r"([a-z][\w+.-]*):(?!//)", text, re.IGNORECASE)
    if match and match[1] in _SCHEMES:
        return match[1], text[match.end() :]
    if match and not exists(locate(text)):
        raise DataError(f"{text}: unknown scheme {match[1]}; there are: {', '.join(_SCHEMES)}")
    return None, text


def _recognise(path: str) -> str:
    root = locate(path)
    kinds: set[str] = set()
    if is_folder(root):
        there = names(root)
        kinds = _containers(there)
        if is_saved(there):
            kinds = {HuggingFace.kind}
        elif not kinds:
            for name, _ in list_files(path):
                if is_image(name):
                    return Folder.kind
                kinds |= _containers([PurePosixPath(name).name]) - {Mnist.kind}
    elif is_file(root):
        kinds = _containers([root.name]) | ({Zip.kind} if root.suffix.lower() == ".zip" else set())
    else:
        raise DataError(f"{path}: no such file or directory")
    if len(kinds) == 1:
        return kinds.pop()
    what = f"several things are recognised ({', '.join(sorted(kinds))})" if kinds else "nothing in it is recognised"
    raise DataError(f"{path}: {what}; name what it is, as in folder:{path} ({', '.join(_SCHEMES)})")


def _containers(names: Sequence[str]) -> set[str]:
    """Return the kinds of source that files of these names belong to; image files do not count."""
    tests = {
        Mnist.kind: has_idx(names),
        TFRecord.kind: any(is_tfrecord(name) for name in names),
        WebDataset.kind: any(name.lower().endswith(".tar") for name in names),
        Parquet.kind: any(name.lower().endswith(".parquet") for name in names),
    }
    return {kind for kind, there in tests.items() if there}
