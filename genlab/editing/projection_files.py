"""Projection of files, folders and data sets: what is read, said and written, and going on after a crash.

The folder of the results keeps a record, ``project.json``. Of a picture NAME it gets ``NAME-original.png``, as the
generator's size and channels show it, ``NAME-projection.png``, ``NAME.safetensors`` (``w``, float32 [places,
style_dim], and the noise of the layers as ``noise.0`` and so on, float32 [1, S, S]) and last ``NAME.json`` with the
figures, which shows that the picture is done.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from upath import UPath

from genlab.core.config import to_dict
from genlab.core.errors import ConfigError, DataError
from genlab.core.progress import progress
from genlab.core.seeds import derived_seed
from genlab.core.storage import (
    is_file,
    is_folder,
    json_bytes,
    read_bytes,
    read_json,
    sha256,
    write_atomic,
    write_json,
)
from genlab.core.text import counted
from genlab.data.format.splits import overlap
from genlab.data.stream.order import permutation
from genlab.editing.identity import identity_scale
from genlab.editing.projection import Projection, ProjectionOptions, Similarity, project, require_encoder_of
from genlab.editing.provenance import provenance
from genlab.imaging.images import Channels, ImageError, Pixels, encode_png, prepare
from genlab.inference.engine import best_device
from genlab.inference.operations import ModelInfo
from genlab.inference.pictures import png_name
from genlab.inference.sources import (
    Picture,
    begin,
    data_pictures,
    folder_pictures,
    is_data_set,
    open_shards,
    picture_reader,
)
from genlab.metrics.identity import FaceNetwork, identity_distance
from genlab.models.cpu import keep_freed_memory
from genlab.models.encoder import Encoder
from genlab.models.model import Shape
from genlab.models.precision import allow_tf32
from genlab.store import model_directory
from genlab.store.generators import load_generator
from genlab.store.projection_limits import FILE_NAME, read_limits, write_limits
from genlab.store.tensor_file import tensor_file

RECORD, SUMMARY = "project.json", "summary.json"
"""Files in a folder of projections: what they were made from, and their mean figures."""
TAKEN = frozenset(name.removesuffix(".json") for name in (RECORD, SUMMARY))
"""Names of pictures whose figures would take the place of one of these."""
VERSION = 1
"""Version of these files."""
BATCH = 8
"""Pictures that are projected at a time, which is faster on a CPU than one after the other."""
FEWEST = 100
"""The fewest pictures of which a 99th percentile is taken."""

Box = tuple[int, int, int]
"""Left, top and side of a square in a picture, in pixels."""


def require_box(box: Box | None) -> None:
    """Check that a box is one.

    Raises:
        ConfigError: it is not.
    """
    if box is not None and (min(box) < 0 or box[2] < 1):
        raise ConfigError(f"box = {box}: left and top are at least 0, and the side at least 1")


@dataclass(frozen=True)
class Fitted:
    """A picture in the generator's size and channels."""

    pixels: Pixels
    """uint8 [H, W, C]."""
    remarks: tuple[str, ...]
    """What was done to it, in words."""


