"""``genlab train``: what its help says, what it trains and what it refuses."""

from pathlib import Path

import pytest

from genlab.cli.train import main
from genlab.core.families import families


def test_help_names_every_family(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        main(arguments)
        shown = capsys.readouterr().out
        assert "usage: genlab train FAMILY" in shown
        assert all(family in shown for family in families())


def test_help_of_a_family_lists_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["cyclegan", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "usage: genlab train cyclegan" in shown
    assert "--objective.lambda-cycle" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["diffusion"], "no recipe for family 'diffusion'; there are: "),
        (["vae", "--run.batch", "0"], "run.batch = 0"),
        (["vae", "--data.images", "/nowhere"], "data.images: /nowhere"),
    ],
)
def test_an_error_of_the_user_ends_with_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, *(["--run.storage", str(tmp_path)] if len(arguments) > 1 else [])])
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {message}")
    assert "Traceback" not in shown


def test_a_run_is_trained_and_not_again(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--run.workers", "0", "--run.threads", "1", "--run.steps", "2", "--run.batch", "6"]
    command = ["vae", "--data.images", str(digits), "--run.storage", str(tmp_path), "--run.name", "run", *options]
    main(command)
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
    assert f"model:       {tmp_path}/run/model" in capsys.readouterr().out
    main(command)
    assert "already finished at step 2; nothing to do" in capsys.readouterr().out
