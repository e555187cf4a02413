"""Are generated images nearer to training images than held-out ones are?"""

import pytest
import torch

from genlab.metrics.copies import nearer_share


def test_it_is_the_share_of_pairs_and_equal_distances_count_half() -> None:
    generated, held_out = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([2.0, 3.0])
    assert nearer_share(generated, held_out).value == pytest.approx((2 + 1.5 + 0) / 6)
    assert nearer_share(held_out, generated).value == pytest.approx(1 - 3.5 / 6)


def test_copies_are_told_from_new_images_and_from_unlike_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    held_out = 1 + torch.rand(50, generator=generator)
    for generated, low, high in ((torch.zeros(60), 0.9, 1), (held_out + 0, 0.3, 0.7), (held_out + 9, 0, 0.1)):
        interval = nearer_share(generated, held_out).interval
        assert interval is not None
        assert low - 1e-9 <= interval[0] < interval[1] <= high + 1e-9


def test_few_images_have_no_interval() -> None:
    assert nearer_share(torch.rand(24), torch.rand(100)).interval is None
    assert nearer_share(torch.rand(100), torch.rand(25)).interval is not None
