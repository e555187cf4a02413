"""The random numbers of samples: those of a picture are its own, and normal."""

import math

import pytest
import torch

from genlab.models.noise import Noise

KNOWN = [[0.16914815, -1.7861505, 1.0614328], [-0.8013289, 0.6225514, 0.38510257]]


def test_a_pictures_numbers_do_not_depend_on_which_others_are_drawn() -> None:
    many = Noise(7, range(100)).normal("z", 5, 3)
    assert many.shape == (100, 5, 3)
    assert many.dtype == torch.float32
    assert torch.equal(Noise(7, range(1)).normal("z", 5, 3), many[:1])
    assert torch.equal(Noise(7, range(40, 60)).normal("z", 5, 3), many[40:60])


def test_pictures_of_several_seeds_have_the_numbers_that_each_has_alone() -> None:
    drawn = [(7, 3), (7, 4), (0, 3), (7, 3), (2**40, 0)]
    together = Noise.of(drawn)
    assert len(together) == 5
    for draw in ("normal", "uniform"):
        alone = [getattr(Noise(seed, [picture]), draw)("z", 5, 3) for seed, picture in drawn]
        assert torch.equal(getattr(together, draw)("z", 5, 3), torch.cat(alone))


def test_pictures_seeds_and_names_have_numbers_of_their_own() -> None:
    draws = [
        *Noise(0, range(3)).normal("z", 8),
        *Noise(1, range(3)).normal("z", 8),
        *Noise(2**63 - 1, range(3)).normal("z", 8),
        *Noise(0, range(3)).normal("layer", 8),
    ]
    values = torch.stack(draws).flatten()
    assert len(values.unique()) == len(values)


@pytest.mark.parametrize("shape", [(2,), (33,), (16, 2)])
def test_numbers_are_normal_and_independent(shape: tuple[int, ...]) -> None:
    values = Noise(3, range(20_000)).normal("z", *shape).double().flatten(1)
    error = 5 / math.sqrt(values.numel())
    assert abs(values.mean()) < error
    assert abs(values.square().mean() - 1) < error * math.sqrt(2)
    assert abs(values.pow(4).mean() - 3) < error * math.sqrt(96)
    correlations = torch.corrcoef(torch.cat([values[:-1, :2], values[1:, :2]], dim=1).T) - torch.eye(4)
    assert correlations.abs().max() < 5 / math.sqrt(len(values)), "of one picture, and of one and the next"


def test_the_rule_stays_as_it_is() -> None:
    """Pictures that were drawn once are drawn again by the same seed."""
    values = Noise(7, range(2, 4)).normal("z", 3)
    torch.testing.assert_close(values, torch.tensor(KNOWN))


@pytest.mark.parametrize("size", [1, 6])
def test_uniform_numbers_fill_the_unit_interval_and_are_a_pictures_own(size: int) -> None:
    values = Noise(3, range(5000)).uniform("share", size)
    assert values.dtype == torch.float32
    assert torch.equal(Noise(3, range(40, 60)).uniform("share", size), values[40:60])
    ordered = values.flatten().sort().values
    even = (torch.arange(len(ordered)) + 0.5) / len(ordered)
    assert (ordered - even).abs().max() < 2 / math.sqrt(len(ordered)), "Kolmogorov & Smirnov"
    assert not torch.equal(Noise(3, range(5000)).uniform("other", size), values)
