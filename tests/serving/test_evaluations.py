"""Cards show what was measured of the very weights that are served."""

import asyncio
import json
import logging
import shutil
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from genlab.cli.promote import PromoteConfig, promote
from genlab.core.storage import locate
from genlab.evaluation.measurements import Evaluation, Measurement
from genlab.serving import beside
from genlab.serving.library import Library
from genlab.serving.limits import Limits
from genlab.serving.schema import ModelCard, Quality
from genlab.serving.service import create_app
from genlab.serving.settings import Access, Settings
from genlab.serving.telemetry import PrometheusTelemetry
from tests.serving.conftest import evaluate_as


@pytest.fixture
def run(served_runs: Path, tmp_path: Path) -> Path:
    """A run with a model and an evaluation of it."""
    return Path(shutil.copytree(served_runs / "digits", tmp_path / "runs" / "digits"))


def quality(source: Path) -> list[Quality]:
    """What the card of ``digits`` says of a server that has just started."""
    library = Library([str(source)], limits=Limits(), device="cpu")
    return list(library.evaluations.of(library.models["digits"].find(None)))


def test_the_card_has_kid_and_fid_with_intervals_and_settings(run: Path) -> None:
    app = create_app((str(run),), Limits(), Access(), Settings(runtime="pytorch"), PrometheusTelemetry())
    client = TestClient(app, base_url="http://localhost:8000")
    card = ModelCard.model_validate(client.get("/v1/models/digits").json())
    assert [card] == [ModelCard.model_validate(each) for each in client.get("/v1/models").json()]
    assert [one.name for one in card.quality] == ["kid", "fid_infinity"]
    kid = card.quality[0]
    assert (kid.value, kid.interval) == (0.0625, (0.0625 - 2**-8, 0.0625 + 2**-8))
    assert (kid.images, kid.extractor, kid.title) == (5000, "classifier, 128", "KID in classifier features")
    assert (kid.settings["split"], kid.settings["rows"], kid.settings["data"]) == ("test", 10_000, "0" * 64)


def test_an_evaluation_of_other_weights_is_not_shown(run: Path) -> None:
    evaluate_as(run, weights="f" * 64)
    assert quality(run) == []
    (run / "evaluation.json").unlink()
    assert quality(run) == []


def test_an_evaluation_goes_with_a_model_that_is_promoted(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, file = tmp_path / "models", run / "evaluation.json"
    to_store = PromoteConfig(str(run), str(store), add_probes=True)
    measured = file.read_bytes()
    evaluate_as(run, weights="f" * 64)
    promote(to_store)
    assert f"digits: without {file}, which is of other weights" in capsys.readouterr().out
    assert quality(store) == []
    file.write_bytes(measured)
    promote(to_store)
    assert "digits: with its evaluation" in capsys.readouterr().out
    assert [one.name for one in quality(store)] == ["kid", "fid_infinity"]
    [version] = (store / "digits").iterdir()
    assert Evaluation.load(locate(version)) == Evaluation.load(locate(run))


def test_a_server_looks_again_for_evaluations(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = run / "evaluation.json"
    measured = file.read_bytes()
    file.unlink()
    library = Library([str(run)], limits=Limits(), device="cpu")
    version = library.models["digits"].find(None)
    file.write_bytes(measured)
    asyncio.run(library.refresh())
    assert not library.evaluations.of(version), "within a minute"
    monkeypatch.setattr(beside, "AGAIN_SECONDS", 0.0)
    asyncio.run(library.refresh())
    assert [one.value for one in library.evaluations.of(version)] == [0.0625, 5.25]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"interval": [', '"interval": ["x",', "damaged"),
        ('"figures"', '"others"', "damaged"),
        ('"version": 1', '"version": 2', "this genlab reads format 1"),
        ("{", "", "not valid JSON"),
    ],
)
def test_a_damaged_evaluation_is_logged_and_the_model_served(
    before: str, after: str, message: str, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = run / "evaluation.json"
    file.write_text(file.read_text().replace(before, after))
    with caplog.at_level(logging.WARNING):
        assert quality(run) == []
    assert message in caplog.text


def test_a_translator_shows_both_directions_and_what_it_does_not_know_is_null(run: Path) -> None:
    weights = json.loads((run / "model" / "genlab.json").read_text())["weights"]["sha256"]
    one_way: dict[str, str | int | float] = {"extractor": "efficientnet-lite0, pooled", "samples": 30}
    both_ways: dict[str, str | int | float] = {
        "extractor": "efficientnet-lite0, pooled",
        "samples_a_to_b": 30,
        "samples_b_to_a": 40,
    }
    measurements = {
        "untranslated_kid_a_to_b": Measurement("before", 0.5, one_way),
        "kid_b_to_a": Measurement("there", float("nan"), one_way),
        "kid_a_to_b": Measurement("back", 0.25, one_way),
        "kid": Measurement("both", 0.375, both_ways),
    }
    Evaluation("digits", {"weights": weights}, measurements).save(locate(run / "evaluation.json"))
    found = quality(run)
    assert [one.name for one in found] == ["kid", "kid_a_to_b", "kid_b_to_a"]
    assert [(one.value, one.interval, one.images) for one in found] == [
        (0.375, None, None),
        (0.25, None, 30),
        (None, None, 30),
    ]
