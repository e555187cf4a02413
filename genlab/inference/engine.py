"""The engine: a trained model on a device, from pictures to pictures.

The command line, batch translation and the server run models through it alone. A task says what is asked for, row by
row (:mod:`genlab.inference.kinds`); :meth:`Engine.run` computes one, and a
:class:`genlab.inference.batching.Batcher` the rows of many together.
"""

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genlab.core.errors import ConfigError
from genlab.imaging.images import Channels, ImageError, Pixels, prepare
from genlab.inference import onnx_networks
from genlab.inference.batch_sizes import Trial
from genlab.inference.kinds import (
    Decode,
    Draw,
    Drawn,
    Encode,
    Kind,
    Labelled,
    Latent,
    Reconstruct,
    Translate,
    Whole,
)
from genlab.inference.operations import ModelInfo
from genlab.models.precision import allow_tf32
from genlab.models.stylegan import StyleGAN
from genlab.models.tiles import TILE, join_tiles, tile_boxes
from genlab.store import model_directory
from genlab.store.directions import Directions
from genlab.store.probes import Report, check

Runtime = Literal["onnx", "pytorch"]
"""What computes a model's networks on a CPU: ``onnx`` is ONNX Runtime, where it is installed and the model has networks
for it. It is faster; to load a model for the first time takes some seconds more."""

ImageInput = bytes | Pixels
"""The bytes of an image file, or uint8 [H, W, 1 or 3]."""


