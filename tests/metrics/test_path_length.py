"""The mean length of ways, without the shortest and the longest steps."""

import math

import numpy as np
import pytest
import torch

from genlab.metrics.path_length import path_length


@pytest.mark.parametrize("count", [1, 2, 99, 101, 102, 350])
def test_it_leaves_out_what_the_authors_code_does(count: int) -> None:
    distances = torch.empty(count).exponential_(generator=torch.Generator().manual_seed(count)) * 1e-8
    lengths = distances.double().numpy() / 1e-8
    low, high = np.percentile(lengths, 1, method="lower"), np.percentile(lengths, 99, method="higher")
    expected = lengths[(low <= lengths) & (lengths <= high)].mean()
    assert path_length(distances).value == pytest.approx(expected)


def test_a_few_huge_steps_move_neither_the_length_nor_its_interval() -> None:
    distances = torch.rand(500, generator=torch.Generator().manual_seed(0)) * 1e-8
    plain = path_length(distances)
    distances[distances.argsort()[-4:]] = 1.0
    assert path_length(distances) == plain


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_distance_that_is_not_finite_is_not_left_out(number: float) -> None:
    distances = torch.rand(500, generator=torch.Generator().manual_seed(0))
    distances[7] = number
    found = path_length(distances)
    assert math.isnan(found.value)
    assert found.interval is None


def test_few_steps_have_no_interval() -> None:
    assert path_length(torch.rand(24)).interval is None
    assert path_length(torch.rand(25)).interval is not None
