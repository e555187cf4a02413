"""Requests to S3: one for each range or whole object, uploads in parts, conditional puts, and lists of many objects.

Each request goes straight to the client, because s3fs has retries of its own at two levels and asks for an object's
size first; :func:`genlab.core.retries.with_retries` repeats it here. Callers use :mod:`genlab.core.storage`, which
chooses between local files, S3 and other stores.
"""

import asyncio
import contextlib
import errno
import gc
import itertools
import math
import os
import re
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from functools import cache
from typing import Any

import botocore.exceptions as boto
import fsspec
from upath import UPath

from genlab.core.retries import BadBodyError, http_status, with_retries

CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0
"""Seconds without a byte after which a connection counts as stalled."""
COMPLETE_SECONDS = 60.0
"""Seconds that S3 may need, without sending a byte, to put the parts of an upload together."""
SLOWEST_BYTES_PER_SECOND = 128 * 1024
"""A request may take ``READ_SECONDS`` plus the time that its bytes take at this rate."""
CONNECTIONS = 64
"""Connections that a process may have open to one store."""
PART_BYTES = 16 * 1024 * 1024
"""Longer objects are uploaded in parts of this size (160 GB and more in longer ones), each repeated on its own."""
PARTS_AT_ONCE = 4
CLIENT_TRIES = 15
"""Tries that botocore makes of requests that genlab does not repeat itself; together about two minutes."""

DELETED_AT_ONCE = 16
"""Requests that delete objects at the same time."""
LISTED_AT_ONCE = 1000
"""Keys that one request lists; S3 lists no more."""
LISTINGS = 16
"""Requests that list objects at the same time."""
LISTED_RANGES = 16 * LISTINGS
"""Ranges of keys into which a list is divided, about."""
FOLDER_PAGES = 10
"""Most requests for the folders in one folder, at which a list is divided."""

_MOST_PARTS = 10_000
_OWNER = "genlab-owner"
"""S3 metadata that says which call created an object."""


def is_s3(path: str | UPath) -> bool:
    """Return whether ``path`` names an object in S3."""
    return str(path).startswith(("s3://", "s3a://"))


@cache
def _spare_clients_in_forks() -> None:
    """Have no process that is forked from now on collect the S3 clients that it inherits.

    There s3fs would close their connections, and so strike them off the epoll that both processes share; the parent
    would hear no answer until its request times out.
    """
    os.register_at_fork(after_in_child=gc.freeze)


def client_settings(tries: int = CLIENT_TRIES, read_seconds: float | None = None) -> dict[str, Any]:
    """Return botocore's settings for a client; from the first call on, forked processes spare their parent's clients.

    Args:
        tries: how often botocore makes a request before it raises.
        read_seconds: after how long without a byte a connection has stalled; :data:`READ_SECONDS` by default.
    """
    _spare_clients_in_forks()
    return {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS if read_seconds is None else read_seconds,
        "max_pool_connections": CONNECTIONS,
        "retries": {"mode": "standard", "total_max_attempts": tries},
    }


def get(path: UPath) -> bytes:
    """Read a whole object in one request. Thread-safe.

    Raises:
        FileNotFoundError, StorageError: see :func:`with_retries`.
    """
    store = _store(path)
    body: bytes = with_retries(path, lambda: _request(store, "get_object", path))["Body"]
    return body


def exists(path: UPath) -> bool:
    """Return whether there is an object, by one request. Thread-safe.

    Raises:
        StorageError: see :func:`with_retries`.
    """
    store = _store(path)
    try:
        with_retries(path, lambda: _request(store, "head_object", path, READ_SECONDS))
    except FileNotFoundError:
        return False
    return True


def get_range(path: UPath, offset: int, length: int) -> bytes:
    """Read ``length`` > 0 bytes from ``offset`` on in one request. Thread-safe.

    Raises:
        EOFError: at once, when the object ends before ``offset + length``.
        FileNotFoundError, StorageError: see :func:`with_retries`.
    """
    store = _store(path)
    return with_retries(path, lambda: _get_range(store, path, offset, length))


