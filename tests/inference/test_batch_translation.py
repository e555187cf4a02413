"""Translation of folders on a real Ray."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from genlab.cli.translate import main
from genlab.core.ray_cluster import connected
from tests.inference.support import expected, written


@pytest.fixture(scope="module")
def own_ray() -> Iterator[None]:
    """One Ray for all tests that need it."""
    with connected():
        yield


@pytest.mark.cluster
@pytest.mark.usefixtures("own_ray")
def test_a_folder_keeps_its_names(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main([str(run), str(pictures), str(out), "--direction", "b_to_a"])
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.*")} == {
        "translate.json",
        "one.png",
        "more/two.png",
        "more/three.png",
    }
    for source in ("one.jpg", "more/two.png", "more/three.webp"):
        result = written((out / source).with_suffix(".png")).astype(int)
        # the workers may have other threads than this process, and sum in another order
        np.testing.assert_allclose(result, expected(run, pictures / source, "b_to_a"), atol=1)
    output = capsys.readouterr()
    assert "3 of 4 images" in output.out
    assert "more/bad.jpg: cannot be decoded" in output.err


@pytest.mark.cluster
@pytest.mark.usefixtures("own_ray")
def test_a_folder_of_nothing_but_bad_pictures_fails(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "bad.jpg").write_bytes((pictures / "more" / "bad.jpg").read_bytes())
    with pytest.raises(SystemExit) as end:
        main([str(run), str(folder), str(tmp_path / "out")])
    assert end.value.code == 2
    assert "none of its 1 images" in capsys.readouterr().err
