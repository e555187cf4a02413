"""Intervals hold what they say: 95% of them cover the truth."""

import pytest
import torch
from scipy.stats import binomtest, t, ttest_1samp, ttest_ind

from genlab.metrics.intervals import (
    holm,
    mean_interval,
    paired_p_value,
    proportion_interval,
    student_p_value,
    student_quantile,
    welch_p_value,
)


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (10, 10), (97, 100), (1234, 10_000)])
def test_shares_have_wilsons_interval(hits: int, count: int) -> None:
    theirs = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert proportion_interval(hits, count) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@pytest.mark.parametrize("count", [25, 26, 400])
def test_means_have_students_interval(count: int) -> None:
    values = torch.rand(count, generator=torch.Generator().manual_seed(0)).double()
    theirs = ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((theirs.low, theirs.high), rel=1e-4)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 10, 24, 1000])
def test_the_p_values_of_students_test_are_scipys(freedom: int) -> None:
    for statistic in (0.0, 0.3, -2.0, 5.0, 9.0):
        assert student_p_value(statistic, freedom) == pytest.approx(2 * t.sf(abs(statistic), freedom), rel=2e-3)
    differences = torch.rand(30, generator=torch.Generator().manual_seed(0)).double() - 0.4
    assert paired_p_value(differences) == pytest.approx(ttest_1samp(differences, 0).pvalue, rel=1e-3)
    assert paired_p_value(torch.zeros(30)) == 1
    assert paired_p_value(torch.ones(30)) == 0


def test_the_quantiles_of_few_degrees_of_freedom_are_scipys() -> None:
    assert [student_quantile(freedom) for freedom in range(1, 12)] == pytest.approx(
        t.ppf(0.975, range(1, 12)), rel=1e-3
    )


def test_welchs_test_is_scipys_but_for_whole_degrees_of_freedom() -> None:
    one, other = [1.0, 1.4, 0.9, 1.2], [1.6, 1.9, 1.5]
    theirs = ttest_ind(one, other, equal_var=False)
    assert welch_p_value(one, other) == pytest.approx(2 * t.sf(abs(theirs.statistic), int(theirs.df)), rel=1e-6)
    assert welch_p_value([1.0, 1.0], [1.0, 1.0]) == 1
    assert welch_p_value([1.0, 1.0], [2.0, 2.0]) == 0


def test_holms_correction_is_the_textbooks() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1, 1]
    assert holm([]) == []
