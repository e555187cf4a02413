import torch
from torch import Tensor

from genlab.recipes.history_buffer import HistoryBuffer

SIZE, BATCH = 5, 4


def numbered(first: int, count: int = BATCH) -> Tensor:
    """Images that are their own number."""
    return torch.arange(first, first + count).float()[:, None, None, None].expand(-1, 1, 2, 2)


def numbers(images: Tensor) -> list[int]:
    return [int(image.flatten()[0]) for image in images]


def test_images_are_shown_as_they_come_until_it_is_full_and_kept_in_their_order() -> None:
    history = HistoryBuffer(8, (2, 2, 1))
    always = torch.zeros(BATCH)
    for first in (0, 4):
        shown = history.exchange(numbered(first), range(BATCH), always, torch.arange(first), seen=first)
        assert numbers(shown) == numbers(numbered(first))
    assert numbers(history.images) == list(range(8))


def test_then_half_of_them_are_exchanged_for_older_ones_evenly() -> None:
    generator = torch.Generator().manual_seed(0)
    history = HistoryBuffer(SIZE, (2, 2, 1))
    old, slots = 0, [0] * SIZE
    for first in range(0, 8000, BATCH):
        before = numbers(history.images)
        draws, order = torch.rand(BATCH, generator=generator), torch.randperm(min(SIZE, first), generator=generator)
        shown = numbers(history.exchange(numbered(first), range(BATCH), draws, order, first))
        after = numbers(history.images)
        if first < 2 * BATCH:
            continue
        exchanged = [number for number in shown if number < first]
        assert set(shown) | set(after) == set(before) | set(range(first, first + BATCH)), "none is lost"
        assert len(set(shown)) == BATCH
        old += len(exchanged)
        slots = [count + (a != b) for count, a, b in zip(slots, before, after, strict=True)]
    share = old / 8000
    assert 0.48 < share < 0.52
    assert max(slots) < 1.1 * min(slots)


def test_what_a_row_meets_does_not_depend_on_where_it_stands_in_the_call() -> None:
    draws, slots = torch.tensor([0.9, 0.1, 0.1, 0.9]), torch.tensor([4, 0, 2, 1, 3])
    whole, parts = HistoryBuffer(SIZE, (2, 2, 1)), HistoryBuffer(SIZE, (2, 2, 1))
    for history in (whole, parts):
        history.images.copy_(numbered(100, SIZE))
    shown = numbers(whole.exchange(numbered(0), range(BATCH), draws, slots, seen=50))
    assert shown == [0, 100, 102, 3]
    first = parts.exchange(numbered(0)[[0, 2]], [0, 2], draws, slots, seen=50)
    second = parts.exchange(numbered(0)[[1, 3]], [1, 3], draws, slots, seen=50)
    assert numbers(first) + numbers(second) == [0, 102, 100, 3]
    assert torch.equal(whole.images, parts.images)


def test_an_empty_history_shows_what_it_is_given() -> None:
    shown = HistoryBuffer(0, (2, 2, 1)).exchange(
        numbered(7), range(BATCH), torch.zeros(BATCH), torch.arange(0), seen=90
    )
    assert numbers(shown) == [7, 8, 9, 10]


def test_of_a_batch_larger_than_the_history_the_first_rows_are_exchanged() -> None:
    history = HistoryBuffer(2, (2, 2, 1))
    history.images.copy_(numbered(100, 2))
    shown = history.exchange(numbered(0), range(BATCH), torch.zeros(BATCH), torch.tensor([1, 0]), seen=50)
    assert numbers(shown) == [101, 100, 2, 3]
    assert numbers(history.images) == [1, 0]
