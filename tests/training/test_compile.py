"""torch.compile changes how fast a run is, and what comes of it by rounding alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch._dynamo.utils as dynamo

from genlab import modelstore
from genlab.training.launch import launch
from tests.training.support import metrics

pytestmark = pytest.mark.cluster  # Inductor calls a C++ compiler for a minute.


@pytest.mark.parametrize("family", ["vae", "cyclegan"])
def test_a_compiled_run_has_the_same_losses(family: str, tiny: Callable[..., Any], tmp_path: Path) -> None:
    same = {"run.steps": 6, "run.log_every": 1} | ({"model.dropout": 0.0} if family == "cyclegan" else {})
    launch(family, tiny(family, same | {"run.name": "eager"}))
    dynamo.counters.clear()
    launch(family, tiny(family, same | {"run.name": "compiled", "run.compile": True}))
    assert dynamo.counters["frames"]["ok"] > 0
    assert not dynamo.counters["graph_break"]
    eager, compiled = metrics(tmp_path / "eager"), metrics(tmp_path / "compiled")
    assert len(eager) == len(compiled)
    for one, other in zip(eager, compiled, strict=True):
        assert other.pop("kind") == one.pop("kind")
        assert other == pytest.approx(one, rel=2e-4, abs=2e-5)
    names = [modelstore.load(tmp_path / run / "model").state_dict().keys() for run in ("eager", "compiled")]
    assert names[0] == names[1]
