"""Paths and URLs: every file genlab reads or writes, local or on S3, goes through a :class:`upath.UPath`.

S3 credentials and endpoint come the usual way (``AWS_ACCESS_KEY_ID``, ``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, ...).
"""

import hashlib
import io
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from upath import UPath

from genlab.errors import ConfigError, GenlabError

JOB_ENV = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets this in the driver of a submitted job."""


def is_remote(url: str | UPath) -> bool:
    """Whether ``url`` names an object store or another remote file system."""
    return "://" in str(url) and not str(url).startswith(("file://", "local://"))


def locate(url: str | os.PathLike[str] | UPath) -> UPath:
    """The absolute path of ``url``; a local path has ``~`` expanded and is made absolute.

    Listings are never cached, so that another process's files are seen.
    """
    text = str(url)
    if is_remote(text):
        return UPath(text, use_listings_cache=False)
    return UPath(Path(text.removeprefix("file://").removeprefix("local://")).expanduser().absolute())


def require_absolute(option: str, url: str) -> None:
    """Refuse a relative path inside a submitted Ray job, whose working directory is a temporary upload.

    Raises:
        ConfigError: naming the option and the absolute form to use.
    """
    if os.environ.get(JOB_ENV) and not is_remote(url) and not Path(url).expanduser().is_absolute():
        raise ConfigError(
            f"{option}={url!r} is a relative path, and a job runs in a temporary upload of the working directory; "
            f'give the absolute path: {option}="$PWD/{url}", or a URL such as s3://bucket/{url}'
        )


def write_atomic(path: UPath, data: bytes | bytearray | memoryview) -> None:
    """Write ``data`` so that a reader sees the old file, the new one, or none: never a part.

    Local files are written beside their place, synced and renamed; object stores put objects atomically.
    """
    if is_remote(path):
        path.write_bytes(bytes(data))
        return
    local = Path(str(path))
    local.parent.mkdir(parents=True, exist_ok=True)
    partial = local.with_name(f".{local.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(local)


class AtomicFile:
    """A file written in parts that comes to its place whole, by :meth:`commit`, or not at all.

    Local parts go to a file beside the place; what goes to an object store is held in memory until then.
    """

    def __init__(self, path: UPath) -> None:
        self._path = path
        self._partial: Path | None = None
        self._file: IO[bytes] = io.BytesIO()
        if not is_remote(path):
            local = Path(str(path))
            local.parent.mkdir(parents=True, exist_ok=True)
            self._partial = local.with_name(f".{local.name}.{os.getpid()}.partial")
            self._file = self._partial.open("wb")

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append to the file."""
        self._file.write(data)

    def commit(self) -> None:
        """Put the file in its place; what was there is replaced."""
        if self._partial is None:
            self._path.write_bytes(cast("io.BytesIO", self._file).getvalue())
        else:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._partial.replace(Path(str(self._path)))
            self._partial = None
        self.drop()

    def drop(self) -> None:
        """Leave nothing of a file that was not committed; afterwards there is nothing to do."""
        # Closing may fail on a full disk, after which there is still something to remove.
        with suppress(OSError):
            self._file.close()
        if self._partial is not None:
            self._partial.unlink(missing_ok=True)
            self._partial = None


def create_exclusive(path: UPath, data: bytes) -> bool:
    """Create a file that must not be there yet; of several processes that try at once, one succeeds.

    Locally by ``O_EXCL``, on S3 by a conditional put.

    Returns:
        Whether it was created; an existing file is left as it is.
    """
    if is_remote(path):
        try:
            path.fs.pipe_file(path.path, data, mode="create")
        except FileExistsError:
            return False
        return True
    local = Path(str(path))
    local.parent.mkdir(parents=True, exist_ok=True)
    try:
        with local.open("xb") as file:
            file.write(data)
    except FileExistsError:
        return False
    return True


def write_json(path: UPath, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_atomic(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """``value`` as the indented JSON that :func:`write_json` writes."""
    return (json.dumps(value, indent=2) + "\n").encode()


def read_json(path: UPath) -> Any:
    """Read a JSON file.

    Raises:
        GenlabError: when the file is missing or is not JSON; the message names it.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise GenlabError(f"{path}: no such file") from None
    except ValueError as error:
        raise GenlabError(f"{path}: not valid JSON ({error})") from None


def sha256(data: bytes | memoryview) -> str:
    """The hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()
