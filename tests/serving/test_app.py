"""The application on a real Ray Serve, as `serve run` and `genlab serve` start it."""

import io
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pydantic import ValidationError
from ray import serve
from ray.serve._private import api as _private_api
from ray.serve.schema import ServeDeploySchema

from genlab.cli.serve import ServeConfig, serve_models
from genlab.core.errors import ConfigError, GenlabError
from genlab.core.ray_cluster import connected
from genlab.serving.app import ServeArguments, build
from genlab.serving.settings import TLS
from genlab.store import model_directory
from tests.serving.every_operation import ask_every_operation

CONFIG = Path(__file__).resolve().parents[2] / "cluster" / "serve.yaml"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/livez").status_code == 200
    except httpx.TransportError:
        return False


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(900):
        if condition():
            return
        time.sleep(0.2)
    raise AssertionError("waited in vain")


def test_models_on_the_command_line_are_divided_by_commas() -> None:
    assert ServeArguments.model_validate({"models": "/runs/a,/runs/b"}).models == ["/runs/a", "/runs/b"]


def test_the_application_needs_models(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="models"):
        ServeArguments.model_validate({"models": []})
    with pytest.raises(GenlabError, match="not a model directory"):
        build(ServeArguments(models=[str(tmp_path)]))


@pytest.mark.parametrize("name", ["{model}", "50%", "a?b", "a#b"])
def test_a_name_that_a_url_cannot_hold_is_refused(name: str, served_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(served_runs / "digits", tmp_path / name)
    model = str(tmp_path / name)
    with pytest.raises(GenlabError, match=r"would be served as .*rename the directory"):
        serve_models(ServeConfig(models=(model,)))
    with pytest.raises(GenlabError, match=r"would be served as .*rename the directory"):
        build(ServeArguments(models=[model]))


def test_serve_says_before_it_starts_what_is_wrong(served_runs: Path, tmp_path: Path) -> None:
    digits = str(served_runs / "digits")
    with pytest.raises(GenlabError, match="not a model directory"):
        serve_models(ServeConfig(models=(str(tmp_path),)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(GenlabError, match=f"--port {port}"):
            serve_models(ServeConfig(models=(digits,), port=port))
    with pytest.raises(GenlabError, match="genlab token"):
        serve_models(ServeConfig(models=(digits,), host="0.0.0.0"))
    with pytest.raises(GenlabError, match=r"--tls.certificate .*cannot be used"):
        serve_models(ServeConfig(models=(digits,), tls=TLS(certificate=str(tmp_path / "absent.pem"))))


def test_serve_ends_with_a_message_if_no_model_can_be_loaded(served_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(served_runs / "digits", tmp_path / "digits")
    (tmp_path / "digits" / "model" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(GenlabError, match="damaged"):
        serve_models(ServeConfig(models=(str(tmp_path / "digits"),), port=free_port()))


@pytest.fixture(scope="module")
def deployed(served_runs: Path) -> Iterator[str]:
    """The URL of the application of cluster/serve.yaml, with the test's models and port."""
    config = yaml.safe_load(CONFIG.read_text())
    [application] = config["applications"]
    application["args"]["models"] = [str(served_runs / "digits"), str(served_runs / "monet")]
    config["http_options"]["port"] = free_port()
    schema = ServeDeploySchema.model_validate(config)
    with connected():
        options = schema.http_options.model_dump()
        client = _private_api.serve_start(http_options=options, proxy_location=schema.proxy_location)
        try:
            client.deploy_apps(schema, _blocking=False)  # as `serve run FILE` does
            url = f"http://127.0.0.1:{config['http_options']['port']}"
            wait_for(lambda: answers(url))
            yield url
        finally:
            serve.shutdown()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As a replica of one CPU: the last bit of a sum depends on the threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.cluster
@pytest.mark.usefixtures("one_thread")
def test_pictures_over_http_are_those_of_the_model(deployed: str, served_runs: Path) -> None:
    assert [model["name"] for model in httpx.get(f"{deployed}/v1/models").json()] == ["digits", "monet"]

    digits: Any = model_directory.load(str(served_runs / "digits" / "model"))
    response = httpx.post(f"{deployed}/v1/models/digits/sample", json={"seed": 3}, timeout=60)
    assert response.headers["X-Genlab-Seed"] == "3"
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(response.content))), digits.sample(1, 3)[0, :, :, 0].numpy()
    )

    monet: Any = model_directory.load(str(served_runs / "monet" / "model"))
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    response = httpx.post(f"{deployed}/v1/models/monet/translate?direction=b_to_a", content=file.getvalue(), timeout=60)
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(response.content))),
        monet.translate(torch.tensor(pixels)[None], "b_to_a")[0].numpy(),
    )


@pytest.mark.cluster
def test_limits_and_errors_hold_over_http(deployed: str) -> None:
    translate = f"{deployed}/v1/models/monet/translate"
    large = io.BytesIO()
    Image.new("RGB", (4200, 4200)).save(large, "PNG")
    for body, status in ((bytes(17 << 20), 413), (large.getvalue(), 413), (b"hello", 415), (truncated(), 422)):
        response = httpx.post(translate, content=body, timeout=60)
        assert (response.status_code, response.json()["status"]) == (status, status)


def truncated() -> bytes:
    """A picture that only the replica finds to be damaged."""
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(file, "JPEG")
    return file.getvalue()[:-200]


def test_an_address_of_ipv6_is_listened_on(
    model_runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("uvicorn.Server.run", lambda server: None)
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = other.getsockname()[1]
        config = ServeConfig(models=(str(model_runs / "digits"),), host="::1", port=port)
        with pytest.raises(ConfigError, match=f"--host ::1 --port {port}: .*in use"):
            serve_models(config)
    serve_models(config)
    assert f"serving at http://[::1]:{port} until" in capsys.readouterr().out


@pytest.mark.slow
def test_genlab_serve_answers_for_every_family_until_it_is_told_to_end(
    served_runs: Path, model_runs: Path, tmp_path: Path
) -> None:
    port = free_port()
    program = [sys.executable, "-c", "from genlab.cli.serve import main; main()"]
    command = [*program, str(served_runs), str(model_runs / "faces")]
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log)
        try:
            wait_for(lambda: answers(f"http://127.0.0.1:{port}") or process.poll() is not None)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
                asked = ask_every_operation(client)
            assert {family for family, _ in asked.values()} == {"vae", "cvae", "cyclegan", "stylegan"}
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
            print((tmp_path / "log").read_text())  # shown if the test fails
    assert f"serving at http://127.0.0.1:{port}" in (tmp_path / "log").read_text()
