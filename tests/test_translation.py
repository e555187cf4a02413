from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genlab import modelstore
from genlab.models.cyclegan import CycleGAN, CycleGANArchitecture
from genlab.models.vae import VAE, VAEArchitecture
from genlab.ray_cluster import connected
from genlab.translation import Worker, main

PROVENANCE = modelstore.Provenance(run="/runs/monet", step=1, images=1, data={}, config={}, metrics={})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a small CycleGAN."""
    directory = tmp_path_factory.mktemp("monet")
    torch.manual_seed(0)
    model = CycleGAN((32, 32, 3), CycleGANArchitecture(width=4))
    modelstore.save(str(directory / "model"), model, PROVENANCE)
    return directory


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Four pictures of several sizes and kinds in a tree, one of them damaged."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("one.jpg", (24, 40)), ("more/two.png", (40, 24)), ("more/three.webp", (32, 32))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    (folder / "more" / "bad.jpg").write_bytes((folder / "one.jpg").read_bytes()[:300])
    (folder / "notes.txt").write_text("not a picture")
    return folder


def expected(run: Path, picture: Path, direction: str = "a_to_b") -> np.ndarray:
    model = modelstore.load(str(run / "model"))
    assert isinstance(model, CycleGAN)
    pixels = torch.tensor(np.asarray(Image.open(picture).convert("RGB")))[None]
    return model.translate(pixels, direction)[0].numpy()


def written(picture: Path) -> np.ndarray:
    with Image.open(picture) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a command that ends with status 2."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    return capsys.readouterr().err


def test_a_picture_becomes_what_the_model_makes_of_it(run: Path, pictures: Path, tmp_path: Path) -> None:
    source = pictures / "one.jpg"
    main([str(run), str(source), str(tmp_path / "new" / "out.png")])
    np.testing.assert_array_equal(written(tmp_path / "new" / "out.png"), expected(run, source))
    main([str(run / "model"), str(source), str(tmp_path / "out"), "--direction", "b_to_a"])
    np.testing.assert_array_equal(written(tmp_path / "out" / "one.png"), expected(run, source, "b_to_a"))


def test_what_cannot_be_done_is_said_in_one_message(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, source, dest = str(run), str(pictures / "one.jpg"), str(tmp_path / "out.png")
    assert "direction = 'sideways': choose from a_to_b, b_to_a" in fails(
        [model, source, dest, "--direction", "sideways"], capsys
    )
    assert "out.jpg" in fails([model, source, str(tmp_path / "out.jpg")], capsys)
    assert "the same as the source" in fails([model, str(pictures), str(pictures)], capsys)
    assert "absent.png: no such file or folder" in fails([model, str(tmp_path / "absent.png"), dest], capsys)
    assert "bad.jpg: cannot be decoded" in fails([model, str(pictures / "more" / "bad.jpg"), dest], capsys)
    assert "notes.txt: not an image" in fails([model, str(pictures / "notes.txt"), dest], capsys)
    assert "not a model directory" in fails([str(pictures), source, dest], capsys)
    assert not (tmp_path / "out.png").exists()


def test_a_model_that_does_not_translate_says_what_it_does(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    modelstore.save(str(tmp_path / "vae"), VAE((28, 28, 1), VAEArchitecture(channels=(4, 4))), PROVENANCE)
    message = fails([str(tmp_path / "vae"), str(pictures / "one.jpg"), str(tmp_path / "out.png")], capsys)
    assert "does not translate; its operations are: sample, reconstruct" in message


def test_pictures_that_would_get_one_name_are_refused(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "one.png").write_bytes((pictures / "more" / "two.png").read_bytes())
    message = fails([str(run), str(pictures), str(tmp_path / "out")], capsys)
    assert "one.jpg and one.png would both be written as one.png" in message


def test_a_worker_translates_a_batch_and_says_what_it_left_out(run: Path, pictures: Path, tmp_path: Path) -> None:
    worker = Worker(str(run / "model"), str(pictures), str(tmp_path / "out"), "a_to_b")
    done = worker({"key": ["one.jpg", "more/bad.jpg", "absent.jpg"]})
    assert done["key"] == ["one.jpg", "more/bad.jpg", "absent.jpg"]
    assert done["why"][0] == ""
    assert "cannot be decoded" in done["why"][1]
    assert "No such file" in done["why"][2]
    assert [path.name for path in (tmp_path / "out").rglob("*.*")] == ["one.png"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One Ray for all tests that need it."""
    with connected():
        yield


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
def test_a_folder_keeps_its_names(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main([str(run), str(pictures), str(out), "--direction", "b_to_a"])
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.*")} == {
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
@pytest.mark.usefixtures("cluster")
def test_a_folder_of_nothing_but_bad_pictures_fails(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "bad.jpg").write_bytes((pictures / "more" / "bad.jpg").read_bytes())
    assert "none of its 1 images" in fails([str(run), str(folder), str(tmp_path / "out")], capsys)
