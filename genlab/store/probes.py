"""Probes: what training's own model made of a few fixed inputs, by which every copy of it is checked.

A model directory lists them in ``genlab.json`` under ``probes``: for each operation some inputs, and the SHA-256 of the
pixels that came of them. A picture of these pixels lies in ``probes/``. :func:`check` replays the inputs, so that it is
seen before any user does when another version of genlab, of PyTorch or of a compiler makes other pictures of the same
weights.
"""

import contextlib
import dataclasses
import math
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from upath import UPath

from genlab import __version__
from genlab.core.config import describe_changes, from_dict, to_dict
from genlab.core.errors import ConfigError, RunError
from genlab.core.seeds import derived_seed
from genlab.core.storage import locate, read_bytes, sha256, write_atomic, write_json
from genlab.core.text import counted
from genlab.imaging.images import Channels, ImageError, Pixels, encode_png, prepare
from genlab.models.model import OPERATIONS, InterpolationOptions, Model, Translator
from genlab.models.precision import allow_tf32
from genlab.store import model_directory

VERSION = 1
FOLDER = "probes"
MOST_PIXELS = 2**16
"""The most pixels that a probe draws, translates or keeps as a picture, where the model can make as few."""
ODD_SIZE = (45, 70)
"""Height and width of a picture for a translator that is no multiple of any network's: it has to be padded."""
MEAN_BOUND = 0.01
"""The most by which a probe's pixels may differ from the kept ones in the mean, in levels of 255."""
LARGEST_BOUND = 2
"""The most by which one of them may, in levels."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """The kind of machine that made pictures: on one kind, the same weights and inputs make the same bytes."""

    processor: str
    """Vendor, family and model of the CPU."""
    capability: str
    """The instructions that PyTorch uses on it, such as ``AVX512``."""
    device: str
    """``cpu``, or the name of the GPU."""
    threads: int
    """CPU threads of one operation."""
    pytorch: str
    genlab: str

    @classmethod
    def here(cls, device: torch.device) -> Self:
        """Describe this machine, with ``device`` at work."""
        return cls(
            processor=_processor(),
            capability=torch.backends.cpu.get_cpu_capability(),
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            threads=torch.get_num_threads(),
            pytorch=torch.__version__,
            genlab=__version__,
        )


@dataclasses.dataclass(frozen=True)
class Probe:
    """One input of one operation, and what came of it."""

    name: str
    """Its name in the model directory."""
    operation: str
    arguments: Mapping[str, Any]
    """Arguments of the operation by name, in plain values. Pictures are the values of :func:`probe_pictures`: ``seed``,
    ``count``, ``height`` and ``width``."""
    options: Mapping[str, Any]
    """All options of the operation by name."""
    shape: tuple[int, ...]
    """Shape of the pixels that came of it: [..., H, W, C]."""
    sha256: str
    """SHA-256 of these pixels, uint8 in C order."""
    every: int
    """The picture has the first of each so many rows and columns."""
    picture_sha256: str
    """SHA-256 of the PNG file of the picture, which shows the images below each other."""

    @property
    def file(self) -> str:
        """The path of the picture in the model directory."""
        return f"{FOLDER}/{self.name}.png"

    def text(self) -> str:
        """Return operation and arguments in one line."""
        return f"{self.operation} of {', '.join(f'{name} {value}' for name, value in self.arguments.items())}"


@dataclasses.dataclass(frozen=True)
class Probes:
    """The probes of a model."""

    machine: Machine
    """Where they were made."""
    cases: tuple[Probe, ...]
    """None for a model without operations."""
    pictures: Mapping[str, bytes] = dataclasses.field(repr=False)
    """PNG file of each by its name."""

    @classmethod
    def read(cls, directory: model_directory.Location) -> Self | None:
        """Read the probes of a model directory; ``None`` when it has none, as those of earlier versions.

        Raises:
            RunError: they are damaged, or of a newer format.
        """
        root = locate(directory)
        found = model_directory.describe(root).get("probes")
        if found is None:
            return None
        where = f"{root / model_directory.DESCRIPTION}: probes"
        if not isinstance(found, dict) or found.get("version") != VERSION:
            version = found.get("version") if isinstance(found, dict) else found
            raise RunError(f"{where} of format {version!r}; this genlab reads format {VERSION}")
        try:
            machine = from_dict(Machine, found["machine"])
            cases = tuple(from_dict(Probe, case) for case in found["cases"])
        except (KeyError, TypeError, ConfigError) as error:
            raise RunError(f"{where} are damaged ({error})") from None
        return cls(machine, cases, {probe.name: _read_picture(root, probe) for probe in cases})

    def write(self, directory: UPath) -> dict[str, Any]:
        """Write the pictures into a model directory, and return what its ``genlab.json`` says under ``probes``."""
        for probe in self.cases:
            write_atomic(directory / probe.file, self.pictures[probe.name])
        return {"version": VERSION, "machine": to_dict(self.machine), "cases": [to_dict(probe) for probe in self.cases]}

    def add_to(self, directory: model_directory.Location) -> None:
        """Write the probes into a model directory, in place of those that it has."""
        root = locate(directory)
        write_json(root / model_directory.DESCRIPTION, model_directory.describe(root) | {"probes": self.write(root)})


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of a probe when it was replayed."""

    probe: Probe
    same: bool
    """Whether all pixels are the same."""
    mean: float
    """Mean absolute difference of the pixels of the kept picture, in levels of 255."""
    largest: int
    """The largest difference."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of all probes of a model, none of which differs by more than the bounds."""

    made_on: Machine
    replayed_on: Machine
    results: tuple[Result, ...]

    @property
    def same(self) -> bool:
        """Whether all pixels of all probes are the same."""
        return all(result.same for result in self.results)

    def __str__(self) -> str:
        """Say in a line how many are the same, by how much others differ, and what differs between the machines."""
        total = counted(len(self.results), "probe")
        if self.same:
            return f"{total}: the same bytes"
        different = [result for result in self.results if not result.same]
        worst = max(different, key=lambda result: result.mean)
        largest = max(result.largest for result in different)
        return (
            f"{total}: {len(self.results) - len(different)} the same bytes, others differ by {worst.mean:.2g} levels "
            f"of 255 in the mean and {largest} at most{_machines_differ(self.made_on, self.replayed_on)}"
        )


