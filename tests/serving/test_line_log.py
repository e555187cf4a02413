"""The log of a server: every line, in order, soon."""

import io
import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from genlab.serving import line_log
from genlab.serving.line_log import LineLog


class Stream(io.StringIO):
    """Counts how often it is written to, and fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.broken = False

    def write(self, text: str) -> int:
        self.writes += 1
        if self.broken:
            raise BrokenPipeError
        return super().write(text)


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.Logger("server", logging.INFO)
    yield logger
    for handler in logger.handlers:
        handler.close()


@pytest.fixture
def stream(logger: logging.Logger) -> Stream:
    stream = Stream()
    logger.addHandler(LineLog(stream))
    return stream


def test_lines_are_written_together_and_in_order(
    logger: logging.Logger, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_log, "PAUSE", 0.5)
    expected = [f"line {number}" for number in range(100)]
    for line in expected:
        logger.info(line)
    assert until(lambda: stream.getvalue().splitlines() == expected)
    assert stream.writes < len(expected) / 2


def test_lines_of_several_threads_are_all_written(logger: logging.Logger, stream: Stream) -> None:
    def log(thread: int) -> None:
        for number in range(200):
            logger.info("%d.%d", thread, number)

    threads = [threading.Thread(target=log, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logger.handlers[0].close()
    written = stream.getvalue().splitlines()
    for number in range(4):
        assert [line for line in written if line.startswith(f"{number}.")] == [f"{number}.{n}" for n in range(200)]


def test_a_warning_is_written_at_once_after_what_came_before(
    logger: logging.Logger, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_log, "PAUSE", 1e6)
    logger.info("before")
    logger.warning("a warning")
    assert stream.getvalue().splitlines() == ["before", "a warning"]


def test_nothing_is_lost_at_the_end(logger: logging.Logger, stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_log, "PAUSE", 1e6)
    logger.info("the last")
    logger.handlers[0].close()
    assert stream.getvalue() == "the last\n"


def test_a_stream_that_nobody_reads_ends_nothing(logger: logging.Logger, stream: Stream) -> None:
    stream.broken = True
    logger.info("lost")
    assert until(lambda: stream.writes == 1)
    logger.warning("lost, too")
    stream.broken = False
    logger.info("read again")
    assert until(lambda: stream.getvalue() == "read again\n")
