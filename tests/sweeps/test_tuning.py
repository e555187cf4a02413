"""What a trial's process makes of errors: those that would come again are not tried again."""

from typing import Any

import pytest
from ray import tune

from genlab.core.errors import DataError, StorageTimeoutError
from genlab.sweeps import tuning
from genlab.sweeps.trials import FAULT


@pytest.mark.parametrize("error", [DataError("a block is damaged"), StorageTimeoutError("s3://runs: away")])
def test_an_error_is_reported_or_raised(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Tune starts a trial again that raises."""
    reports: list[dict[str, Any]] = []

    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(tuning, "_train_and_report", fail)
    monkeypatch.setattr(tune, "report", reports.append)
    if isinstance(error, StorageTimeoutError):
        with pytest.raises(StorageTimeoutError):
            tuning._trial({}, None, None, "", 1)  # type: ignore[arg-type]
        assert not reports
    else:
        tuning._trial({}, None, None, "", 1)  # type: ignore[arg-type]
        assert reports == [{FAULT: "a block is damaged"}]
