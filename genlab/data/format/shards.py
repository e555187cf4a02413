"""The one reader of image shards (format 1).

A shard is an Arrow IPC file that any Arrow implementation opens, in record batches ("blocks") of about 1 MiB. The
reader does not follow the file's footer. It goes by the byte ranges in the manifest and checks each block against its
checksum before the first row of it is used, so that a damaged image is never handed out. What was checked is
remembered: a file is expected to stay as it is while it is read.
"""

import mmap
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from upath import UPath

from genlab.core.errors import DataError
from genlab.core.storage import is_remote, json_bytes, locate, read_bytes, read_json, read_range, sha256
from genlab.data.format.blocks import Blocks, consecutive
from genlab.data.format.decode import decode_into
from genlab.data.format.extent import AGAIN, Extent, split_by
from genlab.data.format.manifest import FILE_NAME, Block, Manifest, Shard

RUN_BYTES = 8 << 20
"""Most bytes of neighbouring blocks read in one request. The windowed order depends on it."""

RECENT_BYTES = 64 << 20
"""Blocks of a remote data set kept in memory between reads by index."""

Ints = NDArray[np.int64]
Column = NDArray[np.int64] | NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """Images gathered from a data set, in the order they were asked for."""

    image: NDArray[np.uint8]
    """uint8 [n, height, width, channels], 0..255."""
    columns: Mapping[str, Column]
    """[n] each: ``label`` (int64) where images are labelled, and the attributes: int64, or float64."""

    @property
    def label(self) -> NDArray[np.int64] | None:
        """int64 [n]; ``None`` when the images are not labelled."""
        label = self.columns.get("label")
        return None if label is None else label.astype(np.int64, copy=False)


class Piece(NamedTuple):
    """Some of the rows to gather: those that lie in one extent."""

    extent: "Future[Extent]"
    where: Ints
    """Their places among the rows to gather."""
    rows: Ints
    """Their row numbers in the extent."""


class Cache(Protocol):
    """Keeps blocks of remote data sets by name, such as :class:`genlab.data.stream.cache.BlockCache`."""

    def get(self, name: str) -> bytes | None:
        """The block called ``name``; ``None`` when it is not kept. It may be damaged."""
        ...

    def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        """Keep a block."""
        ...

    def discard(self, name: str) -> None:
        """Forget a damaged block."""
        ...


