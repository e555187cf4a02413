"""The loop in this process: what a run leaves, how it goes on, and what is refused before it starts."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from genlab.core.errors import ConfigError, DataError, GenlabError, RunError
from genlab.core.storage import locate
from genlab.data.format.shards import ShardSet
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.inference.engine import Engine
from genlab.store import model_directory
from genlab.store.probes import check
from genlab.training import loop
from genlab.training.checkpoints import Checkpoints
from genlab.training.console import ProgressUpdate, RunConsole
from genlab.training.launch import launch
from genlab.training.loop import train
from genlab.training.plan import make_plan, start_or_resume
from genlab.training.session import LocalSession, from_rank_zero
from genlab.training.tracking import CLOCK_FIELDS, read_metrics
from tests.training.support import state_file

Tiny = Callable[..., Any]


def metrics(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in CLOCK_FIELDS} for line in read_metrics(run / "metrics.jsonl")]


def tensors(run: Path, step: int) -> dict[str, Tensor]:
    return safetensors.torch.load_file(state_file(run / "checkpoints" / f"step-{step:08d}"))


@pytest.fixture(scope="module", params=["vae", "cyclegan"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_run_leaves_all_that_was_promised(family: str, tiny: Tiny, tmp_path: Path) -> None:
    plan = launch(family, tiny(family))
    run = tmp_path / "run"
    lines = metrics(run)
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(3, plan.steps + 1, 3))
    assert lines[-1]["images"] == plan.steps * plan.run.batch
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        f"step-{step:08d}" for step in ((21, 24) if family == "vae" else (6, 12))
    ]
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    name = "train/neg_elbo" if family == "vae" else "train/cycle_a"
    assert [event.step for event in events.Scalars(name)] == [line["step"] for line in lines if line["kind"] == "train"]
    assert events.Tags()["images"]
    if family == "vae":
        table = events.Tensors("latent-spread/text_summary")[-1].tensor_proto.string_val[0].decode().splitlines()
        assert table[0].startswith("| class | images | z₁ min | z₁ max | z₁ SD |")
        assert [row.split(" | ")[0] for row in table[2:]] == [*(f"| {digit}" for digit in range(10)), "| all"]
    assert list((run / "figures" / "step-00000006").glob("*.png"))
    model = model_directory.load(run / "model")
    pixels = torch.zeros(2, *model.image_shape, dtype=torch.uint8)
    assert (model.reconstruct(pixels) if family == "vae" else model.translate(pixels)).shape == pixels.shape  # type: ignore[operator]
    assert model_directory.describe(run / "model")["provenance"]["step"] == plan.steps
    report = check(run / "model", model)
    assert report is not None
    assert report.same
    # Encoding and decoding go through the networks of the others.
    assert {result.probe.operation for result in report.results} == set(model.operations) - {"encode", "decode"}


def test_the_model_of_a_data_set_with_a_range_reads_by_it(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for number in range(12):
        scan = np.random.default_rng(number).integers(0, 4096, (16, 16)).astype(np.uint16)
        Image.fromarray(scan).save(tmp_path / "scans" / f"{number:02d}.png")
    data = str(tmp_path / "data")
    manifest = ingest(
        IngestConfig(str(tmp_path / "scans"), data, size=16, channels=1, range="0:4095", test_fraction=0.25)
    )
    launch("vae", tiny("vae", {"data.images": data, "run.batch": 4}))
    facts = model_directory.describe(tmp_path / "run" / "model")["provenance"]["data"]["images"]
    assert facts == {"path": data, "checksum": manifest.checksum, "value_range": [0, 4095]}
    assert "values 0:4095" in (tmp_path / "run" / "model" / "README.md").read_text()
    engine, stored = Engine(tmp_path / "run" / "model"), ShardSet.open(data).read(np.arange(1)).image[0]
    key = ShardSet.open(data).keys(np.arange(1))[0]
    np.testing.assert_array_equal(engine.read((tmp_path / "scans" / key).read_bytes()), stored)


def test_a_validation_split_is_measured_beside_the_test_split(tiny: Tiny, tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    ingest(IngestConfig("synthetic:digits", data, count=40, test_fraction=0.25, validation_fraction=0.25))
    launch("vae", tiny("vae", {"data.images": data, "run.batch": 8, "run.steps": 3}))
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    measured = {line["kind"]: line for line in lines if line["kind"] != "train"}
    assert measured.keys() == {"val", "test"}
    assert measured["val"]["neg_elbo"] != measured["test"]["neg_elbo"]
    metrics = model_directory.describe(tmp_path / "run" / "model")["provenance"]["metrics"]
    assert metrics["val/neg_elbo"] == measured["val"]["neg_elbo"]
    assert metrics["test/neg_elbo"] == measured["test"]["neg_elbo"]
    changes = {"data.images": data, "data.test_split": "validation", "run.batch": 8, "run.steps": 3}
    launch("vae", tiny("vae", changes | {"run.name": "other"}))
    lines = read_metrics(tmp_path / "other" / "metrics.jsonl")
    measured_there = {line["kind"]: line["neg_elbo"] for line in lines if line["kind"] != "train"}
    assert measured_there == {"test": measured["val"]["neg_elbo"]}, "the rows are those of the split"


@pytest.mark.slow
def test_held_out_rows_are_read_for_test_metrics_only(tiny: Tiny, tmp_path: Path) -> None:
    with mock.patch("genlab.training.loop.read_batches", side_effect=DataError("read")):
        launch("cyclegan", tiny("cyclegan"))
        with pytest.raises(DataError, match="read"):
            launch("vae", tiny("vae", {"run.name": "vae"}))
    assert {line["kind"] for line in metrics(tmp_path / "run")} == {"train"}


@pytest.mark.slow
def test_a_longer_stop_goes_on_unless_the_schedule_depends_on_it(tiny: Tiny, tmp_path: Path) -> None:
    constant = {"optimization.schedule": "constant"}
    launch("vae", tiny("vae", constant | {"run.steps": 12, "run.name": "longer"}))
    launch("vae", tiny("vae", constant | {"run.name": "longer"}))
    launch("vae", tiny("vae", constant | {"run.name": "whole"}))
    first, second = tensors(tmp_path / "longer", 24), tensors(tmp_path / "whole", 24)
    assert all(torch.equal(first[name], second[name]) for name in second)
    launch("vae", tiny("vae", {"run.steps": 12}))
    with pytest.raises(RunError, match=r"was to end after 12 steps, on which its .* schedule depends, now 24"):
        launch("vae", tiny("vae"))


def test_a_finished_run_says_so_and_is_left_as_it_is(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny("vae", {"run.steps": 2, "run.batch": 4})
    launch("vae", config)

    def files() -> dict[Path, tuple[int, bytes]]:
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()}

    before = files()
    capsys.readouterr()
    launch("vae", config)
    said = capsys.readouterr().out
    assert "run: already finished at step 2; nothing to do" in said
    assert f"model:       {tmp_path}/run/model" in said
    assert files() == before
    (tmp_path / "run" / "model" / "genlab.json").unlink()
    launch("vae", config)
    assert model_directory.load(tmp_path / "run" / "model").family == "vae"


def test_a_log_line_has_an_eta_once_it_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    with RunConsole() as console:
        console.show(ProgressUpdate(5, 10, 1.0, 4.0))
    with RunConsole() as console:
        console.show(ProgressUpdate(10, 10, 1.0, 4.0))
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == [
        "step 5/10 (50%)",
        "step 10/10 (100%)",
    ]


def test_a_name_that_belongs_to_another_run_is_refused(tiny: Tiny, tiny_data: dict[str, str], tmp_path: Path) -> None:
    launch("vae", tiny("vae", {"run.steps": 2, "run.batch": 4}))
    with pytest.raises(RunError, match=r"objective\.beta was 1\.0, now 2\.0.*choose another run\.name"):
        launch("vae", tiny("vae", {"run.steps": 2, "run.batch": 4, "objective.beta": 2.0}))
    with pytest.raises(RunError, match=r"was trained on other data \(data\.images"):
        launch("vae", tiny("vae", {"run.steps": 2, "run.batch": 4, "data.images": tiny_data["data.a"]}))
    with pytest.raises(RunError, match="is a run of family 'vae'"):
        launch("cyclegan", tiny("cyclegan", {"run.steps": 2}))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(RunError, match="holds something else than a run"):
        launch("vae", tiny("vae", {"run.name": "other"}))


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("vae", {"run.batch": 500}, r"run\.batch = 500 is larger than data\.images, which has \d+ rows"),
        ("vae", {"run.batch": 2, "run.workers": 3}, r"run\.batch = 2: .* 3 workers"),
        ("vae", {"data.split": "dev"}, r"data\.images: .*no split 'dev'"),
        ("vae", {"data.images": "/nowhere"}, r"data\.images: /nowhere: not a data set"),
        ("vae", {"model.channels": [4, 4, 4]}, "28x28 images cannot be halved 3 times"),
        ("vae", {"run.name": "a/b"}, r"run\.name = 'a/b'"),
        ("cyclegan", {"model.levels": 7}, "32x32 images can be halved 5 times"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    family: str, changes: dict[str, Any], message: str, tiny: Tiny, tmp_path: Path
) -> None:
    with pytest.raises(GenlabError, match=message):
        launch(family, tiny(family, changes))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "message"),
    [({"run.cuda_graphs": True}, r"run\.cuda_graphs: there is no GPU"), ({"run.precision": "tf32"}, "use fp32")],
)
def test_what_needs_a_gpu_is_refused_without_one(
    option: dict[str, Any], message: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=message):
        launch("vae", tiny("vae", option))
    assert not list(tmp_path.iterdir())


def test_a_cpus_session_leaves_the_gpu_alone(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def context(*_: Any) -> None:
        raise AssertionError("a CUDA context was made")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "_lazy_init", context)
    plan = make_plan("vae", tiny("vae", {"run.steps": 2, "data.flip": True}))
    start_or_resume(plan)
    with RunConsole() as console:
        train(plan, LocalSession(console, device=torch.device("cpu")))
    assert (tmp_path / "run" / "model" / "genlab.json").exists()


def test_domains_of_different_shapes_are_refused(tiny: Tiny, tiny_data: dict[str, str]) -> None:
    with pytest.raises(GenlabError, match=r"data\.a holds images of \(32, 32, 3\).*data\.b of \(28, 28, 1\)"):
        launch("cyclegan", tiny("cyclegan", {"data.b": tiny_data["data.images"], "run.batch": 1}))


def test_a_domain_of_which_nothing_is_left_to_train_on_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    url = str(tmp_path / "held-out")
    ingest(IngestConfig(source="synthetic:scenes-b", dest=url, count=3, size=32, test_fraction=1))
    with pytest.raises(
        DataError, match=r"data\.b: .*held-out: no split 'train'; choose one of: test; or .*--test-frac"
    ):
        launch("cyclegan", tiny("cyclegan", {"data.b": url}))


def test_a_relative_path_in_a_job_is_refused_with_the_form_to_use(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(GenlabError, match=r'data\.images="\$PWD/digits"'):
        launch("vae", tiny("vae", {"data.images": "digits"}))
    with pytest.raises(GenlabError, match=r"run\.storage"):
        launch("vae", tiny("vae", {"run.storage": "runs"}))


def test_a_failed_write_of_a_checkpoint_is_not_swallowed(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where a folder should be")
    with (
        pytest.raises(OSError, match="checkpoints"),
        Checkpoints(locate(tmp_path / "checkpoints"), keep=2) as checkpoints,
    ):
        checkpoints.save(1, {"x": torch.zeros(1)}, {})


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    with Checkpoints(locate(tmp_path), keep=2) as checkpoints:
        for step in range(1, 5):
            checkpoints.save(step, {"x": torch.full((3,), float(step))}, {})
        checkpoints.wait()
        assert checkpoints.steps() == [3, 4]
        assert [*checkpoints.newest()[::2]] == [4, []]
        assert checkpoints.read(3)["x"].tolist() == [3.0] * 3


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("optimization.learning_rate", 1e30, "kl is not finite in step 2; the last good checkpoint is that of step 1"),
        ("objective.beta", 1e39, "a weight is not finite in step 1; there is no checkpoint yet"),
    ],
)
def test_numbers_that_are_not_finite_end_the_run(option: str, value: float, said: str, tiny: Tiny) -> None:
    config = tiny("vae", {option: value, "run.log_every": 1, "run.checkpoint_every": 1})
    with pytest.raises(RunError, match=said):
        launch("vae", config)


def test_a_full_gpu_is_said_in_one_message(tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 1 GiB.")
    monkeypatch.setattr("genlab.training.loop.begin_cuda_graphs", mock.Mock(side_effect=full))
    with pytest.raises(
        RunError, match=r"the memory of the GPU is full; raise --run\.accumulate, .* \(CUDA out of memory"
    ):
        launch("vae", tiny("vae"))


def test_ranks_wait_for_an_evaluation_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "ASKED_AGAIN_SECONDS", 0.01)
    asked = mock.Mock(wraps=from_rank_zero)
    monkeypatch.setattr(loop, "from_rank_zero", asked)
    candidates = mock.Mock()
    candidates.measured.side_effect = lambda step: time.sleep(0.1)
    loop._wait_together(candidates, 8)
    candidates.measured.assert_called_once_with(8)
    assert asked.call_count > 2
    asked.reset_mock()
    loop._wait_together(None, 8)
    assert asked.call_count == 1
