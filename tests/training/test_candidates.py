"""Checkpoints that are evaluated beside training, and the best of them that becomes the run's model."""

import dataclasses
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from genlab.cli.evaluate import EvaluateConfig, main, run_evaluation
from genlab.core.config import from_dict, override
from genlab.core.errors import ConfigError, RunError
from genlab.core.storage import locate
from genlab.data.format.shards import ShardSet
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.evaluation.checkpoint_evaluations import CheckpointEvaluation, best_of, read_evaluations, write_evaluations
from genlab.evaluation.measurements import Evaluation
from genlab.recipes.cyclegan import CycleGANConfig, CycleGANRecipe
from genlab.reports.report import make_report
from genlab.store import model_directory
from genlab.store.probes import check
from genlab.training.candidates import promote_best
from genlab.training.console import ProgressUpdate
from genlab.training.launch import launch
from genlab.training.loop import train
from genlab.training.plan import finished_step, make_plan, start_or_resume
from genlab.training.session import NICENESS, ChildCall, in_child
from tests.training.support import (
    Moment,
    QuietSession,
    T,
    before_each_step,
    checkpoint_steps,
    tiny_config,
    train_to_the_end,
    train_until_killed,
)

Tiny = Callable[..., Any]

pytestmark = pytest.mark.slow  # each run is evaluated several times


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Evaluations after steps 6 and 12."""
    root = tmp_path_factory.mktemp("evaluated")
    for domain, count in (("a", 24), ("b", 20)):
        source = IngestConfig(
            f"synthetic:scenes-{domain}", str(root / domain), size=32, count=count, test_fraction=0.25
        )
        ingest(source)
    return {"data.a": str(root / "a"), "data.b": str(root / "b"), "run.evaluate_every": 4, "run.storage": str(root)}


@pytest.fixture(scope="module")
def evaluated(config: dict[str, Any], tiny_data: dict[str, str]) -> Path:
    """A finished run."""
    plan = make_plan("cyclegan", tiny_config("cyclegan", tiny_data, config | {"run.name": "evaluated"}))
    start_or_resume(plan)
    train(plan, QuietSession())
    return Path(plan.directory)


def test_the_best_checkpoint_becomes_the_model(evaluated: Path) -> None:
    evaluations = read_evaluations(locate(evaluated))
    assert [(one.step, one.images) for one in evaluations] == [(6, 12), (12, 24)]
    best = min(evaluations, key=lambda one: one.measurements["kid"].value)
    description = model_directory.describe(evaluated / "model")
    assert description["provenance"]["step"] == best.step
    assert description["weights"]["sha256"] == best.weights
    assert description["provenance"]["metrics"]["test/kid"] == best.measurements["kid"].value
    report = check(evaluated / "model", model_directory.load(evaluated / "model"))
    assert report is not None
    assert report.same
    assert [path.name for path in (evaluated / "candidates").iterdir()] == [f"step-{best.step:08d}"]
    assert shown_in_tensorboard(evaluated) == kids(evaluated)


def shown_in_tensorboard(run: Path, tag: str = "test/kid") -> list[tuple[int, float]]:
    """Steps and mean KIDs."""
    events = EventAccumulator(str(run / "tensorboard")).Reload().Scalars(tag)
    return [(event.step, event.value) for event in events]


def kids(run: Path) -> list[tuple[int, Any]]:
    """The same of ``evaluations.jsonl``."""
    return [(one.step, pytest.approx(one.measurements["kid"].value)) for one in read_evaluations(locate(run))]


def test_the_measurements_are_those_of_genlab_evaluate(evaluated: Path) -> None:
    step = model_directory.describe(evaluated / "model")["provenance"]["step"]
    [beside] = [one.measurements for one in read_evaluations(locate(evaluated)) if one.step == step]
    alone = run_evaluation(EvaluateConfig(str(evaluated)))[0].measurements
    assert beside.keys() == alone.keys()
    for name, measurement in alone.items():
        assert beside[name].settings == measurement.settings
        assert beside[name].value == pytest.approx(measurement.value, rel=1e-3, abs=1e-4)


def test_a_choice_on_the_test_split_is_said_where_the_model_is_shown(
    evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "chosen on these images" in (evaluated / "model" / "README.md").read_text()
    main([str(evaluated)])
    assert "the checkpoint was chosen on these images" in capsys.readouterr().out
    measurements = Evaluation.load(str(evaluated)).measurements
    assert {one.settings["chosen"] for one in measurements.values()} == {"on these images"}


@pytest.fixture(scope="module")
def divided(config: dict[str, Any], tiny_data: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose test split was divided."""
    root = tmp_path_factory.mktemp("divided")
    for domain in "ab":
        source = f"synthetic:scenes-{domain}"
        ingest(IngestConfig(source, str(root / domain), size=32, count=32, test_fraction=0.6, seed=1))
    changes = config | {"data.a": str(root / "a"), "data.b": str(root / "b"), "run.storage": str(root)}
    with mock.patch("genlab.data.format.held_out.FEWEST_OF_HALF", 4):
        plan = make_plan("cyclegan", tiny_config("cyclegan", tiny_data, changes | {"run.name": "divided"}))
    start_or_resume(plan)
    train(plan, QuietSession())
    return Path(plan.directory)


