"""A command whose output nobody reads any longer, as in ``genlab inspect DATA | head``, ends without a word."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

GENLAB = (sys.executable, "-c", "from genlab.cli.main import main; main()")
CLOSED_PIPE = 141
"""What a shell reports of a process that SIGPIPE ended."""


def run(*command: str, errors_too: bool = False, **environment: str) -> tuple[int, str]:
    """Run a command whose output goes into a pipe that nobody reads; return its status and what it says of errors."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            command,
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            stdout=writer,
            stderr=writer if errors_too else subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writer)
    return ended.returncode, ended.stderr or ""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["inspect", "--help"]])
def test_help_and_version(arguments: list[str]) -> None:
    assert run(*GENLAB, *arguments) == (CLOSED_PIPE, "")


@pytest.mark.slow
@pytest.mark.parametrize("script", ["vae.py", "sweep.py"])
def test_a_job(script: str) -> None:
    assert run(sys.executable, f"jobs/{script}", "--help") == (CLOSED_PIPE, "")


def test_a_table_and_lines(digits: Path) -> None:
    assert run(*GENLAB, "inspect", str(digits)) == (CLOSED_PIPE, "")


def test_a_progress_bar(tmp_path: Path) -> None:
    """Rich draws it from a thread of its own, into a pipe too where colours are forced."""
    data = str(tmp_path / "data")
    status, errors = run(
        *GENLAB, "ingest", "synthetic:digits", data, "--count", "40", FORCE_COLOR="1", TTY_COMPATIBLE="1"
    )
    assert (status, errors) == (CLOSED_PIPE, "")


@pytest.mark.slow
def test_a_training_run(digits: Path, tmp_path: Path) -> None:
    options = ["--data.images", str(digits), "--run.workers", "0", "--run.steps", "2", "--run.batch", "8"]
    storage = ["--run.storage", str(tmp_path), "--run.name", "run"]
    assert run(*GENLAB, "train", "vae", *options, *storage) == (CLOSED_PIPE, "")


def test_an_error_is_still_told_where_errors_are_read(tmp_path: Path) -> None:
    status, errors = run(*GENLAB, "inspect", str(tmp_path))
    assert status == 2
    assert errors.startswith(f"error: {tmp_path}: not a data set")


def test_no_output_at_all_is_read(tmp_path: Path) -> None:
    status, _ = run(*GENLAB, "inspect", str(tmp_path), errors_too=True)
    assert status != 0


BROKEN_SOCKET = """
import socket
from genlab.core.errors import run_command

def send():
    here, there = socket.socketpair()
    there.close()
    here.send(b"hello")

run_command(send)
"""


def test_another_pipe_that_breaks_is_no_reason_to_end_in_silence() -> None:
    ended = subprocess.run([sys.executable, "-c", BROKEN_SOCKET], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "BrokenPipeError" in ended.stderr
