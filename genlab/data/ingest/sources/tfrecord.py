"""``tfrecord:FILE-OR-DIR``: TFRecord files of ``tf.train.Example``, such as the Monet pictures of Kaggle.

There are two formats, one inside the other, each of which takes a few lines to read, without TensorFlow:

* framing: length (uint64), masked CRC-32C of the length, data, masked CRC-32C of the data; little-endian;
* data: the protobuf message ``Example{1: Features{1: {1: name, 2: Feature{1: BytesList{1: value}}}}}``.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

import google_crc32c

from genlab.core.errors import DataError
from genlab.core.storage import is_file, is_remote, locate
from genlab.data.ingest.sources.base import Entry, Load, Sample, Source, list_files, open_range_reader
from genlab.imaging.images import ImageError

_HEAD = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")


class TFRecord(Source):
    """Records with the bytes feature ``image`` (an image file) and, as a rule, ``image_name``.

    The name is the key; the key of a record without one is its file and number, ``FILE-000042``. Of a directory, the
    files ending in ``.tfrec`` or ``.tfrecord`` (shard numbers may follow) are read in the order of their names. There
    are no published splits.
    """

    kind = "tfrecord"

    @property
    def ordered(self) -> bool:
        """True for remote files, which are read ahead."""
        return is_remote(self.path)

    def entries(self) -> Iterator[Entry]:
        """See :meth:`Source.entries`; checks the framing of every record, but not its data."""
        empty = True
        for file in self._files():
            for number, (offset, data) in enumerate(_records(file)):
                key = _name(data) or f"{PurePosixPath(file).stem}-{number:06d}"
                yield Entry(key, size=len(data), file=file, index=number, offset=offset)
                empty = False
        if empty:
            raise DataError(f"{self.path}: no records in it")

    @contextmanager
    def reader(self) -> Iterator[Load]:
        """See :meth:`Source.reader`."""
        with open_range_reader() as read:

            def load(entry: Entry) -> Sample:
                record = read(entry.file, entry.offset, entry.size + _CHECKSUM.size)
                data = record[: entry.size]
                if record[entry.size :] != _CHECKSUM.pack(masked_crc32c(data)):
                    raise ImageError("damaged: the record does not match its checksum")
                features = bytes_features(data)
                if "image" not in features:
                    raise ImageError(f"no bytes feature named image; there are: {', '.join(features) or 'none'}")
                return Sample(features["image"])

            yield load

    def describe(self, entry: Entry) -> str:
        """See :meth:`Source.describe`."""
        return f"{entry.file}, record {entry.index} ({entry.key})"

    def _files(self) -> list[str]:
        path = locate(self.path)
        if is_file(path):
            return [str(path)]
        names = sorted(name for name, _ in list_files(self.path) if is_tfrecord(name))
        if not names:
            raise DataError(f"{self.path}: no files ending in .tfrec or .tfrecord")
        return [str(path / name) for name in names]


def is_tfrecord(name: str) -> bool:
    """Return whether a file is named as TFRecord: ``x.tfrec``, ``x.tfrecord``, ``x.tfrecord-00001-of-00016``."""
    return ".tfrec" in PurePosixPath(name).name


def masked_crc32c(data: bytes) -> int:
    """Return the checksum of TFRecord framing: CRC-32C, rotated right by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def bytes_features(example: bytes) -> dict[str, bytes]:
    """Return the bytes features of a serialised ``tf.train.Example``: name → first value.

    Raises:
        ImageError: this is no Example.
    """
    try:
        features: dict[str, bytes] = {}
        for feature in (feature for part in _values(example, 1) for feature in _values(part, 1)):
            name = next(_values(feature, 1), b"").decode()
            for content in _values(feature, 2):
                for values in _values(content, 1):
                    features[name] = next(_values(values, 1), b"")
        return features
    except (ValueError, IndexError):
        raise ImageError("not a tf.train.Example") from None


def _name(example: bytes) -> str:
    try:
        return bytes_features(example).get("image_name", b"").decode(errors="replace")
    except ImageError:  # loading the record will say so
        return ""


def _values(message: bytes, wanted: int) -> Iterator[bytes]:
    """Yield the values of one field of a protobuf message whose fields all have a length, as in an Example."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        length, position = _varint(message, position)
        if tag & 7 != 2 or position + length > len(message):
            raise ValueError("not such a message")
        if tag >> 3 == wanted:
            yield message[position : position + length]
        position += length


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _records(file: str) -> Iterator[tuple[int, bytes]]:
    """Yield each record's data and their position in bytes."""
    try:
        stream = locate(file).open("rb")
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None
    with stream:
        offset = number = 0
        while head := stream.read(_HEAD.size):
            truncated = DataError(f"{file}: truncated in record {number}; fetch it again")
            if len(head) < _HEAD.size:
                raise truncated
            length, checksum = _HEAD.unpack(head)
            if masked_crc32c(head[:8]) != checksum:
                raise DataError(
                    f"{file}: the length of record {number} does not match its checksum: the file is damaged, "
                    "or compressed, or no TFRecord file"
                )
            data = stream.read(length)
            if len(data) < length or len(stream.read(_CHECKSUM.size)) < _CHECKSUM.size:
                raise truncated
            yield offset + _HEAD.size, data
            offset += _HEAD.size + length + _CHECKSUM.size
            number += 1