class Projector:
    """A generator, perhaps with an encoder, on a device, and the options of projections.

    Args:
        model: directory of the generator, or the run that trained it.
        encoder: that of the encoder; ``None`` for none.
        options: options of projections.

    Raises:
        RunError: one of them cannot be loaded, the model is no StyleGAN, or the encoder is of another generator.
        ConfigError: the encoder is none, or there would be nothing to do.

    Attributes:
        weights: SHA-256 of the generator's weights.
        settings: what projections depend on besides the pictures, in plain values.
        limit: 99th percentile of the perceptual distances of held-out pictures, by these settings; ``None`` if it was
            not measured.
    """

    def __init__(self, model: str, encoder: str | None, options: ProjectionOptions) -> None:
        allow_tf32(False)
        self.info = ModelInfo.read(model_directory.find_one(model))
        generator, self.weights = load_generator(model)
        self.generator, self.options = generator.to(best_device()), options
        if self.generator.device.type == "cpu":
            keep_freed_memory()
        self.encoder: Encoder | None = None
        encoder_weights = None
        if encoder is not None:
            directory = model_directory.find_one(encoder)
            found = model_directory.load(directory, self.generator.device)
            if not isinstance(found, Encoder):
                raise ConfigError(f"encoder = {encoder!r}: of family {found.family!r}, not an encoder")
            require_encoder_of(found, self.weights, encoder)
            self.encoder, encoder_weights = found, model_directory.describe(directory)["weights"]["sha256"]
        elif not options.steps:
            raise ConfigError("steps = 0: without an encoder nothing would be done; give --encoder")
        self.settings: dict[str, Any] = {
            "model": self.weights,
            "encoder": encoder_weights,
            "options": to_dict(options),
        }
        self.limit = self._limit()

    def fit(self, picture: bytes | Pixels, box: Box | None) -> Fitted:
        """Bring a picture into the generator's size and channels.

        Args:
            picture: the bytes of an image file, or uint8 [H, W, 1 or 3].
            box: the part to take; by default the largest square in the middle.

        Raises:
            ImageError: it cannot be decoded, or the box is not in it.
        """
        side, _, channels = self.info.image_shape
        kind = cast("Channels", channels)
        whole = cast("Pixels", prepare(picture, channels=kind, value_range=self.info.value_range()).image)
        height, width, _ = shape = whole.shape
        remarks, cropped, least = list[str](), "", min(height, width)
        if box is not None:
            left, top, size = box
            if left + size > width or top + size > height:
                raise ImageError(f"has {width}x{height} pixels, which --box {left} {top} {size} goes beyond")
            whole = np.ascontiguousarray(whole[top : top + size, left : left + size])
            cropped = f"cropped to --box {left} {top} {size} and "
        elif height != width:
            cropped = f"cropped to the middle {least}x{least} and "
        if {shape[:2], whole.shape[:2]} != {(side, side)}:
            remarks.append(f"has {width}x{height} pixels: {cropped}scaled to {side}x{side}")
            whole = cast("Pixels", prepare(whole, channels=kind, size=side, fit="crop").image)
        if channels == 3 and (whole == whole[..., :1]).all():
            remarks.append("is grey, and the model's pictures are in colour")
        return Fitted(whole, tuple(remarks))

    def project(self, pictures: Sequence[Pixels]) -> Projection:
        """Project pictures, uint8 [H, W, C] each, of the generator's shape."""
        return project(self.generator, torch.from_numpy(np.stack(pictures)), self.options, self.encoder)

    def calibrate(self, distances: Sequence[float], data: Mapping[str, Any]) -> float:
        """Keep the 99th percentile of held-out pictures' perceptual distances in the model directory, and return it.

        Args:
            distances: the distances of at least :data:`FEWEST` pictures.
            data: the pictures, in plain values.
        """
        limit = float(np.quantile(distances, 0.99))
        one = {"settings": self.settings, "data": dict(data), "perceptual_99": limit}
        write_limits(self.info.directory, self.weights, [one])
        return limit

    def _limit(self) -> float | None:
        for one in read_limits(self.info.directory, self.weights):
            if one["settings"] == self.settings:
                return float(one["perceptual_99"])
        return None


def project_all(
    projector: Projector,
    source: UPath,
    dest: UPath,
    *,
    split: str | None = None,
    images: int | None = None,
    box: Box | None = None,
    calibrate: bool = False,
    identity: bool = False,
) -> dict[str, UPath]:
    """Project a picture, or the pictures of a folder or a data set, that are not done yet; print what was made.

    Args:
        projector: the generator and the options.
        source: a file, a folder or a data set.
        dest: the folder of the results.
        split: split of the data set; by default all of it.
        images: how many pictures of the data set, drawn at random but always the same; by default all.
        box: see :meth:`Projector.fit`.
        calibrate: keep the distances in the model directory, by which later pictures are judged.
        identity: measure identity distances, too.

    Returns:
        The file of the styles of each picture, by its path in its folder or its key in its data set; those that could
        not be used are not there.

    Raises:
        ConfigError: a split, a number or a calibration of what is no data set; pictures that were trained on, or too
            few, for a calibration; identity without its extra, or of grey pictures.
        DataError: the source is missing or damaged, nothing in it could be used, or the destination holds something
            else or cannot be written.
    """
    pictures, folder, data = _pictures(source, projector.info.image_shape, split, images)
    network = FaceNetwork("--identity") if identity else None
    if network and projector.info.image_shape[2] != 3:
        raise ConfigError("identity: the face network takes pictures in colour alone")
    if calibrate:
        _require_held_out(projector.info, data, len(pictures))
    record = {"version": VERSION, **projector.settings, "source": str(folder)}
    record |= {"data set": data and data["checksum"], "split": split, "box": box and list(box)}
    stems = {picture: picture.name.removesuffix(".png") for picture in pictures}
    try:
        done_by = {f"{stem}.json" for stem in stems.values() if stem not in TAKEN}
        there = begin(dest, RECORD, record, done_by, "projection")
        found = _project(projector, pictures, folder, split, dest, box, there)
        if not found:
            raise DataError(f"{source}: none of its {counted(len(pictures), 'picture')} could be used")
        done = {one["source"] for one in found}
        made = {picture.key: dest / stem for picture, stem in stems.items() if picture.key in done}
        summary = _summary(found)
        if network:
            summary["identity"] = _measure_identity(network, list(made.values()))
        write_json(dest / SUMMARY, summary)
        print(f"{dest}: {counted(len(found), 'picture')} projected: {_text(summary)}")
        if calibrate:
            limit = projector.calibrate([one["projection"]["perceptual"] for one in found], data or {})
            print(f"{projector.info.directory / FILE_NAME}: 99% of them have a distance of at most {limit:.3g}")
    except OSError as error:
        raise DataError(f"{error.filename or dest}: {error.strerror or error}") from None
    return {key: stem.with_name(f"{stem.name}.safetensors") for key, stem in made.items()}


