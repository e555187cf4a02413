from collections.abc import Callable
from pathlib import Path

import numpy as np
from upath import UPath

from genlab.data.format.manifest import Manifest, held_out_split

MakeData = Callable[..., UPath]

IMAGES = np.zeros((4, 2, 2, 1), np.uint8)


def test_models_are_measured_on_the_test_split_where_every_domain_has_one(make_data: MakeData, tmp_path: Path) -> None:
    with_test = Manifest.load(make_data(IMAGES, splits=("train", "test"), url=str(tmp_path / "a")))
    without = Manifest.load(make_data(IMAGES, splits=("train",), url=str(tmp_path / "b")))
    assert held_out_split([with_test, with_test], "test", "train") == "test"
    assert held_out_split([with_test, without], "test", "train") == "train"
    assert held_out_split([without], "test", "train") == "train"
