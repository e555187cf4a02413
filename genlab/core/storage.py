"""Paths and whole files: every file genlab reads or writes, local or on S3, goes through a :class:`upath.UPath`.

S3 credentials and endpoint come the usual way (``AWS_ACCESS_KEY_ID``, ``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, ...).

The functions here that read, write, look for, list and delete files outlast a store that answers with errors, cuts or
stalls connections, or is away for a while: they repeat a request for :data:`genlab.core.retries.RETRY_SECONDS`, and
raise a :class:`~genlab.core.errors.StorageError` in the end. Methods of a path from :func:`locate` do neither, and on
an object store some of them take ``[``, ``*`` and ``?`` in the path's own folders for a pattern. What else is done with
such a path (files that are read as streams, Ray's own files) is repeated by botocore for about as long.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from upath import UPath

from genlab.core import s3
from genlab.core.errors import ConfigError, DataError, GenlabError
from genlab.core.retries import with_retries

JOB_ENV = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable that Ray sets in the driver of a submitted job."""


def is_remote(url: str | UPath) -> bool:
    """Return whether ``url`` names an object store or another remote file system."""
    return "://" in str(url) and not str(url).startswith(("file://", "local://"))


def locate(url: str | os.PathLike[str] | UPath) -> UPath:
    """Return the absolute path of ``url``; a local path has ``~`` expanded and is made absolute, without ``..``.

    Listings are never cached, so that another process's files are seen. All S3 paths of one process share
    their clients.

    Raises:
        ConfigError: for a URL with a user name or password in it, which would end up in manifests and logs.
    """
    text = str(url)
    if not is_remote(text):
        path = Path(text.removeprefix("file://").removeprefix("local://")).expanduser().absolute()
        # Only the file system knows where .. leads after a symbolic link.
        return UPath(path.resolve() if ".." in path.parts else path)
    scheme, host, *_ = urlsplit(text)
    # A secret key may contain a slash, and then there is no @ in what passes for the host.
    if "@" in host or (s3.is_s3(text) and ":" in host and not host.startswith("arn:")):
        raise ConfigError(
            f"{scheme}://...: a URL with credentials in it, which would be written to manifests and logs; leave them "
            "out and set them in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, ...)"
        )
    if s3.is_s3(text):
        return UPath(text, use_listings_cache=False, config_kwargs=s3.client_settings())
    return UPath(text, use_listings_cache=False)


def cache_folder() -> UPath:
    """Return the folder of what is kept to save time, ``$GENLAB_CACHE`` or ``~/.cache/genlab``. It may be deleted."""
    return locate(os.environ.get("GENLAB_CACHE") or "~/.cache/genlab")


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


def require_empty(folder: UPath) -> None:
    """Refuse to write into a folder that has something in it.

    Raises:
        DataError: naming the folder.
        OSError: when ``folder`` is a file.
    """
    if names(folder):
        raise DataError(f"{folder}: is not empty; choose another folder")


