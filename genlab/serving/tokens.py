"""Bearer tokens: who may send requests.

A token is 32 random bytes, which only its holder knows. A token file holds the SHA-256 of each, with a name and the
date; nothing there is secret, and no slow hash is needed since nobody can guess 256 random bits::

    {"tokens": [{"name": "alice", "sha256": "9f86d0...", "created": "2030-01-31"}]}

``genlab token`` changes the file, and servers read it again while they run. So a token is replaced without a restart:
add one of another name, let its holder change over, remove the old one.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import hmac
import json
import logging
import re
import secrets
import threading
from collections.abc import Iterator
from typing import Any

from upath import UPath

from genlab.core.claims import claimed
from genlab.core.errors import ConfigError, GenlabError
from genlab.core.storage import locate, read_bytes, sha256, write_json

logger = logging.getLogger(__name__)

TOKEN_BYTES = 32
"""Random bytes of a token."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class TokenEntry:
    """What a token file says of one token."""

    name: str
    """1 to 64 characters of A-Z, a-z, 0-9, dot, underscore and hyphen; no two tokens of a file have one name."""
    sha256: str
    """Of the token's ASCII form, in hexadecimal."""
    created: str
    """The date, in UTC: ``2030-01-31``."""


def add_token(file: str, name: str) -> str:
    """Make a token, write its hash to a token file, which is created if need be, and return it.

    Args:
        file: a local path or an ``s3://`` URL.
        name: see :class:`TokenEntry`.

    Raises:
        ConfigError: the file has a token of this name, or is damaged, or the name is not one.
        ClaimError: another process changes a token file of that folder.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r}: a token's name has 1 to 64 characters, letters, digits, '.', '_' and '-'")
    with _changing(file) as (path, entries):
        if any(entry.name == name for entry in entries):
            raise ConfigError(f"{file}: has a token {name!r}; choose another name, or take it out with --remove")
        token = secrets.token_urlsafe(TOKEN_BYTES)
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        _write(path, [*entries, TokenEntry(name, sha256(token.encode()), today)])
    return token


def remove_token(file: str, name: str) -> None:
    """Take a token out of a token file; servers refuse it from then on.

    Raises:
        ConfigError: the file is missing or damaged, or has no token of this name.
        ClaimError: another process changes a token file of that folder.
    """
    with _changing(file) as (path, entries):
        left = [entry for entry in entries if entry.name != name]
        if len(left) == len(entries):
            names = ", ".join(entry.name for entry in entries) or "none"
            raise ConfigError(f"{file}: has no token {name!r}; there are: {names}")
        _write(path, left)


class TokenFile:
    """The tokens of a file, for a server that checks them.

    A file that is damaged, gone or out of reach while the server runs changes nothing: the tokens that were read last
    stay valid, and the log says so.

    Args:
        file: a local path or an ``s3://`` URL.

    Raises:
        ConfigError: the file is missing or damaged.
        StorageError: it cannot be read.
    """

    def __init__(self, file: str) -> None:
        self._path = locate(file)
        self._content = _read(self._path)
        self._tokens = _digests(self._path, self._content)
        self._complaint = ""
        self._ended = threading.Event()

    def name_of(self, token: bytes) -> str | None:
        """Return the name of a token, or ``None`` if it is not valid, in a time that does not depend on it."""
        digest = hashlib.sha256(token).digest()
        found = None
        for stored, name in self._tokens:
            if hmac.compare_digest(stored, digest):
                found = name
        return found

    def refresh(self) -> None:
        """Read the file again, if it can be read."""
        try:
            content = _read(self._path)
            if content != self._content:
                self._tokens = _digests(self._path, content)
                self._content = content
                logger.info("%s: read again, %d tokens", self._path, len(self._tokens))
            elif self._complaint:
                logger.info("%s: can be read again", self._path)
            self._complaint = ""
        except (GenlabError, OSError) as error:
            if self._complaint != str(error):
                logger.error("the tokens that were read before stay valid: %s", error)
            self._complaint = str(error)

    def watch(self, seconds: float = 5.0) -> None:
        """Read the file again every few seconds, in a thread, until :meth:`close` is called or the process ends."""

        def run() -> None:
            while not self._ended.wait(seconds):
                self.refresh()

        threading.Thread(target=run, name="genlab-tokens", daemon=True).start()

    def close(self) -> None:
        """End :meth:`watch`."""
        self._ended.set()


@contextlib.contextmanager
def _changing(file: str) -> Iterator[tuple[UPath, list[TokenEntry]]]:
    """Read a token file for a change that no other process can come between."""
    path = locate(file)
    with claimed(path.parent, "token-change", "try again in a moment"):
        try:
            entries = _parse(path, read_bytes(path))
        except FileNotFoundError:
            entries = []
        yield path, entries


def _write(path: UPath, entries: list[TokenEntry]) -> None:
    write_json(path, {"tokens": [dataclasses.asdict(entry) for entry in entries]})


def _read(path: UPath) -> bytes:
    try:
        return read_bytes(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; make a token with: genlab token NAME {path}") from None


def _digests(path: UPath, content: bytes) -> list[tuple[bytes, str]]:
    return [(bytes.fromhex(entry.sha256), entry.name) for entry in _parse(path, content)]


def _parse(path: UPath, content: bytes) -> list[TokenEntry]:
    """Return the tokens of a file.

    Raises:
        ConfigError: it is not a token file.
    """
    try:
        entries = [_entry(**fields) for fields in json.loads(content)["tokens"]]
        if len({entry.name for entry in entries}) < len(entries):
            raise ValueError("two tokens have one name")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path}: is no token file ({error!r}); make one with: genlab token NAME FILE") from None
    return entries


def _entry(name: Any, sha256: Any, created: Any) -> TokenEntry:
    if not (_NAME.fullmatch(name) and _SHA256.fullmatch(sha256)):
        raise ValueError(f"the entry {name!r}")
    return TokenEntry(name, sha256, str(created))
