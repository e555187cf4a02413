"""The stopwatch: every second counts for one part, and rare parts are not multiplied."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from genlab.training import stopwatch
from genlab.training.launch import launch
from genlab.training.stopwatch import PARTS, Stopwatch
from tests.training.support import vae_config


@dataclass
class Stream:
    """A source of batches that says what it is told to."""

    waited: float = 0.0
    waited_on_storage: float = 0.0


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopwatch, "time", clock)
    return clock


def steps(watch: Stopwatch, clock: Clock, stream: Stream, count: int, *, storage: float, decode: float) -> None:
    """Steps of 4 s of computing, 2 of all-reduce and 1 of the optimiser, beside the wait for data."""
    for step in range(count):
        watch.begin(step)
        clock.now += storage + decode
        stream.waited += storage + decode
        stream.waited_on_storage += storage
        watch.lap("data")
        clock.now += 4
        watch.lap("compute")
        clock.now += 2
        watch.lap("all_reduce")
        clock.now += 1
        watch.lap("optimiser")


def test_each_part_has_its_fraction_and_all_make_one(clock: Clock) -> None:
    stream = Stream()
    watch = Stopwatch(torch.device("cpu"), [stream])
    steps(watch, clock, stream, 5, storage=1, decode=2)
    clock.now += 30
    watch.lap("other")
    clock.now += 20
    watch.lap("checkpoint")
    shares = watch.read()
    assert sum(shares.values()) == pytest.approx(1)
    assert shares == pytest.approx(
        {
            "storage_share": 0.05,
            "decode_share": 0.10,
            "compute_share": 0.20,
            "all_reduce_share": 0.10,
            "optimiser_share": 0.05,
            "checkpoint_share": 0.20,
            "other_share": 0.30,
        }
    )
    assert watch.read() == {}, "nothing was sampled since"


@pytest.mark.parametrize(
    ("bound", "storage", "decode", "way_out"),
    [
        ("reading from storage", 90, 0, "cache"),
        ("decoding", 0, 90, "more CPUs"),
        ("forward and backward", 0, 0, "as it"),
    ],
)
def test_the_sentence_at_the_end_names_what_held_the_run_up(
    bound: str, storage: float, decode: float, way_out: str, clock: Clock
) -> None:
    stream = Stream()
    watch = Stopwatch(torch.device("cpu"), [stream])
    assert watch.bottleneck() == ""
    for _ in range(2):
        steps(watch, clock, stream, 3, storage=storage, decode=decode)
        watch.read()
    sentence = watch.bottleneck()
    assert sentence.startswith(f"bound by {bound}")
    assert way_out in sentence
    assert ("93% of the time" if bound != "forward and backward" else "57% of the time") in sentence


def test_a_run_writes_the_fractions_to_tensorboard_and_says_the_sentence(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch("vae", vae_config(digits, name="run", storage=str(tmp_path)))
    assert "bound by " in capsys.readouterr().out
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    shares = {part: [event.value for event in events.Scalars(f"time/{part}_share")] for part in PARTS}
    assert all(len(values) == 4 for values in shares.values())
    assert [sum(values) for values in zip(*shares.values(), strict=True)] == pytest.approx([1] * 4)
    assert "_share" not in (tmp_path / "run" / "metrics.jsonl").read_text().replace("data_wait_share", "")
