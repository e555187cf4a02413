"""Loaders side by side: each a function that returns a way to make one whole shuffled pass over the samples.

Run as a program, this file is one contender in a process of its own (started by ``stream.py``): it makes a warm-up
pass in which every batch is checked, then one timed pass for each line that comes on standard input.

A pass hands each batch to ``take`` as an array or tensor of uint8 [b, height, width, channels]. Loaders that deliver
channels first are viewed as channels last: no copy is asked of them.
"""

import argparse
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from samples import Samples

Take = Callable[[Any], None]
Pass = Callable[[Take], None]
ALL = ("jpeg", "jpeg-augment", "mnist")
JPEG = ("jpeg", "jpeg-augment")
MEAN_TOLERANCE = {"jpeg": 1.0, "jpeg-augment": 4.0, "mnist": 1e-3}
"""Levels by which a contender's mean pixel may miss that of the samples: decoders differ a little, and crops leave out
more of the pictures' edges than of their middles.
"""


@dataclass(frozen=True)
class Setting:
    """What a contender is to load, and with how much."""

    case: str
    """One of :data:`ALL`."""
    samples: Samples
    batch: int
    threads: int
    """Cores that every contender is pinned to, and threads of those that have no workers."""
    workers: int
    """Worker processes or threads of a peer; 0 is none where that is possible."""
    url: str | None = None
    """Where genlab's shards are, if not in the samples' folder."""
    window: int | None = None
    """Bytes of genlab's shuffle window; ``None`` shuffles all rows."""

    @property
    def augment(self) -> bool:
        """Whether to resize to 286x286, cut a random 256x256 out and mirror one image in two."""
        return self.case == "jpeg-augment"

    @property
    def jpeg(self) -> bool:
        """Whether images are decoded."""
        return self.samples.kind == "jpeg"


@dataclass(frozen=True)
class Contender:
    """One loader, and what to say of it."""

    name: str
    make: Callable[[Setting], Pass]
    cases: tuple[str, ...]
    workers: tuple[int, ...]
    """Numbers of workers to try; one entry, 0, where the loader has none."""
    package: str | None
    """Whose version to print."""
    floor: bool
    fresh: bool
    """Start the process anew in each round, because it works in the background while idle."""
    note: str


CONTENDERS: dict[str, Contender] = {}
SHUFFLER = np.random.default_rng()
"""For contenders that leave the order to their caller; nothing here needs to repeat."""


def contender(
    name: str,
    *,
    cases: tuple[str, ...] = ALL,
    workers: tuple[int, ...] = (0,),
    package: str | None = None,
    floor: bool = False,
    fresh: bool = False,
    note: str = "",
) -> Callable[[Callable[[Setting], Pass]], Callable[[Setting], Pass]]:
    """Enter a loader in :data:`CONTENDERS`."""

    def enter(make: Callable[[Setting], Pass]) -> Callable[[Setting], Pass]:
        CONTENDERS[name] = Contender(name, make, cases, workers, package, floor, fresh, note)
        return make

    return enter


def each(batches: Callable[[], Iterable[Any]]) -> Pass:
    """A pass from something that iterates over batches."""

    def run(take: Take) -> None:
        for batch in batches():
            take(batch)

    return run


# genlab


