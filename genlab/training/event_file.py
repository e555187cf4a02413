"""The records of TensorBoard event files, and what of a file stays when a run goes on from an earlier step.

A file is a sequence of records, each written whole by one call, so that a file may grow on a disk, or be cut into
several, which TensorBoard reads one after the other. torch's SummaryWriter is not used, because it opens its file anew,
by its name, for each record: a process that a later attempt has superseded would go on writing into the file that the
later one put in its place.
"""

import os
import platform
import secrets
import struct
import time
from collections.abc import Mapping, Sequence

import google_crc32c
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.hparams.api_pb2 import DataType, Experiment, HParamInfo, MetricInfo, MetricName
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

PATTERN = "events.*"
"""Matches the names of event files."""


def new_name() -> str:
    """Return a name for an event file that no other has. TensorBoard reads files in the order of their names."""
    return f"events.out.tfevents.{int(time.time()):010d}.{platform.node()}.{os.getpid()}.{secrets.token_hex(4)}"


def header() -> bytes:
    """Return the record that a file begins with."""
    return _record(Event(file_version="brain.Event:2"))


def resumption(step: int) -> bytes:
    """Return the record by which a TensorBoard that is open forgets what it has read of steps after ``step``."""
    return _record(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))


def scalar(step: int, tag: str, value: float, mark: str = "") -> bytes:
    """Return the record of a number, with a mark (``node_name``) that TensorBoard does not show."""
    one = Summary.Value(node_name=mark, tag=tag, simple_value=value)
    return _record(Event(step=step, summary=Summary(value=[one])))


def picture(step: int, tag: str, png: bytes, shape: tuple[int, ...]) -> bytes:
    """Return the record of a picture, encoded as PNG, of ``shape`` [H, W, C]."""
    height, width, channels = shape
    image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=png)
    return _record(Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, image=image)])))


def text(step: int, tag: str, markdown: str) -> bytes:
    """Return the record of a text."""
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype="DT_STRING", string_val=[markdown.encode()], tensor_shape=shape)
    value = Summary.Value(tag=f"{tag}/text_summary", metadata=metadata, tensor=tensor)
    return _record(Event(step=step, summary=Summary(value=[value])))


def hyperparameters(values: Mapping[str, bool | float | str], metrics: Sequence[str]) -> bytes:
    """Return the records by which TensorBoard's HParams page sets a run beside others.

    Args:
        values: what distinguishes the run, by name.
        metrics: the tags of the scalars that it shows of each.
    """
    shown, start = Experiment(), SessionStartInfo()
    shown.metric_infos.extend(MetricInfo(name=MetricName(tag=tag)) for tag in metrics)
    for name, value in values.items():
        if isinstance(value, bool):
            kind, start.hparams[name].bool_value = "DATA_TYPE_BOOL", value
        elif isinstance(value, str):
            kind, start.hparams[name].string_value = "DATA_TYPE_STRING", value
        else:
            kind, start.hparams[name].number_value = "DATA_TYPE_FLOAT64", value
        shown.hparam_infos.append(HParamInfo(name=name, type=DataType.Value(kind)))
    return _hparams("experiment", HParamsPluginData(experiment=shown)) + _hparams(
        "session_start_info", HParamsPluginData(session_start_info=start)
    )


def _hparams(tag: str, content: HParamsPluginData) -> bytes:
    """Return a record for the HParams page, whose values stand in its metadata."""
    plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=content.SerializeToString())
    nothing = TensorProto(dtype="DT_FLOAT", tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=0)]))
    value = Summary.Value(tag=f"_hparams_/{tag}", metadata=SummaryMetadata(plugin_data=plugin), tensor=nothing)
    return _record(Event(summary=Summary(value=[value])))


def records_up_to(data: bytes, step: int, without: str) -> bytes:
    """Return the content of an event file without records past ``step``, and without an end that was cut short.

    The other records are there byte for byte.

    Args:
        data: the content of the file.
        step: the last step.
        without: records with this mark, or with a tag that begins with it and a slash, are left out whatever their
            step.
    """
    kept = bytearray()
    start = 0
    while start + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, start)
        end = start + 12 + length + 4
        if end > len(data):
            break
        event = Event.FromString(data[start + 12 : end - 4])
        marked = any(one.node_name == without or one.tag.startswith(f"{without}/") for one in event.summary.value)
        if event.step <= step and not marked:
            kept += data[start:end]
        start = end
    return bytes(kept)


def _record(event: Event) -> bytes:
    event.wall_time = time.time()
    data: bytes = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
    """Return the masked CRC-32C that stands after each field of a record."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