def put(path: UPath, data: memoryview) -> None:
    """Write an object; a reader sees the old one or the new one. Objects over :data:`PART_BYTES` go in parts.

    Raises:
        StorageError: see :func:`with_retries`.
    """
    if len(data) > PART_BYTES:
        _put_in_parts(path, data)
        return
    store, content = _store(path), bytes(data)
    with_retries(path, lambda: _request(store, "put_object", path, _seconds(len(content)), Body=content))


def create(path: UPath, data: bytes) -> bool:
    """Write an object that is not there yet, by a conditional put; of several callers, one wins.

    Returns:
        True when this call created it, False when there was one already.

    Raises:
        StorageError: see :func:`with_retries`.
    """
    return _put_if(path, data, IfNoneMatch="*")


def get_tagged(path: UPath) -> tuple[bytes, str]:
    """Read a whole object in one request: its content, and the tag (ETag) that :func:`replace` takes. Thread-safe.

    Raises:
        FileNotFoundError, StorageError: see :func:`with_retries`.
    """
    store = _store(path)
    answer = with_retries(path, lambda: _request(store, "get_object", path))
    return answer["Body"], answer["ETag"]


def replace(path: UPath, data: bytes, tag: str) -> bool:
    """Write an object if it is still the one that ``tag`` was read of, by a conditional put.

    Of several callers one wins.

    Returns:
        True when this call wrote it, False when it had changed or was gone.

    Raises:
        StorageError: see :func:`with_retries`.
    """
    try:
        return _put_if(path, data, IfMatch=tag)
    except FileNotFoundError:
        return False


def delete(path: UPath) -> None:
    """Delete an object, if it is there.

    Raises:
        StorageError: see :func:`with_retries`.
    """
    store = _store(path)
    with contextlib.suppress(FileNotFoundError):
        with_retries(path, lambda: _request(store, "delete_object", path, READ_SECONDS))


def delete_all(path: UPath) -> None:
    """Delete all objects below a folder.

    Raises:
        StorageError: see :func:`with_retries`.
    """
    with ThreadPoolExecutor(DELETED_AT_ONCE, thread_name_prefix="genlab-delete") as pool:
        list(pool.map(lambda found: delete(path / found[0]), walk(path)))


def is_folder(path: UPath) -> bool:
    """Return whether there is an object below a folder, by one request.

    Raises:
        StorageError: see :func:`with_retries`.
    """
    root, ask = _listing(path)
    try:
        return ask(Prefix=root, MaxKeys=1)["KeyCount"] > 0
    except FileNotFoundError:  # no such bucket
        return False


def list_folder(path: UPath, prefix: str = "") -> dict[str, bool]:
    """List what lies directly in a folder, of names that begin with ``prefix``: for each whether it is a folder.

    Raises:
        FileNotFoundError: at once, when there is no such object below the folder.
        StorageError: see :func:`with_retries`.
    """
    root, ask = _listing(path)
    found: dict[str, bool] = {}
    token: dict[str, str] = {}
    while True:
        answer = ask(Prefix=root + prefix, Delimiter="/", **token)
        found |= {one["Key"].removeprefix(root): False for one in answer.get("Contents", ())}
        found |= {one["Prefix"].removeprefix(root).rstrip("/"): True for one in answer.get("CommonPrefixes", ())}
        if not answer["IsTruncated"]:
            break
        token = {"ContinuationToken": answer["NextContinuationToken"]}
    if not found:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return found