def make(model: Model) -> Probes:
    """Have ``model`` make its probes as it is, on its device: in evaluation mode, in fp32, and not compiled.

    It may be in the middle of training: afterwards it is in the mode that it was in, and no random numbers are gone.
    """
    cases, pictures = [], {}
    with _at_work(model):
        for name, operation, arguments in _inputs(model):
            options = to_dict(_options(model, operation))
            probe = Probe(name, operation, arguments, options, (), "", 1, "")
            try:
                pixels = replay(probe, model)
            except ConfigError:
                continue  # an operation of the family that this model refuses, such as mixing without styles
            every = math.ceil(math.sqrt(math.prod(pixels.shape[:-1]) / MOST_PIXELS))
            pictures[name] = encode_png(_column(pixels, every))
            cases.append(
                dataclasses.replace(
                    probe,
                    shape=pixels.shape,
                    sha256=sha256(pixels.data),
                    every=every,
                    picture_sha256=sha256(pictures[name]),
                )
            )
        return Probes(Machine.here(model.device), tuple(cases), pictures)


def check(directory: model_directory.Location, model: Model) -> Report | None:
    """Replay the probes of a model directory with a model that was loaded from it, on any device, compiled or not.

    Pixels need not be the same bytes, since another CPU, another GPU or a compiled form rounds otherwise; they may
    differ by :data:`MEAN_BOUND` in the mean and by :data:`LARGEST_BOUND` at most.

    Returns:
        By how much they differ; ``None`` when the directory has no probes.

    Raises:
        RunError: the pictures differ by more, an operation is gone or fails, or the probes are damaged.
        torch.OutOfMemoryError: the GPU has too little memory now.
    """
    kept = Probes.read(directory)
    if kept is None:
        return None
    here = Machine.here(model.device)
    results = []
    for probe in kept.cases:
        where = f"{directory}: its probe {probe.name} ({probe.text()})"
        if probe.operation not in model.operations:
            raise RunError(f"{where} cannot be replayed: this genlab's {model.family} model has no such operation")
        try:
            pixels = replay(probe, model)
        except torch.OutOfMemoryError:
            raise  # It says nothing of the model.
        except (KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
            raise RunError(f"{where} cannot be replayed: {error}") from None
        if pixels.shape != probe.shape:
            raise RunError(f"{where} gives pixels of shape {list(pixels.shape)}, where {list(probe.shape)} were kept")
        result = _compared(probe, pixels, kept.pictures[probe.name])
        if result.mean > MEAN_BOUND or result.largest > LARGEST_BOUND:
            raise RunError(
                f"{where} differs from what training's own model made by {result.mean:.3g} levels of 255 in the mean "
                f"and {result.largest} at most; {MEAN_BOUND} and {LARGEST_BOUND} are allowed"
                f"{_machines_differ(kept.machine, here)}"
            )
        results.append(result)
    return Report(kept.machine, here, tuple(results))


def replay(probe: Probe, model: Model) -> Pixels:
    """Give a probe's input to a model: the pixels that come of it, uint8 of the shape of the operation's result."""
    values: list[Any] = []
    for name in OPERATIONS[probe.operation].arguments:
        value = probe.arguments[name]
        if name == "pixels":
            value = torch.from_numpy(probe_pictures(channels=model.image_shape[2], **value))
        elif name == "label" and value is not None:
            value = torch.tensor(value)
        values.append(tuple(value) if name == "seeds" else value)
    options: Any = from_dict(model.operations[probe.operation], probe.options)
    with torch.inference_mode():
        images = getattr(model, probe.operation)(*values, options)
    return np.ascontiguousarray(images.cpu().numpy())


def probe_pictures(seed: int, count: int, height: int, width: int, channels: int) -> Pixels:
    """Draw pictures that are the same in every version of genlab, on every machine: uint8 [count, H, W, C].

    Each channel is a sum of three triangle waves and a fine texture, under three rectangles; computed in whole numbers
    out of NumPy's raw Philox output, neither of which depends on a library or on rounding.
    """
    y, x = np.ogrid[:height, :width]
    down, right = y * 4096 // height, x * 4096 // width
    images = np.empty((count, height, width, channels), np.uint8)
    for number, image in enumerate(images):
        raw = iter(np.random.Philox(key=derived_seed(seed, "probe picture", number)).random_raw(256).tolist())

        def draw(low: int, high: int, raw: Iterator[int] = raw) -> int:
            return low + next(raw) % (high - low)

        for channel in range(channels):
            waves = sum(abs((down * draw(-6, 7) + right * draw(-6, 7) + draw(0, 4096)) % 4096 - 2048) for _ in range(3))
            texture = (y * draw(1, 8) + x * draw(1, 8)) % 8 * 4
            image[:, :, channel] = waves * 227 // 6144 + texture
        for _ in range(3):
            top, left = draw(0, 3072), draw(0, 3072)
            inside = (down >= top) & (down < top + draw(256, 2048)) & (right >= left) & (right < left + draw(256, 2048))
            image[inside] = [draw(0, 256) for _ in range(channels)]
    return images


def _inputs(model: Model) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the inputs of a model's probes, each with a name and its operation."""
    height, width, _ = model.image_shape
    some = max(1, min(4, MOST_PIXELS // (height * width)))
    two = {"seed": 0, "count": 2, "height": height, "width": width}
    for operation in model.operations:
        arguments: list[dict[str, Any]] = []
        match operation:
            case "sample":
                arguments = [{"count": some, "seed": 0, "label": _labels(model, some)}]
                if some > 1:
                    last = [model.classes - 1] if model.classes else None
                    arguments.append({"count": 1, "seed": 1, "label": last})
            case "translate":
                directions = cast("Translator", model).directions
                scale = math.ceil(math.sqrt(height * width / MOST_PIXELS))
                own = max(1, height // scale), max(1, width // scale)
                sizes = [(directions[0], own), *((direction, ODD_SIZE) for direction in directions)]
                arguments = [
                    {"pixels": {"seed": 0, "count": 1, "height": size[0], "width": size[1]}, "direction": direction}
                    for direction, size in sizes
                ]
            case "reconstruct" | "interpolate":
                arguments = [{"pixels": two, "label": _labels(model, 2)}]
            case "interpolate_draws":
                arguments = [{"seeds": [0, 1], "label": _labels(model, 2)}]
            # None of decode and encode: samples and reconstructions go through the same networks.
            case "mix_styles":
                arguments = [{"rows": [0], "columns": [1], "label": _labels(model, 2)}]
        for number, values in enumerate(arguments):
            yield f"{operation}-{number}", operation, values


def _labels(model: Model, count: int) -> list[int] | None:
    """Return the first ``count`` classes, in turn; ``None`` for a model without classes."""
    return [number % model.classes for number in range(count)] if model.classes else None


def _options(model: Model, operation: str) -> Any:
    """Return the default options of an operation, with few steps."""
    options: type[Any] = model.operations[operation]
    return options(steps=3) if issubclass(options, InterpolationOptions) else options()


@contextlib.contextmanager
def _at_work(model: Model) -> Iterator[None]:
    """Have ``model`` compute as a loaded one does, whatever training has set, until the context ends."""
    modes = [(module, module.training) for module in model.modules()]
    deterministic = torch.get_deterministic_debug_mode()
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    # Nothing is compiled where the compiler was never imported, which takes a second.
    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()
    model.eval()
    torch.set_deterministic_debug_mode("default")
    allow_tf32(False)
    try:
        with eager:
            yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.set_deterministic_debug_mode(deterministic)
        for module, mode in modes:
            module.training = mode


def _column(pixels: Pixels, every: int) -> Pixels:
    """Lay images, uint8 [..., H, W, C], below each other, with the first of each ``every`` rows and columns."""
    few = pixels[..., ::every, ::every, :]
    return few.reshape(-1, *few.shape[-2:])


def _compared(probe: Probe, pixels: Pixels, picture: bytes) -> Result:
    if sha256(pixels.data) == probe.sha256:
        return Result(probe, True, 0.0, 0)
    try:
        kept = prepare(picture, channels=cast("Channels", probe.shape[-1])).image
        difference = np.abs(_column(pixels, probe.every).astype(np.int16) - cast("Pixels", kept).astype(np.int16))
    except (ImageError, ValueError) as error:  # its hash is right, so it was written so
        raise RunError(f"{probe.file}: is no picture of the probe {probe.name} ({error})") from None
    return Result(probe, False, float(difference.mean()), int(difference.max()))


def _read_picture(root: UPath, probe: Probe) -> bytes:
    file = root / probe.file
    try:
        picture = read_bytes(file)
    except FileNotFoundError:
        raise RunError(f"{file}: no such file; copy the whole model directory") from None
    if sha256(picture) != probe.picture_sha256:
        raise RunError(f"{file}: damaged (its checksum differs from the one in {model_directory.DESCRIPTION})")
    return picture


def _machines_differ(then: Machine, now: Machine) -> str:
    changes = describe_changes(to_dict(then), to_dict(now))
    return f"; machine: {changes}" if changes else "; on the same kind of machine"


def _processor() -> str:
    with contextlib.suppress(OSError):
        fields = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
        found = {name.strip(): value.strip() for name, _, value in reversed(fields)}  # the first processor
        if "vendor_id" in found:
            return f"{found['vendor_id']} family {found.get('cpu family')} model {found.get('model')}"
    return platform.processor() or platform.machine()
