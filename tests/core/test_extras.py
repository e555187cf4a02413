"""Without the extras a user trains and uses models all the same; what needs one says which."""

import subprocess
import sys
from pathlib import Path

import pytest

from genlab.core.extras import EXTRAS
from tests.evaluation.support import save, vae

WITHOUT = f"""
import sys
from genlab.cli.main import main

sys.modules |= dict.fromkeys({[module for modules in EXTRAS.values() for module in modules]})  # as if not installed
sys.argv = ["genlab", *sys.argv[1:]]
main()
"""


def run_without_extras(*arguments: str | Path) -> tuple[int, str, str]:
    """Run ``genlab`` where no extra is installed: its status, what it prints, and what it says of errors."""
    command = [sys.executable, "-c", WITHOUT, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.fixture(scope="module")
def digits_run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a VAE of drawn digits."""
    return save(tmp_path_factory.mktemp("run") / "digits", vae(), digits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "{run}"], "genlab serve needs fastapi, python_multipart, uvicorn, watchfiles"),
        pytest.param(
            ["export", "{run}", "{out}", "--format", "onnx"],
            "--format onnx needs onnx, onnxscript, onnxruntime",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["evaluate", "{run}", "--classifier", "none", "--inception", "x.pth"],
            "--inception needs torch_fidelity",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_needs_an_extra_names_it(arguments: list[str], message: str, digits_run: Path, tmp_path: Path) -> None:
    status, printed, errors = run_without_extras(
        *(word.format(run=digits_run, out=tmp_path / "out") for word in arguments)
    )
    extra = {"serve": "serve", "export": "onnx", "evaluate": "fidelity"}[arguments[0]]
    assert (status, printed, errors) == (2, "", f"error: {message}; install with: pip install 'genlab[{extra}]'\n")


@pytest.mark.slow
def test_the_rest_does_without(digits_run: Path, digits: Path, tmp_path: Path) -> None:
    options = ["--data.images", str(digits), "--run.workers", "0", "--run.steps", "2", "--run.batch", "8"]
    status, _, errors = run_without_extras(
        "train", "vae", *options, "--run.storage", tmp_path / "runs", "--run.name", "new"
    )
    assert (status, errors) == (0, "")
    for command in (
        ("sample", tmp_path / "runs" / "new", tmp_path / "sheet.png"),
        ("export", digits_run, tmp_path / "out", "--format", "torch-export"),
        ("report", tmp_path / "runs" / "new"),
        ("sweep", "--help"),
        ("verify-ddp", "--help"),
    ):
        assert run_without_extras(*command)[0] == 0, command
    assert (tmp_path / "runs" / "new" / "report.html").exists()