def walk(path: UPath) -> Iterator[tuple[str, int]]:
    """List all objects below a folder, in any order.

    More than one request can list are divided, at folders, into ranges of keys that are listed side by side. Memory
    holds the answers to :data:`LISTINGS` requests.

    Yields:
        Key below the folder and size in bytes.

    Raises:
        StorageError: see :func:`with_retries`.
    """
    root, ask = _listing(path)

    def page(after: str, end: str | None) -> tuple[list[tuple[str, int]], tuple[str, str | None] | None]:
        """Return objects after a key and before the next range, and the range that is left, if there is one."""
        # Keys come in the order of their UTF-8 bytes, which is that of Python's strings.
        answer = ask(Prefix=root, **({"StartAfter": after} if after else {}))
        found = [(one["Key"], one["Size"]) for one in answer.get("Contents", ()) if end is None or one["Key"] < end]
        whole = not answer["IsTruncated"] or len(found) < len(answer["Contents"])
        files = [(key.removeprefix(root), size) for key, size in found if not key.endswith("/")]
        return files, None if whole else (found[-1][0], end)

    def folders(above: str) -> list[str]:
        found: list[str] = []
        token: dict[str, str] = {}
        for _ in range(FOLDER_PAGES):
            answer = ask(Prefix=above, Delimiter="/", **token)
            found += [one["Prefix"] for one in answer.get("CommonPrefixes", ())]
            if not answer["IsTruncated"]:
                break
            token = {"ContinuationToken": answer["NextContinuationToken"]}
        return found

    files, rest = page("", None)
    yield from files
    if rest is None:
        return
    with ThreadPoolExecutor(LISTINGS, thread_name_prefix="genlab-list") as pool:
        starts: list[str] = []
        level = [root]
        while level and len(starts) < LISTED_RANGES:
            level = [folder for found in pool.map(folders, level) for folder in found]
            starts += level
        starts = sorted(start for start in starts if start > rest[0])
        ends = [rest[0], *starts[:: math.ceil(len(starts) / LISTED_RANGES) or 1], None]
        waiting = [(after, end) for after, end in itertools.pairwise(ends) if after is not None]
        running = {pool.submit(page, *waiting.pop()) for _ in range(min(LISTINGS, len(waiting)))}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                files, rest = future.result()
                if rest is not None:
                    waiting.append(rest)
                if waiting:
                    running.add(pool.submit(page, *waiting.pop()))
                yield from files


def ends_early(path: UPath, offset: int, length: int) -> EOFError:
    """Return the error that says that a file ends before ``offset + length``."""
    return EOFError(f"{path}: ends before byte {offset + length:,}")


def _listing(path: UPath) -> tuple[str, Callable[..., dict[str, Any]]]:
    """Return what the keys below a folder begin with, and the function that makes a request for a list of keys."""
    store = _store(path)
    bucket, key, _ = store.split_path(path.path)

    def ask(**arguments: Any) -> dict[str, Any]:
        listed = {"Bucket": bucket, "MaxKeys": LISTED_AT_ONCE, **arguments}
        return with_retries(path, lambda: _call(store, "list_objects_v2", READ_SECONDS, **listed))

    return f"{key.rstrip('/')}/" if key else "", ask


def _put_if(path: UPath, data: bytes, **condition: str) -> bool:
    """Write an object by a conditional put; return whether this call wrote it."""
    store, owner = _store(path), secrets.token_hex(16)
    arguments = {"Body": data, "Metadata": {_OWNER: owner}, **condition}
    try:
        with_retries(path, lambda: _request(store, "put_object", path, _seconds(len(data)), **arguments))
    except FileExistsError:  # Perhaps it is this call's own: the answer to an earlier try may have been lost.
        return with_retries(path, lambda: _owner(store, path)) == owner
    return True


def _store(path: UPath, read_seconds: float | None = None) -> Any:
    """Return the file system whose client makes each request once, because :func:`with_retries` repeats them.

    s3fs makes one for each process and setting.
    """
    settings = client_settings(1, read_seconds)
    return fsspec.filesystem("s3", **{**path.storage_options, "config_kwargs": settings})


def _seconds(size: int) -> float:
    """Return how long a request with a body of ``size`` bytes may take."""
    return READ_SECONDS + size / SLOWEST_BYTES_PER_SECOND


