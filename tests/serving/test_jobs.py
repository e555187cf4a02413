"""Jobs over HTTP: what they give, whose they are, what is refused, and who goes on when a replica ends."""

import contextlib
import io
import json
import re
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from genlab.client import Answer
from genlab.core import claims
from genlab.core.storage import create_exclusive, locate
from genlab.inference.engine import Engine
from genlab.serving import jobs
from genlab.serving.computing import Computer
from genlab.serving.job_store import Draft, Job, JobName, JobStore, Progress
from genlab.serving.limits import Limits
from genlab.serving.problems import Problem
from genlab.serving.service import create_app
from genlab.serving.settings import Access, Settings
from genlab.serving.telemetry import PrometheusTelemetry
from genlab.serving.tokens import add_token
from tests.s3 import Bucket

LIMITS = Limits(images=4, body_bytes=2**20, jobs=30, job_images=50, job_bytes=2**22)


@contextlib.contextmanager
def serving(
    runs: Path, folder: str | Path | None, limits: Limits = LIMITS, access: Access | None = None, hours: float = 1.0
) -> Iterator[TestClient]:
    settings = Settings(runtime="pytorch", exact=True, jobs=None if folder is None else str(folder), job_hours=hours)
    app = create_app((str(runs),), limits, access or Access(), settings, PrometheusTelemetry())
    with TestClient(app, "http://localhost", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server") / "jobs"


@pytest.fixture(scope="module")
def client(served_runs: Path, folder: Path) -> Iterator[TestClient]:
    with serving(served_runs, folder) as client:
        yield client


def photo(seed: int, height: int = 24, width: int = 40) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def submit_form(client: TestClient, pictures: list[bytes], **headers: str) -> httpx.Response:
    form = {"model": "monet", "operation": "translate", "parameters": '{"direction": "b_to_a"}'}
    files = [("image", ("photo", picture)) for picture in pictures]
    return client.post("/v1/jobs", data=form, files=files, headers=headers)


def submit(client: TestClient, model: str, operation: str, **parameters: Any) -> httpx.Response:
    return client.post("/v1/jobs", json={"model": model, "operation": operation, "parameters": parameters})


def ended(client: TestClient, response: httpx.Response) -> dict[str, Any]:
    """The status of a submitted job when it has ended."""
    assert response.status_code == 202, response.text
    for _ in range(600):
        status: dict[str, Any] = client.get(response.headers["location"]).json()
        if status["state"] not in ("waiting", "running"):
            return status
        time.sleep(0.05)
    raise AssertionError(status)


def kind_of(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    return str(response.json()["type"]).removeprefix("/problems/")


def test_many_pictures_are_translated_as_one_by_one(client: TestClient) -> None:
    pictures = [photo(seed) for seed in range(6)]
    response = submit_form(client, pictures)
    first = response.json()
    assert (first["pictures"], first["operation"]) == (6, "translate")
    assert response.headers["location"] == f"/v1/jobs/{first['id']}"
    status = ended(client, response)
    assert (status["state"], status["done"], status["failures"], status["error"]) == ("done", 6, {}, None)
    result = client.get(f"{response.headers['location']}/result")
    assert result.headers["content-type"] == "application/zip"
    assert result.headers["x-genlab-version"] == status["version"] == client.get("/v1/models/monet").json()["version"]
    with zipfile.ZipFile(io.BytesIO(result.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"{number:03d}.png" for number in range(6)]
        for number, picture in enumerate(pictures):
            alone = client.post("/v1/models/monet/translate?direction=b_to_a", content=picture)
            assert archive.read(f"{number:03d}.png") == alone.content
    assert client.get(f"{response.headers['location']}/result").content == result.content


def test_a_sample_may_be_larger_than_that_of_a_request(client: TestClient, served_runs: Path) -> None:
    response = submit(client, "digits", "sample", count=41)
    status = ended(client, response)
    seed = status["parameters"]["seed"]
    result = client.get(f"/v1/jobs/{status['id']}/result")
    pixels = Answer(result.content, "application/zip", "", True, None).pixels()
    np.testing.assert_array_equal(pixels, Engine(served_runs / "digits" / "model", "cpu").sample(41, seed))


def test_a_single_picture_is_the_answer_itself(client: TestClient) -> None:
    status = ended(client, submit(client, "digits", "sample", seed=3))
    result = client.get(f"/v1/jobs/{status['id']}/result")
    assert result.content == client.post("/v1/models/digits/sample", json={"seed": 3}).content
    as_zip = client.get(f"/v1/jobs/{status['id']}/result", headers={"Accept": "application/zip"})
    with zipfile.ZipFile(io.BytesIO(as_zip.content)) as archive:
        assert archive.read("000.png") == result.content


@pytest.mark.slow
def test_what_goes_between_pictures_is_a_job_too(client: TestClient) -> None:
    status = ended(client, submit(client, "digits", "interpolate_draws", seeds=[1, 2], steps=3))
    assert (status["state"], status["pictures"]) == ("done", 3)
    assert kind_of(submit(client, "digits", "interpolate_draws", seeds=[1, 2], steps=5), 422) == "too-many-pictures"


def test_a_picture_that_cannot_be_used_does_not_stop_the_others(client: TestClient) -> None:
    pictures = [photo(0), photo(1)[:-200], photo(2)]
    status = ended(client, submit_form(client, pictures))
    assert (status["state"], list(status["failures"])) == ("done", ["1"])
    result = client.get(f"/v1/jobs/{status['id']}/result")
    with zipfile.ZipFile(io.BytesIO(result.content)) as archive:
        assert archive.namelist() == ["000.png", "002.png"]
    all_bad = ended(client, submit_form(client, [photo(1)[:-200]]))
    assert all_bad["state"] == "failed"
    assert all_bad["error"].startswith("the picture ")
    assert kind_of(client.get(f"/v1/jobs/{all_bad['id']}/result"), 409) == "job-failed"


def test_a_submission_that_is_sent_again_is_the_same_job(client: TestClient) -> None:
    first = submit_form(client, [photo(0)], **{"Idempotency-Key": "mine-1"})
    again = submit_form(client, [photo(0)], **{"Idempotency-Key": "mine-1"})
    assert again.status_code == 202
    assert again.json()["id"] == first.json()["id"]
    other = submit_form(client, [photo(1)], **{"Idempotency-Key": "mine-1"})
    assert kind_of(other, 422) == "idempotency-key-reused"
    assert submit_form(client, [photo(0)]).json()["id"] != first.json()["id"]
    assert kind_of(submit_form(client, [photo(0)], **{"Idempotency-Key": "two words"}), 400) == "bad-request"


def test_a_deleted_job_leaves_nothing(client: TestClient, folder: Path) -> None:
    response = submit_form(client, [photo(seed) for seed in range(8)], **{"Idempotency-Key": "gone"})
    job_id = response.json()["id"]
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 204
    for _ in range(600):
        if not [path for path in folder.rglob("*") if job_id in str(path)]:
            break
        time.sleep(0.05)
    else:
        raise AssertionError([*folder.rglob(f"*{job_id}*")])
    assert kind_of(client.get(f"/v1/jobs/{job_id}"), 404) == "no-such-job"
    again = submit_form(client, [photo(9)], **{"Idempotency-Key": "gone"})
    assert again.status_code == 202, "its key may be used again"
    assert again.json()["id"] != job_id


def test_a_job_is_deleted_when_no_picture_of_it_is_being_written(
    client: TestClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that comes into the folder while it is being removed would stay for ever."""
    write, delete = JobStore.write_result, JobStore.delete
    begun, written = threading.Event(), threading.Event()
    pictures = 7
    in_time: list[bool] = []

    def write_slowly(store: JobStore, job: Job, number: int, png: bytes) -> None:
        slow = job.count == pictures and not begun.is_set()  # Jobs of other tests may be at work.
        if slow:
            begun.set()
            time.sleep(1)
        write(store, job, number, png)
        if slow:
            written.set()

    def note(store: JobStore, name: JobName) -> None:
        in_time.append(written.is_set())
        delete(store, name)

    monkeypatch.setattr(JobStore, "write_result", write_slowly)
    monkeypatch.setattr(JobStore, "delete", note)
    job_id = submit_form(client, [photo(seed) for seed in range(pictures)]).json()["id"]
    assert begun.wait(30)
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 204
    for _ in range(600):
        if not [path for path in folder.rglob("*") if job_id in str(path)]:
            break
        time.sleep(0.05)
    assert in_time == [True]


@pytest.mark.parametrize(
    ("body", "status", "kind", "detail"),
    [
        ({"operation": "sample"}, 422, "invalid", "model: "),
        ({"model": "digits"}, 422, "invalid", "operation: "),
        ({"model": "digits", "operation": "encode"}, 422, "invalid", "operation: choose from sample, translate"),
        ({"model": "manet", "operation": "sample"}, 404, "no-such-model", "no model 'manet'"),
        ({"model": "../digits", "operation": "sample"}, 404, "no-such-model", "no model '../digits'"),
        ({"model": "monet", "operation": "sample"}, 422, "no-such-operation", "monet has no operation 'sample'"),
        ({"model": "monet", "operation": "translate"}, 422, "wrong-pictures", "translate takes one or more"),
        ({"model": "digits", "operation": "sample", "count": 2}, 422, "invalid", "count: a job has"),
        ({"model": "digits", "operation": "sample", "parameters": [1]}, 422, "invalid", "parameters: "),
        ({"model": "digits", "operation": "sample", "parameters": {"size": 2}}, 422, "invalid", "size: "),
        ({"model": "digits", "operation": "sample", "parameters": {"label": "zero"}}, 422, "invalid", "label: "),
        ({"model": "digits", "operation": "sample", "parameters": {"count": 51}}, 422, "too-many-pictures", "51 "),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(
    client: TestClient, folder: Path, body: dict[str, Any], status: int, kind: str, detail: str
) -> None:
    before = set(folder.glob("queue/*"))
    response = client.post("/v1/jobs", json=body)
    assert kind_of(response, status) == kind
    assert response.json()["detail"].startswith(detail)
    assert set(folder.glob("queue/*")) <= before, "jobs of other tests may have ended meanwhile"


def test_a_submission_has_limits_of_its_own(client: TestClient) -> None:
    noise = [photo(seed, 300, 300) for seed in range(17)]
    assert sum(map(len, noise[:5])) > LIMITS.body_bytes
    assert submit_form(client, noise[:5]).status_code == 202, "more than a request may send"
    assert kind_of(client.post("/v1/models/monet/translate", content=bytes(2**20 + 1)), 413) == "body-too-large"
    assert sum(map(len, noise)) > LIMITS.job_bytes
    assert kind_of(submit_form(client, noise), 413) == "body-too-large"
    assert kind_of(submit_form(client, [photo(0, 2, 2)] * 51), 422) == "wrong-pictures"
    assert kind_of(submit_form(client, [photo(0), b"hello"]), 415) == "unsupported-media-type"


@pytest.mark.parametrize("parameters", ["[1]", "{", '{"direction": NaN}', "[" * 100_000])
def test_parameters_of_a_form_are_an_object(client: TestClient, parameters: str) -> None:
    form = {"model": "monet", "operation": "translate", "parameters": parameters[:60_000]}
    response = client.post("/v1/jobs", data=form, files=[("image", ("photo", photo(0)))])
    assert kind_of(response, 422) == "invalid"
    assert response.json()["detail"].startswith("parameters: ")


@pytest.mark.parametrize("job_id", ["0" * 32, "..", "..%2f..%2fkeys", "A" * 32, "%00", "x" * 5000])
def test_what_is_no_job_is_not_found(client: TestClient, job_id: str) -> None:
    for path in (f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}/result"):
        assert client.get(path).status_code == 404
    assert client.delete(f"/v1/jobs/{job_id}").status_code in (404, 405)


@pytest.mark.slow
def test_a_job_belongs_to_its_token(served_runs: Path, tmp_path: Path) -> None:
    tokens = str(tmp_path / "tokens.json")
    alice, bob = ({"Authorization": f"Bearer {add_token(tokens, name)}"} for name in ("alice", "bob"))
    access, limits = Access(tokens=tokens), Limits(jobs=1)
    body = {"model": "digits", "operation": "sample", "parameters": {"seed": 1}}
    with serving(served_runs, tmp_path / "jobs", limits, access) as client:
        key = {"Idempotency-Key": "1"}
        place = client.post("/v1/jobs", json=body, headers=alice | key).headers["location"]
        assert client.get(place, headers=alice).status_code == 200
        for refused in (client.get(place, headers=bob), client.delete(place, headers=bob)):
            assert kind_of(refused, 404) == "no-such-job"
        assert kind_of(client.post("/v1/jobs", json=body, headers=alice), 429) == "too-many-jobs"
        of_bob = client.post("/v1/jobs", json=body, headers=bob | key)
        assert of_bob.status_code == 202, "neither keys nor limits are shared"
        assert of_bob.headers["location"] != place
        assert client.delete(place, headers=alice).status_code == 204


def test_a_server_without_a_folder_takes_no_jobs(served_runs: Path) -> None:
    with serving(served_runs, None) as client:
        refused = submit(client, "digits", "sample")
        assert kind_of(refused, 404) == "no-jobs"
        assert "a folder" in refused.json()["detail"]
        assert kind_of(client.get(f"/v1/jobs/{'0' * 32}"), 404) == "no-jobs"


def left_by_another(client: TestClient, store: JobStore, count: int) -> Any:
    """A job as a replica leaves it that ended before it computed anything."""
    version = client.get("/v1/models/digits").json()["version"]
    asked = Draft("digits", version, "sample", {"count": count, "seed": 5}, count, "hash", ())
    return store.submit("", asked, None, 1000)


@pytest.mark.slow
def test_what_is_there_is_not_computed_again(client: TestClient, served_runs: Path, tmp_path: Path) -> None:
    store = JobStore(str(tmp_path), 3600)
    job = left_by_another(client, store, 3)
    store.write_result(job, 1, b"as another replica left it")
    with serving(served_runs, tmp_path) as another:
        response = another.get(f"/v1/jobs/{job.id}")
        response.status_code, response.headers["location"] = 202, f"/v1/jobs/{job.id}"
        assert ended(another, response)["state"] == "done"
        with zipfile.ZipFile(io.BytesIO(another.get(f"/v1/jobs/{job.id}/result").content)) as archive:
            assert archive.read("001.png") == b"as another replica left it"
            two = client.post(
                "/v1/models/digits/sample", json={"count": 3, "seed": 5}, headers={"Accept": "application/zip"}
            )
            with zipfile.ZipFile(io.BytesIO(two.content)) as expected:
                assert archive.read("002.png") == expected.read("002.png")


@pytest.mark.slow
def test_a_job_that_ends_every_replica_is_given_up(client: TestClient, served_runs: Path, tmp_path: Path) -> None:
    store = JobStore(str(tmp_path), 3600)
    job = left_by_another(client, store, 2)
    store.write_progress(job, Progress("running", 0, attempts=jobs.ATTEMPTS))
    with serving(served_runs, tmp_path) as another:
        for _ in range(600):
            status = another.get(f"/v1/jobs/{job.id}").json()
            if status["state"] == "failed":
                break
            time.sleep(0.05)
    assert status["error"] == "given up: 5 times no further picture could be computed"
    assert not [*(tmp_path / "queue").iterdir()]


def test_jobs_go_on_when_their_folder_could_not_be_read_for_a_while(
    served_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished, failed = JobStore.unfinished, list[bool]()

    def broken_at_first(store: JobStore) -> list[JobName]:
        if len(failed) < 2:
            failed.append(True)
            raise OSError(5, "Input/output error")
        return unfinished(store)

    monkeypatch.setattr(JobStore, "unfinished", broken_at_first)
    monkeypatch.setattr(jobs, "LOOK_SECONDS", 0.05)
    with serving(served_runs, tmp_path) as client:
        assert ended(client, submit(client, "digits", "sample", count=1))["state"] == "done"
    assert len(failed) == 2


def test_a_server_that_is_too_busy_leaves_a_job_waiting_however_often(
    served_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, busy = Computer.compute, list[bool]()

    async def busy_at_first(computer: Computer, *arguments: Any) -> Any:
        if len(busy) < 2 * jobs.ATTEMPTS:
            busy.append(True)
            raise Problem(503, "overloaded", "too many requests are waiting", retry_after=0.01)
        return await compute(computer, *arguments)

    monkeypatch.setattr(Computer, "compute", busy_at_first)
    monkeypatch.setattr(jobs, "TRIES", 1)
    monkeypatch.setattr(jobs, "LOOK_SECONDS", 0.05)
    with serving(served_runs, tmp_path) as client:
        assert ended(client, submit(client, "digits", "sample", count=1))["state"] == "done"
    assert len(busy) == 2 * jobs.ATTEMPTS


def test_a_job_expires(client: TestClient, served_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "SWEEP_SECONDS", 0.2)  # what is too young for one sweep is old enough for the next
    store = JobStore(str(tmp_path), 0.01)
    job = left_by_another(client, store, 2)
    for name in ("job.json", "expiry"):  # a submission, and a deletion, that were cut short
        cut_short = left_by_another(client, store, 2)
        for path in tmp_path.rglob(f"*{cut_short.id}*"):
            if path.is_dir():
                (path / "job.json").unlink()
            elif path.parent.name == name:
                path.unlink()
    time.sleep(0.02)
    with serving(served_runs, tmp_path, hours=0.01 / 3600) as another:
        assert kind_of(another.get(f"/v1/jobs/{job.id}"), 404) == "no-such-job"
        for _ in range(600):
            with contextlib.suppress(FileNotFoundError):  # a folder that is deleted while it is listed
                if not [path for path in tmp_path.rglob("*") if path.is_file()]:
                    return
            time.sleep(0.05)
    raise AssertionError([*tmp_path.rglob("*")])


def test_a_path_says_which_methods_it_takes(client: TestClient) -> None:
    refused = client.put(f"/v1/jobs/{'0' * 32}")
    assert (kind_of(refused, 405), refused.headers["allow"]) == ("method-not-allowed", "DELETE, GET")


def test_the_description_names_operations_and_fields(client: TestClient) -> None:
    path = client.get("/openapi.json").json()["paths"]["/v1/jobs"]["post"]
    schema = path["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert schema["required"] == ["model", "operation"]
    assert schema["properties"]["image"].items() >= {"minItems": 0, "maxItems": LIMITS.job_images}.items()
    assert {"image", "begin", "end", "parameters"} <= set(schema["properties"])
    assert "translate" in schema["properties"]["operation"]["enum"]


@pytest.mark.slow
def test_jobs_on_s3_outlive_the_replica_that_held_them(
    client: TestClient, served_runs: Path, s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT", 0.2)
    monkeypatch.setattr(claims, "LEASE_TIMEOUT", 1.0)
    monkeypatch.setattr(jobs, "LOOK_SECONDS", 0.3)
    url = f"{s3.url}/jobs"
    job = left_by_another(client, JobStore(url, 3600), 40)
    [marker] = [path.name for path in locate(f"{url}/queue").iterdir()]
    _, owner, _ = marker.split("-")
    lease = locate(f"{url}/{owner}/jobs/{job.id}/job-00000.lease")
    create_exclusive(lease, json.dumps({"holder": "a dead process", "token": "x", "sign": 0}).encode())
    with serving(served_runs, url) as another:
        for _ in range(600):
            if another.get(f"/v1/jobs/{job.id}").json()["state"] == "done":
                break
            time.sleep(0.1)
        result = another.get(f"/v1/jobs/{job.id}/result").content
        pixels = Answer(result, "application/zip", "", True, None).pixels()
        np.testing.assert_array_equal(pixels, Engine(served_runs / "digits" / "model", "cpu").sample(40, 5))
        assert another.delete(f"/v1/jobs/{job.id}").status_code == 204
        assert another.get(f"/v1/jobs/{job.id}").status_code == 404
        assert re.fullmatch("[0-9a-f]{32}", job.id)
    assert not [*locate(f"{url}/queue").glob("*")]
    assert not [*locate(f"{url}/expiry").glob("*")]
