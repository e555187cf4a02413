"""What a log says of a long command."""

import pytest

from genlab.core.progress import pace_of, progress, progress_line


@pytest.mark.parametrize(
    ("done", "seconds", "line"),
    [
        (1200, 5, "ingest: 1,200 of 5,000 images, 240 images/s, 0:00:16 left"),
        (1, 4, "ingest: 1 of 5,000 images, 0.2 images/s, 5:33:16 left"),
        (5000, 10, "ingest: 5,000 of 5,000 images, 500 images/s, 0:00:00 left"),
    ],
)
def test_a_line_has_rate_and_time_left(done: int, seconds: float, line: str) -> None:
    assert progress_line("ingest", done, 5000, "images", pace_of(done, 5000 - done, seconds)) == line


def test_a_log_has_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with progress("verify", 10, "shards") as advance:
        for _ in range(10):
            advance(1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "verify: 3 of 10 shards, 0.2 shards/s, 0:00:28 left"
    assert len(lines) == 3
