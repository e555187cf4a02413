"""What docs/serving.md shows of curl and of the Python client works against a server."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genlab.client import Client, Retries
from genlab.serving.limits import Limits
from genlab.serving.service import create_app
from genlab.serving.settings import Access, Settings
from genlab.serving.telemetry import PrometheusTelemetry
from tests.conftest import REPOSITORY
from tests.serving.live import live

PAGE = (REPOSITORY / "docs" / "serving.md").read_text(encoding="utf-8")
ADDRESS = "127.0.0.1:8000"
SHELL = "".join(re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
CURLS = [line for line in SHELL.splitlines() if line.startswith("curl ") and ADDRESS in line]
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(served_runs: Path, edited_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with two photos and a portrait, and host and port of a server."""
    folder = tmp_path_factory.mktemp("home")
    encoder = folder / "runs" / "faces-encoder"
    shutil.copytree(edited_runs / "encoder", encoder)
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(folder / "portrait.png")
    for name in ("photo.jpg", "other.jpg"):
        Image.fromarray(np.full((24, 40, 3), 90, np.uint8)).save(folder / name)
    settings = Settings(runtime="pytorch", exact=True, jobs=str(folder / "jobs"))
    sources = (str(served_runs), str(edited_runs / "faces"), str(encoder))
    app = create_app(sources, Limits(), Access(), settings, PrometheusTelemetry())
    with live(app) as port, Client(f"http://127.0.0.1:{port}", retries=Retries(tries=100)) as client:
        client.models()
        yield folder, f"127.0.0.1:{port}"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_lines_of_curl_work(place: tuple[Path, str]) -> None:
    folder, address = place
    job_id = ""
    assert len(CURLS) >= 8
    for line in CURLS:
        command = line.replace(ADDRESS, address).replace("/JOB", f"/{job_id}")
        command = command.replace("curl ", "curl --silent --show-error --fail-with-body ", 1)
        done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout!r}\n{done.stderr!r}"
        if "operation=" in line:
            job_id = json.loads(done.stdout)["id"]
            with Client(f"http://{address}") as client:
                assert client.wait_for_job(job_id, 60, pause=0.05).state == "done"
    for name, head in (
        ("painting.png", b"\x89PNG"),
        ("digits.png", b"\x89PNG"),
        ("film.gif", b"GIF8"),
        ("edited.png", b"\x89PNG"),
        ("paintings.zip", b"PK"),
    ):
        assert (folder / name).read_bytes().startswith(head)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_programs_work(place: tuple[Path, str], program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, address = place
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    exec(compile(program.replace(ADDRESS, address), "docs/serving.md", "exec"), names)
    assert {"paintings", "digits", "younger"} & set(names)