class ShardSet:
    """The rows of a data set, or of one of its splits, to be read by index.

    Local shards are memory mapped; of remote ones, blocks are read when they are needed, and the latest are kept.
    Reading is thread-safe.

    Args:
        directory: Where the shards are.
        manifest: The data set's manifest.
        shards: The shards whose rows these are: rows 0, 1, ... run through them in this order.
        threads: Threads that decode encoded images.
        cache: Keeps blocks of a remote data set on a local disk.
    """

    def __init__(
        self,
        directory: UPath,
        manifest: Manifest,
        shards: Sequence[Shard],
        threads: int,
        cache: Cache | None = None,
    ) -> None:
        self.directory = directory
        self.manifest = manifest
        self.shards = tuple(shards)
        self.threads = threads
        self.cache = cache
        self.remote = is_remote(directory)
        self._starts = np.cumsum([0] + [shard.rows for shard in self.shards])
        self._maps: dict[int, Future[Extent]] = {}
        self._lock = threading.Lock()
        # Of each block of these shards: its shard and its number there.
        self._block = [(i, number) for i, shard in enumerate(self.shards) for number in range(len(shard.blocks))]
        self.block_starts: Ints = np.cumsum([0] + [block.rows for shard in self.shards for block in shard.blocks])
        """int64 [blocks + 1]: the first row of each block, and the number of rows."""

    @staticmethod
    def open(url: str | UPath, *, threads: int = 2, cache: Cache | None = None) -> "ShardSet":
        """Open the data set at ``url``, a local path or a URL. Only the manifest is read now.

        Args:
            url: Where it is.
            threads: Threads that decode encoded images.
            cache: Keeps blocks of a remote data set on a local disk.

        Raises:
            DataError: when there is no data set at ``url``, or its manifest is damaged or of another format.
        """
        directory = locate(url)
        manifest = Manifest.load(directory)
        return ShardSet(directory, manifest, manifest.shards, threads, cache)

    def split(self, name: str) -> "ShardSet":
        """Only the rows of one split, counted from 0 again.

        Raises:
            DataError: when there is no such split; names those there are.
        """
        shards = [shard for shard in self.shards if shard.split == name]
        if not shards:
            there = ", ".join(dict.fromkeys(shard.split for shard in self.shards))
            raise DataError(
                f"{self.directory}: no split {name!r}; choose one of: {there}; "
                "or ingest again with another --test-fraction, the share of images that become the split 'test'"
            )
        return ShardSet(self.directory, self.manifest, shards, self.threads, self.cache)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def size(self) -> int:
        """Bytes of these shards' files."""
        return sum(shard.bytes for shard in self.shards)

    @property
    def encoded_files(self) -> bool:
        """Whether images are stored as the bytes of JPEG or PNG files, not as pixels."""
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
        """(height, width, channels) of every image.

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
            DataError: naming the shard, when it is missing or damaged or an image cannot be decoded; or when
                the images differ in size.
            IndexError: for a row out of range.
        """
        image = np.empty((len(rows), *self.fixed_shape()), np.uint8) if out is None else out
        columns = self.empty_columns(len(rows))
        pieces = self._known(rows)
        if self.encoded_files:
            for _ in self._pool.map(lambda share: self.fill(share, image, columns), self.shares(pieces)):
                pass
        else:
            self.fill(pieces, image, columns)
        return Rows(image, columns)

    def encoded(self, rows: Ints) -> list[bytes]:
        """The untouched bytes of encoded images, in the order asked for.

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
            for extent, where, local in self._known(rows)
            for place, blob in zip(where.tolist(), extent.result().blobs(local), strict=True)
        }
        return [blobs[place] for place in range(len(rows))]

    def columns(self, rows: Ints) -> dict[str, Column]:
        """Labels and attributes of rows, without their images.

        Raises:
            DataError: when a shard is missing or damaged.
            IndexError: for a row out of range.
        """
        columns = self.empty_columns(len(rows))
        for piece in self._known(rows):
            _fill_columns(piece, columns)
        return columns

    def keys(self, rows: Ints) -> list[str]:
        """The name each image had in its source, in the order asked for.

        Raises:
            DataError: when a shard is missing or damaged.
            IndexError: for a row out of range.
        """
        keys = np.empty(len(rows), object)
        for extent, where, local in self._known(rows):
            keys[where] = extent.result().keys(local)
        return keys.tolist()

    def verify(self, on_shard: Callable[[Shard], object] | None = None) -> None:
        """Check every byte: the manifest, and each shard's size, blocks and SHA-256, as they are on disk now.

        Args:
            on_shard: Called after each shard that is sound, to show progress.

        Raises:
            DataError: naming the first file that is missing or damaged.
        """
        manifest = self.directory / FILE_NAME
        Manifest.load(self.directory)
        if json_bytes(read_json(manifest)) != read_bytes(manifest):
            raise DataError(f"{manifest}: not as genlab wrote it; {AGAIN}")
        for index, shard in enumerate(self.shards):
            extent = self._whole(index)
            extent.check_all()
            if sha256(extent.data.data) != shard.sha256:
                raise extent.damaged("its SHA-256 does not match")
            if on_shard is not None:
                on_shard(shard)

    # What streams are made of.

    def pieces(self, rows: Ints) -> list[Piece]:
        """Where ``rows``, int64 [n] and in range, are to be read. What is damaged or missing, the extents raise."""
        if not self.remote:
            return [
                Piece(self._mapped(shard), where, rows[where] - self._starts[shard])
                for shard, where in split_by(self._starts, rows)
            ]
        parts = split_by(self.block_starts, rows)
        for run in self.runs([block for block, _ in parts]):
            self._recent.request(run, [1] * len(run))
        pieces = self.pieces_of(self._recent, rows)
        for piece, (block, _) in zip(pieces, parts, strict=True):
            piece.extent.exception()  # wait, whatever came
            self._recent.release(block, 1)
        return pieces

    def _known(self, rows: Ints) -> list[Piece]:
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"{self.directory}: row out of range 0..{len(self) - 1}")
        return self.pieces(rows)

    def pieces_of(self, blocks: Blocks, rows: Ints) -> list[Piece]:
        """Where ``rows`` are among blocks that were requested."""
        return [
            Piece(blocks.extent(block), where, rows[where] - self.block_starts[block])
            for block, where in split_by(self.block_starts, rows)
        ]

    def shares(self, pieces: Sequence[Piece]) -> list[list[Piece]]:
        """The same rows, dealt out so that all threads have as many."""
        most = -(-sum(len(piece.rows) for piece in pieces) // self.threads)
        shares: list[list[Piece]] = []
        room = 0
        for extent, where, rows in pieces:
            begin = 0
            while begin < len(rows):
                if room == 0:
                    shares.append([])
                    room = most
                part = slice(begin, begin + room)
                shares[-1].append(Piece(extent, where[part], rows[part]))
                room -= len(rows[part])
                begin = part.stop
        return shares

    def empty_columns(self, count: int) -> dict[str, Column]:
        """Arrays [count] for labels and attributes, to be filled."""
        columns: dict[str, Column] = {"label": np.empty(count, np.int64)} if self.labelled else {}
        for attribute in self.manifest.attributes:
            if attribute.kind == "float":
                columns[attribute.name] = np.empty(count, np.float64)
            else:
                columns[attribute.name] = np.empty(count, np.int64)
        return columns

    def fill(self, pieces: Sequence[Piece], image: NDArray[np.uint8], columns: Mapping[str, Column]) -> None:
        """Put rows into their places in ``image``, uint8 [n, height, width, channels], and ``columns``, [n] each.

        Raises:
            DataError: naming the shard, when it is missing or damaged or an image cannot be decoded.
        """
        for piece in pieces:
            extent = piece.extent.result()
            if not self.encoded_files:
                extent.take(piece.rows, image, piece.where)
            else:
                for place, row, blob in zip(piece.where.tolist(), piece.rows, extent.blobs(piece.rows), strict=True):
                    try:
                        decode_into(blob, image[place])
                    except DataError as error:
                        (key,) = extent.keys(np.array([row]))
                        raise DataError(f"{extent.path}: image {key!r} {error}; {AGAIN}") from None
            _fill_columns(piece, columns)

    def runs(self, blocks: Sequence[int], most: int = RUN_BYTES) -> list[range]:
        """Ascending blocks in runs of neighbours that lie in one shard, of at most ``most`` bytes each."""
        runs = []
        for stretch in consecutive(blocks):
            begin, size = stretch.start, 0
            for block in stretch:
                length = self.block_bytes(block)
                if block > begin and (size + length > most or self._block[block][0] != self._block[begin][0]):
                    runs.append(range(begin, block))
                    begin, size = block, 0
                size += length
            runs.append(range(begin, stretch.stop))
        return runs

    def block_bytes(self, block: int) -> int:
        """Bytes of a block, counted over all of these shards."""
        shard, number = self._block[block]
        return self.shards[shard].blocks[number].bytes

    def fetch(self, run: range) -> list[Extent]:
        """Read neighbouring blocks of one shard in one request, and check them: an extent for each.

        Raises:
            DataError: naming the shard, when it is missing or damaged.
        """
        shard, first = self.shards[self._block[run.start][0]], self._block[run.start][1]
        numbers = range(first, first + len(run))
        cached = {number: extent for number in numbers if (extent := self._cached(shard, number))}
        for part in consecutive([number for number in numbers if number not in cached]):
            cached.update(zip(part, self._download(shard, part), strict=True))
        return [cached[number] for number in numbers]

    def _download(self, shard: Shard, numbers: range) -> list[Extent]:
        path = self.directory / shard.file
        blocks = [shard.blocks[number] for number in numbers]
        offset, length = blocks[0].offset, blocks[-1].offset + blocks[-1].bytes - blocks[0].offset
        for last in False, True:
            try:
                data = memoryview(read_range(path, offset, length))
            except FileNotFoundError:
                raise _missing(path) from None
            except EOFError as error:
                raise DataError(f"{error}, which the manifest promises; {AGAIN}") from None
            try:
                extents = [
                    self._extent(shard, number, data[block.offset - offset :][: block.bytes])
                    for number, block in zip(numbers, blocks, strict=True)
                ]
                break
            except DataError:
                # It may have been damaged on its way, and not where it lies.
                if last:
                    raise
        if self.cache is not None and self.remote:
            for block, extent in zip(blocks, extents, strict=True):
                self.cache.put(_cache_name(block), extent.data.data)
        return extents

    def _cached(self, shard: Shard, number: int) -> Extent | None:
        """A block out of the cache, if it is there and sound."""
        if self.cache is None or not self.remote:
            return None
        name = _cache_name(shard.blocks[number])
        data = self.cache.get(name)
        if data is None:
            return None
        try:
            return self._extent(shard, number, memoryview(data))
        except DataError:
            self.cache.discard(name)
            return None

    def _extent(self, shard: Shard, number: int, data: memoryview) -> Extent:
        """A block of a shard, checked."""
        blocks, offset = range(number, number + 1), shard.blocks[number].offset
        path = self.directory / shard.file
        extent = Extent(path, self.manifest, shard, blocks, np.frombuffer(data, np.uint8), offset)
        extent.check_all()
        return extent

    def _mapped(self, index: int) -> "Future[Extent]":
        with self._lock:
            if index not in self._maps:
                future = self._maps[index] = Future()
                try:
                    extent = self._whole(index)
                    extent.check_schema()
                    future.set_result(extent)
                except Exception as error:
                    future.set_exception(error)
            return self._maps[index]

    def _whole(self, index: int) -> Extent:
        shard = self.shards[index]
        path = self.directory / shard.file
        return Extent(path, self.manifest, shard, range(len(shard.blocks)), _read_bytes(path, shard.bytes), 0)

    @cached_property
    def _recent(self) -> Blocks:
        return Blocks(self.fetch, RECENT_BYTES)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, thread_name_prefix="genlab-decode")


def _fill_columns(piece: Piece, columns: Mapping[str, Column]) -> None:
    for name, values in columns.items():
        values[piece.where] = piece.extent.result().column(name, piece.rows)


def _read_bytes(path: UPath, size: int) -> NDArray[np.uint8]:
    """All bytes of a shard file: memory mapped when it is local, else read into memory."""
    try:
        if is_remote(path):
            data = np.frombuffer(read_bytes(path), np.uint8)
        else:
            with Path(str(path)).open("rb") as file:
                data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise DataError(f"{path}: cannot be read ({error}); {AGAIN}") from None
    if len(data) != size:
        raise DataError(f"{path}: damaged ({len(data):,} bytes, not {size:,}); {AGAIN}")
    return data


def _cache_name(block: Block) -> str:
    return f"{block.xxh3}-{block.bytes}"


def _missing(path: UPath) -> DataError:
    return DataError(f"{path}: no such file, though the manifest lists it; {AGAIN}")