def _project(
    projector: Projector,
    pictures: Sequence[Picture],
    folder: UPath,
    split: str | None,
    dest: UPath,
    box: Box | None,
    there: set[str],
) -> list[dict[str, Any]]:
    """Project what is not done, and return the figures of all pictures, also of those that were done before."""
    read = picture_reader(folder, split)
    found, waiting = list[dict[str, Any]](), list[tuple[Picture, str, Fitted]]()
    with progress("project", len(pictures), "images") as advance:
        for number, picture in enumerate(pictures):
            stem = picture.name.removesuffix(".png")
            try:
                if stem in TAKEN:
                    raise ImageError(f"its figures would take the place of {stem}.json; give it another name")
                data = read(picture)
                digest = sha256(data if isinstance(data, bytes) else np.ascontiguousarray(data).data)
                if f"{stem}.json" in there and (done := read_json(dest / f"{stem}.json"))["sha256"] == digest:
                    found.append(done)
                    advance(1)
                else:
                    waiting.append((picture, digest, projector.fit(data, box)))
            except (ImageError, OSError) as error:
                why = getattr(error, "strerror", None) or error
                print(f"skipped: {picture.key}: {why}", file=sys.stderr)
                advance(1)
            if len(waiting) == BATCH or (waiting and number == len(pictures) - 1):
                found += _project_batch(projector, waiting, dest)
                advance(len(waiting))
                waiting = []
    return found


def _project_batch(
    projector: Projector, batch: Sequence[tuple[Picture, str, Fitted]], dest: UPath
) -> list[dict[str, Any]]:
    begun = time.perf_counter()
    made = projector.project([fitted.pixels for _, _, fitted in batch])
    seconds = (time.perf_counter() - begun) / len(batch)
    found = []
    for number, (picture, digest, fitted) in enumerate(batch):
        figures = {
            "source": picture.key,
            "sha256": digest,
            **projector.settings,
            "remarks": list(fitted.remarks),
            "encoded": made.encoded and _figures(made.encoded, number),
            "projection": _figures(made.similarity, number),
            "perceptual_99": projector.limit,
            "seconds": round(seconds, 3),
        }
        stem = dest / picture.name.removesuffix(".png")
        tensors: dict[str, Tensor] = {"w": made.styles[number]}
        tensors |= {f"noise.{layer}": noise[number] for layer, noise in enumerate(made.noise)}
        for what, pixels in (("original", fitted.pixels), ("projection", made.images[number].numpy())):
            note = provenance(what, projector.weights, source=digest)
            write_atomic(stem.with_name(f"{stem.name}-{what}.png"), encode_png(pixels, note))
        write_atomic(stem.with_name(f"{stem.name}.safetensors"), tensor_file(tensors))
        write_atomic(stem.with_name(f"{stem.name}.json"), json_bytes(figures))
        for remark in fitted.remarks:
            print(f"{picture.key}: {remark}")
        _warn(picture.key, figures["projection"]["perceptual"], projector.limit)
        found.append(figures)
    return found


def _measure_identity(network: FaceNetwork, stems: Sequence[UPath]) -> dict[str, float]:
    """Add the identity distance of original and projection to the figures of each picture; return the mean and scale.

    Args:
        network: the face network.
        stems: paths of the files of each picture, but for their endings.
    """
    originals, projections = (
        torch.from_numpy(np.stack([_read_png(stem.with_name(f"{stem.name}-{what}.png")) for stem in stems]))
        for what in ("original", "projection")
    )
    distances = identity_distance(network.embed(originals), network.embed(projections)).tolist()
    for stem, distance in zip(stems, distances, strict=True):
        file = stem.with_name(f"{stem.name}.json")
        write_json(file, read_json(file) | {"identity": distance})
    summary = {"projection": float(np.mean(distances))}
    if len(stems) > 1:
        scale = identity_scale(network, originals)
        summary |= {"mirrored": scale.mirrored, "others": scale.others}
    return summary