def best_device() -> str:
    """Name a GPU if this process has one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Task:
    """What is asked of a model, in rows that may be computed apart and together with those of other tasks."""

    kind: Kind
    rows: Sequence[Any]
    join: Callable[[Sequence[Any]], NDArray[Any]]
    """Makes the answer of what the rows gave: pixels, uint8; of :meth:`Engine.encode`, float32."""


class Engine:
    """A model from a model directory, on a device. It takes pictures as files or pixels, and gives pixels: uint8.

    Each operation checks that the model has it, its direction or class, and the options of the model's own, which are
    given by name, as in ``sample(16, 0, truncation=0.5)``. Pictures come upright, in the model's
    channels, whatever their own, and in 8 bits, by the range of values that training read deeper ones by; all but
    :meth:`translate` take them in the size of the model's images. Computes in fp32, on a GPU too: what a model gives
    does not depend on the device, but for rounding.

    Args:
        directory: the model directory.
        device: where to put the model; by default :func:`best_device`.
        exact: whether a picture is the same bytes whatever other pictures are computed with it: they go through the
            model in batch sizes that were tried and agree. By default on a CPU. Otherwise a picture may differ by one
            level of 255 where the network's rounding tips it.
        most_cost: by which factor this may slow down batches; where it costs more, it is given up.
        runtime: what computes the networks of a model on a CPU, see :data:`Runtime`.

    Raises:
        RunError: the model cannot be loaded; and, from an operation, the model does not have it.
        ConfigError: from an operation, it has no such option, or a value is out of range.
    """

    def __init__(
        self,
        directory: model_directory.Location,
        device: str | torch.device | None = None,
        exact: bool | None = None,
        most_cost: float = math.inf,
        runtime: Runtime = "pytorch",
    ) -> None:
        allow_tf32(False)
        self.info = ModelInfo.read(directory)
        self._model: Any = model_directory.load(directory, device or best_device())
        self.bytes = sum(
            tensor.numel() * tensor.element_size() for tensor in (*self._model.parameters(), *self._model.buffers())
        )
        """The bytes of the model's weights."""
        on_cpu = self._model.device.type == "cpu"
        if on_cpu and runtime == "onnx" and onnx_networks.is_installed():
            onnx_networks.use_onnx_runtime(self._model, self.info.weights)
        self.directions: Directions | None = None
        """Directions of its very weights, along which pictures are edited; set by a server, which looks for them."""
        self._exact = on_cpu if exact is None else exact
        self._most_cost = most_cost
        self._trials: dict[Any, Trial] = {}

    def check_probes(self) -> Report | None:
        """Check that the model gives what training's own model made, see :func:`genlab.store.probes.check`.

        Returns:
            By how much it differs; ``None`` if the model directory has no probes.

        Raises:
            RunError: it gives something else.
        """
        return check(self.info.directory, self._model)

    def warm_up(self) -> None:
        """Compute each kind of work once, so that the first request finds what libraries prepare for it.

        Batch sizes of small pictures are chosen, too.
        """
        height, width, _ = self.info.image_shape
        kinds: list[Kind] = []
        if "sample" in self.info.operations:
            kinds.append(Draw(self.info.options("sample", {})))
        if "reconstruct" in self.info.operations:
            kinds.append(Reconstruct(self.info.options("reconstruct", {})))
        if "translate" in self.info.operations:
            options = self.info.options("translate", {})
            kinds += [Translate(direction, options, height, width) for direction in self.info.directions]
        for kind in kinds:
            self._trial(kind)
            kind.compute(self._model, [kind.example(self._model)])

    def translated_pixels(self, height: int, width: int) -> int:
        """Return the pixels that go through the model for a picture of this size, those of all its tiles together.

        Each side is padded to a multiple of what the network takes.
        """
        multiple = self._model.size_multiple
        height, width = height + -height % multiple, width + -width % multiple
        boxes = tile_boxes(height, width, multiple)
        return sum((rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in boxes)

    @property
    def style_shape(self) -> tuple[int, int]:
        """Return how many styles w+ of a StyleGAN has, and of how many numbers each is; (0, 0) for other models."""
        return (self._model.synthesis.styles, self._model.style_dim) if isinstance(self._model, StyleGAN) else (0, 0)

    def sample(self, count: int, seed: int, label: str | int | None = None, **options: Any) -> Pixels:
        """Draw a seed's first ``count`` pictures, all of the class ``label`` if given: uint8 [count, H, W, C].

        Raises:
            ConfigError: the model has no such class.
        """
        return self.run(self.sample_task(count, seed, label, options))

    def sample_task(self, count: int, seed: int, label: str | int | None, options: Mapping[str, Any]) -> Task:
        """Make the task of :meth:`sample`."""
        kind = Draw(self.info.options("sample", options))
        number, classes = self.info.class_number(label), len(self.info.classes)
        labels = (picture % classes if number is None and classes else number for picture in range(count))
        return Task(kind, [Drawn(seed, picture, each) for picture, each in enumerate(labels)], _stacked)

    def translate(self, picture: ImageInput, direction: str | None = None, **options: Any) -> Pixels:
        """Translate a picture of any size, by default in the model's first direction: uint8 [H, W, C], its size.

        Raises:
            ConfigError: the model has no such direction.
            ImageError: the picture cannot be decoded.
        """
        self.info.require("translate")
        direction = self.info.direction(direction)
        return self.run(self.translate_task(self.read(picture, direction), direction, options))

    def translate_task(self, picture: Pixels, direction: str | None, options: Mapping[str, Any]) -> Task:
        """Make the task of :meth:`translate` of a decoded picture, see :meth:`read`; each tile is a row."""
        chosen, direction = self.info.options("translate", options), self.info.direction(direction)
        height, width, _ = picture.shape
        if max(height, width) <= TILE:
            return Task(Translate(direction, chosen, height, width), [picture], _only)
        # Padded as the network pads the last tiles, so that all tiles have one size and may share batches.
        multiple = self._model.size_multiple
        padded = np.pad(picture, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="reflect")
        boxes = tile_boxes(padded.shape[0], padded.shape[1], multiple)
        rows = [padded[box] for box in boxes]

        def join(tiles: Sequence[Pixels]) -> Pixels:
            whole = join_tiles(boxes, (torch.from_numpy(tile)[None] for tile in tiles))
            return cast("Pixels", whole[0, :height, :width].numpy())

        return Task(Translate(direction, chosen, rows[0].shape[0], rows[0].shape[1]), rows, join)

    def reconstruct(self, pictures: Sequence[ImageInput], label: str | int | None = None, **options: Any) -> Pixels:
        """Encode and decode pictures of the class ``label``, which a model with classes needs: uint8 [N, H, W, C].

        Raises:
            ConfigError: the model has no such class, or needs one.
            ImageError: a picture cannot be decoded, or has not the size of the model's images.
        """
        return self.run(self.reconstruct_task([self.read_fitting(picture) for picture in pictures], label, options))

    def reconstruct_task(self, pictures: Sequence[Pixels], label: str | int | None, options: Mapping[str, Any]) -> Task:
        """Make the task of :meth:`reconstruct` of decoded pictures, see :meth:`read_fitting`."""
        kind = Reconstruct(self.info.options("reconstruct", options))
        number = self.info.class_number(label, needed=True)
        return Task(kind, [Labelled(picture, number) for picture in pictures], _stacked)

    def interpolate(self, begin: ImageInput, end: ImageInput, label: str | int | None = None, **options: Any) -> Pixels:
        """Go from one picture to another, both included, in as many ``steps`` as asked for: uint8 [steps, H, W, C].

        Raises:
            ConfigError: the model has no such class, or needs one.
            ImageError: a picture cannot be decoded, or has not the size of the model's images.
        """
        ends = self.read_fitting(begin), self.read_fitting(end)
        return self.run(self.interpolate_task(ends, label, options))

    def interpolate_task(
        self, ends: tuple[Pixels, Pixels], label: str | int | None, options: Mapping[str, Any]
    ) -> Task:
        """Make the task of :meth:`interpolate` between decoded pictures, see :meth:`read_fitting`."""
        chosen = self.info.options("interpolate", options)
        labels = _labels(self.info.class_number(label, needed=True), 2)
        arguments = {"pixels": torch.from_numpy(np.stack(ends)), "label": labels}
        return Task(Whole("interpolate", chosen, chosen.steps), [arguments], _only)

    def interpolate_draws(self, seeds: tuple[int, int], label: str | int | None = None, **options: Any) -> Pixels:
        """Go from the first picture of one seed to that of another, both included: uint8 [steps, H, W, C].

        Raises:
            ConfigError: the model has no such class, or needs one.
        """
        return self.run(self.interpolate_draws_task(seeds, label, options))

    def interpolate_draws_task(
        self, seeds: tuple[int, int], label: str | int | None, options: Mapping[str, Any]
    ) -> Task:
        """Make the task of :meth:`interpolate_draws`."""
        chosen = self.info.options("interpolate_draws", options)
        labels = _labels(self.info.class_number(label, needed=True), 2)
        return Task(Whole("interpolate_draws", chosen, chosen.steps), [{"seeds": seeds, "label": labels}], _only)

    def decode(self, latents: Sequence[Sequence[float]], label: str | int | None = None, **options: Any) -> Pixels:
        """Decode latent vectors, all of one class, into the means of p(x|z): uint8 [N, H, W, C].

        Raises:
            ConfigError: a vector has not the model's latent dimensions; or the model has no such class, or needs one.
        """
        return self.run(self.decode_task(latents, label, options))

    def decode_task(
        self, latents: Sequence[Sequence[float]], label: str | int | None, options: Mapping[str, Any]
    ) -> Task:
        """Make the task of :meth:`decode`."""
        kind = Decode(self.info.options("decode", options))
        number = self.info.class_number(label, needed=True)
        for vector in latents:
            if len(vector) != self.info.latent_dim:
                raise ConfigError(f"latents: the model takes {self.info.latent_dim} numbers each, not {len(vector)}")
        return Task(kind, [Latent(tuple(vector), number) for vector in latents], _stacked)

    def encode(
        self, pictures: Sequence[ImageInput], label: str | int | None = None, **options: Any
    ) -> NDArray[np.float32]:
        """Encode pictures of the class ``label`` into the means of q(z|x): float32 [N, latent_dim].

        Raises:
            ConfigError: the model has no such class, or needs one.
            ImageError: a picture cannot be decoded, or has not the size of the model's images.
        """
        return self.run(self.encode_task([self.read_fitting(picture) for picture in pictures], label, options))

    def encode_task(self, pictures: Sequence[Pixels], label: str | int | None, options: Mapping[str, Any]) -> Task:
        """Make the task of :meth:`encode` of decoded pictures, see :meth:`read_fitting`."""
        kind = Encode(self.info.options("encode", options))
        number = self.info.class_number(label, needed=True)
        return Task(kind, [Labelled(picture, number) for picture in pictures], _stacked)

    def mix_styles(
        self, rows: Sequence[int], columns: Sequence[int], label: str | int | None = None, **options: Any
    ) -> Pixels:
        """Give the first pictures of the seeds ``rows`` some styles of those of ``columns``, all of one class.

        Returns:
            uint8 [len(rows) + 1, len(columns) + 1, H, W, C]: the pictures themselves in the first column and the first
            row, white at [0, 0].

        Raises:
            ConfigError: the model has no such class, or needs one.
        """
        return self.run(self.mix_styles_task(rows, columns, label, options))

    def mix_styles_task(
        self, rows: Sequence[int], columns: Sequence[int], label: str | int | None, options: Mapping[str, Any]
    ) -> Task:
        """Make the task of :meth:`mix_styles`."""
        chosen = self.info.options("mix_styles", options)
        labels = _labels(self.info.class_number(label, needed=True), len(rows) + len(columns))
        arguments = {"rows": rows, "columns": columns, "label": labels}
        return Task(Whole("mix_styles", chosen, (len(rows) + 1) * (len(columns) + 1)), [arguments], _only)

    def run(self, task: Task) -> NDArray[Any]:
        """Compute a task, in as many batches as it needs."""
        results: list[Any] = []
        while len(results) < len(task.rows):
            rows = task.rows[len(results) :]
            results += self.compute(task.kind, rows[: self.next_batch(task.kind, len(rows))])
        return task.join(results)

    def next_batch(self, kind: Kind, waiting: int) -> int:
        """Return how many of the rows that wait go into the next batch; no more than the memory that is free takes."""
        return min(waiting, self._trial(kind).next_size(waiting))

    def compute(self, kind: Kind, rows: Sequence[Any]) -> list[Any]:
        """Compute rows as one batch, as many as :meth:`next_batch` says: for each, what it gives."""
        sizes = self._trial(kind).sizes
        size = sizes[bisect.bisect_left(sizes, len(rows))]
        return list(kind.compute(self._model, [*rows, *[rows[-1]] * (size - len(rows))]))[: len(rows)]

    def try_larger_batch(self, kind: Kind) -> bool:
        """Try the next larger batch size of a kind, for :meth:`next_batch` to choose from; for moments of leisure.

        Returns:
            Whether there was one to try.
        """
        return self._trial(kind).step()

    def knows_batches(self, kind: Kind) -> bool:
        """Return whether :meth:`try_larger_batch` has nothing to try."""
        return self._trial(kind).over

    def exact(self, kind: Kind) -> bool:
        """Return whether a row gives the same bytes whatever is computed with it."""
        return self._trial(kind).exact

    def pixels(self, kind: Kind) -> int:
        """Return the pixels of a row, as it goes through the model."""
        return kind.pixels(self.info.image_shape)

    def row_bytes(self, kind: Kind) -> int | None:
        """Return the bytes of memory that a row was measured to take, besides the model; ``None`` if it was not."""
        return self._trial(kind).row_bytes

    def _trial(self, kind: Kind) -> Trial:
        trial = self._trials.get(kind.trial)
        if trial is None:
            trial = Trial(self._model, kind, self._exact, self._most_cost)
            self._trials[kind.trial] = trial
        return trial

    def read(self, picture: ImageInput, direction: str | None = None) -> Pixels:
        """Decode a picture as the model takes it: upright, uint8 [H, W, C] in the model's channels, of its own size.

        A picture of more than 8 bits is read by the range of values that training read such images by.

        Args:
            picture: the picture.
            direction: direction in which it is to be translated, if it is.

        Raises:
            ImageError: it cannot be decoded.
        """
        channels, value_range = cast("Channels", self.info.image_shape[2]), self.info.value_range(direction)
        return cast("Pixels", prepare(picture, channels=channels, value_range=value_range).image)

    def read_fitting(self, picture: ImageInput) -> Pixels:
        """Decode a picture that has the size of the model's images: uint8 [H, W, C].

        Raises:
            ImageError: it cannot be decoded, or has another size.
        """
        pixels = self.read(picture)
        height, width, _ = self.info.image_shape
        if pixels.shape[:2] != (height, width):
            raise ImageError(f"is {pixels.shape[1]}x{pixels.shape[0]} pixels; the model takes {width}x{height}")
        return pixels


def _stacked(results: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Stack arrays as ``np.stack`` does, which takes longer for a single one."""
    return results[0][None] if len(results) == 1 else np.stack(results)


def _only(results: Sequence[Any]) -> Pixels:
    [result] = results
    return cast("Pixels", result)


def _labels(number: int | None, count: int) -> Tensor | None:
    """Tell an operation that its ``count`` images are of the class ``number``: int64 [count]; ``None`` for no class."""
    return None if number is None else torch.full((count,), number)
