"""The index of a data set: where the blocks of each shard lie, and their checksums (from format 2 on).

``DEST/index.arrow`` is an Arrow IPC file with a record batch for each shard, which has a row for each of its blocks.
The manifest has the byte range and the checksum of each record batch. So a process opens a data set of any size by its
manifest alone, and reads of the index what it needs: the part of a shard when its first row is read, all of it only
where blocks are fetched in the order of an epoch. Manifests of format 1 hold the blocks themselves.
"""

import dataclasses
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray
from upath import UPath

from genlab.core.errors import DataError
from genlab.core.storage import is_remote, read_range, sha256, write_atomic
from genlab.data.format.block_fetcher import REQUESTS
from genlab.data.format.manifest import INDEX_NAME, RESTORE, Block, Blocks, IndexFile, Manifest, Shard, missing_file
from genlab.data.format.schema import INDEX_SCHEMA, MAGIC_BYTES

Scalar = TypeVar("Scalar", bound=np.generic)

PAGE_BYTES = 1 << 20
"""The index is read in pages of about this size, each in one request: the blocks of some 600 shards."""


class BlockIndex:
    """The blocks of a data set's shards, read when they are first asked for. Thread-safe.

    Memory holds 20 bytes for each block that was read: 48 MB for all of 100 million JPEGs of 24 KiB.

    Args:
        directory: the data set's folder.
        manifest: the data set's manifest.
    """

    def __init__(self, directory: UPath, manifest: Manifest) -> None:
        self._path = directory / INDEX_NAME
        self._shards = manifest.shards
        parts = [shard.index for shard in manifest.shards if shard.index]
        self._offsets = np.array([part.offset for part in parts], np.int64)
        self._starts = np.cumsum([0] + [part.rows for part in parts])
        # A part belongs to the page in which it begins.
        self._page = (self._offsets - self._offsets[:1]) // PAGE_BYTES
        self._pages: dict[int, Future[_Page]] = {}
        self._lock = threading.Lock()

    def blocks(self, shard: Shard) -> Blocks:
        """Return the blocks of one of the data set's shards.

        Raises:
            DataError: the index is missing or damaged.
        """
        if shard.index is None:
            return Blocks.of(shard.blocks)
        number = int(np.searchsorted(self._offsets, shard.index.offset))
        page = self._loaded(int(self._page[number]))
        part = slice(self._starts[number] - page.start, self._starts[number + 1] - page.start)
        size = page.bytes[part]
        offset = shard.schema.offset + shard.schema.bytes + np.cumsum(size) - size
        return Blocks(offset, size, page.rows[part].astype(np.int64), page.xxh3[part])

    def starts(self, shards: Sequence[Shard]) -> NDArray[np.int64]:
        """Return the first row of each block of some shards in their order, and the number of rows, int64 [blocks + 1].

        Raises:
            DataError: the index is missing or damaged.
        """
        if not shards or shards[0].index is None:
            return np.cumsum([0, *(block.rows for shard in shards for block in shard.blocks)], dtype=np.int64)
        numbers = self._numbers(shards)
        page = self._page[numbers]
        needed = np.unique(page).tolist()
        pages = dict(zip(needed, self._load(needed), strict=True))
        # Neighbouring shards of one page lie side by side in it.
        ends = np.flatnonzero((np.diff(numbers) != 1) | (np.diff(page) != 0)) + 1
        found, done = np.zeros(1 + int((self._starts[numbers + 1] - self._starts[numbers]).sum()), np.int64), 1
        for run in np.split(numbers, ends):
            of_run = pages[int(self._page[run[0]])]
            first, end = self._starts[run[0]], self._starts[run[-1] + 1]
            found[done : done + end - first] = of_run.rows[first - of_run.start : end - of_run.start]
            done += end - first
        return np.cumsum(found, out=found)

    def load(self, shards: Iterable[Shard]) -> None:
        """Read what is known of the blocks of some shards, several pages at a time where they are far away.

        Raises:
            DataError: the index is missing or damaged.
        """
        self._load(np.unique(self._page[self._numbers(shards)]).tolist())

    def _numbers(self, shards: Iterable[Shard]) -> NDArray[np.int64]:
        """Return the numbers of shards in the manifest, int64 [shards]; those without a part in the index have none."""
        return np.searchsorted(self._offsets, np.array([shard.index.offset for shard in shards if shard.index]))

    def _load(self, pages: Sequence[int]) -> list["_Page"]:
        missing = len(set(pages) - self._pages.keys())
        if is_remote(self._path) and missing > 1:
            with ThreadPoolExecutor(REQUESTS, thread_name_prefix="genlab-index") as pool:
                return list(pool.map(self._loaded, pages))
        return [self._loaded(page) for page in pages]

    def _loaded(self, number: int) -> "_Page":
        with self._lock:
            page = self._pages.get(number)
            first = page is None
            if page is None:
                page = self._pages[number] = Future()
        if first:
            try:
                page.set_result(self._read(number))
            except BaseException as error:
                with self._lock:
                    del self._pages[number]  # The next call tries again.
                page.set_exception(error)
        return page.result()

    def _read(self, number: int) -> "_Page":
        begin, end = np.searchsorted(self._page, [number, number + 1]).tolist()
        parts = [(shard, shard.index) for shard in self._shards[begin:end] if shard.index]
        offset = parts[0][1].offset
        for last_try in False, True:
            try:
                data = memoryview(read_range(self._path, offset, parts[-1][1].offset + parts[-1][1].bytes - offset))
            except FileNotFoundError:
                raise missing_file(self._path) from None
            except EOFError as error:
                raise DataError(f"{error}, which the manifest promises; {RESTORE}") from None
            damaged = next(
                (shard.file for shard, part in parts if not _is_sound(data[part.offset - offset :], part)), ""
            )
            if not damaged:
                break
            # The bytes may have been damaged in transit, and not in the store: read them once more.
            if last_try or not is_remote(self._path):
                raise self._damaged(f"what it says of {damaged} does not match its checksum")
        try:
            messages = pa.py_buffer(INDEX_SCHEMA.serialize().to_pybytes() + data)
            batches = list(pa.ipc.open_stream(messages))
        except (pa.ArrowException, OSError, EOFError) as error:
            raise self._damaged(f"it cannot be parsed: {error}") from None
        if [len(batch) for batch in batches] != [part.rows for _, part in parts]:
            raise self._damaged("it has other numbers of blocks than the manifest says")

        together = pa.Table.from_batches(batches).combine_chunks(pa.system_memory_pool())

        def column(name: str, kind: type[Scalar]) -> NDArray[Scalar]:
            # Arrow's own way to NumPy imports pandas, which takes longer than all the rest.
            values = together[name].chunk(0)
            return np.frombuffer(values.buffers()[1], kind)[values.offset :][: len(values)]

        start = int(self._starts[begin])
        return _Page(start, column("rows", np.int32), column("bytes", np.int64), column("xxh3", np.uint64))

    def _damaged(self, why: str) -> DataError:
        return DataError(f"{self._path}: damaged ({why}); {RESTORE}")


