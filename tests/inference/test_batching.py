"""The batcher: work of many callers goes together, each gets its own, and what is late or unwanted is not computed."""

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genlab.inference.batching import Batcher, BatchRecord, ClosedError, LateError, OverloadedError, Work
from genlab.inference.engine import Engine, Task
from genlab.models.tiles import TILE


@dataclass(frozen=True)
class Doubled:
    """A kind of work that doubles numbers."""

    name: str = "double"
    operation = "double"
    trial = ("double",)


class Doubler:
    """An engine that takes up to four rows at once, and waits before each batch until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.batches: list[list[int]] = []

    def next_batch(self, kind: Doubled, waiting: int) -> int:
        return min(waiting, 4)

    def compute(self, kind: Doubled, rows: Sequence[int]) -> list[int]:
        self.batches.append(list(rows))
        self.begun.release()
        assert self.go.acquire(timeout=30)
        if 13 in rows:
            raise ValueError("thirteen")
        return [2 * row for row in rows]

    def pixels(self, kind: Doubled) -> int:
        return 1

    def row_bytes(self, kind: Doubled) -> int | None:
        return 8

    def knows_batches(self, kind: Doubled) -> bool:
        return True


@pytest.fixture
def records() -> list[BatchRecord]:
    return []


@pytest.fixture
def batcher(records: list[BatchRecord]) -> Iterator[Batcher]:
    batcher = Batcher(most_waiting=6, record=records.append)
    yield batcher
    batcher.close()


class Caller:
    def __init__(self, batcher: Batcher, engine: Any, rows: Sequence[int], kind: Any = None, **limits: Any) -> None:
        self.over = threading.Event()
        task = Task(kind or Doubled(), rows, list)  # type: ignore[arg-type]
        self.work = batcher.submit(engine, task, tuple, self.done, **limits)

    def done(self, work: Work) -> None:
        self.over.set()

    def answer(self) -> Any:
        assert self.over.wait(30)
        if self.work.error:
            raise self.work.error
        return self.work.result


def test_what_waits_goes_together_and_each_gets_its_own(batcher: Batcher, records: list[BatchRecord]) -> None:
    engine = Doubler()
    first = Caller(batcher, engine, [1])
    assert engine.begun.acquire(timeout=30)
    others = [
        Caller(batcher, engine, [2, 3]),
        Caller(batcher, engine, [4], Doubled("other")),
        Caller(batcher, engine, [5]),
    ]
    engine.go.release(3)
    assert [caller.answer() for caller in (first, *others)] == [(2,), (4, 6), (8,), (10,)]
    assert engine.batches == [[1], [2, 3, 5], [4]]
    assert [(record.operation, record.rows, len(record.waited)) for record in records] == [
        ("double", 1, 1),
        ("double", 3, 2),
        ("double", 1, 1),
    ]


def test_a_large_piece_of_work_does_not_hold_up_others(batcher: Batcher) -> None:
    engine = Doubler()
    large = Caller(batcher, engine, range(10))
    assert engine.begun.acquire(timeout=30)
    small = Caller(batcher, engine, [70], Doubled("other"))
    engine.go.release(2)
    assert small.answer() == (140,)
    engine.go.release(5)
    assert large.answer() == tuple(range(0, 20, 2))
    assert engine.batches[1] == [70]


def test_an_error_reaches_those_whose_rows_were_computed_and_no_others(batcher: Batcher) -> None:
    engine = Doubler()
    first = Caller(batcher, engine, [1])
    assert engine.begun.acquire(timeout=30)
    unlucky, other = Caller(batcher, engine, [13]), Caller(batcher, engine, [2], Doubled("other"))
    engine.go.release(3)
    assert first.answer() == (2,)
    assert other.answer() == (4,)
    with pytest.raises(ValueError, match="thirteen"):
        unlucky.answer()


class Full(Doubler):
    """An engine that has no memory even to find out what a batch takes."""

    def next_batch(self, kind: Doubled, waiting: int) -> int:
        raise MemoryError("no room")

    def knows_batches(self, kind: Doubled) -> bool:
        raise MemoryError("no room")


def test_an_engine_without_memory_fails_its_own_work_alone(batcher: Batcher) -> None:
    unlucky = Caller(batcher, Full(), [1])
    with pytest.raises(MemoryError):
        unlucky.answer()
    engine = Doubler()
    engine.go.release()
    assert Caller(batcher, engine, [2]).answer() == (4,)
    assert batcher.waiting == 0


def test_an_engine_that_is_put_away_is_freed_when_its_last_work_is_done() -> None:
    batcher, engine = Batcher(), Doubler()
    first = Caller(batcher, engine, [1])
    assert engine.begun.acquire(timeout=30)
    last = Caller(batcher, engine, [2])
    batcher.forget(engine)  # type: ignore[arg-type]
    engine.go.release(2)
    assert (first.answer(), last.answer()) == ((2,), (4,))
    kept = weakref.ref(engine)
    del engine, first, last
    other = Doubler()
    other.go.release()
    assert Caller(batcher, other, [3]).answer() == (6,)  # The batcher's thread has let go of what it did before.
    gc.collect()
    assert kept() is None
    batcher.close()


def test_errors_of_who_is_told_of_a_batch_end_nothing() -> None:
    def fail(told: Any) -> None:
        raise RuntimeError("the event loop is closed")

    batcher, engine = Batcher(record=fail), Doubler()
    engine.go.release(2)
    batcher.submit(engine, Task(Doubled(), [1], list), tuple, fail)  # type: ignore[arg-type]
    assert Caller(batcher, engine, [2]).answer() == (4,)
    batcher.close()


def test_what_is_late_or_whose_caller_left_is_not_computed(batcher: Batcher) -> None:
    engine = Doubler()
    first = Caller(batcher, engine, [1])
    assert engine.begun.acquire(timeout=30)
    late, left, other = (
        Caller(batcher, engine, [2], seconds=0),
        Caller(batcher, engine, [3]),
        Caller(batcher, engine, [4]),
    )
    left.work.cancelled = True
    engine.go.release(2)
    assert (first.answer(), other.answer()) == ((2,), (8,))
    with pytest.raises(LateError):
        late.answer()
    assert engine.batches == [[1], [4]]
    assert not left.over.is_set()


def test_of_a_large_piece_that_becomes_late_the_rest_is_not_computed(batcher: Batcher) -> None:
    engine = Doubler()
    large = Caller(batcher, engine, range(8), seconds=0.05)
    assert engine.begun.acquire(timeout=30)
    time.sleep(0.1)
    engine.go.release(2)
    with pytest.raises(LateError):
        large.answer()
    assert engine.batches == [[0, 1, 2, 3]]


def test_work_that_would_wait_too_long_is_refused() -> None:
    batcher, engine = Batcher(most_seconds=0.1), Doubler()
    slow = Caller(batcher, engine, [1])
    assert engine.begun.acquire(timeout=30)
    time.sleep(0.2)  # so long a row takes
    engine.go.release()
    assert slow.answer() == (2,)
    alone = Caller(batcher, engine, [2])
    assert engine.begun.acquire(timeout=30)
    with pytest.raises(OverloadedError) as refused:
        Caller(batcher, engine, [3])
    assert refused.value.seconds >= 0.2
    engine.go.release()
    assert alone.answer() == (4,), "when nothing waits, any work is taken"
    batcher.close()


def test_too_much_work_is_refused_and_a_closed_batcher_finishes_what_it_has(batcher: Batcher) -> None:
    engine = Doubler()
    callers = [Caller(batcher, engine, [number]) for number in range(6)]
    with pytest.raises(OverloadedError):
        Caller(batcher, engine, [7])
    with ThreadPoolExecutor(1) as pool:
        closed = pool.submit(batcher.close)
        while not batcher.closing:
            time.sleep(0.01)
        with pytest.raises(ClosedError):
            Caller(batcher, engine, [7])
        engine.go.release(6)
        closed.result(30)
    assert [caller.answer() for caller in callers] == [(2 * number,) for number in range(6)]


@pytest.mark.parametrize("size", [(20, 33), (TILE + 70, 40)], ids=["one tile", "two tiles"])
def test_pictures_translated_together_are_those_translated_alone(model_runs: Path, size: tuple[int, int]) -> None:
    engine = Engine(model_runs / "monet" / "model")
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(5)]
    alone = [engine.translate(picture) for picture in pictures]
    batcher = Batcher()
    translate: Callable[[Any], Any] = lambda picture: batcher.run(engine, engine.translate_task(picture, None, {}))  # noqa: E731
    with ThreadPoolExecutor(5) as callers:
        for _ in range(3):
            for found, expected in zip(callers.map(translate, pictures), alone, strict=True):
                np.testing.assert_array_equal(found, expected)
    batcher.close()


class Noting(Doubler):
    """A doubler that waits for nobody, and notes the threads that it is called in."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[int] = []
        self.row_pixels = 1

    def compute(self, kind: Doubled, rows: Sequence[int]) -> list[int]:
        self.go.release()
        self.threads.append(threading.get_ident())
        return super().compute(kind, rows)

    def pixels(self, kind: Doubled) -> int:
        return self.row_pixels


def test_quick_work_is_computed_by_its_caller_and_other_work_is_not(batcher: Batcher) -> None:
    engine, mine = Noting(), threading.get_ident()

    def computed_here(rows: Sequence[int]) -> bool:
        caller = Caller(batcher, engine, rows, wake=False)
        batcher.compute_quickly()
        assert caller.answer() == tuple(2 * row for row in rows)
        return engine.threads[-1] == mine

    assert not computed_here([1]), "it was never computed before"
    assert computed_here([2, 3])
    engine.row_pixels = 10**9
    assert not computed_here([4]), "a row of as many pixels takes longer"


def test_work_whose_caller_left_holds_up_nobody() -> None:
    batcher, engine = Batcher(most_seconds=1e-9), Noting()
    assert Caller(batcher, engine, [1]).answer() == (2,)
    left = Caller(batcher, engine, [2], wake=False)
    left.work.cancelled = True
    batcher.compute_quickly()
    while batcher.waiting:
        time.sleep(0.01)
    assert Caller(batcher, engine, [4]).answer() == (8,)
    batcher.close()
