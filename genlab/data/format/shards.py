"""The one reader of image shards, of format 1 and 2.

A shard is an Arrow IPC file that any Arrow implementation opens, in record batches ("blocks") of about 1 MiB. The
reader does not follow the file's footer. It uses the byte ranges in the index and checks each block against its
checksum before the first row of it is used, so that a damaged image is never returned. Each block is checked once: a
file is expected to stay as it is while it is read.
"""

import mmap
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from upath import UPath

from genlab.core.errors import DataError
from genlab.core.storage import is_remote, json_bytes, locate, read_bytes, read_json, read_range, sha256
from genlab.data.format.block_fetcher import BlockFetcher, consecutive
from genlab.data.format.decode import decode_into
from genlab.data.format.index import BlockIndex
from genlab.data.format.manifest import FILE_NAME, INDEX_NAME, RESTORE, Blocks, Manifest, Shard, missing_file
from genlab.data.format.shard_bytes import ShardBytes, split_by
from genlab.data.format.splits import half_name, whole_split

REQUEST_BYTES = 8 << 20
"""Most bytes of neighbouring blocks read in one request. The windowed order depends on it."""

RECENT_BYTES = 64 << 20
"""Bytes of a remote data set's blocks that are kept in memory between reads by index."""

KEYS_AT_ONCE = 4096
"""Rows whose keys are read at a time to divide a split into halves."""

Ints = NDArray[np.int64]
Column = NDArray[np.int64] | NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """Images gathered from a data set, in the order they were asked for."""

    image: NDArray[np.uint8]
    """uint8 [n, height, width, channels], 0..255."""
    columns: Mapping[str, Column]
    """[n] each: ``label`` (int64) where images are labelled, and the attributes: int64, or float64."""


class RowSelection(NamedTuple):
    """The requested rows that lie in one byte buffer (a block or a memory-mapped shard)."""

    source: "Future[ShardBytes]"
    """The bytes; they may still be on their way."""
    places: Ints
    """int64 [n], indices of these rows among the rows to gather."""
    rows: Ints
    """int64 [n], their row numbers in ``source``."""


class Cache(Protocol):
    """A cache of blocks of remote data sets, such as :class:`genlab.data.stream.cache.BlockCache`."""

    def get(self, name: str) -> bytes | None:
        """Return the block called ``name``, which may be damaged; ``None`` when it is not kept."""
        ...

    def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        """Keep a block."""
        ...

    def next_pass(self) -> None:
        """Note that a pass through a data set begins, in which each of its blocks is used once."""
        ...

    def discard(self, name: str) -> None:
        """Forget a damaged block."""
        ...