@dataclasses.dataclass(frozen=True, slots=True)
class _Page:
    """What a page of the index says of the blocks of some shards."""

    start: int
    """Number of its first block in the data set."""
    rows: NDArray[np.int32]
    bytes: NDArray[np.int64]
    xxh3: NDArray[np.uint64]


class IndexWriter:
    """Collects the blocks of shards in any order, then writes the index; the same shards give the same bytes.

    Memory holds 32 bytes for each block.
    """

    def __init__(self) -> None:
        self._shards: list[Shard] = []
        self._blocks: dict[str, Blocks] = {}

    def add(self, shard: Shard) -> None:
        """Take note of a shard that was written."""
        self._shards.append(dataclasses.replace(shard, blocks=()))
        self._blocks[shard.file] = Blocks.of(shard.blocks)

    def save(self, directory: UPath) -> tuple[IndexFile, tuple[Shard, ...]]:
        """Write the index.

        Returns:
            Its entry for the manifest, and those of the shards, by their files.
        """
        sink = pa.BufferOutputStream()
        shards = sorted(self._shards, key=lambda shard: (len(shard.file), shard.file))  # 100,000 after 99,999
        ends = [MAGIC_BYTES + INDEX_SCHEMA.serialize().size]
        with pa.ipc.new_file(sink, INDEX_SCHEMA) as file:
            for shard in shards:
                blocks = self._blocks[shard.file]
                columns = [blocks.bytes, blocks.rows.astype(np.int32), blocks.xxh3]
                file.write_batch(pa.record_batch([pa.array(column) for column in columns], schema=INDEX_SCHEMA))
                ends.append(sink.tell())
        data = memoryview(sink.getvalue())
        write_atomic(directory / INDEX_NAME, data)
        return IndexFile(len(data), sha256(data)), tuple(
            dataclasses.replace(
                shard,
                index=Block(
                    begin, end - begin, len(self._blocks[shard.file]), xxhash.xxh3_64_hexdigest(data[begin:end])
                ),
            )
            for shard, begin, end in zip(shards, ends, ends[1:], strict=False)
        )


def _is_sound(data: memoryview, part: Block) -> bool:
    return xxhash.xxh3_64_hexdigest(data[: part.bytes]) == part.xxh3
