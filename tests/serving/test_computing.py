"""Requests of an event loop on a batcher: their results, their errors, and clients that leave."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from genlab.inference.batching import Batcher
from genlab.inference.engine import Task
from genlab.serving.computing import Computer
from genlab.serving.problems import Problem


@dataclass(frozen=True)
class Doubled:
    operation = "double"
    trial = ("double",)


class Doubler:
    """An engine that doubles numbers, one at a time, and waits before each."""

    def __init__(self, open: bool = True) -> None:
        self.go = threading.Event()
        self.computed: list[int] = []
        if open:
            self.go.set()

    def next_batch(self, kind: Any, waiting: int) -> int:
        return 1

    def compute(self, kind: Any, rows: Sequence[int]) -> list[int]:
        assert self.go.wait(30)
        self.computed += rows
        return [2 * row for row in rows]

    def pixels(self, kind: Any) -> int:
        return 1

    def knows_batches(self, kind: Any) -> bool:
        return True


def task(*rows: int) -> Any:
    return Task(Doubled(), rows, list)  # type: ignore[arg-type]


@pytest.fixture
def batcher() -> Iterator[Batcher]:
    batcher = Batcher(most_waiting=3)
    yield batcher
    batcher.close()


def test_each_gets_its_own(batcher: Batcher) -> None:
    engine: Any = Doubler()

    async def ask() -> Any:
        computer = Computer(batcher, 30)
        asked = [computer.compute(engine, task(number, 10 * number), tuple) for number in range(3)]
        return await asyncio.gather(*asked)

    assert asyncio.run(ask()) == [(0, 0), (2, 20), (4, 40)]


def test_what_fails_and_what_is_too_much_is_raised_where_it_was_asked_for(batcher: Batcher) -> None:
    engine: Any = Doubler(open=False)

    def fail(pixels: Any) -> None:
        raise ValueError("no such format")

    async def ask() -> list[Any]:
        computer = Computer(batcher, 30)
        asked = [
            asyncio.create_task(computer.compute(engine, task(1), finish)) for finish in (tuple, fail, tuple, tuple)
        ]
        await asyncio.sleep(0.1)
        engine.go.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second, third, fourth = asyncio.run(ask())
    assert first == third == (2,)
    assert str(second) == "no such format"
    assert isinstance(fourth, Problem)
    assert (fourth.status, fourth.kind) == (503, "overloaded")
    assert fourth.retry_after is not None


def test_what_takes_too_long_is_given_up(batcher: Batcher) -> None:
    engine: Any = Doubler(open=False)

    async def ask() -> Any:
        first = asyncio.create_task(Computer(batcher, 30).compute(engine, task(1), tuple))
        late = asyncio.create_task(Computer(batcher, 0.05).compute(engine, task(2), tuple))
        await asyncio.sleep(0.2)
        engine.go.set()
        assert await first == (2,)
        with pytest.raises(Problem, match="late"):
            await late

    asyncio.run(ask())
    assert engine.computed == [1]


def test_nothing_more_is_computed_for_a_client_that_left(batcher: Batcher) -> None:
    engine: Any = Doubler(open=False)

    async def ask() -> Any:
        left = asyncio.Event()

        async def receive() -> Any:
            await left.wait()
            return {"type": "http.disconnect"}

        computer = Computer(batcher, 30)
        other = asyncio.create_task(computer.compute(engine, task(1), tuple))
        leaving = asyncio.create_task(computer.compute(engine, task(2, 3), tuple, receive))
        await asyncio.sleep(0.2)
        left.set()
        with pytest.raises(ClientDisconnect):
            await leaving
        engine.go.set()
        assert await other == (2,)

    asyncio.run(ask())
    batcher.close()
    assert engine.computed == [1]
