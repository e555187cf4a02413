"""How far a sweep is, and how it is shown."""

import pytest
from rich.console import Console

from genlab.sweeps.live import Display, Status


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_status_tells_the_best_so_far_and_the_time_left() -> None:
    clock = Clock()
    status = Status({"val/kid": "min"}, trials=5, clock=clock)
    assert str(status) == "0 of 5 trials ended"
    status.starts("one", "z=1")
    status.starts("two", "z=2")
    clock.now = 100
    status.reports("one", {"val/kid": 0.5})
    status.ends("one")
    status.starts("three", "z=3")
    clock.now = 140
    # three trials took or will take 100 s each, two at a time: 60 s of the third, then two more beside each other
    assert status.seconds_left == pytest.approx((0 + 60 + 2 * 100) / 2)
    status.ends("two", failed=True)
    assert str(status) == "1 of 5 trials ended; 1 failed; best so far: val/kid 0.5, one (z=1); about 0:02:10 left"
    clock.now = 200
    status.reports("three", {"val/kid": 0.25})
    status.ends("three")
    for name in ("four", "five"):
        status.starts(name, name)
        clock.now += 100
        status.ends(name)
    assert "best so far: val/kid 0.25, three (z=3)" in str(status)
    assert status.seconds_left == 0


def test_a_trial_that_starts_again_is_counted_once() -> None:
    clock = Clock()
    status = Status({"val/kid": "min"}, trials=2, clock=clock)
    for name in ("one", "two", "two"):
        status.starts(name, name)
    clock.now = 100
    status.ends("one")
    status.ends("two")
    assert status.seconds_left == 0


def test_the_highest_is_the_best_where_the_space_says_so_and_earlier_trials_count() -> None:
    status = Status({"score/gain": "max"}, trials=1, before=3.0)
    assert "best so far: score/gain 3, of a trial that had ended before" in str(status)
    status.starts("one", "z=1")
    assert status.reports("one", {"score/gain": 4.0})
    assert not status.reports("one", {"score/gain": 4.0}), "said a second time"
    assert "best so far: score/gain 4, one (z=1)" in str(status)


def test_the_table_has_state_and_place_of_each_trial() -> None:
    status = Status({"val/kid": "min"}, trials=9)
    for number, name in enumerate("abc"):
        status.starts(name, f"z={number}")
        status.reports(name, {"val/kid": 3.0 - number})
    status.ends("a")
    status.starts("d", "z=3")
    status.ends("d", failed=True)
    console = Console(width=100, no_color=True)
    with console.capture() as capture:
        console.print(status.table())
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capture.get().splitlines() if "│" in line]
    assert rows == [
        ["b", "z=1", "runs", "2", "2"],
        ["c", "z=2", "runs", "1", "1"],
        ["a", "z=0", "ended", "3", "3"],
        ["d", "z=3", "failed", "", ""],
    ]


def test_without_a_terminal_events_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(Status({"val/kid": "min"}, trials=1)) as display:
        display.say("one (z=1): starts")
    assert capsys.readouterr().out == "one (z=1): starts\n"