def _read_png(file: UPath) -> Pixels:
    return cast("Pixels", prepare(read_bytes(file), channels=3).image)


def _warn(key: str, distance: float, limit: float | None) -> None:
    if limit is not None and distance > limit:
        print(
            f"warning: {key}: perceptual distance {distance:.3g}, and 99% of held-out pictures have at most "
            f"{limit:.3g}: the generator can hardly show it; is it cropped like those that it was trained on?",
            file=sys.stderr,
        )


def _pictures(
    source: UPath, shape: Shape, split: str | None, images: int | None
) -> tuple[list[Picture], UPath, dict[str, Any] | None]:
    """List the pictures, the folder or data set that they are in, and what is said of a data set."""
    if is_data_set(source):
        shards = open_shards(source, split)
        pictures = data_pictures(shards)
        if images is not None and images < len(pictures):
            rows = np.sort(permutation(derived_seed(0, "rows"), 0, len(pictures))[:images])
            pictures = [pictures[row] for row in rows]
        if shards.shape != shape:
            its, ours = ("x".join(map(str, one)) if one else "different sizes" for one in (shards.shape, shape))
            raise DataError(f"{source}: images of {its}, and the model draws {ours}; ingest with --size {shape[0]}")
        data = {"path": str(source), "checksum": shards.checksum, "split": split, "pictures": len(pictures)}
        return pictures, source, data
    for option, value in (("split", split), ("images", images)):
        if value is not None:
            raise ConfigError(f"{option} = {value!r}: {source} is no data set; leave it out")
    if is_folder(source):
        return folder_pictures(source), source, None
    if is_file(source):
        return [Picture(source.name, 0, png_name(source.name))], source.parent, None
    raise DataError(f"{source}: no such file or folder")


def _require_held_out(info: ModelInfo, data: Mapping[str, Any] | None, count: int) -> None:
    """Refuse to calibrate on pictures that show nothing of held-out ones.

    Raises:
        ConfigError: they are of no data set, were trained on, or are too few.
    """
    if data is None:
        raise ConfigError("calibrate: needs a data set, and the split of it that the model was not trained on")
    trained = info.provenance["data"].get("images", {}).get("checksum") == data["checksum"]
    if trained and (data["split"] is None or overlap(data["split"], info.provenance["config"]["data"]["split"])):
        raise ConfigError("calibrate: the model was trained on these pictures; name another --split")
    if count < FEWEST:
        raise ConfigError(f"calibrate: {counted(count, 'picture')}; a 99th percentile is taken of {FEWEST} at least")


def _figures(similarity: Similarity, number: int) -> dict[str, float | None]:
    return {
        "psnr": float(similarity.psnr[number]),
        "ssim": None if similarity.ssim is None else float(similarity.ssim[number]),
        "perceptual": float(similarity.perceptual[number]),
    }


def _summary(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the means of figures over pictures, and the 99th percentile of distances."""
    summary: dict[str, Any] = {"pictures": len(found)}
    for part in ("encoded", "projection"):
        figures = [one[part] for one in found]
        if None in figures:
            continue
        names = [name for name, value in figures[0].items() if value is not None]
        summary[part] = {name: float(np.mean([one[name] for one in figures])) for name in names}
    summary["perceptual_99"] = float(np.quantile([one["projection"]["perceptual"] for one in found], 0.99))
    summary["seconds"] = float(np.mean([one["seconds"] for one in found]))
    return summary


def _text(summary: Mapping[str, Any]) -> str:
    def of(part: str) -> str:
        figures = summary[part]
        similarity = f", SSIM {figures['ssim']:.3f}" if "ssim" in figures else ""
        return f"PSNR {figures['psnr']:.2f} dB{similarity}, perceptual distance {figures['perceptual']:.3g}"

    alone = f" (the encoder alone: {of('encoded')})" if "encoded" in summary else ""
    identity = ""
    if one := summary.get("identity"):
        identity = f"; identity distance {one['projection']:.2f}"
        if "others" in one:
            identity += f" (medians: from a mirror image {one['mirrored']:.2f}, from another face {one['others']:.2f})"
    return f"{of('projection')}{alone}{identity}; {summary['seconds']:.2g} s a picture"
