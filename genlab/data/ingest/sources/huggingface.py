"""``hf:DIR``: a folder written by ``save_to_disk`` of Hugging Face ``datasets``, read by pyarrow alone.

A ``Dataset`` is a folder with ``state.json``, which lists Arrow streams (``data-00000-of-00001.arrow``); a
``DatasetDict`` is a folder with ``dataset_dict.json`` and one such folder a split.
"""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pyarrow as pa

from genlab.core.errors import DataError
from genlab.core.storage import is_file, is_remote, locate, read_bytes
from genlab.data.format.manifest import Attribute
from genlab.data.ingest.sources.base import Entry, Load, Sample
from genlab.data.ingest.sources.columns import Table, image_bytes
from genlab.imaging.images import ImageError

STATE, SPLITS = "state.json", "dataset_dict.json"

_FILE_MAGIC = b"ARROW1\0\0"
_END = b"\xff\xff\xff\xff\0\0\0\0"


@dataclasses.dataclass(frozen=True)
class HuggingFace(Table):
    """A data set saved on disk.

    The image is the column of feature ``Image``, or of bytes; ``ClassLabel`` columns keep their names, and the column
    ``label`` is the label. Keys count the rows of a split, ``train-00000042``, unless a column holds them.
    """

    kind = "hf"

    def _rows(self) -> Iterator[tuple[Entry, str | None]]:
        for split, files in self._files().items():
            number = 0
            for file in files:
                for offset, batch in _batches(file):
                    layout = self._layout(batch.schema, file)
                    size = batch.column(layout.image).nbytes // max(1, len(batch))
                    for index, (key, values) in enumerate(layout.rows(batch, len(batch))):
                        yield Entry(f"{split}-{number:08d}", split, size, file, index, offset, values), key
                        number += 1

    @contextmanager
    def reader(self) -> Iterator[Load]:
        """See :meth:`Source.reader`; holds one record batch at a time."""
        streams: dict[str, tuple[pa.NativeFile, pa.Schema, str]] = {}
        held: tuple[str, int, Any] = ("", 0, None)
        with ExitStack() as stack:

            def load(entry: Entry) -> Sample:
                nonlocal held
                if entry.file not in streams:
                    stream = stack.enter_context(_opened(entry.file))
                    schema = _schema(stream, entry.file)
                    streams[entry.file] = stream, schema, self._layout(schema, entry.file).image
                stream, schema, column = streams[entry.file]
                if held[:2] != (entry.file, entry.offset):
                    try:
                        stream.seek(entry.offset)
                        batch = _read_batch(stream, schema)
                    except (pa.ArrowException, OSError, EOFError) as error:
                        raise ImageError(f"damaged: its record batch cannot be read ({error})") from None
                    held = entry.file, entry.offset, batch.column(column)
                return Sample(image_bytes(held[2][entry.index].as_py()))

            yield load

    def declared(self) -> tuple[Attribute, ...]:
        """See :meth:`Source.declared`."""
        file = next(file for files in self._files().values() for file in files)
        with _opened(file) as stream:
            return self._layout(_schema(stream, file), file).declared

    def describe(self, entry: Entry) -> str:
        """See :meth:`Source.describe`."""
        return f"{entry.file}, {entry.key}"

    def _files(self) -> dict[str, list[str]]:
        """Return the Arrow files of each split, in order."""
        root = locate(self.path)
        if is_file(root / SPLITS):
            splits = _read(f"{root / SPLITS}", "splits")
            others = [str(split) for split in splits if split not in ("train", "test")]
            if others:
                raise DataError(
                    f"{self.path}: its split {others[0]!r} is neither train nor test; "
                    f"ingest one split at a time, as in hf:{self.path}/{others[0]}"
                )
            return {split: _data_files(f"{self.path}/{split}")[1] for split in splits}
        split, files = _data_files(self.path)
        return {"test" if split == "test" else "train": files}


def is_saved(names: list[str]) -> bool:
    """Return whether these are the names in a folder that ``save_to_disk`` wrote."""
    return STATE in names or SPLITS in names


def _data_files(directory: str) -> tuple[str | None, list[str]]:
    """Return the split that a saved data set says it is, and its Arrow files."""
    state = locate(directory) / STATE
    files = [str(part.get("filename")) for part in _read(str(state), "_data_files") if isinstance(part, dict)]
    if not files:
        raise DataError(f"{state}: lists no data files")
    return _read(str(state), "_split"), [str(locate(directory) / file) for file in files]


def _read(file: str, field: str) -> Any:
    try:
        return json.loads(read_bytes(locate(file)))[field]
    except FileNotFoundError:
        raise DataError(
            f"{file}: no such file; hf: is for a folder written by save_to_disk of Hugging Face datasets"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{file}: damaged, or no file of a saved data set (no {field} in it)") from None


@contextmanager
def _opened(file: str) -> Iterator[pa.NativeFile]:
    try:
        if is_remote(file):
            with locate(file).open("rb") as remote:
                yield pa.PythonFile(remote, mode="r")
        else:
            with pa.memory_map(file) as mapped:
                yield mapped
    except FileNotFoundError:
        raise DataError(f"{file}: no such file, though its data set lists it") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None


def _schema(stream: pa.NativeFile, file: str) -> pa.Schema:
    """Read the schema at the beginning of a stream; an Arrow file is a stream between a head and a foot."""
    if stream.read(len(_FILE_MAGIC)) != _FILE_MAGIC:
        stream.seek(0)
    try:
        return pa.ipc.read_schema(stream)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise DataError(f"{file}: truncated, or not an Arrow stream ({error})") from None


def _batches(file: str) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield each record batch and its position in bytes; memory mapping reads only the columns that are used."""
    with _opened(file) as stream:
        schema = _schema(stream, file)
        try:
            while True:
                offset = stream.tell()
                if stream.read(len(_END)) == _END:
                    return
                stream.seek(offset)
                yield offset, _read_batch(stream, schema)
        except (pa.ArrowException, OSError, EOFError) as error:
            raise DataError(f"{file}: truncated or damaged ({error}); fetch it again") from None


def _read_batch(stream: pa.NativeFile, schema: pa.Schema) -> pa.RecordBatch:
    """Read the next record batch and check its offsets: Arrow trusts them, and a wrong one would end the process."""
    batch = pa.ipc.read_record_batch(pa.ipc.read_message(stream), schema)
    batch.validate(full=True)
    return batch
