"""Paths and URLs: every file genlab reads or writes, local or on S3, goes through a :class:`upath.UPath`.

S3 credentials and endpoint come the usual way (``AWS_ACCESS_KEY_ID``, ``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, ...).

The functions here that read and write whole files and ranges outlast a store that answers with errors, cuts or
stalls connections, or is away for a while: they try again for :data:`PATIENCE_SECONDS`. Everything else that is done
with a path from :func:`locate` (listing, deleting, Ray's own files) is tried again by botocore for about as long.
"""

import asyncio
import contextlib
import errno
import gc
import hashlib
import io
import json
import math
import os
import random
import re
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

import botocore.exceptions as boto
import fsspec
from upath import UPath

from genlab.core.errors import ConfigError, DataError, GenlabError, StorageError

JOB_ENV = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets this in the driver of a submitted job."""

PATIENCE_SECONDS = 120.0
"""How long a call goes on trying after its first failure."""
BACKOFF_SECONDS = (0.2, 8.0)
"""The wait before try n + 1 is drawn from 0 to the first of these times 2^(n - 1), and to the second at most."""
CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0
"""A connection on which nothing came for so long has stalled."""
COMPLETE_SECONDS = 60.0
"""Putting the parts of an upload together may take so long without a word."""
SLOWEST_BYTES_PER_SECOND = 128 * 1024
"""A request may take ``READ_SECONDS`` and as long as its bytes take at this rate."""
CONNECTIONS = 64
"""Connections that a process may have open to one store."""
PART_BYTES = 16 * 1024 * 1024
"""Longer objects are uploaded in parts of this size (160 GB and more in longer ones), each tried again on its own."""
PARTS_AT_ONCE = 4

_MOST_PARTS = 10_000
_OWNER = "genlab-owner"
"""S3 metadata that says which call created an object."""
_CREDENTIALS = "check AWS_ENDPOINT_URL and the credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_TRANSIENT_CODES = {
    "BandwidthLimitExceeded",
    "ConditionalRequestConflict",
    "InternalError",
    "OperationAborted",
    "RequestLimitExceeded",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
_TRANSIENT_ERRNO = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETRESET,
    errno.ENETUNREACH,
    errno.EREMOTEIO,
    errno.ETIMEDOUT,
}
_DENIED_CODES = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
_PASSING = (
    boto.HTTPClientError,
    boto.ConnectionError,
    boto.IncompleteReadError,
    boto.FlexibleChecksumError,
    boto.CredentialRetrievalError,
    boto.MetadataRetrievalError,
)

T = TypeVar("T")

_dice = random.SystemRandom()  # never the global generator, on which training may depend

# A forked process must not collect the S3 clients that it inherits: s3fs would close their connections, and so strike
# them off the epoll that both processes share; the parent would hear no answer until its request times out.
os.register_at_fork(after_in_child=gc.freeze)


def is_remote(url: str | UPath) -> bool:
    """Whether ``url`` names an object store or another remote file system."""
    return "://" in str(url) and not str(url).startswith(("file://", "local://"))


def locate(url: str | os.PathLike[str] | UPath) -> UPath:
    """The absolute path of ``url``; a local path has ``~`` expanded and is made absolute, without ``..``.

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
    if "@" in host or (_is_s3(text) and ":" in host and not host.startswith("arn:")):
        raise ConfigError(
            f"{scheme}://...: a URL with credentials in it, which would be written to manifests and logs; leave them "
            "out and set them in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, ...)"
        )
    if _is_s3(text):
        return UPath(text, use_listings_cache=False, config_kwargs=_s3_settings(15, READ_SECONDS))
    return UPath(text, use_listings_cache=False)


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
        OSError: it is no folder.
    """
    if folder.exists() and next(iter(folder.iterdir()), None) is not None:
        raise DataError(f"{folder}: is not empty; choose another folder")


def read_range(path: UPath, offset: int, length: int) -> bytes:
    """The ``length`` bytes of a file that begin at ``offset``; one request to an object store. Thread-safe.

    Raises:
        FileNotFoundError: at once, when there is no such file.
        EOFError: at once, when the file ends before ``offset + length``.
        StorageError: when access is denied (at once), or the store did not deliver within the stated patience.
    """
    if not is_remote(path):
        data = _pread(str(path), offset, length)
    elif length == 0:
        return b""
    elif _is_s3(path):
        store = _s3(path)
        return patiently(path, lambda: _get_range(store, path, offset, length))
    else:
        data = patiently(path, lambda: path.fs.cat_file(path.path, start=offset, end=offset + length))
    if len(data) != length:
        raise _ends_early(path, offset, length)
    return data


def read_bytes(path: UPath) -> bytes:
    """A whole file; one request to an object store. Thread-safe.

    Raises:
        FileNotFoundError: at once, when there is no such file.
        StorageError: when access is denied (at once), or the store did not deliver within the stated patience.
    """
    if not is_remote(path):
        return Path(str(path)).read_bytes()
    if _is_s3(path):
        store = _s3(path)
        return patiently(path, lambda: _request(store, "get_object", path)["Body"])
    return patiently(path, lambda: path.fs.cat_file(path.path))


def write_atomic(path: UPath, data: bytes | bytearray | memoryview) -> None:
    """Write ``data`` so that a reader sees the old file, the new one, or none: never a part.

    Local files are written beside their place, synced and renamed. Object stores put objects atomically; on S3 long
    ones go in parts that are each tried again on their own, and no more than :data:`PARTS_AT_ONCE` of them are
    copied in memory at a time.

    Raises:
        StorageError: when access is denied (at once), or the store did not take it within the stated patience.
    """
    if not is_remote(path):
        with _written_beside(path, data) as partial:
            partial.replace(str(path))
        return
    view = memoryview(data).cast("B")
    if not _is_s3(path):
        patiently(path, lambda: path.fs.pipe_file(path.path, bytes(data)))
    elif len(view) > PART_BYTES:
        _put_in_parts(path, view)
    else:
        store, content = _s3(path), bytes(data)
        patiently(path, lambda: _request(store, "put_object", path, _seconds(len(content)), Body=content))


def create_exclusive(path: UPath, data: bytes) -> bool:
    """Write a file that is not there yet, whole or not at all; of several callers, one wins.

    Local files are written beside their place and linked to it (on a file system without hard links they are created
    exclusively and a reader may see a part). S3 gets a conditional put.

    Returns:
        True when this call created it, False when there was one already.

    Raises:
        StorageError: when access is denied (at once), or the store did not answer within the stated patience.
    """
    if not is_remote(path):
        return _link(path, data)
    if not _is_s3(path):
        try:
            patiently(path, lambda: path.fs.pipe_file(path.path, data, mode="create"))
        except FileExistsError:
            return False
        return True
    store, owner = _s3(path), secrets.token_hex(16)
    put = {"Body": data, "IfNoneMatch": "*", "Metadata": {_OWNER: owner}}
    try:
        patiently(path, lambda: _request(store, "put_object", path, _seconds(len(data)), **put))
    except FileExistsError:  # Perhaps it is this call's own: the answer to an earlier try may have been lost.
        return patiently(path, lambda: _owner(store, path)) == owner
    return True


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
            StorageError: as of :func:`write_atomic`.
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
        """Leave nothing of a file that was not committed; afterwards there is nothing to do."""
        # Closing may fail on a full disk, after which there is still something to remove.
        with contextlib.suppress(OSError):
            self._file.close()
        if self._partial is not None:
            self._partial.unlink(missing_ok=True)
            self._partial = None


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
        return json.loads(read_bytes(path))
    except FileNotFoundError:
        raise GenlabError(f"{path}: no such file") from None
    except ValueError as error:
        raise GenlabError(f"{path}: not valid JSON ({error})") from None


def sha256(data: bytes | memoryview) -> str:
    """The hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def patiently(path: UPath, call: Callable[[], T]) -> T:
    """What ``call``, which does something with ``path`` and may be repeated, returns in the end.

    It is tried again after errors that pass: server errors, throttling, timeouts, connections refused, cut or
    stalled, bodies cut short; with waits that double on average and are drawn at random, so that many readers do
    not come back at the same moment.

    Raises:
        FileNotFoundError: at once.
        FileExistsError: at once.
        StorageError: when access is denied or the request is refused for good (at once), or when
            :data:`PATIENCE_SECONDS` have gone by since the first failure. Names ``path`` and the last cause.
    """
    tries, deadline = 0, math.inf
    while True:
        try:
            return call()
        except Exception as error:
            if not _passes(path, error):
                raise
            cause = _cause(error)
        now = time.monotonic()
        deadline = min(deadline, now + PATIENCE_SECONDS)
        wait = _dice.uniform(0, min(BACKOFF_SECONDS[0] * 2.0**tries, BACKOFF_SECONDS[1]))
        tries += 1
        if now + wait >= deadline:
            raise StorageError(
                f"{path}: gave up after {tries} tries in {PATIENCE_SECONDS:g} s; the last time: {cause}; "
                "check that the store can be reached, then start again: what was done so far is kept"
            )
        time.sleep(wait)


