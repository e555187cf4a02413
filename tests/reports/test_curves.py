import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from genlab.core.storage import locate
from genlab.reports.curves import LINES, clock_figure, loss_figure
from genlab.reports.page import Figure
from genlab.reports.run import RunRecord


def lines(kind: str, steps: Iterable[int]) -> list[dict[str, Any]]:
    return [
        {"kind": kind, "step": step, "images": 8 * step, "epoch": step / 10, "loss": 3.0 / step + len(kind)}
        for step in steps
    ]


def run(points: int, val: Sequence[int] = (), test: Sequence[int] = ()) -> RunRecord:
    """A run of ``points`` lines of metrics, and lines of held-out rows after these steps."""
    train = lines("train", range(1, points + 1))
    return RunRecord(locate("/nowhere"), "vae", {}, {}, [], train, lines("test", test), lines("val", val))


def drawn(figure: Figure, colour: str) -> int:
    """The number of pixels of a colour in the only chart of a figure."""
    (chart,) = figure.pictures
    pixels = np.asarray(Image.open(io.BytesIO(chart.png)).convert("RGB")).astype(int)
    return int((np.abs(pixels - np.array(to_rgb(colour)) * 255).max(axis=2) < 12).sum())


def test_a_loss_that_was_logged_once_is_a_point() -> None:
    for points in (1, 2):
        assert drawn(loss_figure(run(points), ()), LINES[0]) > 10, points


def test_rows_to_choose_on_are_drawn_beside_those_for_results() -> None:
    alone, both = (loss_figure(run(20, val=(10, 20), test=test), ()) for test in ((), (10, 20)))
    assert drawn(loss_figure(run(20), ()), LINES[1]) == 0
    assert 10 < drawn(alone, LINES[1]) < drawn(both, LINES[1])
    assert "hollow" in both.caption
    assert "hollow" not in alone.caption


def test_a_metric_of_some_steps_only_has_a_curve_and_a_networks_learning_rate_is_no_loss() -> None:
    found = run(9)
    for line in found.train:
        line |= {"learning_rate": 0.02, "learning_rate_critic": 0.01} | ({"r1": 1.0} if line["step"] % 4 == 0 else {})
    assert [chart.name for chart in loss_figure(found, ()).pictures] == ["loss-loss", "loss-r1"]
    assert found.learning_rates == {"learning_rate": "optimization", "learning_rate_critic": "critic"}
    assert drawn(Figure("", clock_figure(found).pictures[:1]), LINES[1]) > 10
