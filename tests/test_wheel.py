"""The wheel: what is in it, and that it works where it is installed, away from this checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

from genlab import __version__
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed, without this checkout on its path; return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    ended = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources, since a build leaves files among them."""
    sources, built = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for folder in ("genlab", "jobs", "tests", "tune_spaces"):
        shutil.copytree(REPOSITORY / folder, sources / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(REPOSITORY / file, sources)
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir")
    run(sys.executable, "-m", "pip", "wheel", *options, built, sources, cwd=built)
    [archive] = built.iterdir()
    return archive


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that holds the wheel and sees the packages of this one."""
    root = tmp_path_factory.mktemp("environment")
    venv.create(root)
    python = root / "bin" / "python"
    options = ("--quiet", "--no-deps", "--no-index")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel, cwd=root)
    # After the installation, which must not see the genlab that is installed here.
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=root).strip())
    (packages / "packages-of-the-tests.pth").write_text(sysconfig.get_path("purelib"))
    return root / "bin"


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = Parser().parsestr(archive.read(f"genlab-{__version__}.dist-info/METADATA").decode())
    assert {name.partition("/")[0] for name in names} == {"genlab", f"genlab-{__version__}.dist-info"}
    sources = {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "genlab").rglob("*")
        if path.suffix in (".py", ".html", ".css", ".js", ".svg", ".typed")
    }
    assert {name for name in names if name.startswith("genlab/")} == sources
    assert "genlab/py.typed" in sources
    assert any(name.endswith(".html") for name in sources)
    assert {"serve", "onnx", "fidelity"} <= set(metadata.get_all("Provides-Extra", []))
    always = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert any(line.startswith("torch") for line in always)
    assert not any(line.startswith(("fastapi", "onnx", "torch-fidelity")) for line in always)


def test_a_model_is_trained_and_reported_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    place = run(installed / "python", "-c", "import genlab; print(genlab.__file__)", cwd=tmp_path)
    assert Path(place.strip()).is_relative_to(installed.parent)
    genlab = installed / "genlab"
    assert run(genlab, "--version", cwd=tmp_path) == f"genlab {__version__}\n"
    run(genlab, "ingest", "synthetic:digits", "digits", "--count", "40", cwd=tmp_path)
    options = ("--run.workers", "0", "--run.steps", "2", "--run.batch", "8", "--data.images", "digits")
    run(genlab, "train", "vae", *options, "--run.storage", "runs", "--run.name", "first", cwd=tmp_path)
    report = tmp_path / "runs" / "first" / "report.html"
    report.unlink(missing_ok=True)
    run(genlab, "report", "runs/first", cwd=tmp_path)
    assert "<html" in report.read_text()
    run(genlab, "sample", "runs/first", "sheet.png", cwd=tmp_path)
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