def _request(store: Any, method: str, path: UPath, seconds: float | None = None, **arguments: Any) -> dict[str, Any]:
    """Make one S3 request for an object once; returns the answer, its body (if it has one) read to the end."""
    bucket, key, _ = store.split_path(path.path)
    return _call(store, method, seconds, Bucket=bucket, Key=key, **arguments)


def _call(store: Any, method: str, seconds: float | None, **arguments: Any) -> dict[str, Any]:
    """Make one S3 request once; see :func:`_request`."""
    future = asyncio.run_coroutine_threadsafe(_exchange(store, method, seconds, arguments), store.loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def _exchange(store: Any, method: str, seconds: float | None, arguments: dict[str, Any]) -> dict[str, Any]:
    client = await store.set_session()
    async with asyncio.timeout(seconds):
        answer = await getattr(client, method)(**store.req_kw, **arguments)
        if "Body" in answer:
            async with answer["Body"] as body:
                answer["Body"] = await body.read()
    return answer


def _get_range(store: Any, path: UPath, offset: int, length: int) -> bytes:
    last = offset + length - 1
    try:
        answer = _request(store, "get_object", path, _seconds(length), Range=f"bytes={offset}-{last}")
    except boto.ClientError as error:
        if http_status(error) == 416:  # It begins where the object ends, or after.
            raise ends_early(path, offset, length) from None
        raise
    data: bytes = answer["Body"]
    sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.get("ContentRange", ""))
    if sent and int(sent[2]) <= last:
        raise ends_early(path, offset, length)
    if not sent or int(sent[1]) != offset or len(data) != length:
        raise BadBodyError(f"{len(data):,} bytes came ({answer.get('ContentRange')}), not bytes {offset}-{last}")
    return data


def _owner(store: Any, path: UPath) -> str | None:
    """Return the token of the call that created an object; ``None`` when it has none, or there is no object."""
    try:
        metadata: dict[str, str] = _request(store, "head_object", path, READ_SECONDS)["Metadata"]
    except boto.ClientError as error:
        if http_status(error) == 404:
            return None
        raise
    return metadata.get(_OWNER)


def _put_in_parts(path: UPath, data: memoryview) -> None:
    store, owner = _store(path), secrets.token_hex(16)
    size = max(PART_BYTES, math.ceil(len(data) / _MOST_PARTS))

    def ask(method: str, seconds: float, **arguments: Any) -> dict[str, Any]:
        return with_retries(path, lambda: _request(store, method, path, seconds, **arguments))

    upload = ask("create_multipart_upload", READ_SECONDS, Metadata={_OWNER: owner})["UploadId"]

    def put_part(number: int) -> dict[str, Any]:
        part = bytes(data[(number - 1) * size : number * size])
        answer = ask("upload_part", _seconds(len(part)), UploadId=upload, PartNumber=number, Body=part)
        checksums = {key: value for key, value in answer.items() if re.fullmatch(r"Checksum[A-Z0-9]+", key)}
        return {"PartNumber": number, "ETag": answer["ETag"], **checksums}

    try:
        with ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="genlab-upload") as pool:
            parts = list(pool.map(put_part, range(1, math.ceil(len(data) / size) + 1)))
        slow = _store(path, COMPLETE_SECONDS)

        def complete() -> None:
            arguments = {"UploadId": upload, "MultipartUpload": {"Parts": parts}}
            try:
                _request(slow, "complete_multipart_upload", path, **arguments)
            except Exception:  # Perhaps only the answer was lost; a completed upload is not known any more.
                if _owner(store, path) != owner:
                    raise

        with_retries(path, complete)
    except BaseException:
        with contextlib.suppress(Exception):  # Parts left behind cost money, but the first fault is what counts.
            _request(store, "abort_multipart_upload", path, READ_SECONDS, UploadId=upload)
        raise