class ShardSet:
    """The rows of a data set, or of one of its splits, to be read by index.

    Local shards are memory mapped. Blocks of remote shards are read when they are needed, and the most recent ones are
    kept in memory. Reading is thread-safe.

    Args:
        directory: the folder of the shards.
        manifest: the data set's manifest.
        shards: the shards to read; rows are numbered 0, 1, ... through them in this order.
        threads: how many threads decode encoded images.
        cache: keeps blocks of a remote data set on a local disk.
        index: the index of the data set, if one was opened before.
    """

    def __init__(
        self,
        directory: UPath,
        manifest: Manifest,
        shards: Sequence[Shard],
        threads: int,
        cache: Cache | None = None,
        index: BlockIndex | None = None,
    ) -> None:
        self.directory = directory
        self.manifest = manifest
        self.shards = tuple(shards)
        self.threads = threads
        self.cache = cache
        self.remote = is_remote(directory)
        self._starts = np.cumsum([0] + [shard.rows for shard in self.shards])
        self._maps: dict[int, Future[ShardBytes]] = {}
        self._lock = threading.Lock()
        self.index = index or BlockIndex(directory, manifest)
        # The first block of each shard, and the number of blocks.
        self._first_block = np.cumsum([0] + [shard.block_count for shard in self.shards])

    @cached_property
    def block_starts(self) -> Ints:
        """The first row of each block, and the number of rows, int64 [blocks + 1].

        Its first use reads all that the index says of these shards.

        Raises:
            DataError: the index is missing or damaged.
        """
        return self.index.starts(self.shards)

    @staticmethod
    def open(url: str | UPath, *, threads: int = 2, cache: Cache | None = None) -> "ShardSet":
        """Open a data set. Only the manifest is read now, and of the index what is needed when it is.

        Args:
            url: the data set's folder, a local path or a URL.
            threads: how many threads decode encoded images.
            cache: keeps blocks of a remote data set on a local disk.

        Raises:
            DataError: when there is no data set at ``url``, or its manifest is damaged or of another format.
        """
        directory = locate(url)
        manifest = Manifest.load(directory)
        return ShardSet(directory, manifest, manifest.shards, threads, cache)

    def reader(self, *, threads: int, cache: Cache | None = None) -> "ShardSet":
        """Return the same rows with a reader of their own; neither the manifest nor the index is read again.

        Args:
            threads: how many threads decode encoded images.
            cache: keeps blocks of a remote data set on a local disk.
        """
        return ShardSet(self.directory, self.manifest, self.shards, threads, cache, self.index)

    def split(self, name: str) -> "ShardSet":
        """Return only the rows of one split, numbered from 0 again.

        Raises:
            DataError: when there is no such split; the message names the splits there are.
        """
        shards = [shard for shard in self.shards if shard.split == name]
        if not shards:
            there = ", ".join(dict.fromkeys(shard.split for shard in self.shards))
            raise DataError(
                f"{self.directory}: no split {name!r}; choose one of: {there}; "
                "or ingest again with another --test-fraction or --validation-fraction, the fractions of images that "
                "become the splits 'test' and 'validation'"
            )
        return ShardSet(self.directory, self.manifest, shards, self.threads, self.cache, self.index)

    def part(self, name: str) -> "ShardSet":
        """Return only the rows of one split, or of one half of it, numbered from 0 again.

        A hash of its key decides the half of a row. A half is read by index only: a stream reads whole splits.

        Args:
            name: name of the split or half, see :mod:`genlab.data.format.splits`.

        Raises:
            DataError: when there is no such split, or a shard of it is missing or damaged.
        """
        split = whole_split(name)
        rows = self.split(split)
        if name == split:
            return rows
        return _HalfOfSplit(rows, _rows_of_half(str(self.directory), self.checksum, name))

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def size(self) -> int:
        """Bytes of these shards' files."""
        return sum(shard.bytes for shard in self.shards)

    @property
    def encoded_files(self) -> bool:
        """Whether images are stored as the bytes of image files, not as pixels."""
        return self.manifest.encoding == "encoded"

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(height, width, channels) of every image; ``None`` when they differ in size."""
        return self.manifest.shape

    @property
    def labelled(self) -> bool:
        """Whether each image has a label."""
        return self.manifest.labelled

    @property
    def checksum(self) -> str:
        """The identity of the whole data set, all splits together (hexadecimal SHA-256)."""
        return self.manifest.checksum

    def fixed_shape(self) -> tuple[int, int, int]:
        """Return (height, width, channels) of every image.

        Raises:
            DataError: when the images differ in size.
        """
        if self.shape is None:
            raise DataError(
                f"{self.directory}: the images differ in size and cannot be put in one batch; "
                "ingest with --size to give them all one size"
            )
        return self.shape

    def read(self, rows: Ints, out: NDArray[np.uint8] | None = None) -> Rows:
        """Gather images, labels and attributes in the order asked for; any order, repeats allowed.

        Args:
            rows: int64 [n], each in 0..len-1.
            out: uint8 [n, height, width, channels], C-contiguous, to put the images in; a new array otherwise.

        Raises:
            DataError: when a shard is missing or damaged or an image cannot be decoded (the message names the
                shard), or when the images differ in size.
            IndexError: for a row out of range.
        """
        image = np.empty((len(rows), *self.fixed_shape()), np.uint8) if out is None else out
        columns = self.empty_columns(len(rows))
        selections = self._checked_selections(rows)
        if self.encoded_files:
            for _ in self._pool.map(lambda portion: self.fill(portion, image, columns), self.portions(selections)):
                pass
        else:
            self.fill(selections, image, columns)
        return Rows(image, columns)

    def encoded(self, rows: Ints) -> list[bytes]:
        """Return the files (JPEG, PNG or WebP) of encoded images, untouched, in the order asked for.

        Raises:
            DataError: when the data set holds raw pixels, or a shard is missing or damaged.
            IndexError: for a row out of range.
        """
        if not self.encoded_files:
            raise DataError(
                f"{self.directory}: holds raw pixels; ingest with --encoding encoded to keep the files' bytes"
            )
        blobs = {
            place: blob.tobytes()
            for source, places, local in self._checked_selections(rows)
            for place, blob in zip(places.tolist(), source.result().encoded_images(local), strict=True)
        }
        return [blobs[place] for place in range(len(rows))]

    def columns(self, rows: Ints) -> dict[str, Column]:
        """Return labels and attributes of rows, [n] each, without their images.

        Raises:
            DataError: when a shard is missing or damaged.
            IndexError: for a row out of range.
        """
        columns = self.empty_columns(len(rows))
        for selection in self._checked_selections(rows):
            _fill_columns(selection, columns)
        return columns

    def keys(self, rows: Ints) -> list[str]:
        """Return the name that each image had in its source, in the order asked for.

        Raises:
            DataError: when a shard is missing or damaged.
            IndexError: for a row out of range.
        """
        keys = np.empty(len(rows), object)
        for source, places, local in self._checked_selections(rows):
            keys[places] = source.result().keys(local)
        return keys.tolist()

    def verify(self, on_shard: Callable[[Shard], object] | None = None) -> None:
        """Check every byte: manifest, index, and each shard's size, blocks and SHA-256, as they are on disk now.

        Args:
            on_shard: called after each shard that is sound, to show progress.

        Raises:
            DataError: naming the first file that is missing or damaged.
        """
        manifest = Manifest.load(self.directory)
        if manifest.index is None:
            file = self.directory / FILE_NAME
            if json_bytes(read_json(file)) != read_bytes(file):
                raise DataError(f"{file}: not as genlab wrote it; {RESTORE}")
        else:
            file = self.directory / INDEX_NAME
            if sha256(_read_bytes(file, manifest.index.bytes).data) != manifest.index.sha256:
                raise DataError(f"{file}: damaged (its SHA-256 does not match); {RESTORE}")
        for index, shard in enumerate(self.shards):
            content = self._whole(index)
            content.check_all()
            if sha256(content.data.data) != shard.sha256:
                raise content.damaged("its SHA-256 does not match")
            if on_shard is not None:
                on_shard(shard)

    # The parts of reading that a stream puts together in its own way: see genlab.data.stream.shard_stream.

    def select(self, rows: Ints) -> list[RowSelection]:
        """Return where to read ``rows``, int64 [n] and in range.

        An error of reading rows, such as a missing shard, is raised by the selection's ``source``, not here.

        Raises:
            DataError, StorageError: the index of rows that are read block by block cannot be read.
        """
        if not self.remote:
            return [
                RowSelection(self._mapped(shard), places, rows[places] - self._starts[shard])
                for shard, places in split_by(self._starts, rows)
            ]
        parts = self._split_by_block(rows)
        for blocks in self.block_ranges([block for block, _, _ in parts]):
            self._recent.request(blocks, [1] * len(blocks))
        selections = [RowSelection(self._recent.get(block), places, local) for block, places, local in parts]
        for selection, (block, _, _) in zip(selections, parts, strict=True):
            selection.source.exception()  # Waits for the block, or for the error that came in its place.
            self._recent.release(block, 1)
        return selections

    def _split_by_block(self, rows: Ints) -> list[tuple[int, Ints, Ints]]:
        """Sort rows by block, with what the index says of their shards alone.

        Returns:
            For each block that has any of ``rows``, ascending: its number, the indices into ``rows`` of those in it,
            and their numbers in the block, int64 [m] each.
        """
        parts = []
        by_shard = split_by(self._starts, rows)
        self.index.load(self.shards[shard] for shard, _ in by_shard)
        for shard, places in by_shard:
            local = rows[places] - self._starts[shard]
            starts = np.concatenate([[0], np.cumsum(self.index.blocks(self.shards[shard]).rows)])
            for number, chosen in split_by(starts, local):
                parts.append((int(self._first_block[shard]) + number, places[chosen], local[chosen] - starts[number]))
        return parts

    def _checked_selections(self, rows: Ints) -> list[RowSelection]:
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"{self.directory}: row out of range 0..{len(self) - 1}")
        return self.select(rows)

    def select_fetched(self, fetcher: BlockFetcher, rows: Ints) -> list[RowSelection]:
        """Return where ``rows``, int64 [n], lie in blocks that were requested of ``fetcher``."""
        return [
            RowSelection(fetcher.get(block), places, rows[places] - self.block_starts[block])
            for block, places in split_by(self.block_starts, rows)
        ]

    def row_ranges(self, count: int) -> Iterator[Ints]:
        """Yield the numbers of all rows in order, int64 [n], ``count`` at a time (the last may be fewer)."""
        for begin in range(0, len(self), count):
            yield np.arange(begin, min(begin + count, len(self)))

    def portions(self, selections: Sequence[RowSelection]) -> list[list[RowSelection]]:
        """Divide rows into portions of equal size (the last may be smaller), one for each thread at most."""
        most = -(-sum(len(selection.rows) for selection in selections) // self.threads)
        portions: list[list[RowSelection]] = []
        room = 0
        for source, places, rows in selections:
            begin = 0
            while begin < len(rows):
                if room == 0:
                    portions.append([])
                    room = most
                part = slice(begin, begin + room)
                portions[-1].append(RowSelection(source, places[part], rows[part]))
                room -= len(rows[part])
                begin = part.stop
        return portions

    def empty_columns(self, count: int) -> dict[str, Column]:
        """Return arrays [count] for labels and attributes, to be filled."""
        columns: dict[str, Column] = {"label": np.empty(count, np.int64)} if self.labelled else {}
        for attribute in self.manifest.attributes:
            if attribute.kind == "float":
                columns[attribute.name] = np.empty(count, np.float64)
            else:
                columns[attribute.name] = np.empty(count, np.int64)
        return columns

    def fill(self, selections: Sequence[RowSelection], image: NDArray[np.uint8], columns: Mapping[str, Column]) -> None:
        """Put rows into their places in ``image``, uint8 [n, height, width, channels], and ``columns``, [n] each.

        Raises:
            DataError: naming the shard, when it is missing or damaged or an image cannot be decoded.
        """
        for selection in selections:
            source, places, rows = selection.source.result(), selection.places, selection.rows
            if not self.encoded_files:
                source.copy_images(rows, image, places)
            else:
                for place, row, blob in zip(places.tolist(), rows, source.encoded_images(rows), strict=True):
                    try:
                        decode_into(blob, image[place])
                    except DataError as error:
                        (key,) = source.keys(np.array([row]))
                        raise DataError(f"{source.path}: image {key!r} {error}; {RESTORE}") from None
            _fill_columns(selection, columns)

    def block_ranges(self, blocks: Sequence[int], most: int = REQUEST_BYTES) -> list[range]:
        """Group blocks into ranges of neighbours that can be read in one request.

        Args:
            blocks: block numbers, ascending; blocks are numbered 0, 1, ... through these shards.
            most: the most bytes of a range; a longer block has a range to itself.

        Returns:
            Ranges of block numbers, ascending, each within one shard.
        """
        ranges = []
        for neighbours in consecutive(blocks):
            shards = [self._shard_of(block) for block in (neighbours.start, neighbours.stop - 1)]
            for shard in range(shards[0], shards[1] + 1):
                first, end = self._first_block[shard : shard + 2].tolist()
                begin, stop = max(first, neighbours.start), min(end, neighbours.stop)
                ends = np.concatenate([[0], np.cumsum(self.index.blocks(self.shards[shard]).bytes)])
                while begin < stop:
                    fitting = int(np.searchsorted(ends, ends[begin - first] + most, side="right")) - 1 + first
                    part = range(begin, min(stop, max(begin + 1, fitting)))
                    ranges.append(part)
                    begin = part.stop
        return ranges

    def _shard_of(self, block: int) -> int:
        return int(np.searchsorted(self._first_block, block, side="right")) - 1

    def fetch(self, blocks: range) -> list[ShardBytes]:
        """Read neighbouring blocks of one shard in one request, and check them.

        Returns:
            Each block's bytes.

        Raises:
            DataError: naming the shard, when it is missing or damaged.
        """
        number = self._shard_of(blocks.start)
        shard, first = self.shards[number], blocks.start - int(self._first_block[number])
        index = self.index.blocks(shard)
        numbers = range(first, first + len(blocks))
        cached = {number: block for number in numbers if (block := self._cached(shard, index, number))}
        for part in consecutive([number for number in numbers if number not in cached]):
            cached.update(zip(part, self._download(shard, index, part), strict=True))
        return [cached[number] for number in numbers]

    def _download(self, shard: Shard, index: Blocks, numbers: range) -> list[ShardBytes]:
        path = self.directory / shard.file
        offsets = index.offset[numbers.start : numbers.stop].tolist()
        lengths = index.bytes[numbers.start : numbers.stop].tolist()
        for last_try in False, True:
            try:
                data = memoryview(read_range(path, offsets[0], offsets[-1] + lengths[-1] - offsets[0]))
            except FileNotFoundError:
                raise missing_file(path) from None
            except EOFError as error:
                raise DataError(f"{error}, which the manifest promises; {RESTORE}") from None
            try:
                read = [
                    self._checked_block(shard, index, number, data[offset - offsets[0] :][:length])
                    for number, offset, length in zip(numbers, offsets, lengths, strict=True)
                ]
                break
            except DataError:
                # The bytes may have been damaged in transit, and not in the store: read them once more.
                if last_try:
                    raise
        if self.cache is not None and self.remote:
            for number, content in zip(numbers, read, strict=True):
                self.cache.put(_cache_name(index, number), content.data.data)
        return read

    def _cached(self, shard: Shard, index: Blocks, number: int) -> ShardBytes | None:
        """Return a block from the cache; ``None`` when it is not there, or damaged."""
        if self.cache is None or not self.remote:
            return None
        name = _cache_name(index, number)
        data = self.cache.get(name)
        if data is None:
            return None
        try:
            return self._checked_block(shard, index, number, memoryview(data))
        except DataError:
            self.cache.discard(name)
            return None

    def _checked_block(self, shard: Shard, index: Blocks, number: int, data: memoryview) -> ShardBytes:
        """Check ``data``, the bytes of a block, and return them.

        Raises:
            DataError: naming the shard and the block, when the bytes are damaged.
        """
        one, offset = index[number : number + 1], int(index.offset[number])
        path = self.directory / shard.file
        content = np.frombuffer(data, np.uint8)
        block = ShardBytes(path, self.manifest, shard, one, content, first=number, offset=offset)
        block.check_all()
        return block

    def _mapped(self, index: int) -> "Future[ShardBytes]":
        """Return a shard's memory map, which is made at the first call; errors are raised by the future."""
        with self._lock:
            if index not in self._maps:
                future = self._maps[index] = Future()
                try:
                    content = self._whole(index)
                    content.check_schema()
                    future.set_result(content)
                except Exception as error:
                    future.set_exception(error)
            return self._maps[index]

    def _whole(self, index: int) -> ShardBytes:
        """Return all bytes of a shard, unchecked."""
        shard = self.shards[index]
        path = self.directory / shard.file
        blocks = self.index.blocks(shard)
        return ShardBytes(path, self.manifest, shard, blocks, _read_bytes(path, shard.bytes), first=0, offset=0)

    @cached_property
    def _recent(self) -> BlockFetcher:
        return BlockFetcher(self.fetch, RECENT_BYTES)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, thread_name_prefix="genlab-decode")


