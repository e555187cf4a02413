"""What a user can get wrong, and how a command says so."""

import os
import sys
from collections.abc import Callable


class GenlabError(Exception):
    """Something the user can put right.

    The message is one short paragraph that names the file or option at fault and the way out. Commands print
    it without a traceback (``GENLAB_TRACEBACK=1`` shows one) and exit with status 2.
    """


class DataError(GenlabError):
    """A source, an image or a shard that cannot be used; the message names the file."""


class StorageError(GenlabError):
    """A file system or object store that refuses or does not answer; the message names the path and the last cause."""


class ConfigError(GenlabError):
    """An option that is unknown, out of range, or at odds with another; the message names the option."""


class RunError(GenlabError):
    """A run directory, checkpoint or model directory that cannot be used or continued."""


class ClusterError(GenlabError):
    """A Ray cluster that is missing or too small for what was asked."""


def run_command(command: Callable[[], object]) -> None:
    """Run the body of a command line entry point, then exit: 0 on success, 2 on a :class:`GenlabError`."""
    try:
        command()
    except GenlabError as error:
        if os.environ.get("GENLAB_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