class _BadBodyError(Exception):
    """An answer whose body is not the bytes that were asked for."""


def _passes(path: UPath, error: Exception) -> bool:
    """Whether ``error`` may pass.

    Raises:
        FileNotFoundError, FileExistsError, StorageError: instead of an error of the store that says so or that will
            not pass.
    """
    from aiohttp import ClientError as HttpError  # Here, because it takes most of a second.
    from botocore.parsers import ResponseParserError

    # s3fs translates botocore's errors to OSErrors, which know less, and leaves the originals as their causes.
    origin = error.__cause__ if isinstance(error.__cause__, boto.ClientError) else error
    if isinstance(origin, boto.ClientError):
        code, status = origin.response.get("Error", {}).get("Code", ""), _status(origin)
        if code in _TRANSIENT_CODES or status in {408, 425, 429} or (status >= 500 and status != 501):
            return True
        if status == 404:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
        if status == 412:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        if status in {401, 403} or code in _DENIED_CODES:
            raise StorageError(f"{path}: access denied ({_cause(origin)}); {_CREDENTIALS}") from None
        raise StorageError(f"{path}: refused ({_cause(origin)})") from None
    if isinstance(origin, _BadBodyError | HttpError | ResponseParserError | ConnectionError | TimeoutError):
        return True
    if isinstance(origin, boto.BotoCoreError):
        if isinstance(origin, _PASSING):
            return True
        raise StorageError(f"{path}: no request was made ({_cause(origin)}); {_CREDENTIALS}") from None
    if isinstance(origin, PermissionError):
        raise StorageError(f"{path}: access denied ({_cause(origin)})") from None
    return isinstance(origin, OSError) and origin.errno in _TRANSIENT_ERRNO


