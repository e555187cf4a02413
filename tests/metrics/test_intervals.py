"""Intervals hold what they say: 95% of them cover the truth."""

import pytest
import torch
from scipy.stats import binomtest

from genlab.metrics.intervals import mean_interval, proportion_interval


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (10, 10), (97, 100), (1234, 10_000)])
def test_shares_have_wilsons_interval(hits: int, count: int) -> None:
    theirs = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert proportion_interval(hits, count) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_the_interval_of_a_mean_covers_it_nineteen_times_in_twenty() -> None:
    values = torch.rand(2000, 100, generator=torch.Generator().manual_seed(0)).square()
    covered = [low < 1 / 3 < high for low, high in map(mean_interval, values)]
    assert 0.93 < sum(covered) / len(covered) < 0.97
