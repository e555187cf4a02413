"""The samples in each peer's own format, by its own writer. ``ingest.py`` times these writers."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from samples import Samples

CHUNK = 16 << 20
"""Bytes in a file of each format, about."""


def write_litdata(samples: Samples, path: Path) -> None:
    """litdata's chunks, written by this process: no workers to start."""
    import torch
    from litdata.streaming.cache import Cache

    cache = Cache(str(path), chunk_bytes=CHUNK)
    for index, item in enumerate(samples.items()):
        cache[index] = item if isinstance(item, bytes) else torch.from_numpy(np.array(item))
    cache.done()
    cache.merge()


def write_mosaicml(samples: Samples, path: Path) -> None:
    """MDS shards with a checksum each."""
    from streaming import MDSWriter

    column = "bytes" if samples.kind == "jpeg" else f"ndarray:uint8:{','.join(map(str, samples.shape))}"
    path.rmdir()
    with MDSWriter(out=str(path), columns={"image": column}, hashes=["xxh3_64"], size_limit=CHUNK) as writer:
        for item in samples.items():
            writer.write({"image": item if isinstance(item, bytes) else np.array(item)})


def write_webdataset(samples: Samples, path: Path) -> None:
    """Tar files."""
    import webdataset as wds

    with wds.ShardWriter(f"{path}/%05d.tar", maxsize=CHUNK, maxcount=10**9, verbose=0) as writer:
        for index, item in enumerate(samples.items()):
            data = {"jpg": item} if isinstance(item, bytes) else {"bin": item.tobytes()}
            writer.write({"__key__": f"{index:06d}", **data})


def write_hugging_face(samples: Samples, path: Path) -> None:
    """Arrow files of ``datasets``; raw rows as one fixed-length list each."""
    import datasets

    cell: Any = datasets.Value("binary")
    if samples.kind != "jpeg":
        cell = datasets.Sequence(datasets.Value("uint8"), length=int(np.prod(samples.shape)))

    def rows() -> Iterator[dict[str, Any]]:
        for item in samples.items():
            yield {"image": item if isinstance(item, bytes) else item.reshape(-1)}

    scratch = path.with_name(f"{path.name}.scratch")
    try:
        dataset = datasets.Dataset.from_generator(
            rows, features=datasets.Features({"image": cell}), cache_dir=str(scratch)
        )
        dataset.save_to_disk(str(path), max_shard_size=CHUNK)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_parquet(samples: Samples, path: Path) -> None:
    """Parquet by pyarrow, uncompressed, pages with checksums; as read by Ray Data."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = int(np.prod(samples.shape))
    kind = pa.binary() if samples.kind == "jpeg" else pa.fixed_shape_tensor(pa.uint8(), samples.shape)
    number, items, held = 0, [], 0

    def flush() -> None:
        nonlocal number, items, held
        if samples.kind == "jpeg":
            column = pa.array(items, kind)
        else:
            flat = pa.FixedSizeListArray.from_arrays(pa.array(np.stack(items).reshape(-1)), size)
            column = pa.ExtensionArray.from_storage(kind, flat)
        options: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
        pq.write_table(pa.table({"image": column}), path / f"{number:05d}.parquet", **options)
        number, items, held = number + 1, [], 0

    for item in samples.items():
        items.append(item)
        held += len(item) if isinstance(item, bytes) else item.nbytes
        if held >= CHUNK:
            flush()
    if items:
        flush()


def write_ffcv(samples: Samples, path: Path) -> None:
    """ffcv's one file, raw rows only."""
    from ffcv.fields import NDArrayField
    from ffcv.writer import DatasetWriter

    array = samples.array()

    class Rows:
        def __len__(self) -> int:
            return len(array)

        def __getitem__(self, index: int) -> tuple[Any]:
            return (np.array(array[index]),)

    field = NDArrayField(dtype=np.dtype("uint8"), shape=samples.shape)
    DatasetWriter(str(path / "images.beton"), {"image": field}, num_workers=1).from_indexed_dataset(Rows())


def litdata_chunks(samples: Samples) -> Path:
    """The folder of litdata's chunks."""
    return samples.form("litdata", lambda path: write_litdata(samples, path))


def mosaicml_shards(samples: Samples) -> Path:
    """The folder of MDS shards."""
    return samples.form("mosaicml", lambda path: write_mosaicml(samples, path))


def webdataset_tars(samples: Samples) -> Path:
    """The folder of tars."""
    return samples.form("webdataset", lambda path: write_webdataset(samples, path))


def hugging_face_arrow(samples: Samples) -> Path:
    """The folder of ``datasets``' Arrow files."""
    return samples.form("hugging_face", lambda path: write_hugging_face(samples, path))


def parquet(samples: Samples) -> Path:
    """The folder of Parquet files."""
    return samples.form("parquet", lambda path: write_parquet(samples, path))


def ffcv_file(samples: Samples) -> Path:
    """ffcv's file."""
    return samples.form("ffcv", lambda path: write_ffcv(samples, path)) / "images.beton"
