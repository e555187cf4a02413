"""Images from WebDataset tars, Parquet files and Hugging Face data sets on disk.

The fixtures write, by pyarrow alone, the very form of ``datasets`` 5.2 (``save_to_disk``, ``to_parquet``), with which
they were compared.
"""

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genlab.core.errors import ConfigError, DataError, GenlabError
from genlab.data.format.manifest import Attribute
from genlab.data.format.shards import ShardSet
from genlab.data.ingest.attributes import AttributesConfig
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.data.ingest.sources import Source, open_source
from tests.data.ingest.test_sources import load_all, png
from tests.data.support import assert_ingest_refuses

FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": ["dog", "cat"], "_type": "ClassLabel"},
    "age": {"dtype": "int32", "_type": "Value"},
    "weight": {"dtype": "float32", "_type": "Value"},
    "town": {"dtype": "string", "_type": "Value"},
}


def hf_table(count: int) -> pa.Table:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        "image": pa.array([{"bytes": png(row), "path": f"{row}.png"} for row in range(count)], image),
        "label": pa.array([row % 2 for row in range(count)], pa.int64()),
        "age": pa.array(range(count), pa.int32()),
        "weight": pa.array([row / 2 for row in range(count)], pa.float32()),
        "town": pa.array(["york", "bath"][row % 2] for row in range(count)),
    }
    metadata = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    return pa.table(columns).replace_schema_metadata(metadata)