@contender("genlab")
def genlab(setting: Setting) -> Pass:
    """The one place that knows genlab's interface."""
    from genlab.data.format.shards import ShardSet
    from genlab.data.stream.augment import Augmentation
    from genlab.data.stream.shard_stream import ShardStream

    shards = ShardSet.open(setting.url or str(setting.samples.shards()), threads=setting.threads)
    augmentation = Augmentation(flip=True, jitter=30, seed=1) if setting.augment else None
    # Endless: a pass is as many batches as the samples fill.
    stream = ShardStream(shards, batch=setting.batch, seed=1, window=setting.window, augmentation=augmentation)
    return each(lambda: (next(stream).image for _ in range(setting.samples.count // setting.batch)))


# floors


def _in_threads(setting: Setting, fill: Callable[[Any, NDArray[np.uint8]], None], items: list[Any]) -> Pass:
    """Every thread fills batches of its own, each into one preallocated array."""
    buffers = [np.empty((setting.batch, *setting.samples.shape), np.uint8) for _ in range(setting.threads)]

    def run(take: Take) -> None:
        order = SHUFFLER.permutation(setting.samples.count).reshape(-1, setting.batch).tolist()

        def work(thread: int) -> None:
            out = buffers[thread]
            for rows in order[thread :: setting.threads]:
                for image, row in zip(out, rows, strict=True):
                    fill(items[row], image)
                take(out)

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(setting.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


@contender("bare loop, simplejpeg", cases=("jpeg",), package="simplejpeg", floor=True)
def bare_simplejpeg(setting: Setting) -> Pass:
    """Bytes in memory, decoded in place."""
    from simplejpeg import decode_jpeg

    return _in_threads(setting, lambda data, out: decode_jpeg(data, buffer=out), list(setting.samples.items()))


@contender("bare loop, OpenCV", cases=("jpeg",), package="opencv-python-headless", floor=True)
def bare_opencv(setting: Setting) -> Pass:
    """Bytes in memory; OpenCV returns a new array, which is copied to its place."""
    import cv2

    items = [np.frombuffer(item, np.uint8) for item in setting.samples.items()]
    return _in_threads(setting, lambda data, out: np.copyto(out, cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)), items)


@contender("bare loop, torchvision", cases=("jpeg",), package="torchvision", floor=True)
def bare_torchvision(setting: Setting) -> Pass:
    """Bytes in memory; torchvision returns a new tensor, channels first, which is copied to its place."""
    import torch
    from torchvision.io import ImageReadMode, decode_image

    def fill(data: Any, out: NDArray[np.uint8]) -> None:
        torch.from_numpy(out).copy_(decode_image(data, ImageReadMode.RGB).permute(1, 2, 0))

    items = [torch.frombuffer(bytearray(item), dtype=torch.uint8) for item in setting.samples.items()]
    return _in_threads(setting, fill, items)


@contender("bare loop, simplejpeg + OpenCV", cases=("jpeg-augment",), package="simplejpeg", floor=True)
def bare_augment(setting: Setting) -> Pass:
    """Decode and resize into scratch arrays that stay in cache, then crop and mirror into place in one pass."""
    import cv2
    from simplejpeg import decode_jpeg

    local = threading.local()

    def fill(data: Any, out: NDArray[np.uint8]) -> None:
        if not hasattr(local, "decoded"):
            local.decoded = np.empty(setting.samples.shape, np.uint8)
            local.resized = np.empty((286, 286, 3), np.uint8)
        decode_jpeg(data, buffer=local.decoded)
        cv2.resize(local.decoded, (286, 286), dst=local.resized, interpolation=cv2.INTER_LINEAR)
        y, x = random.randrange(31), random.randrange(31)
        cut = local.resized[y : y + 256, x : x + 256]
        if random.random() < 0.5:
            cv2.flip(cut, 1, dst=out)
        else:
            np.copyto(out, cut)

    return _in_threads(setting, fill, list(setting.samples.items()))


@contender("bare copy, numpy", cases=("mnist",), floor=True)
def bare_copy(setting: Setting) -> Pass:
    """Shuffled rows of a memory-mapped array into one preallocated batch, in one thread.

    Rows are taken as one opaque item each, and with ``mode="clip"``, which copies straight to ``out``: the fastest
    of the ways that NumPy has.
    """
    array = setting.samples.array()
    item = f"V{array[0].nbytes}"
    rows = array.reshape(len(array), -1).view(item).reshape(-1)
    out = np.empty((setting.batch, *array.shape[1:]), np.uint8)
    flat = out.reshape(setting.batch, -1).view(item).reshape(-1)

    def run(take: Take) -> None:
        order = SHUFFLER.permutation(len(array)).reshape(-1, setting.batch)
        for batch in order:
            np.take(rows, batch, out=flat, mode="clip")
            take(out)

    return run


# peers


def _augment(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The peers' augmentation of one image: OpenCV's, the fastest on the index."""
    import cv2

    y, x = random.randrange(31), random.randrange(31)
    cut = cv2.resize(image, (286, 286))[y : y + 256, x : x + 256]
    return cv2.flip(cut, 1) if random.random() < 0.5 else np.ascontiguousarray(cut)


class _Decode:
    """Bytes to an array [height, width, channels], augmented if asked; picklable."""

    def __init__(self, augment: bool) -> None:
        self.augment = augment

    def __call__(self, data: bytes) -> NDArray[np.uint8]:
        from simplejpeg import decode_jpeg

        image = decode_jpeg(data)
        return _augment(image) if self.augment else image

    def into(self, out: NDArray[np.uint8], data: bytes) -> None:
        """The same, to a place in a batch."""
        from simplejpeg import decode_jpeg

        if self.augment:
            out[:] = _augment(decode_jpeg(data))
        else:
            decode_jpeg(data, buffer=out)


def _loader(setting: Setting, dataset: Any, **options: Any) -> Any:
    import torch

    return torch.utils.data.DataLoader(
        dataset, num_workers=setting.workers, persistent_workers=setting.workers > 0, worker_init_fn=_quiet, **options
    )


def _quiet(_: int) -> None:
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(0)


@contender("torchvision ImageFolder/MNIST + DataLoader", workers=(0, 1, 2, 4), package="torchvision")
def stock(setting: Setting) -> Pass:
    """As one would write it: PIL images and torchvision's transforms, uint8 tensors."""
    from torchvision import datasets, transforms

    steps: list[Any] = [transforms.PILToTensor()]
    if setting.augment:
        steps = [
            transforms.Resize((286, 286)),
            transforms.RandomCrop(256),
            transforms.RandomHorizontalFlip(),
            *steps,
        ]
    transform = transforms.Compose(steps)
    dataset = (
        datasets.ImageFolder(str(setting.samples.folder()), transform)
        if setting.jpeg
        else datasets.MNIST(str(setting.samples.idx()), train=True, transform=transform)
    )
    loader = _loader(setting, dataset, batch_size=setting.batch, shuffle=True)
    return each(lambda: (image.permute(0, 2, 3, 1) for image, _ in loader))


class _Whole:
    """A dataset asked for whole batches."""

    def __init__(self, setting: Setting) -> None:
        self.augment = setting.augment
        self.files = setting.samples.files() if setting.jpeg else None
        self.array = None if setting.jpeg else setting.samples.array()

    def __len__(self) -> int:
        return len(self.array if self.files is None else self.files)

    def __getitem__(self, rows: list[int]) -> Any:
        import torch

        if self.files is None:
            return torch.from_numpy(self.array[rows])
        decode = _Decode(self.augment)
        out = np.empty((len(rows), 256, 256, 3), np.uint8)
        for image, row in zip(out, rows, strict=True):
            decode.into(image, Path(self.files[row]).read_bytes())
        return torch.from_numpy(out)


@contender("DataLoader by whole batches", workers=(0, 1, 2, 4), package="torch")
def by_batch(setting: Setting) -> Pass:
    """A sampler of index lists; the dataset returns a batch, decoded by simplejpeg or from a memory-mapped array."""
    import torch

    dataset = _Whole(setting)
    sampler = torch.utils.data.BatchSampler(torch.utils.data.RandomSampler(dataset), setting.batch, drop_last=False)
    loader = _loader(setting, dataset, sampler=sampler, batch_size=None)
    return each(lambda: loader)


@contender("SPDL", workers=(1, 2, 4), package="spdl")
def spdl(setting: Setting) -> Pass:
    """Its pipeline of threads, a whole batch a task; simplejpeg decodes (its own decoder needs FFmpeg's libraries)."""
    from spdl.pipeline import PipelineBuilder

    whole = _Whole(setting)

    def batches() -> Iterator[Any]:
        order = SHUFFLER.permutation(setting.samples.count).reshape(-1, setting.batch).tolist()
        pipeline = (
            PipelineBuilder()
            .add_source(order)
            .pipe(whole.__getitem__, concurrency=setting.workers)
            .add_sink(2 * setting.workers)
            .build(num_threads=setting.workers)
        )
        with pipeline.auto_stop():
            yield from pipeline

    return each(batches)


@contender("grain", workers=(1, 2, 4), package="grain")
def grain(setting: Setting) -> Pass:
    """MapDataset with its reading threads; simplejpeg decodes."""
    import grain.python as pygrain

    decode = _Decode(setting.augment)
    if setting.jpeg:
        source: Any = setting.samples.files()
    else:
        source = setting.samples.array()
    options = pygrain.ReadOptions(num_threads=setting.workers, prefetch_buffer_size=64)

    def batches() -> Iterator[Any]:
        data = pygrain.MapDataset.source(source).shuffle(seed=random.randrange(2**31))
        if setting.jpeg:
            data = data.map(lambda path: decode(Path(path).read_bytes()))
        return iter(data.to_iter_dataset(options).batch(setting.batch))

    return each(batches)


@contender("litdata", workers=(0, 1, 2, 4), package="litdata")
def litdata(setting: Setting) -> Pass:
    """StreamingDataset over its own chunks, shuffled; the files' bytes, decoded by simplejpeg."""
    import torch
    from formats import litdata_chunks
    from litdata import StreamingDataLoader, StreamingDataset

    decode = _Decode(setting.augment) if setting.jpeg else None

    class Images(StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            item = super().__getitem__(index)
            return item if decode is None else torch.from_numpy(decode(item))

    dataset = Images(str(litdata_chunks(setting.samples)), shuffle=True, drop_last=False)
    loader = StreamingDataLoader(
        dataset,
        batch_size=setting.batch,
        num_workers=setting.workers,
        persistent_workers=setting.workers > 0,
    )
    return each(lambda: loader)


@contender("mosaicml-streaming", workers=(0, 1, 2, 4), package="mosaicml-streaming")
def mosaicml(setting: Setting) -> Pass:
    """StreamingDataset over its own shards, shuffled; the files' bytes, decoded by simplejpeg."""
    import torch
    from formats import mosaicml_shards
    from streaming import StreamingDataset

    decode = _Decode(setting.augment) if setting.jpeg else None

    class Images(StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            image = super().__getitem__(index)["image"]
            return torch.from_numpy(image.copy() if decode is None else decode(image))

    dataset = Images(local=str(mosaicml_shards(setting.samples)), shuffle=True, batch_size=setting.batch)
    loader = _loader(setting, dataset, batch_size=setting.batch)
    return each(lambda: loader)


@contender(
    "webdataset", workers=(0, 1, 2, 4), package="webdataset", note="shuffles shards and a buffer of 1,000 images only"
)
def webdataset(setting: Setting) -> Pass:
    """WebDataset over tars, its usual shuffle; simplejpeg decodes."""
    import torch
    import webdataset as wds
    from formats import webdataset_tars

    decode = _Decode(setting.augment)

    def image(sample: dict[str, Any]) -> Any:
        if setting.jpeg:
            return torch.from_numpy(decode(sample["jpg"]))
        return torch.from_numpy(np.frombuffer(bytearray(sample["bin"]), np.uint8).reshape(setting.samples.shape))

    urls = sorted(str(path) for path in webdataset_tars(setting.samples).glob("*.tar"))
    dataset = (
        wds.WebDataset(urls, shardshuffle=len(urls), empty_check=False)
        .shuffle(1000)
        .map(image)
        .batched(setting.batch, collation_fn=torch.stack)
    )
    loader = _loader(setting, dataset, batch_size=None)
    return each(lambda: loader)


@contender("Hugging Face datasets", workers=(0, 1, 2, 4), package="datasets")
def hugging_face(setting: Setting) -> Pass:
    """Arrow files with whole batches asked for by DataLoader; simplejpeg decodes."""
    import torch
    from datasets import load_from_disk
    from formats import hugging_face_arrow

    decode = _Decode(setting.augment)
    shape = setting.samples.shape

    def images(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {"image": [decode(data) for data in rows["image"]]}

    dataset: Any = load_from_disk(str(hugging_face_arrow(setting.samples)))
    dataset = dataset.with_transform(images) if setting.jpeg else dataset.with_format("arrow")

    class Whole:
        def __len__(self) -> int:
            return len(dataset)

        def __getitem__(self, rows: list[int]) -> Any:
            found = dataset[rows]["image"]
            if setting.jpeg:
                return torch.from_numpy(np.stack(found))
            pixels = found.combine_chunks().values.to_numpy()
            return torch.from_numpy(pixels.reshape(-1, *shape).copy())

    sampler = torch.utils.data.BatchSampler(torch.utils.data.RandomSampler(Whole()), setting.batch, drop_last=False)
    loader = _loader(setting, Whole(), sampler=sampler, batch_size=None)
    return each(lambda: loader)


@contender("DALI (CPU)", workers=(1, 2, 4), package="nvidia-dali-cuda130")
def dali(setting: Setting) -> Pass:
    """Its pipeline without a GPU; raw rows come from NumPy through its external source."""
    from nvidia.dali import fn, pipeline_def, types

    count, batch = setting.samples.count, setting.batch

    @pipeline_def(batch_size=batch, num_threads=setting.workers, device_id=None, prefetch_queue_depth=2)
    def images() -> Any:
        encoded, _ = fn.readers.file(files=setting.samples.files(), shuffle_after_epoch=True, name="files")
        image = fn.decoders.image(encoded, device="cpu", output_type=types.RGB)
        if setting.augment:
            image = fn.resize(image, resize_x=286, resize_y=286, interp_type=types.INTERP_LINEAR, antialias=False)
            image = fn.crop_mirror_normalize(
                image,
                crop=(256, 256),
                crop_pos_x=fn.random.uniform(range=(0.0, 1.0)),
                crop_pos_y=fn.random.uniform(range=(0.0, 1.0)),
                mirror=fn.random.coin_flip(),
                dtype=types.UINT8,
                output_layout="HWC",
                mean=0.0,
                std=1.0,
            )
        return image

    def gathered() -> Iterator[NDArray[np.uint8]]:
        array = setting.samples.array()
        while True:
            for rows in SHUFFLER.permutation(count).reshape(-1, batch):
                yield array[rows]

    @pipeline_def(batch_size=batch, num_threads=setting.workers, device_id=None, prefetch_queue_depth=2)
    def raw() -> Any:
        return fn.external_source(source=gathered(), batch=True, layout="HWC", no_copy=True)

    pipe = images() if setting.jpeg else raw()
    pipe.build()
    # The pipeline is endless as well.
    return each(lambda: (pipe.run()[0].as_array() for _ in range(count // batch)))


@contender("ffcv", cases=("mnist",), workers=(1, 2, 4), package="ffcv", note="raw rows only: it re-encodes JPEG files")
def ffcv(setting: Setting) -> Pass:
    """Its loader over its own file, in random order; a whole shuffle."""
    from ffcv.fields.decoders import NDArrayDecoder
    from ffcv.loader import Loader, OrderOption
    from formats import ffcv_file

    loader = Loader(
        str(ffcv_file(setting.samples)),
        batch_size=setting.batch,
        num_workers=setting.workers,
        order=OrderOption.RANDOM,
        os_cache=True,
        batches_ahead=3,
        pipelines={"image": [NDArrayDecoder()]},
    )
    return each(lambda: (batch[0] for batch in loader))


@contender("Ray Data", package="ray", fresh=True, note="shuffles files or blocks and a buffer of 1,000 images only")
def ray_data(setting: Setting) -> Pass:
    """iter_torch_batches; its local cluster has as many CPUs as there are cores."""
    import logging

    import ray
    from formats import parquet

    ray.init(num_cpus=setting.threads, include_dashboard=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    decode = _Decode(setting.augment)

    def images(rows: dict[str, Any]) -> dict[str, Any]:
        return {"image": np.stack([decode(data) for data in rows["image"]])}

    shape = setting.samples.shape

    def batches() -> Iterator[Any]:
        data = ray.data.read_parquet(str(parquet(setting.samples)), shuffle="files", override_num_blocks=8)
        if setting.jpeg:
            data = data.map_batches(images, batch_size=64)
        options = {"batch_size": setting.batch, "local_shuffle_buffer_size": 1000, "prefetch_batches": 2}
        for batch in data.iter_torch_batches(**options):
            yield batch["image"].reshape(-1, *shape)

    return each(batches)


# one contender as a process


def main() -> None:
    """Warm up and check, then a timed pass for each line of standard input; one JSON object a line on the way out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("case", choices=ALL)
    for option in ("count", "batch", "threads", "workers", "passes"):
        parser.add_argument(f"--{option}", type=int, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--url")
    parser.add_argument("--window", type=int)
    options = parser.parse_args()
    # Loaders print; the report goes where only it goes.
    report = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    import torch

    torch.set_num_threads(options.threads)
    try:
        import cv2

        cv2.setNumThreads(0)
    except ImportError:
        pass
    setting = Setting(
        options.case,
        Samples("mnist" if options.case == "mnist" else "jpeg", options.count, options.cache),
        options.batch,
        options.threads,
        options.workers,
        options.url,
        options.window,
    )
    chosen = CONTENDERS[options.name]
    began = time.perf_counter()
    run = chosen.make(setting)
    facts = _checked(run, setting) | {"warm_up": time.perf_counter() - began}
    if chosen.package:
        facts["version"] = version(chosen.package)
    print(json.dumps(facts), file=report)
    for _ in sys.stdin:
        print(json.dumps(_timed(run, options.passes, options.count)), file=report)
    # Worker pools and pipelines differ in how they end, and none of it is measured.
    report.close()
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(0)


def _checked(run: Pass, setting: Setting) -> dict[str, Any]:
    """One pass in which every batch's shape and type, the number of images and their mean are checked."""
    seen: list[tuple[int, float]] = []
    wrong: list[str] = []

    def take(batch: Any) -> None:
        array = np.asarray(batch)
        if array.dtype != np.uint8 or array.shape[1:] != setting.samples.shape:
            wrong.append(f"{array.dtype} {array.shape}")
        seen.append((len(array), float(array.mean())))

    run(take)
    count = sum(number for number, _ in seen)
    mean = sum(number * mean for number, mean in seen) / max(1, count)
    if wrong:
        raise SystemExit(f"batches of {wrong[0]}, not uint8 {setting.samples.shape}")
    if count != setting.samples.count:
        raise SystemExit(f"{count} images in a pass, not {setting.samples.count}")
    if abs(mean - setting.samples.mean()) > MEAN_TOLERANCE[setting.case]:
        raise SystemExit(f"mean pixel {mean:.2f}, not {setting.samples.mean():.2f}")
    return {"images": count, "mean": mean, "first_shape": [seen[0][0], *setting.samples.shape]}


def _timed(run: Pass, passes: int, count: int) -> dict[str, float]:
    """Images a second of wall time, and seconds of CPU time an image."""
    counts: list[int] = []
    before, began = _cpu(), time.perf_counter()
    for _ in range(passes):
        run(lambda batch: counts.append(len(batch)))
    seconds, cpu = time.perf_counter() - began, _cpu() - before
    if sum(counts) != passes * count:
        raise SystemExit(f"{sum(counts)} images in {passes} passes of {count}")
    return {"rate": sum(counts) / seconds, "cpu": cpu / sum(counts)}


def _cpu() -> float:
    """CPU seconds of this process and its children so far."""
    total = 0.0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


if __name__ == "__main__":
    main()
