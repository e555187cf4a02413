"""Damaged, hostile and rare pictures: each ends in its status, and costs no more than its pixels."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from genlab.imaging.headers import read_header
from genlab.serving.limits import Limits
from genlab.serving.problems import problem_of
from genlab.serving.uploads import read_pictures
from tests.serving.odd_pictures import NOISE, encoded, interlaced, odd_pictures

pytestmark = [
    pytest.mark.filterwarnings("ignore:::PIL.TiffImagePlugin"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]

LIMITS = Limits()


def outcome(data: bytes) -> tuple[int, tuple[int, ...] | None]:
    """Return the status of a request with a picture, and height and width where it is decoded."""
    try:
        [upload] = read_pictures("application/octet-stream", data, LIMITS).pictures
        return 200, upload.decode(3).shape[:2]
    except Exception as error:  # the server's own answer to whatever is raised, 500 among them
        return problem_of(error).status, None


@pytest.mark.parametrize("name", odd_pictures())
def test_each_odd_picture_gets_its_status(name: str) -> None:
    odd = odd_pictures()[name]
    assert outcome(odd.data) == (odd.status, odd.shape)


@pytest.mark.parametrize("name", [name for name, odd in odd_pictures().items() if odd.status == 200])
def test_a_header_says_what_pillow_says(name: str) -> None:
    data = odd_pictures()[name].data
    header = read_header(data)
    with Image.open(io.BytesIO(data)) as image:
        assert (header.width, header.height) == image.size
        assert header.kind == image.format or (header.kind, image.format) == ("JPEG", "MPO")


def test_the_first_frame_of_a_film_and_interlaced_pixels_come_out_right() -> None:
    for kind in ("PNG", "GIF", "WebP"):
        [upload] = read_pictures(None, odd_pictures()[f"{kind}: a film"].data, LIMITS).pictures
        np.testing.assert_allclose(upload.decode(3)[8, 12].astype(int), [255, 0, 0], atol=4)
    [upload] = read_pictures(None, interlaced(), LIMITS).pictures
    np.testing.assert_array_equal(upload.decode(1)[:, :, 0], NOISE[:, :, 0])


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"])
def test_damage_anywhere_is_never_an_internal_error(kind: str) -> None:
    data = encoded(Image.fromarray(NOISE), kind)
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        for place in random.integers(0, min(len(data), 200), 3):
            damaged[place] = random.integers(256)
        assert outcome(bytes(damaged))[0] in (200, 413, 415, 422)


CHILD = """
import resource
from tests.serving.test_odd_pictures import odd_pictures, outcome
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
odd = list(odd_pictures().values())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert [outcome(one.data) for one in odd] == [(one.status, one.shape) for one in odd]
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_no_odd_picture_takes_memory_or_time_beyond_its_pixels() -> None:
    """Unchecked, one of them takes a GiB, and another one minutes."""
    child = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, child.stderr
    assert int(child.stdout) < 96, "MiB"