@contextlib.contextmanager
def writing(place: UPath, otherwise: str = "") -> Iterator[None]:
    """Name the file or folder that is written to where it cannot be, as on a full disk.

    Args:
        place: the file or folder.
        otherwise: what a user may do about it, for the message.

    Raises:
        DataError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        advice = f"; {otherwise}" if otherwise else ""
        raise DataError(f"{place}: cannot be written ({error.strerror or error}){advice}") from None


def read_range(path: UPath, offset: int, length: int) -> bytes:
    """Read the ``length`` bytes of a file that begin at ``offset``; one request to an object store. Thread-safe.

    Raises:
        FileNotFoundError: at once, when there is no such file.
        EOFError: at once, when the file ends before ``offset + length``.
        StorageError: when access is denied (at once), or the store did not deliver within ``RETRY_SECONDS``.
    """
    if not is_remote(path):
        data = _pread(str(path), offset, length)
    elif length == 0:
        return b""
    elif s3.is_s3(path):
        return s3.get_range(path, offset, length)
    else:
        data = with_retries(path, lambda: path.fs.cat_file(path.path, start=offset, end=offset + length))
    if len(data) != length:
        raise s3.ends_early(path, offset, length)
    return data


def read_bytes(path: UPath) -> bytes:
    """Read a whole file; one request to an object store. Thread-safe.

    Raises:
        FileNotFoundError: at once, when there is no such file.
        StorageError: when access is denied (at once), or the store did not deliver within ``RETRY_SECONDS``.
    """
    if not is_remote(path):
        return Path(str(path)).read_bytes()
    if s3.is_s3(path):
        return s3.get(path)
    return with_retries(path, lambda: path.fs.cat_file(path.path))


def exists(path: UPath) -> bool:
    """Return whether there is a file at ``path``; one request to an object store. Thread-safe.

    Raises:
        StorageError: when access is denied (at once), or the store did not answer within ``RETRY_SECONDS``.
    """
    if not is_remote(path):
        return Path(str(path)).exists()
    if s3.is_s3(path):
        return s3.exists(path)
    return with_retries(path, lambda: bool(path.fs.exists(path.path)))


def is_file(path: UPath) -> bool:
    """Return whether ``path`` is a file, and no folder; one request to an object store. Thread-safe.

    Raises:
        StorageError: when access is denied (at once), or the store did not answer within ``RETRY_SECONDS``.
    """
    if not is_remote(path):
        return Path(str(path)).is_file()
    if s3.is_s3(path):
        return s3.exists(path)
    return with_retries(path, lambda: bool(path.fs.isfile(path.path)))


def is_folder(path: UPath) -> bool:
    """Return whether ``path`` is a folder; on an object store, one with something in it. Thread-safe.

    Raises:
        StorageError: when access is denied (at once), or the store did not answer within ``RETRY_SECONDS``.
    """
    if not is_remote(path):
        return Path(str(path)).is_dir()
    if s3.is_s3(path):
        return s3.is_folder(path)
    return with_retries(path, lambda: bool(path.fs.isdir(path.path)))


def list_folder(folder: UPath, prefix: str = "") -> dict[str, bool]:
    """List what lies directly in a folder: for each name, in alphabetical order, whether it is a folder. Thread-safe.

    Args:
        folder: the folder.
        prefix: what the names begin with; others are left out, and S3 does not send them.

    Raises:
        FileNotFoundError: at once, when there is no such folder.
        NotADirectoryError: at once, when a local ``folder`` is a file.
        StorageError: when access is denied (at once), or the store did not answer within ``RETRY_SECONDS``.
    """
    if not is_remote(folder):
        with os.scandir(str(folder)) as entries:
            found = {entry.name: entry.is_dir() for entry in entries}
    elif s3.is_s3(folder):
        found = s3.list_folder(folder, prefix)
    else:
        listed = with_retries(folder, lambda: folder.fs.ls(folder.path, detail=True))
        paths = {entry["name"].strip("/"): entry["type"] == "directory" for entry in listed}
        found = {path.rpartition("/")[2]: paths[path] for path in paths if path != folder.path.strip("/")}
    # The folder itself may be an object; its name is empty.
    return {name: found[name] for name in sorted(found) if name and name.startswith(prefix)}


def names(folder: UPath, prefix: str = "") -> list[str]:
    """List the names of what :func:`list_folder` lists; none when there is no such folder.

    Raises:
        NotADirectoryError, StorageError: under the conditions of :func:`list_folder`.
    """
    try:
        return list(list_folder(folder, prefix))
    except FileNotFoundError:
        return []


def walk_remote(folder: UPath) -> Iterator[tuple[str, int]]:
    """List all files below a remote folder, in any order; on S3 they need not fit into memory.

    Yields:
        Relative posix path and size in bytes.

    Raises:
        StorageError: when access is denied (at once), or the store did not answer within ``RETRY_SECONDS``.
    """
    if s3.is_s3(folder):
        yield from s3.walk(folder)
        return
    for name, info in with_retries(folder, lambda: folder.fs.find(folder.path, detail=True)).items():
        yield str(name).removeprefix(folder.path).lstrip("/"), int(info["size"])


def write_atomic(path: UPath, data: bytes | bytearray | memoryview) -> None:
    """Write ``data`` so that a reader sees the old file, the new one, or none: never a part.

    Local files are written beside their place, synced and renamed. Object stores put objects atomically; on S3 long
    ones go in parts that are each repeated on their own, and no more than ``s3.PARTS_AT_ONCE`` of them are copied in
    memory at a time.

    Raises:
        StorageError: when access is denied (at once), or the store did not take it within ``RETRY_SECONDS``.
    """
    if not is_remote(path):
        with _written_beside(path, data) as partial:
            partial.replace(str(path))
    elif s3.is_s3(path):
        s3.put(path, memoryview(data).cast("B"))
    else:
        with_retries(path, lambda: path.fs.pipe_file(path.path, bytes(data)))


def create_exclusive(path: UPath, data: bytes) -> bool:
    """Write a file that is not there yet, whole or not at all; of several callers, one wins.

    Local files are written beside their place and linked to it (on a file system without hard links they are created
    exclusively and a reader may see a part). S3 gets a conditional put.

    Returns:
        True when this call created it, False when there was one already.

    Raises:
        StorageError: when access is denied (at once), or the store did not answer within ``RETRY_SECONDS``.
    """
    if not is_remote(path):
        return _link(path, data)
    if s3.is_s3(path):
        return s3.create(path, data)
    try:
        with_retries(path, lambda: path.fs.pipe_file(path.path, data, mode="create"))
    except FileExistsError:
        return False
    return True


def delete(path: UPath) -> None:
    """Delete a file, if it is there; one request to an object store. Thread-safe.

    Raises:
        StorageError: when access is denied (at once), or the store did not answer within ``RETRY_SECONDS``.
    """
    if not is_remote(path):
        Path(str(path)).unlink(missing_ok=True)
    elif s3.is_s3(path):
        s3.delete(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            with_retries(path, lambda: path.fs.rm_file(path.path))


def delete_folder(folder: UPath) -> None:
    """Delete a folder with its content, if it is there.

    Raises:
        StorageError: when access is denied (at once), or the store did not answer within ``RETRY_SECONDS``.
    """
    if not is_remote(folder):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(str(folder))
    elif s3.is_s3(folder):
        s3.delete_all(folder)
    else:
        with contextlib.suppress(FileNotFoundError):
            with_retries(folder, lambda: _delete_tree(folder))


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
            self._partial = _partial(local)
            self._file = self._partial.open("xb")

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append to the file."""
        self._file.write(data)

    def commit(self) -> None:
        """Put the file in its place; what was there is replaced.

        Raises:
            StorageError: under the conditions of :func:`write_atomic`.
        """
        if isinstance(self._file, io.BytesIO):
            write_atomic(self._path, self._file.getbuffer())
        elif self._partial is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._partial.replace(Path(str(self._path)))
            self._partial = None
        self.drop()

    def drop(self) -> None:
        """Remove the file if it was not committed. After a commit, or a second time, this does nothing."""
        # Closing may fail on a full disk, after which there is still something to remove; and in memory, as long as the
        # error of a failed try, which was repeated, still refers to the content.
        with contextlib.suppress(OSError, BufferError):
            self._file.close()
        if self._partial is not None:
            self._partial.unlink(missing_ok=True)
            self._partial = None