def write_hf(directory: Path, count: int, parts: int = 2, rows: int = 2) -> Path:
    """A Dataset as ``save_to_disk`` writes it, in record batches of ``rows``."""
    directory.mkdir(parents=True)
    names = [f"data-{part:05d}-of-{parts:05d}.arrow" for part in range(parts)]
    table = hf_table(count)
    for name, part in zip(names, np.array_split(np.arange(count), parts), strict=True):
        with pa.ipc.new_stream(directory / name, table.schema) as writer:
            writer.write_table(table.slice(part[0], len(part)), max_chunksize=rows)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0" * 16, "_split": None}
    (directory / "state.json").write_text(json.dumps(state))
    (directory / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    return directory


def write_tar(file: Path, members: dict[str, bytes]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file


def made(source: str | Path, dest: Path, **options: Any) -> ShardSet:
    ingest(IngestConfig(str(source), str(dest), **options))
    shards = ShardSet.open(str(dest))
    shards.verify()
    return shards


def content(shards: ShardSet) -> dict[str, list[Any]]:
    rows = np.arange(len(shards))
    columns = {name: column.tolist() for name, column in shards.columns(rows).items()}
    return {"key": shards.keys(rows), "image": shards.encoded(rows), **columns}


SAMPLES = {
    "a/1.jpg": png(1), "a/1.cls": b"2", "a/1.json": b'{"age": 7, "town": "york", "tags": ["x"], "ok": true}',
    "a/1.txt": b"a caption", "a/1.seg.png": b"a mask",
    "a/2.PNG": png(2), "a/2.cls": b" 0\n", "a/2.json": b'{"age": 8.5, "town": "bath", "ok": false}',
}  # fmt: skip


def test_webdataset_samples_with_labels_and_attributes(tmp_path: Path) -> None:
    shards = made(write_tar(tmp_path / "x.tar", SAMPLES), tmp_path / "data")
    assert shards.manifest.label_names == ("0", "1", "2")
    assert shards.manifest.attributes == (
        Attribute("age", "float"), Attribute("town", "category", ("bath", "york")), Attribute("ok", "int")
    )  # fmt: skip
    assert content(shards) == {
        "key": ["a/1", "a/2"], "image": [png(1), png(2)], "label": [2, 0], "age": [7.0, 8.5], "town": [1, 0],
        "ok": [1, 0],
    }  # fmt: skip


def test_archives_that_share_keys_lead_them_and_lie_in_splits(tmp_path: Path) -> None:
    for number, name in enumerate(("train/0.tar", "train/1.tar", "test/0.tar")):
        write_tar(tmp_path / "x" / name, {"0.png": png(number)})
    source = open_source(str(tmp_path / "x"))
    assert source.kind == "webdataset"
    assert load_all(source) == {"train/0/0": png(0), "train/1/0": png(1), "test/0/0": png(2)}
    assert {entry.key: entry.split for entry in source.entries()}["test/0/0"] == "test"


def test_hugging_face_data_sets(tmp_path: Path) -> None:
    shards = made(write_hf(tmp_path / "hf", 7), tmp_path / "data")
    assert shards.manifest.origin.kind == "hf"
    assert shards.manifest.label_names == ("dog", "cat")
    assert shards.manifest.attributes == (
        Attribute("age", "int"), Attribute("weight", "float"), Attribute("town", "category", ("bath", "york"))
    )  # fmt: skip
    assert content(shards) == {
        "key": [f"train-{row:08d}" for row in range(7)], "image": [png(row) for row in range(7)],
        "label": [0, 1, 0, 1, 0, 1, 0], "age": list(range(7)), "weight": [row / 2 for row in range(7)],
        "town": [1, 0, 1, 0, 1, 0, 1],
    }  # fmt: skip


def test_a_dataset_dict_has_splits(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("test", 3)):
        write_hf(tmp_path / "hf" / split, count)
    (tmp_path / "hf" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert made(tmp_path / "hf", tmp_path / "data").manifest.splits == {"train": 4, "test": 3}
    (tmp_path / "hf" / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    with pytest.raises(DataError, match=r"split 'validation' is neither train nor test.*hf:.*/validation"):
        list(open_source(str(tmp_path / "hf")).entries())


def test_parquet_of_hugging_face_is_the_same_data_set(tmp_path: Path) -> None:
    pq.write_table(hf_table(50), tmp_path / "train-00000-of-00001.parquet", row_group_size=20)
    shards = made(tmp_path / "train-00000-of-00001.parquet", tmp_path / "data", shard_size=1e-3)
    assert len(shards.shards) > 3
    other = made(write_hf(tmp_path / "hf", 50, rows=7), tmp_path / "other")
    assert content(shards) | {"key": []} == content(other) | {"key": []}
    assert shards.manifest.label_names == other.manifest.label_names
    assert content(shards)["key"][49] == "train-00000-of-00001-00000049"


def test_parquet_by_columns_in_the_order_of_keys(tmp_path: Path) -> None:
    names = [f"{row * 37 % 100:02d}" for row in range(100)]
    columns = {"photo": [png(row) for row in range(100)], "mask": [b""] * 100, "name": names, "other": [[1]] * 100}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", row_group_size=30)
    with pytest.raises(DataError, match=r"x\.parquet: several columns of images, .* --image-column: photo, mask"):
        list(open_source(str(tmp_path / "x.parquet")).entries())
    options: dict[str, Any] = {"image_column": "photo", "key_column": "name", "shard_size": 2e-3}
    shards = made(tmp_path / "x.parquet", tmp_path / "data", **options)
    assert content(shards) == {"key": sorted(names), "image": [png(names.index(name)) for name in sorted(names)]}
    with pytest.raises(ConfigError, match=r"--key-column photo: no such column .* there are: photo, mask, name, other"):
        list(open_source(str(tmp_path / "x.parquet"), image_column="photo", key_column="photo").entries())


def test_parquet_splits_by_the_names_of_files(tmp_path: Path) -> None:
    for name in ("train-00000-of-00001", "test-00000-of-00001"):
        pq.write_table(hf_table(3), tmp_path / f"{name}.parquet")
    assert {entry.split for entry in open_source(f"parquet:{tmp_path}").entries()} == {"train", "test"}
    pq.write_table(hf_table(3), tmp_path / "validation-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"validation-00000-of-00001\.parquet: of neither split"):
        list(open_source(f"parquet:{tmp_path}").entries())


def test_a_missing_value_names_image_and_attribute(tmp_path: Path) -> None:
    table = hf_table(3).set_column(2, "age", pa.array([1, None, 3], pa.int32()))
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet, row 1 \(x-00000001\): its attribute age has no value"):
        made(tmp_path / "x.parquet", tmp_path / "data")
    shards = made(tmp_path / "x.parquet", tmp_path / "data", skip_bad=True)
    assert (shards.manifest.rows, shards.manifest.skipped[0].key) == (2, "x-00000001")
    fewer = AttributesConfig(columns=("town",))
    assert made(tmp_path / "x.parquet", tmp_path / "fewer", attributes=fewer).manifest.rows == 3


def test_an_image_by_path_only_is_a_bad_image(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [{"bytes": None, "path": "/x/y.jpg"}]}, pa.schema([("image", pa.struct(
        [("bytes", pa.binary()), ("path", pa.string())]))])), tmp_path / "x.parquet")  # fmt: skip
    with pytest.raises(DataError, match=r"row 0 .*only the path of its file is stored, /x/y\.jpg"):
        made(tmp_path / "x.parquet", tmp_path / "data")


def truncated_tar(folder: Path) -> str:
    file = write_tar(folder / "x.tar", SAMPLES)
    file.write_bytes(file.read_bytes()[:3000])
    return "x.tar: truncated"


def tar_without_its_end(folder: Path) -> str:
    file = write_tar(folder / "x.tar", {"0.png": png(0)})
    file.write_bytes(file.read_bytes()[:1024])
    return "x.tar: truncated, it has no end mark"


def compressed_tar(folder: Path) -> str:
    with tarfile.open(folder / "x.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("0.png"))
    return "x.tar: truncated, compressed, or no tar archive"


def sample_without_image(folder: Path) -> str:
    write_tar(folder / "x.tar", {"0.png": png(0), "1.cls": b"1"})
    return "x.tar: 1 has no image (its members: cls)"


def label_that_is_no_text(folder: Path) -> str:
    write_tar(folder / "x.tar", {"0.png": png(0), "0.cls": b"\xff\x00"})
    return r"x.tar: 0.cls: should be a class's number or name, not b'\xff\x00'"


def damaged_json(folder: Path) -> str:
    write_tar(folder / "x.tar", {"0.png": png(0), "0.json": b'{"age":'})
    return "x.tar: 0.json: not valid JSON"


def parquet_without_images(folder: Path) -> str:
    pq.write_table(pa.table({"age": [1], "name": ["x"]}), folder / "x.parquet")
    return "x.parquet: no column of images (binary, or a struct with bytes); there are: age, name"


def truncated_parquet(folder: Path) -> str:
    pq.write_table(hf_table(3), folder / "x.parquet")
    (folder / "x.parquet").write_bytes((folder / "x.parquet").read_bytes()[:-10])
    return "x.parquet: truncated, or not a Parquet file"


def empty_parquet(folder: Path) -> str:
    pq.write_table(hf_table(0), folder / "x.parquet")
    return "no rows in it"


def hf_without_state(folder: Path) -> str:
    write_hf(folder / "train", 3)
    (folder / "dataset_dict.json").write_text('{"splits": ["train"]}')
    (folder / "train" / "state.json").unlink()
    return "train/state.json: no such file; hf: is for a folder written by save_to_disk"


def hf_of_nothing(folder: Path) -> str:
    (folder / "state.json").write_text("{}")
    return "state.json: damaged, or no file of a saved data set (no _data_files in it)"


def hf_without_a_file(folder: Path) -> str:
    (write_hf(folder / "train", 4) / "data-00001-of-00002.arrow").unlink()
    (folder / "dataset_dict.json").write_text('{"splits": ["train"]}')
    return "data-00001-of-00002.arrow: no such file, though its data set lists it"


def truncated_hf(folder: Path) -> str:
    file = write_hf(folder / "train", 4) / "data-00001-of-00002.arrow"
    file.write_bytes(file.read_bytes()[:-8])  # its end mark, all rows being there
    (folder / "dataset_dict.json").write_text('{"splits": ["train"]}')
    return "data-00001-of-00002.arrow: truncated or damaged"


def two_things(folder: Path) -> str:
    write_tar(folder / "x.tar", {"0.png": png(0)})
    pq.write_table(hf_table(3), folder / "x.parquet")
    return "several things are recognised (parquet, webdataset); name what it is"


BAD_INPUT = [
    truncated_tar, tar_without_its_end, compressed_tar, sample_without_image, label_that_is_no_text, damaged_json,
    parquet_without_images, truncated_parquet, empty_parquet, hf_without_state, hf_of_nothing, hf_without_a_file,
    truncated_hf, two_things,
]  # fmt: skip


@pytest.mark.parametrize("make", BAD_INPUT, ids=lambda make: make.__name__)
def test_bad_input_ends_the_command_with_one_message(
    make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "source").mkdir()
    message = make(tmp_path / "source")
    assert_ingest_refuses(tmp_path / "source", tmp_path / "data", message, capsys)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("kind", ["hf", "parquet", "webdataset"])
def test_no_flipped_byte_of_a_container_goes_by_with_a_traceback(tmp_path: Path, kind: str) -> None:
    """A damaged container is read as something else or refused, always by a message of ours."""
    path = {
        "hf": lambda: write_hf(tmp_path / "x", 3, parts=1) / "data-00000-of-00001.arrow",
        "parquet": lambda: _written_parquet(tmp_path / "x.parquet"),
        "webdataset": lambda: write_tar(tmp_path / "x.tar", SAMPLES),
    }[kind]()
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    source: Source = open_source(f"{kind}:{path.parent if kind == 'hf' else path}")
    for position in rng.integers(0, len(data), 150).tolist():
        path.write_bytes(data[:position] + bytes([data[position] ^ 1 << int(rng.integers(8))]) + data[position + 1 :])
        try:
            load_all(pickle.loads(pickle.dumps(source)))
        except GenlabError:
            continue


def _written_parquet(file: Path) -> Path:
    pq.write_table(hf_table(3), file)
    return file
