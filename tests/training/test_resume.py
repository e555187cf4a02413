"""A run that is killed, at whatever moment, and started again ends as one that was not: bit for bit."""

from pathlib import Path

import pytest

from genlab.core.config import override
from genlab.core.errors import RunError
from genlab.models.stylegan import Form
from genlab.recipes.cyclegan import CycleGANConfig
from genlab.training.launch import launch
from genlab.training.plan import make_plan, start_or_resume
from tests.training.support import (
    Moment,
    assert_same_run,
    assert_same_state,
    checkpoint_steps,
    cyclegan_config,
    metrics,
    scalars,
    state,
    state_file,
    stylegan_config,
    train_to_the_end,
    train_until_killed,
    vae_config,
)


@pytest.fixture(scope="module")
def unbroken_vae(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("runs")
    launch("vae", vae_config(digits, name="unbroken", storage=str(storage)))
    return storage / "unbroken"


@pytest.fixture(scope="module")
def unbroken_cyclegan(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("runs")
    launch("cyclegan", cyclegan_config(scenes, name="unbroken", storage=str(storage)))
    return storage / "unbroken"


@pytest.fixture
def killed_vae(digits: Path, tmp_path: Path) -> Path:
    """A run killed in its last step, with checkpoints after 6 and 9 steps."""
    plan = make_plan("vae", vae_config(digits, name="killed", storage=str(tmp_path)))
    start_or_resume(plan)
    train_until_killed(plan, "step", 11)
    assert checkpoint_steps(tmp_path / "killed") == [6, 9]
    return tmp_path / "killed"


def start_again(digits: Path, run: Path) -> None:
    launch("vae", vae_config(digits, name=run.name, storage=str(run.parent)))


@pytest.mark.parametrize(
    ("moment", "step", "resumes_from"),
    [
        pytest.param("step", 0, 0, marks=pytest.mark.slow),
        pytest.param("logged", 9, 6, marks=pytest.mark.slow),
        ("half a checkpoint", 6, 0),
        pytest.param("a checkpoint", 12, 12, marks=pytest.mark.slow),
        pytest.param("export", 12, 12, marks=pytest.mark.slow),
    ],
)
def test_a_vae_killed_at_any_moment(
    moment: Moment,
    step: int,
    resumes_from: int,
    digits: Path,
    unbroken_vae: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = vae_config(digits, name="killed", storage=str(tmp_path))
    plan = make_plan("vae", config)
    start_or_resume(plan)
    train_until_killed(plan, moment, step)
    launch("vae", config)
    said = capsys.readouterr().out
    assert ("goes on where it stopped" in said) == bool(resumes_from)
    assert ("starts anew, it has no checkpoint yet" in said) != bool(resumes_from)
    assert ("goes on from the checkpoint of step" in said) == bool(resumes_from)
    assert not resumes_from or f"goes on from the checkpoint of step {resumes_from}" in said
    assert_same_run(tmp_path / "killed", unbroken_vae)


@pytest.mark.parametrize(("moment", "step"), [("step", 5), ("half a checkpoint", 6)])
@pytest.mark.slow
def test_a_cyclegan_with_dropout_killed(
    moment: Moment, step: int, scenes: Path, unbroken_cyclegan: Path, tmp_path: Path
) -> None:
    config = cyclegan_config(scenes, name="killed", storage=str(tmp_path))
    plan = make_plan("cyclegan", config)
    start_or_resume(plan)
    train_until_killed(plan, moment, step)
    launch("cyclegan", config)
    assert_same_run(tmp_path / "killed", unbroken_cyclegan)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["skip", "progressive"])
def test_a_stylegan_killed_within_a_fade_and_before_a_resolution_begins(
    form: Form, small_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In steps 3 and 8 optimisers begin anew: there the run goes on just before it; from step 4 within a fade."""
    unbroken, killed = (
        stylegan_config(small_digits, form, name=name, storage=str(tmp_path)) for name in ("unbroken", "killed")
    )
    launch("stylegan", unbroken)
    plan = make_plan("stylegan", killed)
    start_or_resume(plan)
    for step in (3, 5, 8):
        train_until_killed(plan, "step", step)
        assert max(checkpoint_steps(tmp_path / "killed")) == step // 2 * 2
    launch("stylegan", killed)
    assert "goes on from the checkpoint of step 8" in capsys.readouterr().out
    assert_same_run(tmp_path / "killed", tmp_path / "unbroken")
    tensors = state(tmp_path / "unbroken", 10)
    steps = {
        value.item()
        for name, value in tensors.items()
        if name.startswith("optimizer.discriminator.") and name.endswith(".step")
    }
    assert tensors["recipe.augmentation.probability"].item() == pytest.approx(0.64)
    # Since step 8, or the first, the discriminator was moved by itself and by R1 in every other step.
    assert steps == ({2 + 1} if form == "progressive" else {10 + 5})


@pytest.mark.slow
@pytest.mark.parametrize("form", ["skip", "progressive"])
def test_a_stylegan_on_three_workers_killed(form: Form, small_digits: Path, tmp_path: Path) -> None:
    unbroken, killed = (
        make_plan("stylegan", stylegan_config(small_digits, form, name=name, storage=str(tmp_path)))
        for name in ("unbroken", "killed")
    )
    for plan in (unbroken, killed):
        start_or_resume(plan)
    train_to_the_end(unbroken, 3)
    train_until_killed(killed, "step", 5, 3, target=2)
    train_until_killed(killed, "step", 8, 3, target=0)
    train_to_the_end(killed, 3)
    assert_same_run(tmp_path / "killed", tmp_path / "unbroken")


@pytest.mark.slow
def test_a_run_killed_again_and_again(digits: Path, unbroken_vae: Path, killed_vae: Path) -> None:
    plan = make_plan("vae", vae_config(digits, name=killed_vae.name, storage=str(killed_vae.parent)))
    train_until_killed(plan, "step", 10)
    train_until_killed(plan, "half a checkpoint", 12)
    train_until_killed(plan, "logged", 12)
    start_again(digits, killed_vae)
    assert_same_run(killed_vae, unbroken_vae)


@pytest.mark.slow
def test_a_checkpoint_damaged_twice_is_set_aside_for_the_one_before(
    digits: Path, unbroken_vae: Path, killed_vae: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = killed_vae / "checkpoints" / "step-00000009"
    file = state_file(newest)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)
    plan = make_plan("vae", vae_config(digits, name=killed_vae.name, storage=str(killed_vae.parent)))
    train_until_killed(plan, "step", 11)
    aside = killed_vae / "checkpoints" / "damaged-step-00000009" / file.name
    assert aside.read_bytes() == data
    (newest / "index.json").write_bytes((newest / "index.json").read_bytes()[:-20])
    start_again(digits, killed_vae)
    said = capsys.readouterr().out
    assert "set aside a damaged checkpoint" in said
    assert "goes on from the checkpoint of step 6" in said
    assert_same_run(killed_vae, unbroken_vae)
    assert [folder.name for folder in (killed_vae / "checkpoints").glob("damaged-*")] == ["damaged-step-00000009"]


def test_lines_and_events_that_were_cut_short_are_dropped(digits: Path, unbroken_vae: Path, killed_vae: Path) -> None:
    with (killed_vae / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 1')
    (events,) = (killed_vae / "tensorboard").iterdir()
    events.write_bytes(events.read_bytes()[:-5])
    start_again(digits, killed_vae)
    assert_same_run(killed_vae, unbroken_vae)


def test_a_run_killed_before_its_config_was_whole_can_start_again(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / ".config.json.123.partial").write_text('{"family"')
    start_or_resume(make_plan("vae", vae_config(digits, name="early", storage=str(tmp_path))))
    assert (tmp_path / "early" / "config.json").exists()


def test_a_finished_run_started_again_changes_nothing(digits: Path, unbroken_vae: Path) -> None:
    before = {
        file: file.read_bytes()
        for file in unbroken_vae.rglob("*")
        if file.is_file() and file.name != "config.json" and "tensorboard" not in file.parts
    }
    events = scalars(unbroken_vae)
    start_again(digits, unbroken_vae)
    assert [file for file, data in before.items() if file.read_bytes() != data] == []
    assert scalars(unbroken_vae) == events


def test_a_longer_stop_goes_on_where_no_schedule_depends_on_it(scenes: Path, tmp_path: Path) -> None:
    def config(name: str, steps: int, schedule: str) -> CycleGANConfig:
        config = cyclegan_config(scenes, name=name, storage=str(tmp_path), steps=steps)
        return override(config, {"optimization.schedule": schedule})

    launch("cyclegan", config("whole", 6, "constant"))
    launch("cyclegan", config("longer", 4, "constant"))
    launch("cyclegan", config("longer", 6, "constant"))
    assert metrics(tmp_path / "longer") == metrics(tmp_path / "whole")
    assert_same_state(state(tmp_path / "longer", 6), state(tmp_path / "whole", 6))

    start_or_resume(make_plan("cyclegan", config("linear", 4, "linear")))
    with pytest.raises(RunError, match=r"'linear' is taken.*was to end after 4 steps.*schedule.*now 6"):
        launch("cyclegan", config("linear", 6, "linear"))
