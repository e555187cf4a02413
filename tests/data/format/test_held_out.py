"""The rule for held-out rows, and the halves of a split."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from upath import UPath

from genlab.core.errors import DataError
from genlab.core.storage import sha256
from genlab.data.format.held_out import FEWEST_OF_HALF, HeldOutSplits, held_out_splits
from genlab.data.format.shards import ShardSet
from genlab.data.format.splits import overlap

MakeData = Callable[..., UPath]
MakeSplits = Callable[..., ShardSet]
CHOOSING = [False, True]


@pytest.fixture
def make_splits(make_data: MakeData, tmp_path: Path) -> MakeSplits:
    """``make_splits("train", "test", rows=40)``: a data set of these splits with so many rows each."""

    def make(*splits: str, rows: int = 4) -> ShardSet:
        count = rows * len(splits)
        images = np.broadcast_to((np.arange(count) % 256).astype(np.uint8)[:, None, None, None], (count, 2, 2, 1))
        url = str(tmp_path / f"{'-'.join(splits)}-{rows}")
        return ShardSet.open(make_data(images, splits=splits, url=url))

    return make


def rule(*domains: ShardSet, choosing: bool = True, test_split: str = "test", split: str = "train") -> HeldOutSplits:
    return held_out_splits(domains, test_split, split, choosing=choosing)


@pytest.mark.parametrize("choosing", CHOOSING)
def test_a_validation_split_is_for_choosing_and_the_test_split_for_results(
    make_splits: MakeSplits, choosing: bool
) -> None:
    data = make_splits("train", "validation", "test", rows=90)
    found = rule(data, data, choosing=choosing)
    assert found == HeldOutSplits("validation", "test")
    assert not found.shared
    assert found.kind("test") == "val"
    assert rule(make_splits("train", "validation"), choosing=choosing) == HeldOutSplits("validation", "train")


def test_a_test_split_is_divided_only_for_a_choice(make_splits: MakeSplits) -> None:
    data = make_splits("train", "test", rows=90)
    assert rule(data, choosing=False) == HeldOutSplits(None, "test")
    found = rule(data)
    assert found == HeldOutSplits("test:validation", "test:reporting")
    assert not found.shared
    assert found.kind("test") == "val"
    mixed = rule(make_splits("train", "validation", "test", rows=90), data)
    assert mixed == found, "a domain has no validation split"


def test_a_test_split_is_whole_where_a_half_would_have_fewer_than_25_images(make_splits: MakeSplits) -> None:
    data = make_splits("train", "test", rows=50)
    halves = [len(data.part(f"test:{half}")) for half in ("validation", "reporting")]
    assert min(halves) < FEWEST_OF_HALF == 25 < max(halves)
    for domains in (data,), (make_splits("train", "test", rows=90), data):
        found = rule(*domains)
        assert found == HeldOutSplits("test", "test")
        assert found.shared
        assert found.kind("test") == "test"


@pytest.mark.parametrize("choosing", CHOOSING)
def test_rows_that_are_trained_on_are_never_divided(make_splits: MakeSplits, choosing: bool) -> None:
    train, test = make_splits("train", rows=90), make_splits("train", "test", rows=90)
    choice = "train" if choosing else None
    assert rule(train, choosing=choosing) == HeldOutSplits(choice, "train")
    assert rule(train, test, choosing=choosing) == HeldOutSplits(choice, "train")
    assert rule(test, choosing=choosing, test_split="train") == HeldOutSplits(choice, "train")
    assert HeldOutSplits("train", "train").kind("test") == "train"


def test_halves_share_no_row_and_are_the_split_together(make_splits: MakeSplits) -> None:
    data = make_splits("train", "test", rows=90)
    whole, first, rest = (data.part(name) for name in ("test", "test:validation", "test:reporting"))
    keys = [part.keys(np.arange(len(part))) for part in (first, rest)]
    assert sorted(keys[0] + keys[1]) == sorted(whole.keys(np.arange(90)))
    assert 25 <= len(first) <= 65
    assert keys[0] == [key for key in whole.keys(np.arange(90)) if key in keys[0]], "in the order of the split"
    for part, names in zip((first, rest), keys, strict=True):
        rows = np.array([len(part) - 1, 0, 3])
        levels = part.read(rows).image[:, 0, 0, 0].tolist()
        assert levels == [int(names[row].removeprefix("image-")) for row in rows]
        assert part.checksum == data.checksum
    with pytest.raises(IndexError):
        first.read(np.array([len(first)]))


def test_halves_do_not_depend_on_how_the_split_was_chosen(make_splits: MakeSplits) -> None:
    """Ingest puts the lowest hashes into the test split; another part of the hash divides it."""
    data = make_splits("test", rows=200)
    first = data.part("test:validation")
    lowest = [key for key in data.keys(np.arange(200)) if key_hash(key) < 0.3]
    shared = set(first.keys(np.arange(len(first)))) & set(lowest)
    assert 0.25 < len(shared) / len(lowest) < 0.75


def key_hash(key: str) -> float:
    return int(sha256(key.encode())[:16], 16) / 2**64


def test_there_is_no_half_of_a_split_that_is_not_there_and_no_stream_of_a_half(make_splits: MakeSplits) -> None:
    data = make_splits("train", "test")
    with pytest.raises(DataError, match="no split 'validation'"):
        data.part("validation:reporting")
    for name in "test:validation", "test:half":
        with pytest.raises(DataError, match=f"no split '{name}'"):
            data.split(name)
    with pytest.raises(DataError, match="no split 'test:half'"):
        data.part("test:half")


def test_a_validation_split_is_no_half(make_splits: MakeSplits) -> None:
    data = make_splits("train", "validation", "test", rows=6)
    part = data.part("validation")
    assert part.keys(np.arange(len(part))) == [f"image-{row:02}" for row in range(6, 12)]
    halves = [data.part(f"validation:{half}") for half in ("validation", "reporting")]
    assert sum(map(len, halves)) == 6


def test_splits_overlap_unless_they_are_two_or_the_two_halves_of_one() -> None:
    assert overlap("test", "test")
    assert overlap("test", "test:reporting")
    assert overlap("test:validation", "test")
    assert not overlap("test:validation", "test:reporting")
    assert not overlap("validation", "test:validation")
    assert not overlap("", "test")
    assert not overlap("", "validation")
