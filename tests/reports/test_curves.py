import io

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from genlab.core.storage import locate
from genlab.reports.curves import LINES, loss_figure
from genlab.reports.run import RunRecord


def run(points: int) -> RunRecord:
    """A run of ``points`` lines of metrics."""
    train = [
        {"kind": "train", "step": step, "images": 8 * step, "epoch": step / 10, "loss": 3.0 / step}
        for step in range(1, points + 1)
    ]
    return RunRecord(locate("/nowhere"), "vae", {}, {}, [], train, [])


def test_a_loss_that_was_logged_once_is_a_point() -> None:
    for points in (1, 2):
        (chart,) = loss_figure(run(points), ()).pictures
        pixels = np.asarray(Image.open(io.BytesIO(chart.png)).convert("RGB")).astype(int)
        line = np.array(to_rgb(LINES[0])) * 255
        assert (np.abs(pixels - line).max(axis=2) < 12).sum() > 10, points
