"""The command line: what there is, what each command takes, and how a mistake ends."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from genlab import __version__
from genlab.cli import main as cli
from genlab.data.ingest.ingest import IngestConfig, ingest
from tests.s3 import SETTINGS

LOADED = """
import sys
from genlab.cli import main as cli
sys.argv = ["genlab", "--help"]
cli.main()
print({"torch", "ray", "pyarrow"} & set(sys.modules))
"""


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of ``genlab ARGUMENTS``."""
    monkeypatch.setattr(sys, "argv", ["genlab", *arguments])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands_and_the_way_to_train(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 0
    shown = capsys.readouterr().out
    assert all(f"  {command} " in shown for command in ("ingest", "inspect", "report", "translate", "serve"))
    assert "-- genlab train cyclegan" in shown


def test_help_is_quick_to_import() -> None:
    printed = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "set()"


def test_the_version_is_the_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"genlab {__version__}\n"


def test_an_unknown_command_is_refused_with_those_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "ingst", "a", "b") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "error: ingst: no such command; did you mean ingest?" in printed.err
    assert "  ingest " in printed.err


@pytest.mark.parametrize(
    "command", ["report", "ledger", "plan-checkpoints", "describe", "export", "sample", "evaluate"]
)
def test_a_store_that_knows_nobody_ends_in_one_message(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    more = {"export": ["out"], "sample": ["out.png"]}.get(command, [])
    assert run(monkeypatch, command, "s3://bucket/runs/digits", *more) == 2
    printed = capsys.readouterr().err
    assert re.search("error: s3://bucket/runs/digits.*: no request was made .*credentials", printed)
    S3FileSystem.clear_instance_cache()


def test_a_picture_of_a_data_set_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ingest(IngestConfig("synthetic:digits", str(tmp_path / "data"), count=4))
    (tmp_path / "file").touch()
    grid = tmp_path / "file" / "grid.png"
    assert run(monkeypatch, "inspect", str(tmp_path / "data"), "--grid", str(grid)) == 2
    assert f"error: {grid}: cannot be written (" in capsys.readouterr().err


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_each_command_explains_itself_by_its_name(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, command, "--help") == 0
    assert f"usage: genlab {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ingest", "{tmp}/nothing", "{tmp}/out"], "{tmp}/nothing"),
        (["ingest", "synthetic:nothing", "{tmp}/out"], "nothing"),
        (["inspect", "{tmp}/nothing"], "{tmp}/nothing: not a data set"),
        (["export", "{tmp}/nothing", "{tmp}/out"], "{tmp}/nothing: neither a data set"),
        (["report", "{tmp}/nothing"], "{tmp}/nothing"),
        (["plan-checkpoints", "{tmp}/nothing"], "{tmp}/nothing: not a run directory (no config.json)"),
        (["describe", "{tmp}/nothing"], "{tmp}/nothing"),
        (["evaluate", "{tmp}/nothing"], "{tmp}/nothing"),
        (["compare", "{tmp}/nothing", "{tmp}/out"], "{tmp}/nothing: no such file"),
        (["sample", "{tmp}/nothing", "{tmp}/out.png"], "{tmp}/nothing"),
        (["reconstruct", "{tmp}/nothing", "{tmp}/in.png", "{tmp}/out.png"], "{tmp}/nothing"),
        (["encode", "{tmp}/nothing", "{tmp}/in.png", "{tmp}/out.json"], "{tmp}/nothing"),
        (["decode", "{tmp}/nothing", "{tmp}/in.json", "{tmp}/out.png"], "{tmp}/nothing"),
        (["interpolate", "{tmp}/nothing", "{tmp}/out.png", "--seeds", "1", "2"], "{tmp}/nothing"),
        (["mix", "{tmp}/nothing", "{tmp}/out.png", "--rows", "1", "--columns", "2"], "{tmp}/nothing"),
        (["edit", "{tmp}/nothing", "7", "{tmp}/out.png", "--younger", "20"], "{tmp}/nothing"),
        (["directions", "{tmp}/nothing", "--attributes", "age"], "{tmp}/nothing"),
        (["translate", "{tmp}/nothing", "{tmp}/in.png", "{tmp}/out.png"], "{tmp}/nothing"),
        (["import-weights", "{tmp}/out", "--a-to-b", "{tmp}/a.pth", "--b-to-a", "{tmp}/b.pth"], "{tmp}/a.pth"),
        (["serve", "{tmp}/nothing"], "{tmp}/nothing"),
    ],
)
def test_what_is_not_there_is_named_in_one_message(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert run(monkeypatch, *(argument.format(tmp=tmp_path) for argument in arguments)) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert message.format(tmp=tmp_path) in printed
    assert "Traceback" not in printed
    assert list(tmp_path.iterdir()) == []
