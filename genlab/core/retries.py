"""Repeat a request to an object store until it succeeds, cannot succeed, or has failed for two minutes.

Every retry of genlab's own is made by :func:`with_retries`, which knows the errors that may pass: server errors,
throttling, timeouts, and connections that were refused, cut or stalled.
"""

import errno
import math
import os
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

import botocore.exceptions as boto
from upath import UPath

from genlab.core.errors import StorageError, StorageTimeoutError

RETRY_SECONDS = 120.0
"""How long a call is repeated after its first failure."""
BACKOFF_SECONDS = (0.2, 8.0)
"""The wait before try n + 1 is drawn from 0 to the first of these times 2^(n - 1), and to the second at most."""

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
_TRANSIENT_BOTOCORE_ERRORS = (
    boto.HTTPClientError,
    boto.ConnectionError,
    boto.IncompleteReadError,
    boto.FlexibleChecksumError,
    boto.CredentialRetrievalError,
    boto.MetadataRetrievalError,
)
_DENIED_CODES = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired"}

T = TypeVar("T")

_random = random.SystemRandom()  # never the global generator, on which training may depend


class BadBodyError(Exception):
    """An answer of the store whose body is not the bytes that were asked for."""


def with_retries(path: UPath, call: Callable[[], T]) -> T:
    """Call ``call`` until it succeeds, and return its result.

    It is called again after errors that may pass. The waits in between double on average and are drawn at random, so
    that many readers do not come back at the same moment.

    Args:
        path: the file that ``call`` reads or writes, for messages.
        call: a request that may be repeated.

    Raises:
        FileNotFoundError: at once.
        FileExistsError: at once.
        StorageError: at once, when access is denied or the request is refused for good.
        StorageTimeoutError: when :data:`RETRY_SECONDS` have gone by since the first failure. Names ``path`` and the
            last cause.
    """
    tries, deadline = 0, math.inf
    while True:
        try:
            return call()
        except Exception as error:
            if not _may_pass(path, error):
                raise
            cause = _cause(error)
        now = time.monotonic()
        deadline = min(deadline, now + RETRY_SECONDS)
        wait = _random.uniform(0, min(BACKOFF_SECONDS[0] * 2.0**tries, BACKOFF_SECONDS[1]))
        tries += 1
        if now + wait >= deadline:
            raise StorageTimeoutError(
                f"{path}: gave up after {tries} tries in {RETRY_SECONDS:g} s; the last time: {cause}; "
                "check that the store can be reached, then start again: what was done so far is kept"
            )
        time.sleep(wait)


def http_status(error: boto.ClientError) -> int:
    """Return the HTTP status of the store's answer; 0 when the answer has none."""
    status: int = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status


def _may_pass(path: UPath, error: Exception) -> bool:
    """Return whether the same request may succeed later.

    Raises:
        FileNotFoundError, FileExistsError, StorageError: instead of an error of the store that has one of these
            meanings.
    """
    from aiohttp import ClientError as HttpError  # Here, because it takes most of a second.
    from botocore.parsers import ResponseParserError

    # s3fs translates botocore's errors to OSErrors, which know less, and leaves the originals as their causes.
    origin = error.__cause__ if isinstance(error.__cause__, boto.ClientError) else error
    if isinstance(origin, boto.ClientError):
        code, status = origin.response.get("Error", {}).get("Code", ""), http_status(origin)
        if code in _TRANSIENT_CODES or status in {408, 425, 429} or (status >= 500 and status != 501):
            return True
        if status == 404:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
        if status == 412:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        if status in {401, 403} or code in _DENIED_CODES:
            raise StorageError(f"{path}: access denied ({_cause(origin)}); {_CREDENTIALS}") from None
        raise StorageError(f"{path}: refused ({_cause(origin)})") from None
    if isinstance(origin, BadBodyError | HttpError | ResponseParserError | ConnectionError | TimeoutError):
        return True
    if isinstance(origin, boto.BotoCoreError):
        if isinstance(origin, _TRANSIENT_BOTOCORE_ERRORS):
            return True
        raise StorageError(f"{path}: no request was made ({_cause(origin)}); {_CREDENTIALS}") from None
    if isinstance(origin, PermissionError):
        raise StorageError(f"{path}: access denied ({_cause(origin)})") from None
    return isinstance(origin, OSError) and origin.errno in _TRANSIENT_ERRNO


def _cause(error: BaseException) -> str:
    """Return type and message of ``error``, with user names and passwords removed from its URLs."""
    return re.sub(r"(?<=://)[^/\s]*@", "", f"{type(error).__name__}: {error}".removesuffix(": "))