def test_a_checkpoint_is_chosen_on_one_half_of_the_test_split_and_reported_on_the_other(
    divided: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = read_evaluations(locate(divided))
    assert {one.measurements["kid"].settings["split"] for one in beside} == {"test:validation"}
    assert "chosen" not in beside[0].measurements["kid"].settings
    assert shown_in_tensorboard(divided, "val/kid") == kids(divided)
    provenance = model_directory.describe(divided / "model")["provenance"]
    best = min(beside, key=lambda one: one.measurements["kid"].value)
    assert (provenance["step"], provenance["metrics"]["val/kid"]) == (best.step, best.measurements["kid"].value)
    result = provenance["metrics"]["test/kid"]
    assert result != provenance["metrics"]["val/kid"]
    assert "results are of `test:reporting`" in (divided / "model" / "README.md").read_text()
    main([str(divided)])
    assert "chosen" not in capsys.readouterr().out
    evaluation = Evaluation.load(str(divided)).measurements["kid"]
    assert evaluation.value == pytest.approx(result, rel=1e-3, abs=1e-4)
    settings = evaluation.settings
    assert (settings["split"], settings["halves"]) == ("test:reporting", "by SHA-256 of the key")
    main([str(divided), "--split", "test"])
    assert "chosen on these images" in capsys.readouterr().out


def test_the_report_of_such_a_run_is_of_the_other_half(divided: Path) -> None:
    page = make_report(str(divided)).read_text()
    assert (
        "chosen on the split &#39;test:validation&#39;; results are reported on &#39;test:reporting&#39;: KID" in page
    )
    assert "chosen on these images" not in page
    scores = json.loads((divided / "scores.json").read_text())["translation"]["a_to_b"]
    assert scores["split"] == "test:reporting"
    assert scores["images"] == len(ShardSet.open(str(divided.parent / "a")).part("test:reporting"))


def test_the_mean_kid_is_that_of_both_directions(evaluated: Path) -> None:
    measurements = read_evaluations(locate(evaluated))[0].measurements
    there, back = measurements["kid_a_to_b"], measurements["kid_b_to_a"]
    assert measurements["kid"].value == pytest.approx((there.value + back.value) / 2)
    assert measurements["kid"].settings["data_a_to_b"] == there.settings["data"]


def test_the_report_shows_them_and_that_they_were_chosen_on_these_images(evaluated: Path) -> None:
    page = make_report(str(evaluated)).read_text()
    assert "Evaluated checkpoints" in page
    assert "split &#39;test&#39;, chosen on these images" in page
    assert "The best checkpoint is chosen on these images" in page
    assert (evaluated / "figures" / "report" / "evaluations.png").exists()


def test_a_finished_run_is_left_alone_and_a_lost_evaluation_made_again(
    evaluated: Path, config: dict[str, Any], tiny_data: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    again = tiny_config("cyclegan", tiny_data, config | {"run.name": "evaluated"})
    launch("cyclegan", again)
    assert "already finished at step 12" in capsys.readouterr().out
    known = read_evaluations(locate(evaluated))
    step = model_directory.describe(evaluated / "model")["provenance"]["step"]
    # As if it had been killed before its best candidate was measured.
    write_evaluations(locate(evaluated), [one for one in known if one.step != step])
    (evaluated / "model" / "genlab.json").unlink()
    plan = make_plan("cyclegan", again)
    start_or_resume(plan)
    train(plan, QuietSession())
    assert read_evaluations(locate(evaluated)) == known
    assert model_directory.describe(evaluated / "model")["provenance"]["step"] == step


def test_tensorboard_has_each_evaluation_once_however_often_a_run_goes_on(
    evaluated: Path, config: dict[str, Any], tiny_data: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "evaluated"
    shutil.copytree(evaluated, run)
    for every in (4, None):
        (run / "model" / "genlab.json").unlink()
        changes = {"run.name": "evaluated", "run.storage": str(tmp_path), "run.evaluate_every": every}
        plan = make_plan("cyclegan", tiny_config("cyclegan", tiny_data, config | changes))
        start_or_resume(plan)
        train(plan, QuietSession())
        assert shown_in_tensorboard(run) == kids(run) == kids(evaluated)


@pytest.mark.parametrize(("moment", "step"), [("export", 6), ("a checkpoint", 6)])
def test_a_run_that_was_killed_chooses_the_same(
    moment: Moment, step: int, evaluated: Path, config: dict[str, Any], tiny_data: dict[str, str], tmp_path: Path
) -> None:
    place = {"run.storage": str(tmp_path), "run.name": "killed"}
    plan = make_plan("cyclegan", tiny_config("cyclegan", tiny_data, config | place))
    start_or_resume(plan)
    train_until_killed(plan, moment, step)
    train_to_the_end(plan, 1)
    assert read_evaluations(locate(plan.directory)) == read_evaluations(locate(evaluated))
    weights = [model_directory.describe(run / "model")["weights"] for run in (evaluated, Path(plan.directory))]
    assert weights[0] == weights[1]
    assert list((tmp_path / "killed" / "candidates").iterdir())


@dataclasses.dataclass(frozen=True)
class Failing(QuietSession):
    """Cannot evaluate the first ``times`` times; then it has the ``measurements`` of another run, by step."""

    times: int = 99
    measurements: dict[int, Any] = dataclasses.field(default_factory=dict)
    said: list[str] = dataclasses.field(default_factory=list)
    tried: list[str] = dataclasses.field(default_factory=list)

    def say(self, message: str) -> None:
        self.said.append(message)

    def background(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        self.tried.append(arguments[0])
        future: Future[T] = Future()
        if len(self.tried) > self.times:
            future.set_result(self.measurements[int(arguments[0][-8:])])
        else:
            future.set_exception(MemoryError("no memory left"))
        return future


def test_an_evaluation_that_fails_is_said_and_the_last_model_exported(
    config: dict[str, Any], tiny_data: dict[str, str]
) -> None:
    plan = make_plan("cyclegan", tiny_config("cyclegan", tiny_data, config | {"run.name": "failing"}))
    start_or_resume(plan)
    session = Failing()
    train(plan, session)
    for then in ("it is tried once more in the end", "it is left out"):
        assert f"the checkpoint of step 6 could not be evaluated; {then}: no memory left" in session.said
    assert model_directory.describe(f"{plan.directory}/model")["provenance"]["step"] == plan.steps
    assert not list((Path(plan.directory) / "candidates").iterdir())
    assert finished_step(plan) == plan.steps


def test_a_run_whose_last_checkpoint_cannot_be_evaluated_is_finished_all_the_same(
    evaluated: Path, config: dict[str, Any], tiny_data: dict[str, str]
) -> None:
    class Once(Failing):
        def background(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
            if arguments[0].endswith("12"):
                return super().background(function, *arguments)
            future: Future[T] = Future()
            future.set_result(self.measurements[6])
            return future

    plan = make_plan("cyclegan", tiny_config("cyclegan", tiny_data, config | {"run.name": "last-fails"}))
    start_or_resume(plan)
    train(plan, Once(measurements={one.step: one.measurements for one in read_evaluations(locate(evaluated))}))
    assert model_directory.describe(f"{plan.directory}/model")["provenance"]["step"] == 6
    assert finished_step(plan) == plan.steps


def test_a_run_whose_best_model_cannot_be_measured_for_its_results_has_its_model_all_the_same(
    divided: Path, tmp_path: Path
) -> None:
    run = tmp_path / "divided"
    shutil.copytree(divided, run)
    (run / "model" / "genlab.json").unlink()
    written = json.loads((run / "config.json").read_text())["config"]
    plan = make_plan("cyclegan", override(from_dict(CycleGANConfig, written), {"run.storage": str(tmp_path)}))
    start_or_resume(plan)
    session = Failing()
    train(plan, session)
    said = "the best checkpoint could not be measured on the split 'test:reporting': no memory left"
    assert said in session.said
    found, known = (model_directory.describe(folder / "model") for folder in (run, divided))
    assert found["weights"] == known["weights"]
    assert "test/kid" not in found["provenance"]["metrics"]


def test_an_evaluation_that_failed_once_is_made_up_for(
    evaluated: Path, config: dict[str, Any], tiny_data: dict[str, str]
) -> None:
    plan = make_plan("cyclegan", tiny_config("cyclegan", tiny_data, config | {"run.name": "failed-once"}))
    start_or_resume(plan)
    session = Failing(times=1, measurements={one.step: one.measurements for one in read_evaluations(locate(evaluated))})
    train(plan, session)
    assert [Path(folder).name for folder in session.tried] == ["step-00000006", "step-00000012", "step-00000006"]
    assert read_evaluations(locate(plan.directory)) == read_evaluations(locate(evaluated))


def test_evaluations_that_an_attempt_that_is_over_left_out_are_put_back(
    evaluated: Path, config: dict[str, Any], tiny_data: dict[str, str]
) -> None:
    plan = make_plan("cyclegan", tiny_config("cyclegan", tiny_data, config | {"run.name": "left-out"}))
    start_or_resume(plan)
    known = {one.step: one.measurements for one in read_evaluations(locate(evaluated))}

    class Beside(Failing):
        def background(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
            write_evaluations(locate(plan.directory), [])  # it had looked before this attempt began
            return super().background(function, *arguments)

    train(plan, Beside(times=0, measurements=known))
    assert read_evaluations(locate(plan.directory)) == read_evaluations(locate(evaluated))


def test_workers_of_a_cluster_end_with_training_and_the_driver_chooses_the_same(
    evaluated: Path, config: dict[str, Any], tiny_data: dict[str, str]
) -> None:
    measurements = Future[Any]()

    class Reserved(QuietSession):
        def background(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
            return measurements

    plan = make_plan("cyclegan", tiny_config("cyclegan", tiny_data, config | {"run.name": "reserved"}))
    start_or_resume(plan)
    train(plan, Reserved(reserved=True))
    measurements.cancel()  # as Ray ends what its workers began
    run = Path(plan.directory)
    assert not (run / "model").exists()
    promote_best(plan, QuietSession())
    assert read_evaluations(locate(run)) == read_evaluations(locate(evaluated))
    weights = [model_directory.describe(one / "model")["weights"] for one in (evaluated, run)]
    assert weights[0] == weights[1]
    assert shown_in_tensorboard(run) == kids(run)
    assert finished_step(plan) == plan.steps


def test_the_driver_takes_the_last_model_if_none_can_be_measured(
    config: dict[str, Any], tiny_data: dict[str, str]
) -> None:
    plan = make_plan("cyclegan", tiny_config("cyclegan", tiny_data, config | {"run.name": "unmeasured"}))
    start_or_resume(plan)
    train(plan, Failing(reserved=True))
    promote_best(plan, Failing())
    assert model_directory.describe(f"{plan.directory}/model")["provenance"]["step"] == plan.steps


def test_an_evaluation_that_outlives_its_training_leaves_the_run_alone(
    config: dict[str, Any], tiny_data: dict[str, str]
) -> None:
    plan = make_plan("cyclegan", tiny_config("cyclegan", tiny_data, config | {"run.name": "outlived"}))
    start_or_resume(plan)
    measurements = Future[Any]()
    asked = threading.Event()

    class Slow(QuietSession):
        def background(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
            asked.set()
            return measurements

    def fail_later(*arguments: Any) -> None:
        if arguments[-1] > 6:  # the step
            assert asked.wait(60)
            raise RunError("a loss is not finite")

    with (
        mock.patch("genlab.training.loop._write_pictures", side_effect=fail_later),
        pytest.raises(RunError, match="not finite"),
    ):
        train(plan, Slow())
    before = sorted(Path(plan.directory).rglob("*"))
    measurements.set_result({})
    for thread in threading.enumerate():
        if thread.name.startswith("evaluation"):
            thread.join(60)
    assert sorted(Path(plan.directory).rglob("*")) == before


def test_an_error_in_the_next_step_loses_no_checkpoint(config: dict[str, Any], tiny_data: dict[str, str]) -> None:
    plan = make_plan("cyclegan", tiny_config("cyclegan", tiny_data, config | {"run.name": "broken"}))
    start_or_resume(plan)
    save = model_directory.save

    def fail(_: CycleGANRecipe, step: int) -> None:
        if step == 6:
            raise RunError("a loss is not finite")

    def save_slowly(*arguments: Any) -> None:
        time.sleep(0.5)
        save(*arguments)

    with (
        before_each_step(CycleGANRecipe, fail),
        mock.patch("genlab.training.candidates.model_directory.save", save_slowly),
        pytest.raises(RunError, match="not finite"),
    ):
        train(plan, QuietSession())
    assert checkpoint_steps(Path(plan.directory)) == [6]


def test_what_cannot_be_evaluated_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match=r"run\.evaluate_every: not for vae"):
        make_plan("vae", tiny("vae", {"run.evaluate_every": 5}))
    few = override(tiny("cyclegan"), {"run.evaluate_every": 5})
    with pytest.raises(ConfigError, match=r"run\.evaluate_every: data\.\w has too few images in split 'test'; 4"):
        make_plan("cyclegan", few)


def test_a_background_process_has_low_cpu_priority_one_thread_and_no_gpu() -> None:
    before = os.nice(0)
    assert in_child(torch.device("cpu"), _priority_threads_and_gpus).result() == (min(before + NICENESS, 19), 1, "")


def _priority_threads_and_gpus() -> tuple[int, int, str]:
    return os.nice(0), torch.get_num_threads(), os.environ["CUDA_VISIBLE_DEVICES"]


def test_equal_measurements_rank_the_later(evaluated: Path) -> None:
    one = read_evaluations(locate(evaluated))[0]
    later: CheckpointEvaluation = dataclasses.replace(one, step=one.step + 1)
    assert best_of([one, later], "kid") == later
    assert best_of([], "kid") is None


def test_what_a_background_process_raises_or_that_it_was_killed_is_told() -> None:
    with pytest.raises(ZeroDivisionError):
        in_child(torch.device("cpu"), divmod, 1, 0).result()
    with pytest.raises(RuntimeError, match="ended with exit code 7"):
        in_child(torch.device("cpu"), os._exit, 7).result()
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        in_child(torch.device("cpu"), _raise_what_cannot_be_unpickled).result(60)


class OfTwoError(Exception):
    def __init__(self, one: str, other: str) -> None:
        super().__init__(one)


def _raise_what_cannot_be_unpickled() -> None:
    raise OfTwoError("one", "other")


def test_a_run_that_ends_by_an_error_does_not_wait_for_an_evaluation(
    config: dict[str, Any], tiny_data: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[ChildCall[Any]] = []

    class Slow(QuietSession):
        def background(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
            calls.append(in_child(self.device, time.sleep, 3600))
            return calls[-1]

        def progress(self, update: ProgressUpdate) -> None:
            if calls:
                raise RunError("told to stop")

    plan = make_plan("cyclegan", tiny_config("cyclegan", tiny_data, config | {"run.name": "stopped", "run.steps": 600}))
    start_or_resume(plan)
    with pytest.raises(RunError, match="told to stop"):
        train(plan, Slow())
    assert calls[0].cancelled()
    calls[0]._process.join(60)
    assert calls[0]._process.exitcode == -signal.SIGTERM
    assert not any(thread.name.startswith("evaluation") for thread in threading.enumerate() if thread.is_alive())