def write_json(path: UPath, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_atomic(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return ``value`` as the indented JSON that :func:`write_json` writes."""
    return (json.dumps(value, indent=2) + "\n").encode()


def read_json(path: UPath) -> Any:
    """Read a JSON file.

    Raises:
        GenlabError: when the file is missing or is not JSON; the message names it.
    """
    try:
        return json.loads(read_bytes(path))
    except FileNotFoundError:
        raise GenlabError(f"{path}: no such file") from None
    except ValueError as error:
        raise GenlabError(f"{path}: not valid JSON ({error})") from None


def sha256(data: bytes | memoryview) -> str:
    """Return the hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def _pread(path: str, offset: int, length: int) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(file, length, offset)
        while len(data) < length and (more := os.pread(file, length - len(data), offset + len(data))):
            data += more  # One call reads 2 GiB at most.
        return data
    finally:
        os.close(file)


def _delete_tree(folder: UPath) -> None:
    """Delete what lies below a folder, and the folder; ``rm`` of the file system would take ``[`` for a pattern."""
    for path, info in sorted(folder.fs.find(folder.path, withdirs=True, detail=True).items(), reverse=True):
        if info["type"] == "directory":
            with contextlib.suppress(FileNotFoundError):  # it was there only as long as there were files in it
                folder.fs.rmdir(path)
        else:
            folder.fs.rm_file(path)


@contextlib.contextmanager
def _written_beside(path: UPath, data: bytes | bytearray | memoryview) -> Iterator[Path]:
    """Write ``data`` to a file of a temporary name in the folder of the local ``path``, and sync it.

    The folder is made if need be. The file is removed in the end unless it was renamed.
    """
    local = Path(str(path))
    local.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(local)
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def _partial(local: Path) -> Path:
    """Return a name beside ``local`` that no other file has."""
    return local.with_name(f".{local.name}.{secrets.token_hex(4)}.partial")


def _link(path: UPath, data: bytes) -> bool:
    with _written_beside(path, data) as partial:
        try:
            os.link(partial, str(path))
        except FileExistsError:
            return partial.stat().st_nlink == 2  # Over NFS the answer to a first try may have been lost.
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}:
                raise
            return _open_exclusive(path, data)
    return True


def _open_exclusive(path: UPath, data: bytes) -> bool:
    try:
        with Path(str(path)).open("xb") as file:
            file.write(data)
    except FileExistsError:
        return False
    return True
