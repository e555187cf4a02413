"""Runs whose number of workers may change."""

import pickle

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from genlab.core.config import differences, from_dict, override, parse, to_dict
from genlab.core.errors import ConfigError
from genlab.recipes.options import Run
from genlab.recipes.vae import VAEConfig
from genlab.recipes.workers import least_of, parse_workers
from genlab.training.plan import Plan
from genlab.training.step_context import rows_of_part


def test_a_range_of_workers_is_an_option_like_others() -> None:
    config = parse(VAEConfig, ["--run.workers", "2..8"])
    assert (least_of(config.run.workers), config.run.workers) == (2, 8)
    for again in (from_dict(VAEConfig, to_dict(config)), pickle.loads(pickle.dumps(config))):
        assert (least_of(again.run.workers), again.run.workers) == (2, 8)
    assert to_dict(config)["run"]["workers"] == "2..8"
    plain = override(config, {"run.workers": 3})
    assert (least_of(plain.run.workers), plain.run.workers, to_dict(plain)["run"]["workers"]) == (3, 3, 3)
    assert not differences(config, plain), "a run may go on with another number"


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        ("8..2", "more at its end"),
        ("0..2", "at least one"),
        ("2..", "a range as 2..8"),
        (-1, "greater than or equal to 0"),
    ],
)
def test_other_ranges_are_refused(workers: object, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"run\.workers = .*{message}"):
        override(VAEConfig(), {"run.workers": workers})


@given(
    groups=st.integers(1, 60),
    group=st.sampled_from([1, 4]),
    least=st.integers(1, 4),
    more=st.integers(1, 6),
    accumulate=st.integers(1, 3),
    data=st.data(),
)
def test_a_worker_of_fewer_has_no_more_rows_at_once(
    groups: int, group: int, least: int, more: int, accumulate: int, data: st.DataObject
) -> None:
    most = least + more
    assume(groups >= most * accumulate)
    run = Run(workers=parse_workers(f"{least}..{most}"), batch=groups * group, accumulate=accumulate)
    plan = Plan("vae", VAEConfig(run=run), "", {}, 1, None, group)  # type: ignore[arg-type]

    def at_once(workers: int, parts: int) -> list[int]:
        shares = [
            rows_of_part(run.batch, rank, workers, part, parts, group)
            for rank in range(workers)
            for part in range(parts)
        ]
        assert [row for share in shares for row in range(share.start, share.stop)] == list(range(run.batch))
        return [share.stop - share.start for share in shares]

    limit = max(at_once(most, accumulate))
    workers = data.draw(st.integers(least, most))
    found = at_once(workers, plan.accumulate(workers))
    assert min(found) > 0
    assert max(found) <= max(limit, 2 * group)