class _HalfOfSplit(ShardSet):
    """One half of a split, to be read by index; streams, which read shards block by block, read whole splits only.

    Args:
        split: the rows of the split.
        rows: int64 [n], the numbers in ``split`` of the half's rows.
    """

    def __init__(self, split: ShardSet, rows: Ints) -> None:
        super().__init__(split.directory, split.manifest, split.shards, split.threads, split.cache, split.index)
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def select(self, rows: Ints) -> list[RowSelection]:
        """See :meth:`ShardSet.select`."""
        return super().select(self._rows[rows])


@lru_cache(maxsize=16)
def _rows_of_half(directory: str, checksum: str, name: str) -> Ints:
    """Return the numbers of a half's rows in its split, int64 [n], ascending; reads all keys of the split once.

    Args:
        directory: the data set's folder.
        checksum: the identity of the data set, by which the numbers are remembered.
        name: name of the half.
    """
    split = ShardSet.open(directory).split(whole_split(name))
    keys = (key for rows in split.row_ranges(KEYS_AT_ONCE) for key in split.keys(rows))
    first = name == half_name(whole_split(name), "validation")
    return np.flatnonzero(np.fromiter((_in_first_half(key) == first for key in keys), bool))


def _in_first_half(key: str) -> bool:
    """Tell by a hash of its key whether an image is in the first half of its split.

    It takes another part of the hash than ingest does, which may have chosen the split by it.
    """
    return int(sha256(key.encode())[16:32], 16) < 2**63


def _fill_columns(selection: RowSelection, columns: Mapping[str, Column]) -> None:
    for name, values in columns.items():
        values[selection.places] = selection.source.result().column(name, selection.rows)


def _read_bytes(path: UPath, size: int) -> NDArray[np.uint8]:
    """Return all bytes of a shard file: memory mapped when it is local, else read into memory."""
    try:
        if is_remote(path):
            data = np.frombuffer(read_bytes(path), np.uint8)
        else:
            with Path(str(path)).open("rb") as file:
                data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except FileNotFoundError:
        raise missing_file(path) from None
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise DataError(f"{path}: cannot be read ({error}); {RESTORE}") from None
    if len(data) != size:
        raise DataError(f"{path}: damaged ({len(data):,} bytes, not {size:,}); {RESTORE}")
    return data


def _cache_name(blocks: Blocks, number: int) -> str:
    return f"{blocks.xxh3[number]:016x}-{blocks.bytes[number]}"