def _cause(error: BaseException) -> str:
    return _without_credentials(f"{type(error).__name__}: {error}".removesuffix(": "))


def _without_credentials(text: str) -> str:
    return re.sub(r"(?<=://)[^/\s]*@", "", text)


def _pread(path: str, offset: int, length: int) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(file, length, offset)
        while len(data) < length and (more := os.pread(file, length - len(data), offset + len(data))):
            data += more  # One call reads 2 GiB at most.
        return data
    finally:
        os.close(file)


def _ends_early(path: UPath, offset: int, length: int) -> EOFError:
    return EOFError(f"{path}: ends before byte {offset + length:,}")


@contextlib.contextmanager
def _written_beside(path: UPath, data: bytes | bytearray | memoryview) -> Iterator[Path]:
    """A synced file of a passing name with ``data``, in the folder of the local ``path``, which is made if need be."""
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
    """A new name beside ``local``."""
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


def _is_s3(path: str | UPath) -> bool:
    return str(path).startswith(("s3://", "s3a://"))


def _s3_settings(tries: int, read_seconds: float) -> dict[str, Any]:
    return {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": read_seconds,
        "max_pool_connections": CONNECTIONS,
        "retries": {"mode": "standard", "total_max_attempts": tries},
    }


def _s3(path: UPath, read_seconds: float | None = None) -> Any:
    """The s3fs file system for requests that :func:`patiently` tries again: its client does not. One a process."""
    settings = _s3_settings(1, READ_SECONDS if read_seconds is None else read_seconds)
    return fsspec.filesystem("s3", **{**path.storage_options, "config_kwargs": settings})


