"""Errors that a user can put right, and how a command ends."""

import os
import select
import signal
import sys
import warnings
from collections.abc import Callable
from typing import IO


class GenlabError(Exception):
    """An error that the user can put right.

    The message is one short paragraph that names the file or option at fault and the way out. Commands print
    it without a traceback (``GENLAB_TRACEBACK=1`` shows one) and exit with status 2.
    """


class DataError(GenlabError):
    """A source, an image or a shard cannot be used; the message names the file."""


class StorageError(GenlabError):
    """A file system or object store refuses or does not answer; the message names the path and the last cause."""


class StorageTimeoutError(StorageError):
    """A file system or object store did not answer, or answered with errors, for as long as requests are repeated."""


class ConfigError(GenlabError):
    """An option is unknown, out of range, or at odds with another; the message names the option."""


class RunError(GenlabError):
    """A run directory, checkpoint or model directory cannot be used or continued."""


class ClusterError(GenlabError):
    """A Ray cluster is missing, or too small for what was asked."""


CLOSED_PIPE = 128 + signal.SIGPIPE
"""Exit status of a command whose output nobody reads any longer: the shell's for a process that SIGPIPE ended."""


def run_command(command: Callable[[], object]) -> None:
    """Run the body of a command line entry point.

    The process then exits with status 0 on success, 2 on a :class:`GenlabError`, 130 when it was interrupted, and
    :data:`CLOSED_PIPE`, without a word, when what reads its output has ended, as in ``genlab inspect DATA | head``.
    """
    # Pillow warns of pictures from half the size on that genlab refuses.
    warnings.filterwarnings("ignore", r"Image size \(.*decompression bomb", RuntimeWarning)
    try:
        try:
            command()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here: at the interpreter's end a closed pipe could no longer be handled
    except BaseException as error:
        if _output_closed(error):
            _discard_output()
            sys.exit(CLOSED_PIPE)
        if isinstance(error, GenlabError) and not os.environ.get("GENLAB_TRACEBACK"):
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        if isinstance(error, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)
            sys.exit(130)
        raise


def _output_closed(error: BaseException) -> bool:
    """Tell whether ``error`` came of writing to standard output or standard error after its reader had ended."""
    if isinstance(error, SystemExit):  # by this, rich ends a process that cannot print; it has discarded the output
        return isinstance(error.__context__, BrokenPipeError)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, BrokenPipeError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None and any(map(_reader_ended, (sys.stdout, sys.stderr)))  # else of some other pipe or socket


def _discard_output() -> None:
    """Redirect stdout or stderr to the null device if its reader is gone, so that later writes do not fail."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if _reader_ended(stream):
            os.dup2(null, stream.fileno())
    os.close(null)


def _reader_ended(stream: IO[str] | None) -> bool:
    """Tell whether ``stream`` is a pipe that nobody reads."""
    try:
        pipe = None if stream is None else stream.fileno()
    except (OSError, ValueError):  # not a file of the system's, or closed
        return False
    if pipe is None:
        return False
    poll = select.poll()
    poll.register(pipe, 0)
    return bool(poll.poll(0))
