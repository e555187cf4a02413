"""Limits are checked like every config."""

from typing import Any

import pytest

from genlab.core.config import from_dict
from genlab.core.errors import ConfigError
from genlab.serving.limits import Limits


def test_every_limit_can_be_set() -> None:
    limits = from_dict(Limits, {"body_bytes": 10, "pixels": 20, "requests_per_minute": 60, "seconds": 1.5})
    assert limits == Limits(body_bytes=10, pixels=20, requests_per_minute=60, seconds=1.5)
    assert Limits().requests_per_minute is None


@pytest.mark.parametrize("values", [{"side": 0}, {"waiting": -1}, {"requests_per_minute": 0}, {"body_seconds": 0}])
def test_a_limit_that_lets_nothing_pass_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        from_dict(Limits, values)