def _seconds(size: int) -> float:
    """How long a request with a body of ``size`` bytes may take."""
    return READ_SECONDS + size / SLOWEST_BYTES_PER_SECOND


def _request(store: Any, method: str, path: UPath, seconds: float | None = None, **arguments: Any) -> dict[str, Any]:
    """One S3 request, tried once: the answer, its body (if it has one) read to the end.

    Straight to the client, because s3fs has retries of its own at two levels, and asks for the size first.
    """
    future = asyncio.run_coroutine_threadsafe(_exchange(store, method, path.path, seconds, arguments), store.loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def _exchange(
    store: Any, method: str, path: str, seconds: float | None, arguments: dict[str, Any]
) -> dict[str, Any]:
    bucket, key, _ = store.split_path(path)
    client = await store.set_session()
    async with asyncio.timeout(seconds):
        answer = await getattr(client, method)(Bucket=bucket, Key=key, **store.req_kw, **arguments)
        if "Body" in answer:
            async with answer["Body"] as body:
                answer["Body"] = await body.read()
    return answer


def _get_range(store: Any, path: UPath, offset: int, length: int) -> bytes:
    last = offset + length - 1
    try:
        answer = _request(store, "get_object", path, _seconds(length), Range=f"bytes={offset}-{last}")
    except boto.ClientError as error:
        if _status(error) == 416:  # It begins where the object ends, or after.
            raise _ends_early(path, offset, length) from None
        raise
    data: bytes = answer["Body"]
    sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.get("ContentRange", ""))
    if sent and int(sent[2]) <= last:
        raise _ends_early(path, offset, length)
    if not sent or int(sent[1]) != offset or len(data) != length:
        raise _BadBodyError(f"{len(data):,} bytes came ({answer.get('ContentRange')}), not bytes {offset}-{last}")
    return data


def _status(error: boto.ClientError) -> int:
    """The HTTP status of the store's answer."""
    status: int = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status


def _owner(store: Any, path: UPath) -> str | None:
    """Which call created an object; ``None`` when it does not say, or there is none."""
    try:
        metadata: dict[str, str] = _request(store, "head_object", path, READ_SECONDS)["Metadata"]
    except boto.ClientError as error:
        if _status(error) == 404:
            return None
        raise
    return metadata.get(_OWNER)


def _put_in_parts(path: UPath, data: memoryview) -> None:
    store, owner = _s3(path), secrets.token_hex(16)
    size = max(PART_BYTES, math.ceil(len(data) / _MOST_PARTS))

    def ask(method: str, seconds: float, **arguments: Any) -> dict[str, Any]:
        return patiently(path, lambda: _request(store, method, path, seconds, **arguments))

    upload = ask("create_multipart_upload", READ_SECONDS, Metadata={_OWNER: owner})["UploadId"]

    def put(number: int) -> dict[str, Any]:
        part = bytes(data[(number - 1) * size : number * size])
        answer = ask("upload_part", _seconds(len(part)), UploadId=upload, PartNumber=number, Body=part)
        checksums = {key: value for key, value in answer.items() if re.fullmatch(r"Checksum[A-Z0-9]+", key)}
        return {"PartNumber": number, "ETag": answer["ETag"], **checksums}

    try:
        with ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="genlab-upload") as pool:
            parts = list(pool.map(put, range(1, math.ceil(len(data) / size) + 1)))
        slow = _s3(path, COMPLETE_SECONDS)

        def complete() -> None:
            arguments = {"UploadId": upload, "MultipartUpload": {"Parts": parts}}
            try:
                _request(slow, "complete_multipart_upload", path, **arguments)
            except Exception:  # Perhaps only the answer was lost; a completed upload is not known any more.
                if _owner(store, path) != owner:
                    raise

        patiently(path, complete)
    except BaseException:
        with contextlib.suppress(Exception):  # Parts left behind cost money, but the first fault is what counts.
            _request(store, "abort_multipart_upload", path, READ_SECONDS, UploadId=upload)
        raise
