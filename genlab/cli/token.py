"""``genlab token NAME FILE``: make a bearer token for the HTTP interface, or take one out."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from genlab.core.config import parse
from genlab.core.errors import run_command
from genlab.serving.tokens import add_token, remove_token


@dataclass(frozen=True)
class TokenConfig:
    """Make a bearer token that a server accepts, and print it, this once: the file gets its SHA-256 only. Servers that
    run read the file again within seconds. Clients send the header ``Authorization: Bearer TOKEN``."""

    name: Annotated[str, tyro.conf.Positional]
    """Whose or what token it is: letters, digits, '.', '_' and '-'. It appears in the access log."""
    file: Annotated[str, tyro.conf.Positional]
    """Local path or s3:// URL of the token file; it is created if it is not there."""
    remove: bool = False
    """Take the token of this name out of the file instead."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab token``."""

    def command() -> None:
        config = parse(TokenConfig, arguments, prog="genlab token")
        if config.remove:
            remove_token(config.file, config.name)
            print(f"{config.file}: {config.name} is removed", file=sys.stderr)
        else:
            print(add_token(config.file, config.name))
            print(f"{config.file}: {config.name} is added; keep the token, it is not shown again", file=sys.stderr)

    run_command(command)
