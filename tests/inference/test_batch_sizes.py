"""Batch sizes: a picture is the same bytes whatever it is computed with."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from genlab.inference import batch_sizes
from genlab.inference.batch_sizes import SMALL, Trial, agreeing, choose
from genlab.inference.engine import Engine
from genlab.inference.kinds import Draw, Drawn
from genlab.models.model import Model
from genlab.models.stylegan import StyleGAN, StyleGANArchitecture
from genlab.models.vae import VAE, VAEArchitecture
from genlab.store import model_directory
from tests.inference.support import PROVENANCE


@pytest.mark.parametrize(
    ("digests", "sizes"),
    [
        ("aaaa", (1, 2, 4, 8)),
        ("aaba", (1, 2, 8)),
        ("abbb", (2, 4, 8)),
        ("abab", (1, 4)),
        ("abba", (2, 4)),
        ("abca", (1,)),
        ("a-aa", (1, 4, 8)),
        ("--aa", (1,)),
        ("a", (1,)),
    ],
)
def test_sizes_agree_with_those_of_few_pictures(digests: str, sizes: tuple[int, ...]) -> None:
    found = {2**power: None if digest == "-" else digest for power, digest in enumerate(digests)}
    assert agreeing(found, SMALL) == sizes
    if sizes[0] == 2:
        assert agreeing(found, SMALL + 1) == (1,), "a large picture is not computed twice"


HALVES = {1: 8.0, 2: 4.0, 4: 2.0, 8: 1.0}
ALIKE = {1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0}


@pytest.mark.parametrize(
    ("waiting", "seconds", "size"),
    [
        (6, HALVES, 8),
        (4, HALVES, 4),
        (3, HALVES, 4),
        (9, HALVES, 8),
        (6, ALIKE, 4),
        (3, ALIKE, 2),
        (6, {}, 4),
        (1, {}, 1),
    ],
)
def test_a_batch_has_the_size_in_which_a_row_takes_least_time(
    waiting: int, seconds: dict[int, float], size: int
) -> None:
    assert choose(waiting, (1, 2, 4, 8), seconds) == size


def test_a_single_row_goes_into_the_smallest_batch() -> None:
    assert choose(1, (2, 4), {}) == choose(1, (2, 4), HALVES) == 2


@pytest.fixture(scope="module", params=["VAE", "StyleGAN"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    architecture = StyleGANArchitecture(channel_base=128, channel_max=32, latent_dim=32, mapping_layers=2)
    models: dict[str, Model] = {
        "VAE": VAE((28, 28, 1), VAEArchitecture()),
        "StyleGAN": StyleGAN((16, 16, 3), architecture),
    }
    root = tmp_path_factory.mktemp(request.param)
    model_directory.save(root, models[request.param], PROVENANCE)
    return root


def test_a_picture_is_the_same_bytes_whatever_it_is_computed_with(directory: Path) -> None:
    engine = Engine(directory)
    kind = Draw(engine.info.options("sample", {}))
    rows = [Drawn(seed, picture, None) for seed in (3, 4) for picture in range(9)]
    alone = [engine.compute(kind, [row])[0] for row in rows]
    position = 0
    while position < len(rows):
        count = engine.next_batch(kind, len(rows) - position)
        np.testing.assert_array_equal(engine.compute(kind, rows[position : position + count]), alone[position:][:count])
        position += count
    np.testing.assert_array_equal(engine.sample(9, 4), alone[9:])


def test_exactness_is_given_up_where_it_costs_too_much(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(trial: Trial, size: int) -> float:
        return 1 / size  # measured ones are what the machine has time for

    monkeypatch.setattr(Trial, "_seconds_per_row", seconds)
    engine = Engine(directory, most_cost=0)
    kind = Draw(engine.info.options("sample", {}))
    assert not engine.exact(kind)
    assert engine.next_batch(kind, 5) > 1
    assert Engine(directory).exact(kind)


def test_sizes_need_not_agree_if_exactness_is_not_asked_for(directory: Path) -> None:
    engine, exact = Engine(directory, exact=False), Engine(directory)
    kind = Draw(engine.info.options("sample", {}))
    assert engine.next_batch(kind, 7) == 7
    difference = engine.sample(7, 3).astype(int) - exact.sample(7, 3)
    assert abs(difference).max() <= 1


@pytest.mark.parametrize("exact", [False, True])
def test_a_batch_takes_no_more_than_half_of_the_free_memory(
    exact: bool, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row takes 1,000 bytes."""
    free = 16_000

    def peak(work: Callable[[], object], device: torch.device) -> int:
        layers: list[int] = []
        with torch.nn.modules.module.register_module_forward_hook(lambda _, __, made: layers.append(len(made))):
            work()
        return 1000 * layers[-1]

    monkeypatch.setattr(batch_sizes, "peak_bytes", peak)
    monkeypatch.setattr(batch_sizes, "free_bytes", lambda device: free)
    monkeypatch.setattr(batch_sizes, "NEGLIGIBLE", 0)
    monkeypatch.setattr(batch_sizes, "WORTHWHILE", math.inf)
    engine = Engine(directory, "cpu", exact=exact)
    kind = Draw(engine.info.options("sample", {}))
    assert engine.row_bytes(kind) == 1000
    before = engine.next_batch(kind, 40)
    assert before <= 8 if exact else before == 8
    free = 9000
    assert engine.next_batch(kind, 40) == min(before, 4)
    free = 0
    assert engine.next_batch(kind, 40) <= 2
    assert engine.sample(5, 3).shape[0] == 5, "the smallest batch is computed always"
