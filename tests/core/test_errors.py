"""How a command ends: silently, with one message, or with a traceback where that was asked for."""

import io
import warnings

import pytest
from PIL import Image

from genlab.core.errors import ClusterError, ConfigError, DataError, GenlabError, RunError, run_command


def fail(error: BaseException) -> None:
    raise error


@pytest.fixture(autouse=True)
def no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENLAB_TRACEBACK", raising=False)


@pytest.mark.parametrize("kind", [GenlabError, DataError, ConfigError, RunError, ClusterError])
def test_what_the_user_can_put_right_ends_in_one_message(
    kind: type[GenlabError], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: fail(kind("run.batch = 0: too small")))
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", "error: run.batch = 0: too small\n")


def test_a_traceback_is_shown_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENLAB_TRACEBACK", "1")
    with pytest.raises(ConfigError, match="too small"):
        run_command(lambda: fail(ConfigError("too small")))


def test_our_own_mistakes_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0)


def test_an_interrupt_ends_with_the_shells_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: fail(KeyboardInterrupt()))
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_command_that_succeeds_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    run_command(lambda: 3)
    assert capsys.readouterr() == ("", "")


def test_a_command_says_nothing_of_a_large_picture_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = io.BytesIO()
    Image.new("L", (4, 4)).save(picture, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        Image.open(picture)
        assert len(heard) == 1
        run_command(lambda: Image.open(picture))
    assert len(heard) == 1
