"""The benchmarks' images: real samples repeated under new names, or drawn ones, in the form each loader reads.

Everything lies in one cache folder; a form is made when it is first asked for and kept.
"""

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

REPOSITORY = Path(__file__).resolve().parent.parent
MNIST_ROWS = 10_000


@dataclass(frozen=True)
class Samples:
    """One set of images and its forms on disk."""

    kind: str
    """``jpeg``: files of 256x256 RGB; ``mnist``: raw 28x28 grey."""
    count: int
    """Images in the set."""
    cache: Path
    """Folder in which the forms are kept."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return (256, 256, 3) if self.kind == "jpeg" else (28, 28, 1)

    @cached_property
    def origin(self) -> str:
        """One line on where the images come from."""
        self.folder() if self.kind == "jpeg" else self.array()
        return (self._root / "origin.txt").read_text()

    def form(self, name: str, make: Callable[[Path], object]) -> Path:
        """The folder of one form, made by ``make(folder)`` if it is not there yet."""
        path = self._root / name
        if not path.exists():
            unfinished = path.with_name(f"{name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            make(unfinished)
            unfinished.rename(path)
        return path

    def folder(self) -> Path:
        """A folder of image files below one class folder, as ImageFolder wants them; read-only."""

        def make(path: Path) -> None:
            (path / "all").mkdir()
            if self.kind == "mnist":
                raise ValueError("the digits are not image files")
            found, origin = _jpegs()
            for i in range(self.count):
                (path / "all" / f"{i:06d}.jpg").write_bytes(found[i % len(found)])
            (self._root / "origin.txt").write_text(f"{self.count:,} files: {origin}")

        return self.form("folder", make)

    def files(self) -> list[str]:
        """Paths of all image files, sorted."""
        return sorted(str(path) for path in (self.folder() / "all").iterdir())

    def array(self) -> NDArray[np.uint8]:
        """The raw images, uint8 [count, height, width, channels], memory mapped."""

        def make(path: Path) -> None:
            found, origin = _digits()
            repeated = np.resize(found, (self.count, *self.shape))
            np.save(path / "images.npy", repeated)
            (self._root / "origin.txt").write_text(f"{self.count:,} rows: {origin}")

        return np.load(self.form("array", make) / "images.npy", mmap_mode="r")

    def idx(self) -> Path:
        """The digits as torchvision's MNIST reads its training set."""

        def make(path: Path) -> None:
            raw = path / "MNIST" / "raw"
            raw.mkdir(parents=True)
            head = np.array([0x803, self.count, 28, 28], ">u4").tobytes()
            (raw / "train-images-idx3-ubyte").write_bytes(head + self.array().tobytes())
            labels = np.zeros(self.count, np.uint8)
            (raw / "train-labels-idx1-ubyte").write_bytes(
                np.array([0x801, self.count], ">u4").tobytes() + labels.tobytes()
            )
            # torchvision asks that all four files be there.
            (raw / "t10k-images-idx3-ubyte").write_bytes(np.array([0x803, 0, 28, 28], ">u4").tobytes())
            (raw / "t10k-labels-idx1-ubyte").write_bytes(np.array([0x801, 0], ">u4").tobytes())

        return self.form("idx", make)

    def shards(self) -> Path:
        """genlab's own data set, by ``genlab ingest``."""

        def make(path: Path) -> None:
            source = f"folder:{self.folder() / 'all'}" if self.kind == "jpeg" else f"mnist:{self.idx() / 'MNIST/raw'}"
            arguments = [source, str(path), "--shard-size", "16", "--test-fraction", "0"]
            # In a process of its own: these modules are read by children that measure time.
            subprocess.run([Path(sys.executable).with_name("genlab"), "ingest", *arguments], check=True, stdout=2)

        return self.form("shards", make)

    def items(self) -> Iterator[bytes | NDArray[np.uint8]]:
        """Every image in order: a file's bytes, or an array [height, width, channels]."""
        if self.kind == "mnist":
            yield from self.array()
        else:
            for path in self.files():
                yield Path(path).read_bytes()

    def mean(self) -> float:
        """Mean of all pixels, 0..255."""

        def make(path: Path) -> None:
            if self.kind == "mnist":
                mean = float(self.array().mean())
            else:
                from PIL import Image

                mean = float(np.mean([np.asarray(Image.open(io.BytesIO(item))).mean() for item in self.items()]))
            (path / "mean.json").write_text(json.dumps(mean))

        return float(json.loads((self.form("mean", make) / "mean.json").read_text()))

    @property
    def _root(self) -> Path:
        return self.cache / f"{self.kind}-{self.count}"


def _data() -> Path:
    return Path(os.environ.get("GENLAB_DATA", REPOSITORY.parent / "shared" / "data"))


def _jpegs() -> tuple[list[bytes], str]:
    found = [path.read_bytes() for path in sorted((_data() / "monet2photo").glob("*_jpg/*.jpg"))]
    if found:
        return found, f"{len(found)} of monet2photo's 256x256 JPEGs, repeated"
    from PIL import Image

    generator, drawn = np.random.default_rng(0), []
    for _ in range(256):
        # Smooth noise compresses about as well as a photograph does.
        small = Image.fromarray(generator.integers(0, 256, (48, 48, 3), np.uint8))
        file = io.BytesIO()
        small.resize((256, 256), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
        drawn.append(file.getvalue())
    return drawn, "256 drawn JPEGs (smooth noise), repeated; set GENLAB_DATA for real ones"


def _digits() -> tuple[NDArray[np.uint8], str]:
    path = _data() / "mnist" / "t10k-images-idx3-ubyte.gz"
    if path.exists():
        pixels = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16)
        return pixels.reshape(-1, 28, 28, 1), "MNIST's 10,000 test images, repeated"
    noise = np.random.default_rng(0).integers(0, 256, (MNIST_ROWS, 28, 28, 1), np.uint8)
    return noise, "random pixels; set GENLAB_DATA for MNIST's"
